from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


def signed_distance(labels: Annotated[NDArray, dict(shape=(None, None, None, None), order='C', device='cpu', writable=False)], classes: Sequence[tuple[int, bool] | None], spacing: Annotated[NDArray[numpy.float64], dict(shape=(None, 3), order='C', device='cpu', writable=False)], max_distance: float, maps: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None, None), order='C', device='cpu')], *, shifts: Sequence[float], both_sides: bool, missing: Sequence[float], limit: float, first: tuple[int, int, int], threads: int, isa: str | None = None) -> None:
    """
    Fill maps [B, K, *S] float32 from labels [B, D, H, W] of any integer dtype, where S is (D, H, W) or
    the shape of a region of it that begins at voxel `first`.

    classes holds (bit pattern, inverted) per class, or None for one that no label can equal.
    """

def scan_rows(labels: Annotated[NDArray, dict(shape=(None, None), order='C', device='cpu', writable=False)], pattern: tuple[int, bool] | None, squares: Annotated[NDArray[numpy.float32], dict(order='C', device='cpu')], *, threads: int, isa: str | None = None) -> None:
    """
    Fill squares with the signed squared distances within the rows of labels [rows, width].
    """

def relax_axis(squares: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order='C', device='cpu')], steps_squared: float, integer: bool, finish: tuple[float, float, float, float] | None, *, threads: int, isa: str | None = None) -> None:
    """
    Relax signed squares [outer, length, inner] along the middle axis, in place.

    finish is None or (unit, shift outside, shift inside, limit): then the result is distances.
    """

def instance_distance(labels: Annotated[NDArray, dict(shape=(None, None, None, None), order='C', device='cpu', writable=False)], background: int, spacing: Annotated[NDArray[numpy.float64], dict(shape=(None, 3), order='C', device='cpu', writable=False)], max_distance: float, border: tuple[bool, bool, bool], maps: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order='C', device='cpu')], *, threads: int, isa: str | None = None) -> None:
    """
    Fill maps [B, D, H, W] with the distance to the nearest voxel of another label.
    """

def fail_thread_after(started: int) -> None:
    """
    For tests: starting one more thread after so many fails once for want of memory.
    """

def isas() -> list[str]:
    """Instruction sets this CPU can run, best first."""
