"""``fastsdm compare``: Dice and surface metrics of segmentations against their references."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich import box
from rich.table import Table

from fastsdm import _files
from fastsdm._arrays import tensor_from_numpy
from fastsdm._sdm import equal_labels
from fastsdm._validate import class_values
from fastsdm.cli.options import DeviceOption, classes_option, usable_device
from fastsdm.cli.terminal import USAGE, console, fail, note, one_line_errors, progress_bar
from fastsdm.metrics._functions import dice_of, evaluate
from fastsdm.metrics._inputs import Settings
from fastsdm.metrics._measures import AverageDistance, HausdorffDistance, Measure, SurfaceDice

#: Affines of a prediction and its reference may differ by this share of a voxel.
_SAME_GRID = 1e-3


@dataclass(frozen=True)
class Scores:
    """One class of one case; distances in the files' unit, NaN where neither volume holds the class."""

    case: str
    label: int
    dice: float
    hd95: float
    assd: float
    nsd: float


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how: the command's options, ``labels`` None for all of either volume but 0."""

    labels: list[int] | None
    tolerance: float
    subvoxels: bool
    ignore_index: int | None
    device: torch.device

    def scores(self, name: str, predicted: Path, true: Path) -> Iterator[Scores]:
        """Yield the scores of every class of one case."""
        opened = _files.open_volume(true)
        other = _files.open_volume(predicted, opened.spacing[:1])  # the reference's counts, on every axis
        if opened.shape != other.shape:
            raise _files.FileError(
                f"{predicted}: must have the shape of {true} {opened.shape}, got {other.shape}"
            )
        _check_same_grid(opened, other)
        note(true, list(opened.notes))
        volumes = [_files.read_labels(each, mask=False, nan_as=None)[0] for each in (other, opened)]
        labels = self.labels
        if labels is None:
            present = np.union1d(*(np.unique(volume) for volume in volumes)).tolist()
            labels = [int(value) for value in present if value > 0 and value != self.ignore_index]
        pair = [tensor_from_numpy(volume, "labels").to(self.device) for volume in volumes]
        known = None if self.ignore_index is None else ~equal_labels(pair[1], self.ignore_index)
        settings = Settings(spacing=opened.spacing, use_subvoxels=self.subvoxels)
        measures: list[Measure] = [
            HausdorffDistance(95, directed=False),
            AverageDistance(symmetric=True),
            SurfaceDice([self.tolerance]),
        ]
        for value in labels:
            masks = [equal_labels(each, value)[None, None] for each in pair]
            if known is not None:
                masks = [mask & known for mask in masks]
            surfaces = evaluate(measures, masks[0], masks[1], settings)
            hd95, assd, nsd = (values.item() for values in surfaces)
            yield Scores(name, value, dice_of(masks[0], masks[1], settings).item(), hd95, assd, nsd)


def compare(
    prediction: Annotated[Path, typer.Argument(metavar="PRED", help="A label volume, or a folder of them.")],
    reference: Annotated[
        Path, typer.Argument(metavar="REF", help="The reference, or a folder with the same names.")
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            help="A count K (labels 0 to K-1) or values '1,3'; else all that PRED or REF holds but 0."
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Of the surface Dice (NSD).")] = 1.0,
    subvoxels: Annotated[
        bool, typer.Option("--subvoxels", help="Surfaces between voxels, weighted by area.")
    ] = False,
    ignore_index: Annotated[int | None, typer.Option(help="Label of voxels that do not count.")] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Write .csv: every case and class; .json: the means, too. May be given twice."),
    ] = None,
    device: DeviceOption = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files written.")] = False,
) -> None:
    """Print Dice, HD95, ASSD and NSD of predicted segmentations against their references.

    Folders are matched by file name. Voxel sizes are the reference's. A class that only one of the two
    volumes holds has infinite distances, Dice 0 and NSD 0; one that neither holds is left out of the means.
    """
    values, place, outputs = classes_option(classes), usable_device(device), out or []
    for path in outputs:
        if path.suffix not in _WRITERS:
            fail(f"--out: must end in {' or '.join(_WRITERS)}, got {path}", USAGE)
    if not 0 <= tolerance < math.inf:
        fail(f"--tolerance: must be at least 0 and finite, got {tolerance:g}", USAGE)
    with one_line_errors(ValueError, TypeError), progress_bar() as progress:
        labels = None if values is None else class_values(values, torch.int64)
        comparison = Comparison(labels, tolerance, subvoxels, ignore_index, place)
        cases = list(_cases(prediction, reference))
        for path in outputs:
            _files.check_output(path, [each for case in cases for each in case[1:]], force=force)
        task = progress.add_task("comparing", total=len(cases))
        scores: list[Scores] = []
        for name, predicted, true in cases:
            progress.update(task, description=f"comparing {name}")
            scores += comparison.scores(name, predicted, true)
            progress.advance(task)
        if not scores:
            fail(f"{reference}: holds no label to compare; --classes names them")
        for path in outputs:
            _WRITERS[path.suffix](path, scores, comparison)
    console.print(_table(scores, len(cases), tolerance))


def _cases(prediction: Path, reference: Path) -> Iterator[tuple[str, Path, Path]]:
    if not prediction.is_dir() and not reference.is_dir():
        yield prediction.name, prediction, reference
        return
    if not (prediction.is_dir() and reference.is_dir()):
        raise _files.FileError(
            f"{prediction}: PRED and REF must both be files or both be folders; REF is {reference}"
        )
    found = [_by_stem(folder) for folder in (prediction, reference)]
    missing = sorted(found[1].keys() - found[0].keys())
    surplus = sorted(found[0].keys() - found[1].keys())
    problem = None
    if missing:
        problem = f"{prediction} lacks {missing[0]!r}"
    elif surplus:
        problem = f"{reference} lacks {surplus[0]!r}"
    elif not found[1]:
        problem = f"{reference} holds no volume"
    if problem is not None:
        raise _files.FileError(f"{reference}: both folders must hold volumes of the same names; {problem}")
    for name in sorted(found[1]):
        yield name, found[0][name], found[1][name]


def _by_stem(folder: Path) -> dict[str, Path]:
    volumes: dict[str, Path] = {}
    for path in folder.iterdir():
        if _files.format_of(path) and volumes.setdefault(_stem(path), path) != path:
            names = " and ".join(sorted((volumes[_stem(path)].name, path.name)))
            raise _files.FileError(f"{folder}: must hold one volume per case, {names} are of the same")
    return volumes


def _check_same_grid(reference: _files.VolumeFile, prediction: _files.VolumeFile) -> None:
    if reference.image is None or prediction.image is None:
        return
    apart = np.abs(reference.image.affine - prediction.image.affine)[:3].max()
    if apart > _SAME_GRID * min(reference.spacing) * max(reference.shape):
        raise _files.FileError(
            f"{prediction.path}: must lie on the grid of {reference.path}; affines differ by {apart:.3g}"
        )


def _table(scores: list[Scores], cases: int, tolerance: float) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    for name in ("Dice", "HD95", "ASSD", f"NSD at {tolerance:g}"):
        table.add_column(name, justify="right")
    if cases > 1:
        table.add_column("cases", justify="right")
    for label, columns in _columns(scores).items():
        count = [str(sum(not math.isnan(value) for value in columns["dice"]))] if cases > 1 else []
        table.add_row(str(label), *map(_mean_text, columns.values()), *count)
    return table


def _columns(scores: list[Scores]) -> dict[int, dict[str, list[float]]]:
    """The values of every measure, by label."""
    columns: dict[int, dict[str, list[float]]] = {label: {} for label in sorted({s.label for s in scores})}
    for each in scores:
        for name in ("dice", "hd95", "assd", "nsd"):
            columns[each.label].setdefault(name, []).append(getattr(each, name))
    return columns


def _mean(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation of the values that are not NaN."""
    held = np.array([value for value in values if not math.isnan(value)])
    if len(held) == 0:
        return math.nan, math.nan
    if not np.isfinite(held).all():
        return math.inf, math.nan
    return float(held.mean()), float(held.std())


def _mean_text(values: list[float]) -> str:
    mean, deviation = _mean(values)
    return f"{mean:.4f}" if len(values) == 1 or math.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"


def _write_csv(path: Path, scores: list[Scores], comparison: Comparison) -> None:
    with _files.whole_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(asdict(scores[0])))
        writer.writeheader()
        writer.writerows(asdict(each) for each in scores)


def _write_json(path: Path, scores: list[Scores], comparison: Comparison) -> None:
    content = {
        "tolerance": comparison.tolerance,
        "subvoxels": comparison.subvoxels,
        "means": {
            str(label): {
                name: dict(zip(("mean", "std"), map(_plain, _mean(values)), strict=True))
                for name, values in columns.items()
            }
            for label, columns in _columns(scores).items()
        },
        "cases": [{key: _plain(value) for key, value in asdict(each).items()} for each in scores],
    }
    with _files.whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


_WRITERS: dict[str, Callable[[Path, list[Scores], Comparison], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
}


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity: they become null and a string."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value


def _stem(path: Path) -> str:
    suffix = _files.format_of(path) or ""
    return path.name[: -len(suffix)] if suffix else path.name
