"""Surface metrics beside MONAI's and DeepMind's, checked before they are timed: the table of docs/metrics.md.

python -m benchmarks.studies.metrics [--size 160] [--threads 2] [--seconds 10] [--inputs mni,blobs,lesions]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
import typer
from scipy import ndimage

from benchmarks.measure.timing import Budget, Timing, in_turns
from benchmarks.report.markdown import table
from fastsdm import metrics, testing
from fastsdm.data import mni_icbm152
from fastsdm.testing import Array

#: A class for each of the channels behind the background.
CLASSES = 3
TOLERANCE = 1.0
#: MONAI finds the place of a percentile, and DeepMind's code the areas, in float32.
RTOL = 2e-5

#: Calls by contender; the first one is ours.
Contenders: TypeAlias = dict[str, Callable[[], Any]]


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


def comparisons(reference: Array) -> dict[str, Contenders]:
    """Every metric on labels and a warped copy of them, by title."""
    import monai.metrics  # noqa: PLC0415  # peers, of the extras `bench` and `dev`

    pair = [torch.from_numpy(each)[None] for each in (warped(reference), reference)]
    strided = [torch.nn.functional.one_hot(each.long(), CLASSES + 1).movedim(-1, 1) for each in pair]
    channels = [each.to(torch.uint8).contiguous() for each in strided]
    masks = [[each[0, value].bool().numpy() for value in range(1, CLASSES + 1)] for each in channels]
    hausdorff, surface = "compute_hausdorff_distance", "compute_surface_dice"
    hd95: dict[str, Any] = {"percentile": 95}
    nsd: dict[str, Any] = {"class_thresholds": [TOLERANCE] * CLASSES}

    def ours(name: str, inputs: list[torch.Tensor], **options: Any) -> Contenders:
        return {"fastsdm": partial(getattr(metrics, name), *inputs, **options)}

    def both(name: str, inputs: list[torch.Tensor], **options: Any) -> Contenders:
        theirs = partial(_quietly, getattr(monai.metrics, name), *inputs, **options)
        return ours(name, inputs, **options) | {"MONAI": theirs}

    def deepmind(name: str, argument: float) -> Contenders:
        return {"DeepMind": partial(_by_deepmind, masks, name, argument)}

    return {
        "HD95": both(hausdorff, channels, **hd95),
        "HD95, int64 one-hot": both(hausdorff, strided, **hd95),
        "ASSD": both("compute_average_surface_distance", channels, symmetric=True),
        "NSD": both(surface, channels, **nsd),
        "HD95 between voxels": ours(hausdorff, channels, **hd95, use_subvoxels=True)
        | deepmind("compute_robust_hausdorff", 95),
        "NSD between voxels": both(surface, channels, **nsd, use_subvoxels=True)
        | deepmind("compute_surface_dice_at_tolerance", TOLERANCE),
    }


def check(title: str, values: dict[str, Any]) -> None:
    """Raise unless all contenders found the same."""
    ours = next(iter(values.values()))
    for name, theirs in values.items():
        if not np.allclose(ours, theirs, rtol=RTOL, atol=0, equal_nan=True):
            raise AssertionError(f"{title}: {name} found {theirs}, fastsdm {ours}; nothing is timed")


def timings(reference: Array, seconds: float) -> dict[str, dict[str, Timing]]:
    """Check, then time every contender in turns; by metric and contender."""
    found = {}
    for title, contenders in comparisons(reference).items():
        check(title, {name: run() for name, run in contenders.items()})
        found[title] = in_turns(contenders, Budget(seconds))
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


def main(
    size: Annotated[int, typer.Option(help="Edge of the cube.")] = 160,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    seconds: Annotated[float, typer.Option(help="For each contender.")] = 10.0,
    inputs: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(INPUTS),
) -> None:
    """Print a table."""
    torch.set_num_threads(threads)
    rows = []
    for name in inputs.split(","):
        for title, found in timings(INPUTS[name](size), seconds).items():
            own = found["fastsdm"].median_s
            peers = [found.get(peer) for peer in ("MONAI", "DeepMind")]
            cells = [
                f"{1e3 * peer.median_s:.0f} ({peer.median_s / own:.1f}x)" if peer else "" for peer in peers
            ]
            rows.append((name, title, f"{1e3 * own:.1f}", *cells))
    print(f"{CLASSES} classes, {size}^3, {threads} threads; median ms\n")
    print(table(("input", "metric", "fastsdm", "MONAI", "DeepMind"), rows, numbers=()))


if __name__ == "__main__":
    typer.run(main)
