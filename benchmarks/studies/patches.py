"""Maps of patches by context, their cost and where they are wrong: tables and figure of docs/patches.md.

python -m benchmarks.studies.patches [--figure docs/figures/patches.png]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib import patches, pyplot

import fastsdm
from benchmarks.measure.cases import organs
from benchmarks.measure.timing import Budget, Timing, in_turns
from benchmarks.report import style
from benchmarks.report.markdown import table
from fastsdm import testing
from fastsdm.data import (
    PatchDataset,
    PatchPosition,
    PatchSampler,
    Volume,
    mni_icbm152,
    patch_halo,
    signed_distance_patch,
)

MAX_DISTANCE = 32.0
COST_SIZE, COST_CLASSES = (128, 128, 128), 4
SHARE_SIZES = ((64, 64, 64), (128, 128, 128))
SHARE_PATCHES = 64
REPEATS = 15
#: Patches of the brain whose middle slice is drawn, by where they begin.
DRAWN_SIZE = (48, 48, 48)
DRAWN = {"no foreground": (88, 0, 123), "cut structures": (78, 104, 0), "inside": (70, 90, 70)}


def brain_in_two_halves() -> torch.Tensor:
    """The MNI labels, grey matter split by hemisphere, in a cube of 256: four classes."""
    brain = mni_icbm152().labels
    brain = np.where((brain == 1) & (np.arange(len(brain)) < len(brain) // 2)[:, None, None], 3, brain)
    widths = [((256 - n) // 2, (257 - n) // 2) for n in brain.shape]
    return torch.from_numpy(np.pad(brain.astype(np.uint8), widths))


def block(labels: torch.Tensor, start: Sequence[int], size: Sequence[int], margin: int = 0) -> torch.Tensor:
    """The patch with a margin on all sides."""
    return labels[tuple(slice(a - margin, a + n + margin) for a, n in zip(start, size, strict=True))]


def cost(labels: torch.Tensor) -> dict[str, Timing]:
    """Times of a batch of two patches in the middle of the volume, their halos complete."""
    starts = [(64, 64, 64), (56, 70, 60)]
    halo = patch_halo(MAX_DISTANCE, spacing=(1.0, 1.0, 1.0))[0]
    patches = torch.stack([block(labels, start, COST_SIZE) for start in starts])
    enlarged = torch.stack([block(labels, start, COST_SIZE, halo) for start in starts])

    def clamped_map(batch: torch.Tensor) -> torch.Tensor:
        return fastsdm.signed_distance(batch, classes=COST_CLASSES, empty="max", max_distance=MAX_DISTANCE)

    def with_halo() -> Any:
        return signed_distance_patch(
            labels, starts, COST_SIZE, classes=COST_CLASSES, max_distance=MAX_DISTANCE
        )

    whole = clamped_map(labels)
    for start, got in zip(starts, with_halo(), strict=True):
        if not torch.equal(got, torch.stack([block(one, start, COST_SIZE) for one in whole])):
            raise SystemExit("the map of the patch is not the crop of the volume's map: nothing is timed")
    runs = {
        "patch": lambda: clamped_map(patches),
        "halo": with_halo,
        "enlarged block, not yet cropped": lambda: clamped_map(enlarged),
        "full": lambda: clamped_map(labels),
    }
    return in_turns(runs, Budget(600.0, most=REPEATS))


def cost_table() -> str:
    """Milliseconds, and as a multiple of the patches alone."""
    volumes = {"phantom 256^3": torch.from_numpy(organs((256,) * 3, classes=COST_CLASSES))}
    volumes["brain"] = brain_in_two_halves()
    rows = []
    for name, labels in volumes.items():
        timings = cost(labels)
        for context, timing in timings.items():
            ratio = timing.median_s / timings["patch"].median_s
            rows.append((name, context, f"{1000 * timing.median_s:.0f}", f"{ratio:.2f}"))
    return table(("labels", "context", "ms", "times the patch alone"), rows, numbers=(2, 3))


def share_table() -> str:
    """Share of voxels, all classes together, where the map of the patch alone is off by more than a voxel."""
    lesions = testing.blobs((256,) * 3, fraction=0.002, sigma=5.0)
    volumes: dict[str, Volume] = {"brain": mni_icbm152(), "small lesions": Volume(lesions, lesions)}
    rows = []
    for name, volume in volumes.items():
        classes = int(np.max(np.asarray(volume.labels))) + 1
        for size in SHARE_SIZES:
            for limit in (None, MAX_DISTANCE):
                wrong, silent = wrong_shares(volume, size, classes, limit)
                shares = f"{np.mean(wrong):.1%}", f"{np.max(wrong):.1%}", f"{np.mean(silent):.0%}"
                rows.append((name, f"{size[0]}^3", f"{limit}", *shares))
    head = ("labels", "patch", "max_distance", "mean", "worst patch", "patches without foreground")
    return table(head, rows, numbers=(2, 3, 4, 5))


def wrong_shares(
    volume: Volume, size: Sequence[int], classes: int, max_distance: float | None
) -> tuple[list[float], list[bool]]:
    """Per patch: the share of voxels where its own map is off by more than a voxel; has it no foreground."""
    alone, full = (
        PatchDataset([volume], size, classes=classes, context=context, max_distance=max_distance)
        for context in ("patch", "full")
    )
    wrong, silent = [], []
    for position in PatchSampler(alone, patches_per_epoch=SHARE_PATCHES, foreground=0.0):
        patch = alone[position]
        error = (patch["distance_map"] - full[position]["distance_map"]).abs()
        wrong.append(float((error > 1).float().mean()))
        silent.append(not bool(patch["label"].any()))
    return wrong, silent


def draw(path: Path) -> None:
    """One row per patch of the brain: where it lies, its labels, the map of white matter in each context."""
    brain, limit = mni_icbm152(), 40.0
    datasets = [
        PatchDataset([brain], DRAWN_SIZE, classes=3, context=context, max_distance=limit)
        for context in ("full", "halo", "patch")
    ]
    figure = pyplot.figure(figsize=(11.5, 1.9 * len(DRAWN) + 1.0), layout="constrained")
    grid = figure.add_gridspec(len(DRAWN) + 1, 6, height_ratios=[1.0] * len(DRAWN) + [0.08])
    axes = [[figure.add_subplot(grid[row, column]) for column in range(6)] for row in range(len(DRAWN))]
    titles = ("slice of the volume", "labels", "full", "halo", "patch alone", "error, patch alone")
    for title, axis in zip(titles, axes[0], strict=True):
        axis.set_title(title, fontsize=11)
    middle = DRAWN_SIZE[0] // 2
    for (name, start), row in zip(DRAWN.items(), axes, strict=True):
        samples = [dataset[PatchPosition(0, start)] for dataset in datasets]
        maps = [sample["distance_map"][2, middle].T for sample in samples]
        row[0].imshow(brain.labels[start[0] + middle].T, cmap="gray", origin="lower")
        row[0].add_patch(
            patches.Rectangle(start[1:], *DRAWN_SIZE[1:], fill=False, color="crimson", linewidth=1.5)
        )
        row[1].imshow(samples[0]["label"][middle].T, cmap="gray", vmin=0, vmax=2, origin="lower")
        for axis, values in zip(row[2:5], maps, strict=True):
            shown = axis.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, origin="lower")
        off = row[5].imshow(maps[2] - maps[0], cmap="PuOr", vmin=-limit, vmax=limit, origin="lower")
        row[0].set_ylabel(name, fontsize=11)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for mappable, place, label in (
        (shown, grid[-1, 2:5], "signed distance to white matter, voxels (1 mm)"),
        (off, grid[-1, 5], "error, voxels"),
    ):
        bar = figure.add_subplot(place)
        figure.colorbar(mappable, cax=bar, orientation="horizontal", label=label, ticks=(-30, -15, 0, 15, 30))
    style.save_small_png(figure, path)


def main(
    figure: Annotated[Path | None, typer.Option(help="Draw the figure there.")] = None,
) -> None:
    """Print the tables, draw the figure."""
    print(f"Batch of 2 patches of 128^3, {COST_CLASSES} classes, max_distance={MAX_DISTANCE:g}, medians:\n")
    print(cost_table())
    print(f"\n{SHARE_PATCHES} random patches each; share of voxels off by more than one voxel:\n")
    print(share_table())
    if figure:
        draw(figure)


if __name__ == "__main__":
    typer.run(main)
