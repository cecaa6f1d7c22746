"""What ``fastsdm map`` says of a map that it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from fastsdm import _files
from fastsdm.cli.terminal import console
from fastsdm.integrations._summary import Census, Extent


@dataclass(frozen=True)
class Outcome:
    """A map that was written.

    Attributes:
        census: what the labels hold.
        extent: the finite distances.
        dtype: of the map.
        how: by what it was computed.
        changes: notes on the labels, one line each.
    """

    census: Census
    extent: Extent
    dtype: str
    how: str
    changes: Sequence[str]


def report(output: Path, outcome: Outcome, opened: _files.VolumeFile) -> None:
    """Print one line: the file, its shape, and the range of the distances."""
    unit = f" {opened.unit}" if opened.unit else ""
    extent = outcome.extent
    has_any = extent.low <= extent.high
    distances = f"{extent.low:.4g} to {extent.high:.4g}{unit}" if has_any else "no finite distance"
    shape = " x ".join(map(str, opened.shape))
    classes = "" if None in outcome.census.inside else f"{len(outcome.census.inside)} x "
    step = " x ".join(f"{size:g}" for size in opened.spacing)
    steps = "" if opened.unit == "voxels" else f"voxels of {step}, "
    what = f"{classes}{shape} {outcome.dtype}, {distances}, {steps}{outcome.how}"
    console.print(f"[bold]{escape(str(output))}[/]: {what}", soft_wrap=True)


def note_empty_classes(census: Census, empty: str) -> None:
    """Name the classes whose map follows ``--empty``."""
    for missing, sign in (("inside", 1), ("outside", -1)):
        names = [value for value in census.inside if census.lacks(value, sign)]
        if names:
            labels = [value for value in names if value is not None]
            who = "class" if len(names) == 1 else "classes"
            who = f"{who} {_ranges(labels)}" if labels else "the mask"
            verb = "has" if len(names) == 1 else "have"
            console.print(
                f"note: {who} {verb} no {missing} voxel; --empty {empty} decides what the map holds there",
                soft_wrap=True,
            )


def _ranges(values: list[int]) -> str:
    """The values for people: ``2, 5-9``."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
