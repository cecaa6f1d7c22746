"""What a patch dataset refuses, and how it says so."""

from __future__ import annotations

import numpy as np
import pytest

from fastsdm.data import PatchDataset, PatchPosition, Volume

SMALL = Volume(np.zeros((9, 9, 9)), np.zeros((9, 9, 9), np.uint8))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"volumes": []}, ValueError, "volumes: must hold at least one"),
        ({"size": (4, 4, -1)}, ValueError, "size: must be 2 or 3 positive"),
        ({"context": "nothing"}, ValueError, "context: must be one of 'full', 'halo', 'patch'"),
        ({"max_distance": None}, ValueError, "max_distance: context='halo' needs it"),
        ({"max_distance": 0}, ValueError, "max_distance: must be positive"),
        ({"convention": "mine"}, ValueError, "convention: must be one of"),
        ({"cached_maps": -1}, ValueError, "cached_maps: must not be negative"),
        ({"cached_maps": 1.5}, TypeError, "cached_maps: must be an integer, got 1.5"),
        ({"classes": 0}, ValueError, "classes: must be at least 1"),
        ({"augment": 3}, TypeError, "augment: must be None, callable or a RandomOrientation, got 3"),
        ({"pad_label": 0.5}, TypeError, "pad_label: must be an integer, got 0.5"),
        ({"pad_label": True}, TypeError, "pad_label: must be an integer, got True"),
        ({"cached_maps": np.True_}, TypeError, "cached_maps: must be an integer, got np.True_"),
        ({"pad_value": True}, TypeError, "pad_value: must be a number, got True"),
        ({"size": (4, True, 4)}, TypeError, r"size: must hold integers, got \(4, True, 4\)"),
        (
            {"limit": 3.0},
            TypeError,
            "limit: is no argument of PatchDataset; it takes classes, context, .*backend, convention",
        ),
        ({"pad_value": "0"}, TypeError, "pad_value: must be a number, got '0'"),
        ({"volumes": np.zeros((2, 9, 9))}, TypeError, "volumes: must be a sequence .* got ndarray"),
        ({"volumes": SMALL}, TypeError, "volumes: must be a sequence .* got Volume"),
        ({"volumes": (v for v in [SMALL])}, TypeError, "volumes: must be a sequence .* got generator"),
        ({"volumes": [SMALL, SMALL.labels]}, TypeError, "volumes: each must have .* volume 1 is .* ndarray"),
        (
            {"volumes": [Volume(SMALL.image[0], SMALL.labels)]},
            ValueError,
            r"volumes: .* volume 0 has \(9, 9\) and \(9, 9, 9\)",
        ),
        ({"size": (4, 4)}, ValueError, r"volumes: labels must have 2 axes .* volume 0 has shape \(9, 9, 9\)"),
        ({"volumes": [Volume(SMALL.image, None)]}, TypeError, "volumes: must be arrays, .* got NoneType"),
        (
            {"volumes": [SMALL, Volume(np.zeros((9, 8, 9)), SMALL.labels)]},
            ValueError,
            r"volumes: .* volume 1 has \(9, 8, 9\) and \(9, 9, 9\)",
        ),
        ({"volumes": [Volume(SMALL.image, SMALL.labels, (1, 2))]}, ValueError, "spacing: must be"),
        ({"volumes": [Volume(SMALL.image, SMALL.labels, -1)]}, ValueError, "spacing: must be positive"),
    ],
)
def test_bad_dataset(change, error, message) -> None:
    arguments = {"volumes": [SMALL], "size": (4, 4, 4), "classes": 2, "max_distance": 3.0}
    with pytest.raises(error, match=message):
        PatchDataset(**(arguments | change))


def test_bad_positions_and_augmentations() -> None:
    dataset = PatchDataset([SMALL], (4, 4, 4), classes=2, max_distance=3.0)
    with pytest.raises(TypeError, match="must be a PatchPosition, got int; hand a PatchSampler"):
        dataset[0]
    for start in ((0, 6, 0), (-1, 0, 0)):
        with pytest.raises(ValueError, match="position: the patch must lie inside volume 0"):
            dataset[PatchPosition(0, start)]
    with pytest.raises(ValueError, match=r"position: start must be 3 indices, got \(0, 0\)"):
        dataset[PatchPosition(0, (0, 0))]
    for position, message in (
        (PatchPosition(0, (1.5, 0, 0)), r"position.start: must hold integers, got \(1.5, 0, 0\)"),
        (PatchPosition(0.0, (1, 0, 0)), "position.volume: must be an integer, got 0.0"),
        (PatchPosition(0, (1, 0, 0), 1.5), "position.seed: must be an integer, got 1.5"),
    ):
        with pytest.raises(TypeError, match=message):
            dataset[position]
    for volume in (-1, 1):
        with pytest.raises(ValueError, match=f"position: volume must be from 0 to 0, got {volume}"):
            dataset[PatchPosition(volume, (0, 0, 0))]
    shrinking = PatchDataset(
        [SMALL], (4, 4, 4), classes=2, max_distance=3.0, augment=lambda image, labels, _: (image, labels[1:])
    )
    with pytest.raises(ValueError, match="augment: must keep the shapes"):
        shrinking[PatchPosition(0, (0, 0, 0))]


@pytest.mark.parametrize("context", ["full", "halo", "patch"])
def test_the_backend_named_is_the_one_used(context) -> None:
    dataset = PatchDataset([SMALL], (4, 4, 4), classes=2, context=context, max_distance=3.0, backend="mine")
    with pytest.raises(ValueError, match="backend: must be 'auto' or one of"):
        dataset[PatchPosition(0, (0, 0, 0))]
