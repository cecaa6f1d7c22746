"""A map that ``fastsdm map`` makes: what is asked for, and what is said of it in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from rich.markup import escape

from fastsdm import _files
from fastsdm._settings import MapSettings
from fastsdm.cli.terminal import console
from fastsdm.integrations._summary import Census, Extent

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Job:
    """A map to make of the labels ``opened``; the fields are the command's options."""

    opened: _files.VolumeFile
    output: Path
    settings: MapSettings
    dtype: str
    backend: str
    device: torch.device
    nan_as: int | None
    negative_inside: bool

    def read_whole(self) -> tuple[Array, list[str]]:
        """Read all labels, with notes on what was changed."""
        labels, changes = _files.read_labels(
            self.opened,
            mask=self.settings.classes is None,
            nan_as=self.nan_as,
            negative_inside=self.negative_inside,
            ignore_index=self.settings.ignore_index,
        )
        self.check_classes(labels.dtype)
        return labels, changes

    def check_classes(self, dtype: np.dtype[Any]) -> None:
        """Raise ValueError for classes that labels of that dtype cannot hold; floats are not yet labels."""
        values, path = self.settings.classes, self.opened.path
        if values is None or dtype.kind not in "biu":
            return
        low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        count = len(values)
        if values[-1] > high and values == tuple(range(count)):
            raise ValueError(
                f"classes: {count} is a count and means the labels 0 to {count - 1}, but {path} holds "
                f"{dtype}, labels up to {high}; for the label {count} alone write '{count},'"
            )
        for value in values:
            if not low <= value <= high:
                raise ValueError(
                    f"classes: label {value} cannot be in {path}, which holds {dtype} ({low} to {high})"
                )


@dataclass(frozen=True)
class Outcome:
    """A map that was written: ``how`` it was computed, and notes on ``changes`` of the labels."""

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
