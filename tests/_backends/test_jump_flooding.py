"""Jump flooding: its error at training size, its batches, and that it never waits for values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsdm import testing
from fastsdm._backends import jump_flooding

BACKEND = jump_flooding.BACKEND
CUBE = (96, 96, 96)
UNIT, SCANNER = (1.0, 1.0, 1.0), (3.0, 0.8, 0.7)


def plain_map(labels: np.ndarray, classes: tuple[int, ...], spacing: np.ndarray) -> np.ndarray:
    return BACKEND.signed_distance(torch.from_numpy(labels), classes, torch.from_numpy(spacing), None).numpy()


@pytest.mark.parametrize(
    ("mask", "spacing"),
    [
        pytest.param(testing.blobs(CUBE), UNIT, id="blobs"),
        pytest.param(testing.one_voxel(CUBE), UNIT, id="one voxel"),
        pytest.param(
            testing.noise(CUBE, fraction=0.0001), SCANNER, id="a voxel in ten thousand, anisotropic"
        ),
    ],
)
def test_error_at_training_size(mask, spacing) -> None:
    spacing = np.array([spacing])
    maps = plain_map(mask[None], (1,), spacing)
    reference = testing.reference_signed_distance(mask[None], (1,), spacing)
    found = testing.agreement(maps, reference, spacing, testing.APPROXIMATE)
    assert found.passed, found


def test_maps_are_flooded_together_as_memory_allows(monkeypatch) -> None:
    labels = np.stack(
        [testing.shells((10, 11, 12), classes=3), np.full((10, 11, 12), 2), testing.noise((10, 11, 12))]
    )
    spacing = np.array([UNIT, SCANNER, (0.5, 1.0, 0.5)])
    flood = jump_flooding._squared_distance
    batches = []

    def watched(inside, weights):
        batches.append(len(inside))
        return flood(inside, weights)

    monkeypatch.setattr(jump_flooding, "_squared_distance", watched)
    together = plain_map(labels, (0, 1, 2), spacing)
    assert batches == [9]
    batches.clear()
    monkeypatch.setattr(jump_flooding, "_BUDGET_BYTES", 4 * jump_flooding._bytes_per_voxel(3) * 10 * 11 * 12)
    assert np.array_equal(plain_map(labels, (0, 1, 2), spacing), together)
    assert batches == [4, 4, 1]
    batches.clear()
    monkeypatch.setattr(jump_flooding, "_BUDGET_BYTES", 1)
    assert np.array_equal(plain_map(labels, (0, 1, 2), spacing), together)
    assert batches == [1] * 9


def test_nothing_depends_on_values_that_a_device_would_have_to_hand_over() -> None:
    labels = torch.zeros(2, 9, 8, 7, dtype=torch.uint8, device="meta")  # a tensor without values
    maps = BACKEND.signed_distance(labels, (0, 1), torch.ones(2, 3, dtype=torch.float64), 3.0)
    assert maps.shape == (2, 2, 9, 8, 7)
    assert maps.device.type == "meta"
