"""Random deformation of image and labels together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import testing
from fastsdm.data._augment import random_affine_elastic

STILL = {"flip": 0.0, "rotation": 0.0, "scaling": (1.0, 1.0), "elastic": 0.0}
SHAPES = {2: (15, 22), 3: (9, 14, 11)}


def volumes(ndim: int, batch: int = 2, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    image = torch.rand(batch, channels, *SHAPES[ndim], generator=generator) + 1
    labels = torch.randint(1, 5, (batch, *SHAPES[ndim]), generator=generator, dtype=torch.uint8)
    return image, labels


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ball(shape: tuple[int, ...], radius: float, spacing: tuple[float, ...]) -> torch.Tensor:
    axes = [(torch.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0) < radius**2


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_deformation_the_volume_comes_back(ndim: int) -> None:
    image, labels = volumes(ndim)
    moved, moved_labels = random_affine_elastic(image, labels, spacing=0.7, **STILL)
    torch.testing.assert_close(moved, image, rtol=0, atol=1e-5)
    assert torch.equal(moved_labels, labels)
    assert (moved.dtype, moved_labels.dtype) == (image.dtype, labels.dtype)


@pytest.mark.parametrize("ndim", [2, 3])
def test_certain_flips_mirror_the_axes_asked_for(ndim: int) -> None:
    image, labels = volumes(ndim)
    flip = [1.0, *[0.0] * (ndim - 1)]
    moved, moved_labels = random_affine_elastic(image, labels, **{**STILL, "flip": flip})
    torch.testing.assert_close(moved, image.flip(2), rtol=0, atol=1e-5)
    assert torch.equal(moved_labels, labels.flip(1))


def test_axes_and_samples_are_mirrored_independently() -> None:
    labels = torch.arange(4).reshape(1, 2, 2).expand(64, 2, 2)
    _, mirrored = random_affine_elastic(
        torch.zeros(64, 1, 2, 2), labels, generator=seeded(), **{**STILL, "flip": 0.5}
    )
    assert set(mirrored[:, 0, 0].tolist()) == {0, 1, 2, 3}


def test_undeformed_patches_are_crops_from_anywhere_inside() -> None:
    labels = torch.arange(12 * 13).reshape(1, 12, 13).expand(300, 12, 13)
    image = torch.ones(300, 1, 12, 13)
    moved, cut = random_affine_elastic(image, labels, size=(5, 4), generator=seeded(), **STILL)
    first = cut[:, 0, 0]
    rows, columns = first // 13, first % 13
    expected = first[:, None, None] + torch.arange(5)[:, None] * 13 + torch.arange(4)
    assert torch.equal(cut, expected)
    assert set(rows.tolist()) == set(range(8))
    assert set(columns.tolist()) == set(range(10))
    torch.testing.assert_close(moved, torch.ones_like(moved))


def test_a_patch_larger_than_the_volume_is_padded_with_zeros() -> None:
    image, labels = volumes(3)
    moved, moved_labels = random_affine_elastic(image, labels, size=(13, 14, 11), **STILL)
    torch.testing.assert_close(moved[:, :, 2:-2], image, rtol=0, atol=1e-5)
    assert torch.equal(moved_labels[:, 2:-2], labels)
    assert not moved[:, :, :2].any()
    assert not moved_labels[:, -2:].any()


@pytest.mark.parametrize("ndim", [2, 3])
def test_outside_of_the_volume_reads_what_was_asked_for(ndim: int) -> None:
    image, labels = volumes(ndim)
    size = [n + 4 for n in SHAPES[ndim]]
    inner = (..., *[slice(2, -2)] * ndim)
    outside = torch.ones(size, dtype=torch.bool)
    outside[inner] = False

    moved, around = random_affine_elastic(image, labels, size=size, image_fill=-1024, label_fill=255, **STILL)
    torch.testing.assert_close(moved[..., outside], torch.full_like(moved[..., outside], -1024))
    assert (around[..., outside] == 255).all()
    torch.testing.assert_close(moved[inner], image, atol=1e-3, rtol=0)
    assert torch.equal(around[inner], labels)

    moved, _ = random_affine_elastic(image, labels, size=size, image_fill="min", **STILL)
    smallest = image.flatten(2).amin(-1, keepdim=True)
    torch.testing.assert_close(moved[..., outside], smallest.expand_as(moved[..., outside]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint16, torch.int64])
def test_the_fill_fits_labels_of_any_dtype(dtype: torch.dtype) -> None:
    image, labels = volumes(2)
    kept = labels.to(dtype)
    _, around = random_affine_elastic(image, kept, size=(30, 40), label_fill=1, **STILL)
    assert around.dtype == dtype
    assert bool((around[:, 0].long() == 1).all())


def test_an_ignored_fill_makes_no_border_of_a_class() -> None:
    # An object that the volume's edge cuts: with background beyond, the edge would be its surface.
    image, labels = torch.zeros(1, 1, 12, 12), torch.zeros(1, 12, 12, dtype=torch.uint8)
    labels[:, 4:8, 6:] = 1
    _, around = random_affine_elastic(image, labels, size=(12, 24), label_fill=255, **STILL)
    inside = fastsdm.signed_distance(around, classes=[1], spatial_dims=2, ignore_index=255)[0, 0, 5, 6:18]
    cut = fastsdm.signed_distance(labels, classes=[1], spatial_dims=2)[0, 0, 5, 6:]
    assert torch.equal(inside[6:], cut)


def test_integers_of_numpy_and_torch_are_taken() -> None:
    image, labels = volumes(2)
    plain = random_affine_elastic(image, labels, size=(8, 9), halo=1, label_fill=7, generator=seeded())
    other = random_affine_elastic(
        image,
        labels,
        size=np.array([8, 9]),
        halo=np.int64(1),
        label_fill=torch.tensor(7),
        rotation=np.float32(30),
        generator=seeded(),
    )
    assert all(map(torch.equal, plain, other))


def test_control_points_are_at_most_as_many_as_voxels() -> None:
    image, labels = torch.zeros(1, 1, 40, 9), torch.zeros(1, 40, 9, dtype=torch.uint8)
    random_affine_elastic(image, labels, spacing=(1e6, 1.0), elastic_grid=1.0)  # else 3e9 control points


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.7)])
def test_rotation_keeps_a_ball_round_in_lengths(spacing: tuple[float, ...]) -> None:
    shape = tuple(int(30 / step) for step in spacing)
    labels = ball(shape, 9.0, spacing)[None]
    settings = {**STILL, "rotation": 180.0}
    _, turned = random_affine_elastic(
        labels[:, None].float(), labels, spacing=spacing, generator=seeded(), **settings
    )
    assert (turned ^ labels).sum() < 0.2 * labels.sum()
    _, wrong = random_affine_elastic(labels[:, None].float(), labels, generator=seeded(), **settings)
    assert spacing[0] == 1.0 or (wrong ^ labels).sum() > 0.3 * labels.sum()


def test_rotation_turns_by_at_most_the_angle_given() -> None:
    mask = torch.zeros(200, 41, 41, dtype=torch.bool)
    mask[:, 20, 35] = True
    mask = torch.nn.functional.max_pool2d(mask.float(), 3, 1, 1).bool()
    _, turned = random_affine_elastic(
        mask[:, None].float(), mask, generator=seeded(), **{**STILL, "rotation": 25.0}
    )
    centre = torch.stack([m.nonzero().float().mean(0) for m in turned]) - 20
    angles = torch.rad2deg(torch.atan2(centre[:, 0], centre[:, 1]))
    assert 22 < angles.abs().max() < 28
    assert angles.min() < -15 < 15 < angles.max()


@pytest.mark.parametrize("magnification", [0.5, 2.0])
def test_scaling_magnifies(magnification: float) -> None:
    labels = ball((40, 40, 40), 8.0, (1.0, 1.0, 1.0))[None]
    settings = {**STILL, "scaling": (magnification, magnification)}
    _, scaled = random_affine_elastic(labels[:, None].float(), labels, **settings)
    assert scaled.sum().item() == pytest.approx(labels.sum().item() * magnification**3, rel=0.05)


@pytest.mark.parametrize("spacing", [1.0, (2.0, 0.5, 1.0)])
def test_elastic_displacement_has_the_size_asked_for(spacing: float | tuple[float, ...]) -> None:
    shape = (24, 60, 40)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    image = torch.stack(axes).expand(6, 3, *shape)
    labels = torch.zeros(6, *shape, dtype=torch.bool)
    settings = {**STILL, "elastic": 1.2, "elastic_grid": 9.0}
    moved, _ = random_affine_elastic(image, labels, spacing=spacing, generator=seeded(), **settings)
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8), slice(8, -8))
    steps = torch.as_tensor(spacing).expand(3)
    rms = (moved - image)[inner].square().mean(dim=(0, 2, 3, 4)).sqrt() * steps
    torch.testing.assert_close(rms, torch.full((3,), 1.2), rtol=0.25, atol=0)


def test_elastic_lengths_are_in_the_units_of_spacing() -> None:
    image, labels = volumes(3)
    in_voxels = {**STILL, "elastic": 1.0, "elastic_grid": 5.0}
    in_lengths = {**STILL, "elastic": 0.4, "elastic_grid": 2.0, "spacing": 0.4}
    first, second = (
        random_affine_elastic(image, labels, generator=seeded(), **s) for s in (in_voxels, in_lengths)
    )
    torch.testing.assert_close(first[0], second[0], rtol=0, atol=1e-4)


def test_elastic_deformation_is_smooth_and_does_not_fold() -> None:
    line = torch.arange(96, dtype=torch.float32)
    image = line[None, None, :, None].expand(4, 1, 96, 96)
    labels = torch.zeros(4, 96, 96, dtype=torch.bool)
    settings = {**STILL, "elastic": 2.0, "elastic_grid": 16.0}
    moved, _ = random_affine_elastic(image, labels, generator=seeded(), **settings)
    steps = moved[:, 0, 12:-12, 12:-12].diff(dim=1)
    assert steps.min() > 0
    assert steps.diff(dim=1).abs().max() < 0.1


@pytest.mark.parametrize(("ndim", "halo"), [(2, 4), (3, (2, 0, 5))])
def test_the_halo_surrounds_the_labels_of_the_patch(ndim: int, halo: int | tuple[int, ...]) -> None:
    """Rigid motion, for an elastic one draws more control points where the block is larger."""
    image, labels = volumes(ndim)
    size = (7, 6, 5)[:ndim]
    patch, inner = random_affine_elastic(image, labels, size=size, elastic=0.0, generator=seeded())
    same_patch, outer = random_affine_elastic(
        image, labels, size=size, elastic=0.0, halo=halo, generator=seeded()
    )
    assert torch.equal(same_patch, patch)
    margins = [halo] * ndim if isinstance(halo, int) else halo
    assert list(outer.shape[1:]) == [n + 2 * m for n, m in zip(size, margins, strict=True)]
    middle = tuple(slice(m, m + n) for n, m in zip(size, margins, strict=True))
    assert torch.equal(outer[(slice(None), *middle)], inner)


def test_labels_in_the_halo_are_those_around_the_patch() -> None:
    labels = torch.arange(1, 12 * 13 + 1).reshape(1, 12, 13).expand(50, 12, 13)
    _, block = random_affine_elastic(
        torch.ones(50, 1, 12, 13), labels, size=(5, 4), halo=(3, 2), generator=seeded(), **STILL
    )
    padded = torch.nn.functional.pad(labels[0], (2, 2, 3, 3))
    for sample in block:
        first = int(sample[3, 2]) - 1
        row, column = first // 13, first % 13
        assert torch.equal(sample, padded[row : row + 11, column : column + 8])
    assert (block[:, 0, 0] == 0).any(), "no halo reaches out of the volume"


def test_image_and_labels_move_together() -> None:
    labels = torch.from_numpy(testing.blobs((32, 30, 34), sigma=4))[None]
    image, moved = random_affine_elastic(
        labels[:, None].float(), labels, size=(20, 20, 20), generator=seeded(3)
    )
    sure = (image[:, 0] < 0.01) | (image[:, 0] > 0.99)
    assert 0.05 < moved.float().mean() < 0.6
    assert torch.equal(moved[sure], image[:, 0][sure].round().to(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_stay_with_their_labels(dtype: torch.dtype) -> None:
    """Every voxel of the long axis holds a value of its own kind, so a shift by one shows."""
    labels = (torch.arange(300) % 7).to(torch.uint8)[None, None, :].repeat(1, 3, 1)
    image, moved = random_affine_elastic(labels[:, None].to(dtype), labels, **{**STILL, "flip": (0.0, 1.0)})
    assert image.dtype == dtype
    torch.testing.assert_close(image[:, 0].float(), moved.float(), rtol=0, atol=0.02)


def test_autocast_does_not_move_voxels() -> None:
    image = torch.arange(300.0).reshape(1, 1, 1, 300).repeat(1, 1, 3, 1)
    settings = {**STILL, "elastic": 1.0}
    expected, expected_labels = random_affine_elastic(
        image, image[:, 0].int(), generator=seeded(), **settings
    )
    with torch.autocast("cpu", torch.bfloat16):
        moved, labels = random_affine_elastic(image, image[:, 0].int(), generator=seeded(), **settings)
    assert torch.equal(moved, expected)
    assert torch.equal(labels, expected_labels)


def test_double_precision_is_kept() -> None:
    image = torch.full((1, 1, 5, 6), 1 / 3, dtype=torch.float64)
    moved, _ = random_affine_elastic(image, torch.zeros(1, 5, 6, dtype=torch.uint8), size=(3, 3), **STILL)
    torch.testing.assert_close(moved, image[..., :3, :3], rtol=0, atol=1e-15)


def test_labels_keep_layout_dtype_and_large_values() -> None:
    big = torch.full((1, 1, 6, 7, 8), 2**40 + 1)
    _, moved = random_affine_elastic(torch.zeros(1, 1, 6, 7, 8), big, size=(3, 3, 3), **STILL)
    assert torch.equal(moved, torch.full((1, 1, 3, 3, 3), 2**40 + 1))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.uint16, torch.uint32, torch.uint64])
def test_labels_of_every_integer_dtype(dtype: torch.dtype) -> None:
    largest = 1 if dtype == torch.bool else 2 ** (8 * dtype.itemsize - dtype.is_signed) - 1
    labels = torch.tensor([[largest, 0, 1], [1, largest, 0]], dtype=dtype)[None]
    _, moved = random_affine_elastic(torch.zeros(1, 1, 2, 3), labels, size=(4, 3), **STILL)
    assert moved.dtype == dtype
    assert moved.tolist() == [[[0, 0, 0], *labels[0].tolist(), [0, 0, 0]]]


def test_samples_differ_and_a_seed_repeats() -> None:
    image, labels = volumes(3, batch=1)
    image, labels = image.expand(2, -1, -1, -1, -1), labels.expand(2, -1, -1, -1)
    first, again, other = (
        random_affine_elastic(image, labels, size=(6, 6, 6), generator=seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][0], first[0][1])


@pytest.mark.gpu
def test_devices_agree() -> None:
    image, labels = volumes(3)
    here = random_affine_elastic(image, labels, generator=seeded())
    there = random_affine_elastic(image.cuda(), labels.cuda(), generator=seeded())
    torch.testing.assert_close(there[0].cpu(), here[0], rtol=0, atol=1e-3)
    assert (there[1].cpu() != here[1]).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": torch.zeros(1, 1, 4)}, ValueError, r"image: must be \[B, C"),
        ({"image": torch.zeros(1, 1, 4, 4, 4, dtype=torch.uint8)}, TypeError, "image: must be floating"),
        ({"labels": torch.zeros(1, 4, 4, 4, dtype=torch.cfloat)}, TypeError, "labels: must hold booleans"),
        ({"labels": np.zeros((1, 4, 4, 4))}, TypeError, "labels: must be a tensor, got ndarray"),
        (
            {"labels": torch.zeros(1, 4, 4, 5, dtype=torch.int8)},
            ValueError,
            r"labels: must be .*\(1, 4, 4, 5\)",
        ),
        (
            {"labels": torch.zeros(1, 4, 4, 4, dtype=torch.int8, device="meta")},
            ValueError,
            "device cpu, got meta",
        ),
        ({"size": (4, 4)}, ValueError, r"size: must be 3 positive integers, got \(4, 4\)"),
        ({"size": (4, 0, 4)}, ValueError, "size: must be 3 positive"),
        ({"halo": -1}, ValueError, "halo: must be a number of voxels or 3 of them, not negative, got -1"),
        ({"halo": (1, 1)}, ValueError, r"halo: .* got \(1, 1\)"),
        ({"flip": 1.5}, ValueError, "flip: must be a probability"),
        ({"flip": [0.5, 0.5]}, ValueError, "flip: must be a probability"),
        ({"rotation": 200.0}, ValueError, "rotation: must be from 0 to 180"),
        ({"scaling": (2.0, 1.0)}, ValueError, "scaling: must be two positive"),
        ({"elastic": math.nan}, ValueError, "elastic: must be non-negative"),
        ({"elastic_grid": 0.0}, ValueError, "elastic_grid: must be positive"),
        ({"spacing": (1.0, 0.0, 1.0)}, ValueError, "spacing: must be positive"),
        ({"size": (64.0, 64.0, 64.0)}, TypeError, r"size: must be an integer, got 64\.0"),
        ({"size": 64}, TypeError, "size: must be a sequence of numbers, got 64"),
        ({"halo": 1.0}, TypeError, r"halo: must be an integer, got 1\.0"),
        ({"halo": True}, TypeError, "halo: must be a sequence of numbers, got True"),
        ({"flip": "x"}, TypeError, "flip: must be a sequence of numbers, got 'x'"),
        ({"flip": [None] * 3}, TypeError, "flip: must be a number, got None"),
        ({"rotation": "30"}, TypeError, "rotation: must be a number, got '30'"),
        ({"rotation": None}, TypeError, "rotation: must be a number, got None"),
        ({"scaling": 1.2}, TypeError, r"scaling: must be a sequence of numbers, got 1\.2"),
        ({"scaling": (0.8, 1.0, 1.2)}, ValueError, "scaling: must be two positive"),
        ({"elastic": True}, TypeError, "elastic: must be a number, got True"),
        (
            {"elastic_grid": 1e-3},
            ValueError,
            r"elastic_grid: must be at least the smallest voxel size 1, got",
        ),
        (
            {"elastic_grid": 2.0, "spacing": (9.0, 3.0, 3.0)},
            ValueError,
            r"elastic_grid: must be at least the smallest voxel size 3, got 2\.0",
        ),
        ({"image_fill": "max"}, ValueError, "image_fill: must be one of 'min'; got 'max'"),
        ({"image_fill": math.inf}, ValueError, "image_fill: must be finite"),
        ({"image_fill": None}, TypeError, "image_fill: must be a number, got None"),
        ({"label_fill": 128}, ValueError, r"label_fill: must fit the labels' dtype torch.int8"),
        ({"label_fill": 1.0}, TypeError, r"label_fill: must be an integer, got 1\.0"),
    ],
)
def test_bad_input(arguments: dict, error: type[Exception], message: str) -> None:
    call = {
        "image": torch.zeros(1, 1, 4, 4, 4),
        "labels": torch.zeros(1, 4, 4, 4, dtype=torch.int8),
        **arguments,
    }
    with pytest.raises(error, match=message):
        random_affine_elastic(call.pop("image"), call.pop("labels"), **call)
