"""`black_border`: the map of a volume within a frame that is of no class, by scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import testing
from fastsdm.losses import BoundaryLoss

SPACING = (2.0, 0.9, 0.7)
CLASSES = [2, 0, 7]  # 7 is absent
CONVENTIONS = ["kervadec", "kervadec-literal", "plain", "midline"]


def expected(labels, classes, spacing, convention="plain", empty="inf", limit=None) -> np.ndarray:
    """From the definition: pad with another label, measure, crop, shift; ``[K, *S]`` float64."""
    another = max(labels.max(), *classes) + 1
    padded = np.pad(labels.astype(np.int64), 1, constant_values=another)
    plain = testing.reference_signed_distance(padded[None], classes, np.array([spacing]))[0]
    plain = plain[(slice(None), *(slice(1, -1) for _ in spacing))]
    shift = {"kervadec": min(spacing), "kervadec-literal": 1.0, "plain": 0.0, "midline": min(spacing) / 2}
    shifted = np.where(plain < 0, plain + shift[convention], plain)
    if convention == "midline":
        shifted = np.where(plain > 0, plain - shift[convention], shifted)
    diagonal = math.hypot(*(size * step for size, step in zip(labels.shape, spacing, strict=True)))
    missing = {"inf": math.inf, "zero": 0.0, "max": limit or diagonal}[empty]
    shifted = np.where(np.isinf(plain), np.sign(plain) * missing, shifted)
    return shifted if limit is None else np.clip(shifted, -limit, limit)


def volume(shape=(9, 10, 12)) -> np.ndarray:
    return testing.shells(shape, classes=3, thickness=2.5)


@pytest.mark.parametrize("backend", ["native", "scipy", "torch"])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("empty", ["inf", "zero", "max"])
@pytest.mark.parametrize("limit", [None, 2.5])
def test_every_convention_and_backend(backend, convention, empty, limit) -> None:
    got = fastsdm.signed_distance(
        volume(), classes=CLASSES, spacing=SPACING, convention=convention, empty=empty, max_distance=limit,
        black_border=True, backend=backend,
    )  # fmt: skip
    truth = expected(volume(), CLASSES, SPACING, convention, empty, limit)
    np.testing.assert_allclose(got, truth, rtol=4e-7, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int64", "uint64", "float32"])
def test_masks_of_every_dtype_in_2d_and_3d(dtype) -> None:
    for some in (testing.blobs((12, 13), sigma=2), testing.blobs((8, 9, 10), sigma=2), np.ones((3, 4, 5))):
        mask, spacing = some.astype(dtype), SPACING[: some.ndim]
        got = fastsdm.signed_distance(
            mask, spatial_dims=mask.ndim, spacing=spacing, convention="plain", black_border=True
        )
        np.testing.assert_allclose(got, expected(mask, [1], spacing)[0], rtol=4e-7)
        inside = fastsdm.distance_transform(mask, spatial_dims=mask.ndim, spacing=spacing, black_border=True)
        np.testing.assert_allclose(inside, -expected(mask, [1], spacing)[0].clip(max=0), rtol=4e-7)


@pytest.mark.parametrize(
    ("dtype", "classes"),
    [
        (np.bool_, [0, 1]),
        (np.uint8, list(range(256))),
        (np.int8, [-128, 0, 1]),
        (np.int64, [-(2**63), -(2**63) + 1, 2]),
    ],
    ids=["bool", "uint8", "int8", "int64"],
)
def test_the_frame_is_of_no_class(dtype, classes) -> None:
    labels = (volume() > 0).astype(dtype)
    got = fastsdm.signed_distance(labels, classes=classes, convention="plain", black_border=True)
    for k in (0, 1, -1):
        inside = np.pad(labels == classes[k], 1).astype(np.uint8)
        truth = testing.reference_signed_distance(inside[None], [1], np.ones((1, 3)))[0, 0, 1:-1, 1:-1, 1:-1]
        np.testing.assert_allclose(got[k], truth, rtol=4e-7)


def test_batches_with_spacing_per_sample_and_ignored_voxels() -> None:
    labels = np.stack([volume(), volume()[::-1].copy()])
    spacing = np.array([SPACING, (1.0, 1.0, 1.0)])
    options = {"classes": [1, 2], "spacing": spacing, "convention": "plain"}
    got = fastsdm.signed_distance(labels, black_border=True, **options)
    for sample in range(2):
        np.testing.assert_allclose(got[sample], expected(labels[sample], [1, 2], spacing[sample]), rtol=4e-7)
    # Ignored voxels are no source of distance, the frame is.
    ignored = fastsdm.signed_distance(labels, black_border=True, ignore_index=0, **options)
    padded = fastsdm.signed_distance(
        np.pad(labels, ((0, 0), *[(1, 1)] * 3), constant_values=9), ignore_index=0, **options
    )
    np.testing.assert_array_equal(ignored, padded[:, :, 1:-1, 1:-1, 1:-1])
    assert (ignored[labels[:, None].repeat(2, 1) == 0] == 0).all()


def test_a_class_that_fills_the_volume_is_not_empty() -> None:
    full = np.ones((3, 4, 5), np.uint8)
    got = fastsdm.signed_distance(full, convention="plain", empty="raise", black_border=True)
    assert got[1, 1].tolist() == [-1, -2, -2, -2, -1]
    with pytest.raises(ValueError, match="has no inside voxel"):
        fastsdm.signed_distance(0 * full, empty="raise", black_border=True)


def test_prefetch_and_what_it_remembers() -> None:
    target = torch.from_numpy(volume() > 0)[None, None]
    pending = fastsdm.prefetch(target, empty="zero", black_border=True)
    assert torch.equal(
        torch.as_tensor(pending.result()), fastsdm.signed_distance(target, empty="zero", black_border=True)
    )
    with pytest.raises(ValueError, match="black_border=True, not black_border=False"):
        BoundaryLoss()(torch.rand(target.shape), target, distance_map=pending)


def test_compiled_and_mapped() -> None:
    labels = torch.from_numpy(volume())[None].repeat(2, 1, 1, 1)
    eager = fastsdm.signed_distance(labels, classes=3, black_border=True)
    torch._dynamo.reset()
    compiled = torch.compile(fastsdm.signed_distance, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(labels, classes=3, black_border=True), eager)
    mapped = torch.vmap(lambda some: fastsdm.signed_distance(some, classes=3, black_border=True))
    assert torch.equal(mapped(labels), eager)


def test_without_it_nothing_is_known_beyond_the_border() -> None:
    mask = np.ones((1, 1, 6), np.uint8)
    mask[..., 0] = 0
    near, far = (
        fastsdm.signed_distance(mask, convention="plain", black_border=border)[0, 0].tolist()
        for border in (True, False)
    )
    assert far == [1, -1, -2, -3, -4, -5]
    assert near == [1, -1, -1, -1, -1, -1]


@pytest.mark.parametrize("value", [1, None, 1.0, "yes"])
@pytest.mark.parametrize("function", [fastsdm.signed_distance, fastsdm.distance_transform])
def test_anything_but_a_bool_is_refused(function, value) -> None:
    with pytest.raises(TypeError, match="black_border: must be True or False, got"):
        function(np.ones((3, 4, 5)), black_border=value)
    for shape, border in itertools.product([(0, 4, 5), (2, 3, 0, 5)], (True, False)):
        assert function(np.ones(shape), black_border=border).shape == shape
    numpys = function(np.ones((3, 4, 5)), black_border=np.bool_(True))
    assert np.array_equal(numpys, function(np.ones((3, 4, 5)), black_border=True))
