"""Random orientations: image, labels and map turn alike, and nothing else is let through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import testing
from fastsdm.data import (
    PatchDataset,
    PatchPosition,
    RandomOrientation,
    Volume,
)
from tests.data.stored import SETTINGS, SIZE, SPACING, cut, drawn, labels, stored_volume

ORIENTATION = RandomOrientation(flip=0.5, permute=(1, 2))


@pytest.mark.parametrize("context", ["stored", "halo", "full", "patch", None])
def test_flips_and_permutations_turn_image_labels_and_map_alike(tmp_path: Path, context) -> None:
    size = (16, 12, 12)
    volume = stored_volume(tmp_path, labels(), **SETTINGS)
    options = {"classes": 3, "context": context, **SETTINGS}
    plain = PatchDataset([volume], size, **options)
    turned = PatchDataset([volume], size, augment=ORIENTATION, **options)
    seen = set()
    for position in drawn(turned, 60):
        before, after = plain[position], turned[position]
        steps = tuple(after["spacing"].tolist())
        swapped = steps == (2.0, 0.75, 1.0)
        assert swapped or steps == SPACING
        order = (0, 2, 1) if swapped else (0, 1, 2)
        found = None
        for mask in range(8):
            flips = [axis for axis in range(3) if mask >> axis & 1]
            if torch.equal(after["label"], before["label"].flip(flips).permute(order)) and torch.equal(
                after["image"], before["image"].flip(flips).permute(order)
            ):
                found = mask
                if context is None:
                    break
                flipped = before["distance_map"].flip([1 + axis for axis in flips])
                expected = flipped.permute(0, *(1 + axis for axis in order))
                if torch.equal(after["distance_map"], expected):
                    break
        else:
            pytest.fail(f"no flip of {order} explains the patch at {position}")
        seen.add((swapped, found))
        if context is not None:
            assert after["distance_map"].settings.spacing == (steps,)
        if context == "patch":
            again = fastsdm.signed_distance(
                after["label"], classes=3, spacing=steps, empty="zero", max_distance=5.0, convention="midline"
            )
            torch.testing.assert_close(after["distance_map"].as_subclass(torch.Tensor), again)
    assert len(seen) > 12, "all flips, with and without a swap of the axes"


def test_a_turned_stored_patch_is_the_map_of_the_turned_labels(tmp_path: Path) -> None:
    """Not only turned alike: right, as the map of the volume that was turned before it was computed."""
    values = labels()
    volume = stored_volume(tmp_path, values, **SETTINGS)
    dataset = PatchDataset(
        [volume],
        (12, 12, 12),
        classes=3,
        context="stored",
        augment=RandomOrientation(0, (0, 1, 2)),
        **SETTINGS,
    )
    orders = set()
    for position in drawn(dataset, 40):
        patch = dataset[position]
        order = tuple(SPACING.index(step) for step in patch["spacing"].tolist())
        orders.add(order)
        whole = fastsdm.signed_distance(
            torch.from_numpy(values).permute(order).contiguous(),
            classes=3,
            spacing=[SPACING[axis] for axis in order],
            empty="max",
            **SETTINGS,
        )
        expected = cut(whole, [position.start[axis] for axis in order], (12, 12, 12))
        torch.testing.assert_close(patch["distance_map"].as_subclass(torch.Tensor), expected)
    assert len(orders) == 6


@pytest.mark.parametrize("dtype", ["bool", "uint16", "uint32", "int64"])
def test_labels_of_every_dtype_are_turned(dtype: str) -> None:
    values = testing.noise((9, 9, 9)).astype(dtype)
    dataset = PatchDataset(
        [Volume(values, values)], (5, 5, 5), classes=None, context=None, augment=RandomOrientation(1.0)
    )
    patch = dataset[PatchPosition(0, (1, 2, 3))]["label"]
    np.testing.assert_array_equal(patch.numpy(), values[1:6, 2:7, 3:8][::-1, ::-1, ::-1])


def test_other_augmentations_are_refused_with_the_way_out(tmp_path: Path) -> None:
    volume = stored_volume(tmp_path, labels(), **SETTINGS)
    with pytest.raises(ValueError, match=r"augment: a stored map follows flips .* context='halo'; got <func"):
        PatchDataset(
            [volume],
            SIZE,
            classes=3,
            context="stored",
            augment=lambda image, labels, _: (image, labels),
            **SETTINGS,
        )


@pytest.mark.parametrize(
    ("arguments", "size", "error", "message"),
    [
        ((1.5,), SIZE, ValueError, r"flip: must be a probability, or one per axis; got 1\.5"),
        (("often",), SIZE, TypeError, "flip: must be a number, got 'o'"),
        ((True,), SIZE, TypeError, "flip: must be a number, got True"),
        (((0.5, 0.5),), SIZE, ValueError, "flip: must be a probability or 3 of them"),
        ((0.5, (1, 1)), SIZE, ValueError, "permute: must name different axes"),
        ((0.5, (-1, 1)), SIZE, ValueError, "permute: must name different axes"),
        ((0.5, (0.0, 1)), SIZE, TypeError, "permute: must be an integer"),
        ((0.5, 1), SIZE, TypeError, "permute: must be a sequence of axes, got 1"),
        ((0.5, (1, 3)), SIZE, ValueError, "permute: must name axes from 0 to 2"),
        (
            (0.5, (0, 1)),
            SIZE,
            ValueError,
            r"permute: the patch must be equally long .* got size \(16, 12, 14",
        ),
    ],
)
def test_bad_orientations(arguments, size, error, message: str) -> None:
    with pytest.raises(error, match=message):
        RandomOrientation(*arguments).check(size)


def test_an_orientation_that_does_not_fit_the_patch_is_refused_by_the_data_set() -> None:
    volume = Volume(labels(), labels())
    with pytest.raises(ValueError, match="permute: the patch must be equally long"):
        PatchDataset([volume], SIZE, classes=3, context=None, augment=RandomOrientation(0.5, (0, 1)))


def test_an_orientation_is_shown_as_it_is_made() -> None:
    assert repr(RandomOrientation(0.25, (1, 2))) == "RandomOrientation(flip=0.25, permute=(1, 2))"
