"""The numbers of docs/theory.md, measured on voxel balls."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import losses

RADIUS = 48.0


def ball(radius: float, half_width: float, spacing: tuple[float, ...]) -> np.ndarray:
    """A ball around the origin, which is no voxel's centre, up to ``half_width`` in every direction."""
    axes = [
        (np.arange(-int(half_width / step), int(half_width / step) + 1) + 0.37) * step for step in spacing
    ]
    return sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True)) < radius**2


def regional_over_contour(h: float, ndim: int, spacing: tuple[float, ...]) -> float:
    """Twice the integral of the map over the difference of two balls, over area times ``h^2``."""
    width = RADIUS + abs(h) + 3
    truth, prediction = (ball(radius, width, spacing) for radius in (RADIUS, RADIUS + h))
    maps = fastsdm.signed_distance(truth, spatial_dims=ndim, spacing=spacing, convention="midline")
    between = float(maps[prediction].sum(dtype=np.float64) - maps[truth].sum(dtype=np.float64))
    area = {2: 2 * math.pi * RADIUS, 3: 4 * math.pi * RADIUS**2}[ndim]
    return 2 * between * math.prod(spacing) / (area * h**2)


def predicted_ratio(h: float, ndim: int) -> float:
    x = h / RADIUS
    return 1 + 2 * x / 3 if ndim == 2 else 1 + 4 * x / 3 + x**2 / 2


@pytest.mark.parametrize("h", [-16.0, 12.0, 24.0])
@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0), (0.5, 1.0), (1.0, 1.0, 1.0), (1.0, 0.7, 1.3)], ids=lambda s: "x".join(map(str, s))
)
def test_ratio_of_the_regional_to_the_contour_form(h: float, spacing: tuple[float, ...]) -> None:
    # The zero level of a voxel map lies up to a third of a voxel off the sphere, which moves h by as much.
    tolerance = 2 * min(spacing) / 3 / abs(h)
    expected = predicted_ratio(h, len(spacing))
    assert abs(expected - 1) > 3 * tolerance
    assert regional_over_contour(h, len(spacing), spacing) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("h", [-12.0, 24.0])
@pytest.mark.parametrize("ndim", [2, 3])
def test_how_exact_a_voxel_grid_is(h: float, ndim: int) -> None:
    error = regional_over_contour(h, ndim, (1.0,) * ndim) / predicted_ratio(h, ndim) - 1
    assert -0.05 < error < -0.015


def test_outward_errors_cost_more_than_inward_ones() -> None:
    assert predicted_ratio(RADIUS / 4, 3) == pytest.approx(1.36, abs=0.005)
    assert predicted_ratio(-RADIUS / 4, 3) == pytest.approx(0.70, abs=0.005)


@pytest.mark.parametrize("ndim", [2, 3])
def test_finer_voxels_come_closer(ndim: int) -> None:
    coarse, fine = (
        regional_over_contour(16.0, ndim, (step,) * ndim) / predicted_ratio(16.0, ndim) - 1
        for step in (2.0, 1.0)
    )
    assert abs(fine) < 0.75 * abs(coarse)


def test_flat_surfaces_have_no_curvature_term() -> None:
    truth = np.zeros((40, 6, 6), dtype=bool)
    truth[:20] = True
    prediction = np.zeros_like(truth)
    prediction[:26] = True
    maps = fastsdm.signed_distance(truth, convention="midline")
    between = float(maps[prediction].sum() - maps[truth].sum())
    assert 2 * between == pytest.approx(36 * 6.0**2)


def test_the_loss_is_lowest_and_negative_for_the_truth() -> None:
    truth, larger, smaller = (
        ball(radius, 20.0, (1.0, 1.0, 1.0))[None].astype(np.int64) for radius in (12.0, 15.0, 9.0)
    )
    loss = losses.BoundaryLoss()
    values = []
    for mask in (truth, larger, smaller):
        channels = np.stack([mask == 0, mask == 1], axis=1).astype(np.float32)
        values.append(loss(torch.from_numpy(channels), torch.from_numpy(truth)).item())
    assert values[0] < 0
    assert values[0] < min(values[1:])
