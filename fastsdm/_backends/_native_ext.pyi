"""Types of the C++ module; what the arguments mean stands in cpp/module.cpp."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

def signed_distance(
    labels: npt.NDArray[np.integer | np.bool_],
    classes: Sequence[tuple[int, bool] | None],
    spacing: npt.NDArray[np.float64],
    max_distance: float,
    maps: npt.NDArray[np.float32],
    *,
    shifts: Sequence[float],
    both_sides: bool,
    missing: Sequence[float],
    limit: float,
    first: tuple[int, ...],
    threads: int,
    isa: str | None = None,
) -> None: ...
def scan_rows(
    labels: npt.NDArray[np.integer | np.bool_],
    pattern: tuple[int, bool] | None,
    squares: npt.NDArray[np.float32],
    *,
    threads: int,
    isa: str | None = None,
) -> None: ...
def relax_axis(
    squares: npt.NDArray[np.float32],
    steps_squared: float,
    integer: bool,
    finish: tuple[float, float, float, float] | None,
    *,
    threads: int,
    isa: str | None = None,
) -> None: ...
def instance_distance(
    labels: npt.NDArray[np.integer | np.bool_],
    background: int,
    spacing: npt.NDArray[np.float64],
    max_distance: float,
    border: tuple[bool, bool, bool],
    maps: npt.NDArray[np.float32],
    *,
    threads: int,
    isa: str | None = None,
) -> None: ...
def fail_thread_after(started: int) -> None: ...
def isas() -> list[str]: ...
