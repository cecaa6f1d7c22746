"""Surface metrics beside MONAI's and DeepMind's, checked before they are timed.

python -m benchmarks.studies.metrics [--size 160] [--threads 2] [--seconds 10] [--inputs mni,blobs,lesions]
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from benchmarks.measure.timing import Budget, HostClock, Timing, interleaved
from fastsdm import metrics, testing
from fastsdm.data import mni_icbm152
from fastsdm.testing import Array

#: A class for each of the channels behind the background.
CLASSES = 3
TOLERANCE = 1.0
#: MONAI finds the place of a percentile, and DeepMind's code the areas, in float32.
RTOL = 2e-5

Metric = Callable[[], Any]


@dataclass(frozen=True)
class Comparison:
    """One metric on one input by several contenders; the first one is ours."""

    title: str
    contenders: dict[str, Metric]


def mni(size: int) -> Array:
    """Return the middle of the MNI template, uint8: grey matter, white matter, and both hemispheres' rest."""
    labels = mni_icbm152().labels
    starts = [(length - size) // 2 for length in labels.shape]
    cut: Array = labels[tuple(slice(max(0, a), max(0, a) + size) for a in starts)].copy()
    inner = ndimage.binary_fill_holes(cut > 0)
    cut[inner & (cut == 0)] = 3  # the ventricles and the fluid between the folds
    return cut


def blobs(size: int) -> Array:
    """Return three classes of large blobs."""
    return _classes_of(size, sigma=size / 16, fraction=0.15)


def lesions(size: int) -> Array:
    """Return three classes of many small lesions."""
    return _classes_of(size, sigma=3, fraction=0.002)


INPUTS: dict[str, Callable[[int], Array]] = {"mni": mni, "blobs": blobs, "lesions": lesions}


def warped(labels: Array, *, shift: float = 2.0, seed: int = 0) -> Array:
    """Return the labels moved along a smooth random field, by ``shift`` voxels along each axis on average."""
    rng = np.random.default_rng(seed)
    places = []
    for grid in np.indices(labels.shape, dtype=np.float32):
        field = ndimage.gaussian_filter(rng.standard_normal(labels.shape, dtype=np.float32), 8)
        places.append(grid + shift * field / field.std())
    moved: Array = ndimage.map_coordinates(labels, places, order=0, mode="nearest")
    return moved


def comparisons(reference: Array) -> Iterator[Comparison]:
    """Yield every metric on labels and a warped copy of them."""
    import monai.metrics  # noqa: PLC0415  # peers, of the extras `bench` and `dev`

    pair = [torch.from_numpy(each)[None] for each in (warped(reference), reference)]
    strided = [torch.nn.functional.one_hot(each.long(), CLASSES + 1).movedim(-1, 1) for each in pair]
    channels = [each.to(torch.uint8).contiguous() for each in strided]
    prediction, truth = channels
    hd95: dict[str, Any] = {"percentile": 95}
    for title, name, options, inputs in (
        ("HD95", "compute_hausdorff_distance", hd95, channels),
        ("HD95, int64 one-hot", "compute_hausdorff_distance", hd95, strided),
        ("ASSD", "compute_average_surface_distance", {"symmetric": True}, channels),
        ("NSD", "compute_surface_dice", {"class_thresholds": [TOLERANCE] * CLASSES}, channels),
    ):
        yield Comparison(
            title,
            {
                "fastsdm": partial(getattr(metrics, name), *inputs, **options),
                "MONAI": partial(_quietly, getattr(monai.metrics, name), *inputs, **options),
            },
        )
    masks = [[each[0, value].bool().numpy() for value in range(1, CLASSES + 1)] for each in channels]
    between: dict[str, Any] = {"use_subvoxels": True}
    nsd: dict[str, Any] = {"class_thresholds": [TOLERANCE] * CLASSES}
    yield Comparison(
        "HD95 between voxels",
        {
            "fastsdm": partial(metrics.compute_hausdorff_distance, prediction, truth, **hd95, **between),
            "DeepMind": partial(_by_deepmind, masks, "compute_robust_hausdorff", 95),
        },
    )
    yield Comparison(
        "NSD between voxels",
        {
            "fastsdm": partial(metrics.compute_surface_dice, prediction, truth, **nsd, **between),
            "MONAI": partial(
                _quietly, monai.metrics.compute_surface_dice, prediction, truth, **nsd, **between
            ),
            "DeepMind": partial(_by_deepmind, masks, "compute_surface_dice_at_tolerance", TOLERANCE),
        },
    )


def check(title: str, values: dict[str, Any]) -> None:
    """Raise unless all contenders found the same."""
    ours = next(iter(values.values()))
    for name, theirs in values.items():
        if not np.allclose(ours, theirs, rtol=RTOL, atol=0, equal_nan=True):
            raise AssertionError(f"{title}: {name} found {theirs}, fastsdm {ours}; nothing is timed")


def timings(reference: Array, seconds: float) -> dict[str, dict[str, Timing]]:
    """Check, then time every contender in turns; by metric and contender."""
    found = {}
    clock = HostClock()
    for comparison in comparisons(reference):
        runs = {name: lambda _round, run=run: run() for name, run in comparison.contenders.items()}
        first = {name: clock.timed(run, 0) for name, run in runs.items()}
        check(comparison.title, {name: result for name, (_, result) in first.items()})
        seconds_of_first = {name: elapsed for name, (elapsed, _) in first.items()}
        found[comparison.title] = interleaved(runs, seconds_of_first, Budget(seconds=seconds), clock)
    return found


def _classes_of(size: int, *, sigma: float, fraction: float) -> Array:
    labels = np.zeros((size, size, size), np.uint8)
    for value in range(1, CLASSES + 1):
        labels[testing.blobs(labels.shape, sigma=sigma, fraction=fraction, seed=value) > 0] = value
    return labels


def _quietly(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are empty
        return function(*arguments, **options)


def _by_deepmind(masks: list[list[Array]], name: str, argument: float) -> list[list[float]]:
    import surface_distance  # noqa: PLC0415

    values = []
    for prediction, reference in zip(*masks, strict=True):
        distances = surface_distance.compute_surface_distances(reference, prediction, (1.0, 1.0, 1.0))
        values.append(float(getattr(surface_distance, name)(distances, argument)))
    return [values]


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--inputs", default=",".join(INPUTS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{CLASSES} classes, {options.size}^3, {options.threads} threads; median ms\n")
    print("| input | metric | fastsdm | MONAI | DeepMind |\n| --- | --- | --- | --- | --- |")
    for name in options.inputs.split(","):
        for title, found in timings(INPUTS[name](options.size), options.seconds).items():
            own = found["fastsdm"].median_s
            peers = [found.get(peer) for peer in ("MONAI", "DeepMind")]
            cells = [
                f"{1e3 * peer.median_s:.0f} ({peer.median_s / own:.1f}x)" if peer else "" for peer in peers
            ]
            print(f"| {name} | {title} | {1e3 * own:.1f} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
