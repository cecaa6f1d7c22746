"""Nearest voxels and instances beside scipy and edt, checked before they are timed.

python -m benchmarks.studies.nearest [--size 256] [--threads 2] [--seconds 20]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from scipy import ndimage

import fastsdm
from benchmarks.measure.timing import Budget, HostClock, Timing, interleaved
from fastsdm import testing
from fastsdm.testing import Array


def cells(shape: Sequence[int], count: int, *, gap: float = 0.3, seed: int = 0) -> Array:
    """Return touching instances, int32: Voronoi cells of random voxels, with holes of background."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros(shape, np.int32)
    seeds.flat[rng.choice(seeds.size, count, replace=False)] = np.arange(1, count + 1)
    labels: Array = fastsdm.nearest_label(seeds)
    labels[testing.blobs(shape, fraction=gap, seed=seed) > 0] = 0
    return labels


def scipy_nearest(mask: Array) -> Array:
    """Return the indices of both phases by scipy, put together."""
    inside = mask > 0
    to_inside = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    to_outside = ndimage.distance_transform_edt(inside, return_distances=False, return_indices=True)
    return np.where(inside, to_outside, to_inside)


def check_nearest(indices: Array, mask: Array) -> None:
    """Raise unless every index names a voxel of the other phase at the right distance."""
    grid = np.indices(mask.shape, dtype=np.int32)
    squared = ((indices.astype(np.int32) - grid) ** 2).sum(axis=0)
    truth = testing.reference_signed_distance(mask[None], [1], np.ones((1, mask.ndim)))[0, 0]
    if not np.array_equal(np.sqrt(squared), np.abs(truth)) or (mask[tuple(indices)] == mask).any():
        raise AssertionError("nearest: an index is wrong, so nothing is timed")


def check_instances(got: Array, labels: Array) -> None:
    """Raise unless the map is scipy's, instance by instance."""
    truth = fastsdm.instance_distance(labels, backend="scipy")
    if not np.allclose(got, truth, rtol=testing.ROUNDING, atol=0):
        raise AssertionError("instances: a distance is wrong, so nothing is timed")


def timings(size: int, threads: int, seconds: float) -> dict[str, dict[str, Timing]]:
    """Check every contender, then time them in turns; by study and contender."""
    import edt  # noqa: PLC0415  # a peer, of the extra `bench`

    torch.set_num_threads(threads)
    shape = (size, size, size)
    mask, labels = testing.blobs(shape), cells(shape, max(2, 400 * size**3 // 256**3))
    nearest: dict[str, Callable[[], Array]] = {
        "fastsdm.nearest": partial(fastsdm.nearest, mask, backend="native"),
        "fastsdm.signed_distance": partial(
            fastsdm.signed_distance, mask, convention="plain", backend="native"
        ),
        "scipy, return_indices": partial(scipy_nearest, mask),
    }
    instances: dict[str, Callable[[], Array]] = {
        "fastsdm.instance_distance": partial(fastsdm.instance_distance, labels, backend="native"),
        "edt.edt": partial(edt.edt, labels, parallel=threads),
        "fastsdm.signed_distance": partial(fastsdm.signed_distance, labels, backend="native"),
    }
    for name in ("fastsdm.nearest", "scipy, return_indices"):
        check_nearest(nearest[name](), mask)
    for name in ("fastsdm.instance_distance", "edt.edt"):
        check_instances(instances[name](), labels)
    return {"nearest": _timed(nearest, seconds), "instances": _timed(instances, seconds)}


def _timed(runs: dict[str, Callable[[], Array]], seconds: float) -> dict[str, Timing]:
    clock = HostClock()
    by_round = {name: lambda _round, run=run: run() for name, run in runs.items()}
    first = {name: clock.timed(run, 0)[0] for name, run in by_round.items()}
    return interleaved(by_round, first, Budget(seconds=seconds), clock)


def main() -> None:
    """Print a table for each study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    for study, found in timings(options.size, options.threads, options.seconds).items():
        own = next(iter(found.values())).median_s
        print(
            f"{study}, {options.size}^3, {options.threads} threads: median ms (20th to 80th percentile), "
            "times the first one's"
        )
        for name, timing in found.items():
            low, high = 1e3 * timing.p20_s, 1e3 * timing.p80_s
            ratio = timing.median_s / own
            print(f"  {name:26} {1e3 * timing.median_s:9.1f} ({low:.1f} to {high:.1f}) {ratio:7.2f}x")


if __name__ == "__main__":
    main()
