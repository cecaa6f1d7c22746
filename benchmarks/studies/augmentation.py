"""Errors of a distance map that is warped with its labels: table and figure of docs/augmentation.md.

python -m benchmarks.studies.augmentation [--figure docs/figures/augmentation.png]

The error is the warped map minus the map of the warped labels. The volume is the MNI template's, with room
around it so that all tissue stays inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
import typer
from matplotlib import pyplot

import fastsdm
from benchmarks.report import style
from benchmarks.report.markdown import table
from fastsdm.data import mni_icbm152, random_affine_elastic

CLASSES = 3
MARGIN = 24
#: Voxels nearer to a surface than this are looked at apart: there most losses have their weight.
BAND = 5.0
#: In the volume with its margin.
CROP_START = (130, 60, 130)
#: Labels and map after a transform, and where that map is known.
Warped: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
#: Transforms labels and map.
Warp: TypeAlias = Callable[[torch.Tensor, torch.Tensor], Warped]


@dataclass(frozen=True)
class Case:
    """A transform of labels and map.

    Attributes:
        name: of the table's row.
        warp: does it.
        factor: what the warped map is multiplied by.
        spacing: of the labels before the transform.
        spacing_after: of the labels after it.
        limit: what both maps are clamped to; None for no clamp.
    """

    name: str
    warp: Warp
    factor: float = 1.0
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    spacing_after: tuple[float, float, float] = (1.0, 1.0, 1.0)
    limit: float = math.inf

    def compare(self, labels: torch.Tensor) -> Comparison:
        """Warp the map of these labels, and make the map of the warped labels."""
        after, warped, known = self.warp(labels, distance_map(labels, self.spacing))
        truth = distance_map(after, self.spacing_after)
        return Comparison(
            after,
            truth.clamp_(-self.limit, self.limit),
            (warped * self.factor).clamp_(-self.limit, self.limit),
            known,
        )


@dataclass(frozen=True)
class Comparison:
    """The warped labels, the map of them, the warped map, and where the latter is known."""

    labels: torch.Tensor
    truth: torch.Tensor
    warped: torch.Tensor
    known: torch.Tensor


@dataclass(frozen=True)
class Errors:
    """Of the warped map against the map of the warped labels, in voxels."""

    mean: float
    mean_in_band: float
    percentile_99: float
    largest: float
    share_over_one: float


def brain_labels() -> torch.Tensor:
    """The MNI template's labels `[1, 1, *S]` with room around them."""
    return F.pad(torch.from_numpy(mni_icbm152().labels)[None, None], (MARGIN,) * 6)


def distance_map(labels: torch.Tensor, spacing: tuple[float, float, float]) -> torch.Tensor:
    """The map `[1, K, *S]` of these labels; "midline" is the convention that is the same on both sides."""
    return fastsdm.signed_distance(labels[:, 0], classes=CLASSES, spacing=spacing, convention="midline")


def flip(labels: torch.Tensor, before: torch.Tensor) -> Warped:
    """Mirrored along two axes."""
    after = labels.flip(2, 4)
    return after, before.flip(2, 4), torch.ones_like(after, dtype=torch.bool)


def permute(labels: torch.Tensor, before: torch.Tensor) -> Warped:
    """Axes in another order."""
    after = labels.permute(0, 1, 4, 2, 3)
    return after, before.permute(0, 1, 4, 2, 3), torch.ones_like(after, dtype=torch.bool)


def crop(context: int) -> Warp:
    """A patch of 64^3 at the brain's edge, cut out with so many voxels of context, known without them."""

    def warp(labels: torch.Tensor, before: torch.Tensor) -> Warped:
        block: tuple[Any, ...] = (
            ...,
            *(slice(first - context, first + 64 + context) for first in CROP_START),
        )
        after = labels[block]
        known = torch.zeros_like(after, dtype=torch.bool)
        patch: tuple[Any, ...] = (..., *(slice(context, context + 64) for _ in CROP_START))
        known[patch] = True
        return after, before[block], known

    return warp


def affine(matrix: np.ndarray[Any, Any]) -> Warp:
    """Voxel offsets from the centre are multiplied by `matrix`; the map is read linearly, labels nearest."""

    def warp(labels: torch.Tensor, before: torch.Tensor) -> Warped:
        shape = labels.shape[2:]
        inverse = torch.from_numpy(np.linalg.inv(matrix)).float()
        axes = [torch.arange(n) - (n - 1) / 2 for n in shape]
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) @ inverse.T
        grid = (2 * offsets / torch.tensor(shape)).flip(-1)[None]
        known = (grid.abs() <= 1 - 1 / min(shape)).all(dim=-1)[:, None]
        warped_map = F.grid_sample(before, grid, mode="bilinear", align_corners=False)
        warped_labels = F.grid_sample(labels.float(), grid, mode="nearest", align_corners=False)
        return warped_labels.to(labels.dtype), warped_map, known

    return warp


def rotation(degrees: float) -> np.ndarray[Any, Any]:
    """Rotation matrix about the axis (1, 1, 1), which moves every axis of the grid."""
    cos, third = math.cos(math.radians(degrees)), (1 - math.cos(math.radians(degrees))) / 3
    skew = math.sin(math.radians(degrees)) / math.sqrt(3)
    a, b, c = cos + third, third - skew, third + skew
    return np.array([[a, b, c], [c, a, b], [b, c, a]])


def elastic(rms: float, grid: float) -> Warp:
    """The elastic part of `random_affine_elastic`; the map is carried as channels of the image are."""

    def warp(labels: torch.Tensor, before: torch.Tensor) -> Warped:
        channels = torch.cat([before, torch.ones_like(before[:, :1])], dim=1)
        after, warped_labels = random_affine_elastic(
            channels,
            labels,
            flip=0.0,
            rotation=0.0,
            scaling=(1.0, 1.0),
            elastic=rms,
            elastic_grid=grid,
            generator=torch.Generator().manual_seed(0),
        )
        return warped_labels, after[:, :-1], after[:, -1:] > 0.999

    return warp


ANISOTROPIC = (1.0, 1.0, 2.0)
CASES = (
    Case("flip of two axes", flip),
    Case("axes permuted, spacing with them", permute, spacing=ANISOTROPIC, spacing_after=(2.0, 1.0, 1.0)),
    Case("axes permuted, spacing not", permute, spacing=ANISOTROPIC, spacing_after=ANISOTROPIC),
    Case("crop of 64^3, 32 voxels of context, clamp 32", crop(32), limit=32.0),
    Case("crop of 64^3, no context, clamp 32", crop(0), limit=32.0),
    Case("scaling by 1.25, map as it is", affine(np.eye(3) * 1.25)),
    Case("scaling by 1.25, map times 1.25", affine(np.eye(3) * 1.25), factor=1.25),
    Case("scaling by 0.8, map times 0.8", affine(np.eye(3) * 0.8), factor=0.8),
    Case("rotation by 15 degrees", affine(rotation(15))),
    Case("scaling by (1.25, 1, 0.8)", affine(np.diag([1.25, 1.0, 0.8]))),
    Case("elastic, 2 voxels RMS", elastic(2.0, 16.0)),
    Case("elastic, 4 voxels RMS", elastic(4.0, 24.0)),
)
DRAWN = (
    "rotation by 15 degrees",
    "scaling by (1.25, 1, 0.8)",
    "elastic, 2 voxels RMS",
    "elastic, 4 voxels RMS",
)


def errors(maps: Comparison) -> Errors:
    """Over all classes, where the warped map is known."""
    wanted = maps.known.expand_as(maps.truth)
    truth, warped = maps.truth[wanted].numpy(), maps.warped[wanted].numpy()
    error, distance = np.abs(warped - truth), np.abs(truth)
    return Errors(
        mean=float(error.mean(dtype=np.float64)),
        mean_in_band=float(error[distance < BAND].mean(dtype=np.float64)),
        percentile_99=float(np.percentile(error, 99)),
        largest=float(error.max()),
        share_over_one=float((error > 1).mean()),
    )


def error_table(found: dict[str, Errors]) -> str:
    """The table of docs/augmentation.md."""
    near = f"mean within {BAND:g} voxels"
    head = ("transform", "mean", near, "99th percentile", "largest", "share > 1 voxel")
    rows = [
        (
            name,
            *(f"{value:.2f}" for value in (e.mean, e.mean_in_band, e.percentile_99, e.largest)),
            f"{e.share_over_one:.1%}",
        )
        for name, e in found.items()
    ]
    return table(head, rows)


def draw(path: Path, comparisons: dict[str, Comparison]) -> None:
    """One row per transform: the warped labels, the map of them, the warped map, their difference."""
    figure, axes = pyplot.subplots(
        len(comparisons), 4, figsize=(9.2, 2.3 * len(comparisons) + 0.8), layout="constrained"
    )
    titles = ("labels, warped", "map of the warped labels", "precomputed map, warped", "error of the latter")
    for title, axis in zip(titles, axes[0], strict=True):
        axis.set_title(title, fontsize=10)
    for (name, maps), row in zip(comparisons.items(), axes, strict=True):
        middle = (0, -1, ..., maps.labels.shape[-1] // 2)
        labels, truth, warped, known = (
            part[middle].T[20:-20, 20:-20] for part in (maps.labels, maps.truth, maps.warped, maps.known)
        )
        row[0].imshow(labels, cmap="gray", origin="lower")
        for axis, values in zip(row[1:3], (truth, warped), strict=True):
            shown = axis.imshow(
                values.masked_fill(~known, math.nan), cmap="RdBu", vmin=-40, vmax=40, origin="lower"
            )
            axis.contour(values, levels=[0], colors="black", linewidths=0.5)
        error = (warped - truth).masked_fill(~known, math.nan)
        off = row[3].imshow(error, cmap="PuOr", vmin=-10, vmax=10, origin="lower")
        row[0].set_ylabel(name, fontsize=10)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for mappable, place, label in (
        (shown, axes[:, 1:3], "signed distance to white matter, voxels"),
        (off, axes[:, 3:], "error, voxels"),
    ):
        figure.colorbar(
            mappable, ax=place, location="bottom", pad=0.015, aspect=15 * place.shape[1], label=label
        )
    style.save_small_png(figure, path)


def main(
    figure: Annotated[Path | None, typer.Option(help="Draw the figure there.")] = None,
) -> None:
    """Print the table, draw the figure."""
    labels = brain_labels()
    rows, drawn = {}, {}
    for case in CASES:
        maps = case.compare(labels)
        rows[case.name] = errors(maps)
        if figure and case.name in DRAWN:
            drawn[case.name] = maps
    print(error_table(rows))
    if figure:
        draw(figure, drawn)


if __name__ == "__main__":
    typer.run(main)
