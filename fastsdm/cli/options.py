"""Options that several commands share, and what their texts stand for."""

from __future__ import annotations

from typing import Annotated, TypeAlias, get_args

import torch
import typer

from fastsdm import _files
from fastsdm._types import Convention
from fastsdm.cli.terminal import USAGE, fail

ClassesOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A count K (labels 0 to K-1) or label values '1,3'; else above 0 is inside."),
]
SpacingOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Voxel size that counts instead of the file's: '1.5' or '3,1,1'.")
]
ConventionOption: TypeAlias = Annotated[str, typer.Option(help=f"One of {', '.join(get_args(Convention))}.")]
LimitOption: TypeAlias = Annotated[float | None, typer.Option(help="Clamp the map to this distance.")]
IgnoreOption: TypeAlias = Annotated[
    int | None, typer.Option(help="Label of voxels that are neither inside nor outside; they read 0.")
]
NanOption: TypeAlias = Annotated[
    int | None, typer.Option(help="Label for voxels that hold NaN, for example 0; else NaN is an error.")
]
NegativeOption: TypeAlias = Annotated[
    bool,
    typer.Option("--negative-inside", help="Negative labels are inside of a mask; else they are outside."),
]
DtypeOption: TypeAlias = Annotated[str, typer.Option(help=f"One of {', '.join(_files.DTYPES)}.")]
BackendOption: TypeAlias = Annotated[str, typer.Option(help="Name of a backend; it works or fails.")]
DeviceOption: TypeAlias = Annotated[str, typer.Option(help="Where to compute, for example cuda.")]


def spacing_option(text: str | None) -> tuple[float, ...] | None:
    """Read ``--spacing``: one number, or one per axis; None where it is not given."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        fail(f"--spacing: must be one number, or one per axis separated by commas; got {text!r}", USAGE)


def integers(text: str) -> list[int]:
    """The integers that a text holds, separated by commas; none if it holds anything else."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        return []


def classes_option(text: str | None) -> int | list[int] | None:
    """Read ``--classes``: a count, or label values; None where it is not given."""
    if text is None:
        return None
    values = integers(text)
    if not values:
        fail(
            f"--classes: must be a count, or label values separated by commas ('1,' for one); got {text!r}",
            USAGE,
        )
    return values if "," in text else values[0]


def usable_device(name: str) -> torch.device:
    """The device of that name; an unknown or absent one is an error."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # how torch refuses depends on how it was built
        fail(f"--device: {name} cannot be used here ({str(error).splitlines()[0]})", USAGE)
    if device.type == "meta":
        fail("--device: meta cannot be used here (tensors on it hold no values)", USAGE)
    return device
