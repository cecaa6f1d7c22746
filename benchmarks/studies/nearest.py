"""Nearest voxels, labels and instances beside scipy, edt and SimpleITK: the tables of docs/nearest.md.

python -m benchmarks.studies.nearest [--size 256] [--threads 2] [--seconds 10]

Every result is compared with scipy's before anything is timed. SimpleITK's Danielsson filter is not exact:
its vectors must lead to voxels of the other phase, and the table shows the share that is not the nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
import typer
from scipy import ndimage

import fastsdm
from benchmarks.measure.timing import Budget, Timing, in_turns
from benchmarks.report.markdown import table
from fastsdm import testing
from fastsdm.testing import Array

#: Share of the voxels that an approximate peer may get wrong.
APPROXIMATE_SHARE = 0.02
#: By contender: what is timed, and the share of voxels that it gets wrong.
Contenders: TypeAlias = dict[str, tuple[Callable[[], Any], float]]


def cells(shape: Sequence[int], count: int, *, gap: float = 0.3, seed: int = 0) -> Array:
    """Touching instances, int32: Voronoi cells of random voxels, with holes of background."""
    labels: Array = fastsdm.nearest_label(seeds(shape, count, seed=seed))
    labels[testing.blobs(shape, fraction=gap, seed=seed) > 0] = 0
    return labels


def seeds(shape: Sequence[int], count: int, *, seed: int = 0) -> Array:
    """`count` single voxels with a label each, int32."""
    labels = np.zeros(shape, np.int32)
    places = np.random.default_rng(seed).choice(labels.size, count, replace=False)
    labels.flat[places] = np.arange(1, count + 1)
    return labels


def scipy_nearest(mask: Array) -> Array:
    """The indices of both phases by scipy, put together."""
    inside = mask > 0
    to_inside, to_outside = (
        ndimage.distance_transform_edt(phase, return_distances=False, return_indices=True)
        for phase in (~inside, inside)
    )
    return np.where(inside, to_outside, to_inside)


def danielsson(image: Any) -> Any:
    """SimpleITK's filter after its run; it holds vectors and a Voronoi map."""
    filter_ = import_module("SimpleITK").DanielssonDistanceMapImageFilter()
    filter_.SetUseImageSpacing(False)
    filter_.Execute(image)
    return filter_


def indices_of_vectors(vectors: Sequence[Any], mask: Array) -> Array:
    """SimpleITK's vectors to the nearest voxel inside and outside, as indices."""
    sitk = import_module("SimpleITK")
    to_inside, to_outside = (
        np.moveaxis(sitk.GetArrayFromImage(image), -1, 0)[::-1].astype(np.int32) for image in vectors
    )
    return np.asarray(np.indices(mask.shape, dtype=np.int32) + np.where(mask > 0, to_outside, to_inside))


def check_nearest(
    indices: Array, mask: Array, *, share: float = 0.0, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> float:
    """Return the share of voxels whose index is not that of a nearest voxel of the other phase.

    Raises:
        AssertionError: it is larger than `share`, or an index names a voxel of the same phase.
    """
    steps = indices.astype(np.int32) - np.indices(mask.shape, dtype=np.int32)
    squared = sum(np.square(along * step) for along, step in zip(steps, spacing, strict=True))
    truth = testing.reference_signed_distance(mask[None], [1], np.array([spacing]))[0, 0]
    off = float(np.mean(~np.isclose(np.sqrt(squared), np.abs(truth), rtol=testing.ROUNDING, atol=0)))
    if off > share or (mask[tuple(indices)] == mask).any():
        raise AssertionError(f"nearest: a share of {off:.2g} of the indices is wrong, so nothing is timed")
    return off


def nearest_contenders(mask: Array) -> Contenders:
    """Everyone who finds nearest voxels, checked; our map for comparison."""
    sitk = import_module("SimpleITK")
    images = [sitk.GetImageFromArray(phase.astype(np.uint8)) for phase in (mask, 1 - mask)]
    ours = partial(fastsdm.nearest, mask, backend="native")
    plain = partial(fastsdm.signed_distance, mask, convention="plain", backend="native")
    scipys = partial(scipy_nearest, mask)

    def vectors() -> list[Any]:
        return [danielsson(image).GetVectorDistanceMap() for image in images]

    of_vectors = indices_of_vectors(vectors(), mask)
    return {
        "fastsdm.nearest": (ours, check_nearest(ours(), mask)),
        "fastsdm.signed_distance, the distances alone": (plain, 0.0),
        "scipy, return_indices, both phases": (scipys, check_nearest(scipys(), mask)),
        "SimpleITK Danielsson, vectors of both phases": (
            vectors,
            check_nearest(of_vectors, mask, share=APPROXIMATE_SHARE),
        ),
    }


def anisotropic_contenders(mask: Array, spacing: Sequence[float]) -> Contenders:
    """Ours, checked, at spacings whose ratios are not whole numbers; our map for comparison."""
    ours = partial(fastsdm.nearest, mask, spacing=spacing, backend="native")
    plain = partial(fastsdm.signed_distance, mask, spacing=spacing, convention="plain", backend="native")
    return {
        "fastsdm.nearest": (ours, check_nearest(ours(), mask, spacing=spacing)),
        "fastsdm.signed_distance, the distances alone": (plain, 0.0),
    }


def scipy_label(labels: Array) -> Array:
    """The label of each voxel's nearest labelled voxel by scipy."""
    _, found = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    filled: Array = labels[tuple(found)]
    return filled


def check_labels(filled: Array, labels: Array, *, share: float = 0.0) -> float:
    """Return the share of voxels with a label that has no voxel as near as the nearest one.

    Raises:
        AssertionError: it is larger than `share`.
    """
    flat = np.flatnonzero(labels)
    places = np.zeros((int(labels.max()) + 1, labels.ndim), np.int32)
    places[labels.flat[flat]] = np.stack(np.unravel_index(flat, labels.shape), axis=1)
    steps = np.moveaxis(places[filled], -1, 0) - np.indices(labels.shape, dtype=np.int32)
    distance = ndimage.distance_transform_edt(labels == 0)
    off = float(np.mean(np.sqrt((steps**2).sum(axis=0)) != distance))
    if off > share:
        raise AssertionError(f"labels: a share of {off:.2g} is wrong, so nothing is timed")
    return off


def label_contenders(labels: Array) -> Contenders:
    """Everyone who spreads labels, checked. Each label is a single voxel."""
    sitk = import_module("SimpleITK")
    image = sitk.GetImageFromArray(labels)
    ours, scipys = partial(fastsdm.nearest_label, labels, backend="native"), partial(scipy_label, labels)

    def voronoi() -> Any:
        return danielsson(image).GetVoronoiMap()

    of_voronoi = sitk.GetArrayFromImage(voronoi()).astype(labels.dtype)
    return {
        "fastsdm.nearest_label": (ours, check_labels(ours(), labels)),
        "scipy, return_indices": (scipys, check_labels(scipys(), labels)),
        "SimpleITK Danielsson, Voronoi map": (
            voronoi,
            check_labels(of_voronoi, labels, share=APPROXIMATE_SHARE),
        ),
    }


def maurer_instances(labels: Array) -> Array:
    """Distances within instances by SimpleITK, one Maurer map of each instance's box."""
    sitk = import_module("SimpleITK")
    result = np.zeros(labels.shape, np.float32)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if not box:  # covered by the background
            continue
        wide = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
        inside = labels[wide] == number
        others = sitk.GetImageFromArray((~inside).astype(np.uint8))
        maurer = sitk.SignedMaurerDistanceMap(others, insideIsPositive=False, squaredDistance=False)
        result[wide][inside] = sitk.GetArrayViewFromImage(maurer)[inside]
    return result


def check_instances(got: Array, labels: Array) -> float:
    """Return 0, or raise AssertionError where the map is not scipy's, instance by instance."""
    truth = fastsdm.instance_distance(labels, backend="scipy")
    if not np.allclose(got, truth, rtol=testing.ROUNDING, atol=0):
        raise AssertionError("instances: a distance is wrong, so nothing is timed")
    return 0.0


def instance_contenders(labels: Array, threads: int) -> Contenders:
    """Everyone who measures within instances, checked; our map of a mask for comparison."""
    everyone = {
        "fastsdm.instance_distance": partial(fastsdm.instance_distance, labels, backend="native"),
        "edt.edt of labels": partial(import_module("edt").edt, labels, parallel=threads),
        "SimpleITK SignedMaurer, a box at a time": partial(maurer_instances, labels),
    }
    plain = partial(fastsdm.signed_distance, labels, convention="plain", backend="native")
    checked: Contenders = {name: (run, check_instances(run(), labels)) for name, run in everyone.items()}
    return checked | {"fastsdm.signed_distance, of a mask": (plain, 0.0)}


def studies(size: int, threads: int, seconds: float) -> dict[str, dict[str, tuple[Timing, float]]]:
    """Timing and share of wrong voxels, by study and contender, ours first."""
    torch.set_num_threads(threads)
    import_module("SimpleITK").ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    shape, count = (size, size, size), max(2, 400 * size**3 // 256**3)
    return {
        "nearest voxels, blobs": _timed(nearest_contenders(testing.blobs(shape)), seconds),
        "nearest voxels, blobs at (1.3, 0.7, 0.9)": _timed(
            anisotropic_contenders(testing.blobs(shape), (1.3, 0.7, 0.9)), seconds
        ),
        f"nearest labels, {count} voxels": _timed(label_contenders(seeds(shape, count)), seconds),
        f"{count} instances": _timed(instance_contenders(cells(shape, count), threads), seconds),
    }


def _timed(contenders: Contenders, seconds: float) -> dict[str, tuple[Timing, float]]:
    timings = in_turns({name: run for name, (run, _) in contenders.items()}, Budget(seconds))
    return {name: (timings[name], share_off) for name, (_, share_off) in contenders.items()}


def main(
    size: Annotated[int, typer.Option(help="Edge of the cube.")] = 256,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    seconds: Annotated[float, typer.Option(help="For each contender.")] = 10.0,
) -> None:
    """Print a table for each study."""
    head = ("", "median ms", "20th to 80th percentile", "times ours", "voxels off")
    for study, rows in studies(size, threads, seconds).items():
        ours, _ = next(iter(rows.values()))
        cells_ = [
            (
                name,
                f"{1e3 * timing.median_s:.1f}",
                f"{1e3 * timing.p20_s:.1f} to {1e3 * timing.p80_s:.1f}",
                f"{timing.median_s / ours.median_s:.2f}",
                f"{100 * share_off:.2g} %",
            )
            for name, (timing, share_off) in rows.items()
        ]
        print(f"\n{study}, {size}^3, {threads} threads\n\n{table(head, cells_)}")


if __name__ == "__main__":
    typer.run(main)
