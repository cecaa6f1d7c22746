"""How the time grows: over size, threads, batch, classes, density of the mask, and with `max_distance`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.measure.cases import MapCase, blob_case, mask_case, organ_case
from benchmarks.measure.contenders import Contender
from benchmarks.measure.maps import Settings, measured
from benchmarks.measure.timing import Timing
from fastsdm import testing

#: What the horizontal axis of each curve is.
AXES = {
    "size": "edge of the cube, voxels",
    "threads": "threads",
    "batch": "samples in the batch",
    "classes": "classes in the label map",
    "density": "share of foreground voxels",
    "max_distance": "max_distance, voxels",
}


class WrongMapError(RuntimeError):
    """A backend of ours failed at a point of a curve."""


def _label(x: float | None) -> str:
    return "unlimited" if x is None else f"{x:g}"


@dataclass(frozen=True)
class ScalingRow:
    """One point of a curve; `x` is None for an unlimited `max_distance`."""

    curve: str
    x: float | None
    contender: str
    ours: bool
    map_voxels: int
    timing: Timing

    @property
    def x_label(self) -> str:
        """Where on the curve."""
        return _label(self.x)

    @property
    def ns_per_voxel(self) -> float:
        """Nanoseconds per voxel of the result."""
        return 1e9 * self.timing.median_s / self.map_voxels


@dataclass(frozen=True)
class _Point:
    curve: str
    x: float | None
    case: MapCase
    contenders: Sequence[Contender]
    settings: Settings

    @property
    def label(self) -> str:
        """Where on the curve."""
        return _label(self.x)


def scaling_points(
    ours: Contender, peers: Sequence[Contender], settings: Settings, *, quick: bool
) -> Iterator[_Point]:
    """Every point of every curve; peers take part where their curve says something about the algorithm."""
    everyone: list[Contender] = [ours, *peers]
    threaded = [contender for contender in everyone if contender.name not in {"scipy", "one_hot2dist"}]
    for size in (64, 96, 128, 192) if quick else (64, 96, 128, 192, 256, 384, 512):
        yield _Point("size", size, blob_case(size), everyone, settings)
    edge = 128 if quick else 192
    if settings.device.type == "cpu":
        for threads in range(1, settings.threads + 1):
            # Rates at another thread count predict nothing.
            alone = replace(settings, threads=threads, rates=dict(settings.rates))
            yield _Point("threads", threads, blob_case(edge), threaded, alone)
    for batch in (1, 4) if quick else (1, 2, 4, 8):
        yield _Point("batch", batch, organ_case(batch, (96, 96, 96), 3), [ours], settings)
    for classes in (2, 8) if quick else (2, 4, 8, 16):
        yield _Point("classes", classes, organ_case(1, (128, 128, 128), classes), [ours], settings)
    for share in (1e-6, 1e-3, 0.1, 0.5) if quick else (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9):
        yield _Point("density", share, _noise_case(edge, share), threaded, settings)
    for limit in (5.0, None) if quick else (2.0, 5.0, 10.0, 20.0, 50.0, None):
        case = replace(_noise_case(edge, 1e-5), max_distance=limit)
        yield _Point("max_distance", limit, case, [ours], settings)


def measured_point(point: _Point) -> list[ScalingRow]:
    """The timed contenders as points of the curve.

    Raises:
        WrongMapError: a backend of ours disagrees with scipy, or raised.
    """
    rows = measured(point.case, point.contenders, point.settings)
    if failed := [f"{row.contender}: {row.note}" for row in rows if row.failed]:
        raise WrongMapError("; ".join(failed))
    return [
        ScalingRow(point.curve, point.x, row.contender, row.ours, row.map_voxels, row.timing)
        for row in rows
        if row.timing is not None
    ]


def _noise_case(size: int, share: float) -> MapCase:
    shape, name, title = (size,) * 3, f"noise-{size}-{share:g}", f"noise {size}³, {share:g} inside"
    return mask_case(name, title, shape, lambda: testing.noise(shape, fraction=share, seed=1))
