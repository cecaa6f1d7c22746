"""The public functions: shapes, kinds, conventions, empty classes, clamping."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

import fastsdm
from fastsdm import testing
from fastsdm._backends import registry

SPACING = (2.0, 0.5, 0.9)


def plain_truth(mask: np.ndarray, spacing=1.0) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask, sampling=spacing) - ndimage.distance_transform_edt(
        mask, sampling=spacing
    )


@pytest.fixture
def mask() -> np.ndarray:
    return testing.blobs((12, 13, 17), sigma=2).astype(bool)


@pytest.mark.parametrize("spacing", [1.0, SPACING])
@pytest.mark.parametrize("convention", ["kervadec", "kervadec-literal", "plain", "midline"])
def test_conventions(mask, convention, spacing) -> None:
    truth = plain_truth(mask, spacing)
    h = np.min(spacing)
    shift = {"kervadec": (0, h), "kervadec-literal": (0, 1), "plain": (0, 0), "midline": (-h / 2, h / 2)}
    outside, inside = shift[convention]
    expected = np.where(mask, truth + inside, truth + outside)
    got = fastsdm.signed_distance(mask, spacing=spacing, convention=convention)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_default_convention_is_the_published_recipe(mask) -> None:
    published = testing.published_map(mask)
    np.testing.assert_allclose(fastsdm.signed_distance(mask), published, rtol=1e-6, atol=1e-6)


def test_literal_convention_is_the_published_recipe_at_any_spacing(mask) -> None:
    got = fastsdm.signed_distance(mask, convention="kervadec-literal", spacing=SPACING)
    np.testing.assert_allclose(got, testing.published_map(mask, SPACING), rtol=1e-6, atol=1e-6)


def test_published_maps_of_labels_are_ours_absent_and_full_classes_too() -> None:
    labels = np.stack([testing.shells((9, 12, 10), classes=3), np.full((9, 12, 10), 2)])
    ours = fastsdm.signed_distance(labels, classes=[2, 0, 9], empty="zero")
    np.testing.assert_allclose(testing.published_maps(labels, [2, 0, 9]), ours, rtol=1e-6, atol=1e-6)


def test_kervadec_keeps_the_sign_where_the_published_shift_loses_it(mask) -> None:
    fine = {"spacing": 0.4}
    assert fastsdm.signed_distance(mask, **fine)[mask].max() <= 0
    literal = fastsdm.signed_distance(mask, convention="kervadec-literal", **fine)
    assert literal[mask].max() == pytest.approx(0.6)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("empty", "limit", "value"),
    [
        ("inf", None, math.inf),
        ("inf", 7.5, 7.5),
        ("zero", None, 0.0),
        ("zero", 7.5, 0.0),
        ("max", None, math.hypot(3 * 2.0, 4 * 0.5, 5 * 0.9)),
        ("max", 7.5, 7.5),
        ("max", 100.0, 100.0),
    ],
)
@pytest.mark.parametrize("convention", ["kervadec", "midline"])
def test_empty_policies(full, empty, limit, value, convention) -> None:
    labels = torch.full((3, 4, 5), int(full))
    got = fastsdm.signed_distance(
        labels, spacing=SPACING, empty=empty, max_distance=limit, convention=convention
    )
    torch.testing.assert_close(got, torch.full((3, 4, 5), -value if full else value))


def test_empty_policy_leaves_other_classes_alone() -> None:
    labels = torch.zeros(2, 6, 6, 6, dtype=torch.uint8)
    labels[1, 2:4, 2:4, 2:4] = 1
    got = fastsdm.signed_distance(labels, classes=3, empty="zero")
    assert got.isfinite().all()
    assert (got[0] == 0).all()
    assert (got[1, 2] == 0).all()
    np.testing.assert_array_equal(got[1, 1], fastsdm.signed_distance(labels[1] == 1))


@pytest.mark.parametrize(("fill", "lacks"), [(2, "outside"), (3, "inside")])
def test_empty_raise_names_sample_and_class(fill, lacks) -> None:
    labels = torch.from_numpy(testing.noise((3, 4, 4, 4)) * 2)
    assert fastsdm.signed_distance(labels, classes=[0, 2], empty="raise").isfinite().all()
    labels[1] = fill
    with pytest.raises(ValueError, match=f"class 2 of sample 1 has no {lacks} voxel"):
        fastsdm.signed_distance(labels, classes=[2], empty="raise")


@pytest.mark.parametrize("convention", ["kervadec", "kervadec-literal", "plain", "midline"])
@pytest.mark.parametrize("spacing", [1.0, SPACING])
@pytest.mark.parametrize("limit", [0.3, 1.0, 2.2, 4.0])
def test_max_distance_clamps_after_the_shift(mask, convention, spacing, limit) -> None:
    whole = fastsdm.signed_distance(mask, spacing=spacing, convention=convention)
    clamped = fastsdm.signed_distance(mask, spacing=spacing, convention=convention, max_distance=limit)
    np.testing.assert_allclose(clamped, np.clip(whole, -limit, limit), rtol=1e-6)


@pytest.mark.parametrize("leading", [(), (1,), (2,), (2, 3), (0,), (2, 0), (2, 1, 2)])
@pytest.mark.parametrize("ndim", [2, 3])
def test_leading_dimensions(leading, ndim) -> None:
    shape = (5, 6, 7)[-ndim:]
    masks = testing.noise((*leading, *shape), seed=3)
    got = fastsdm.signed_distance(masks, spatial_dims=ndim, convention="plain")
    assert got.shape == masks.shape
    for index in np.ndindex(leading):
        np.testing.assert_allclose(got[index], plain_truth(masks[index] > 0), rtol=1e-6)
    by_class = fastsdm.signed_distance(masks, classes=2, spatial_dims=ndim, convention="plain")
    assert by_class.shape == (*leading, 2, *shape)
    np.testing.assert_array_equal(by_class.take(1, axis=len(leading)), got)


def test_spacing_scalar_per_axis_and_per_sample() -> None:
    masks = testing.noise((2, 3, 5, 6, 7), seed=1)
    rows = np.array([[1.0, 2.0, 3.0], [0.5, 0.7, 0.9]])
    got = fastsdm.signed_distance(masks, spacing=rows)
    for sample in range(2):
        alone = fastsdm.signed_distance(masks[sample], spacing=rows[sample].tolist())
        np.testing.assert_array_equal(got[sample], alone)
    for same in (rows.tolist(), torch.from_numpy(rows), torch.from_numpy(rows)[:, None].expand(2, 3, 3)):
        np.testing.assert_array_equal(fastsdm.signed_distance(masks, spacing=same), got)
    scaled = fastsdm.signed_distance(masks, spacing=2)
    np.testing.assert_array_equal(scaled, 2 * fastsdm.signed_distance(masks))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.float32])
def test_a_negative_label_can_be_asked_for(dtype) -> None:
    labels = np.random.default_rng(3).integers(-2, 2, (9, 8, 7))
    asked_for = fastsdm.signed_distance(labels.astype(dtype), classes=[-2])
    assert np.array_equal(asked_for[0], fastsdm.signed_distance(labels == -2))


def test_label_map_equals_its_one_hot() -> None:
    labels = torch.from_numpy(testing.shells((9, 10, 11), classes=4))[None]
    one_hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1)
    by_class = fastsdm.signed_distance(labels, classes=4)
    assert torch.equal(by_class, fastsdm.signed_distance(one_hot))
    assert torch.equal(by_class, fastsdm.signed_distance(one_hot.float()))
    assert torch.equal(by_class[:, [3, 1]], fastsdm.signed_distance(labels, classes=[3, 1]))


def test_above_zero_is_inside_whatever_the_value() -> None:
    mask = testing.noise((6, 7, 8))
    expected = fastsdm.signed_distance(mask)
    for other in (mask * 255, mask.astype(np.int64) * 5, mask * 0.75, mask.astype(np.uint16) * 40000):
        np.testing.assert_array_equal(fastsdm.signed_distance(other), expected)


def test_flipped_axis_of_one_voxel() -> None:
    mask = testing.noise((1, 4, 5))
    assert np.array_equal(fastsdm.signed_distance(mask[::-1]), fastsdm.signed_distance(mask))


def test_strided_inputs() -> None:
    labels = testing.shells((8, 9, 10), classes=3)
    views = [labels.T, labels[::-1], labels[::2, 1:, ::3], np.asfortranarray(labels), labels.astype(">i4")]
    for view in views:
        expected = fastsdm.signed_distance(np.ascontiguousarray(view).astype(np.int64), classes=3)
        np.testing.assert_array_equal(fastsdm.signed_distance(view, classes=3), expected)
    tensor = torch.from_numpy(labels)
    for strided in (tensor.permute(2, 0, 1), tensor[:, ::2], tensor[:, :1].expand(-1, 9, -1)):
        maps = fastsdm.signed_distance(strided.contiguous(), classes=3)
        assert torch.equal(fastsdm.signed_distance(strided, classes=3), maps)


def test_read_only_arrays_are_read_in_place_and_left_alone() -> None:
    mask = testing.noise((6, 7, 8))
    before = mask.copy()
    mask.flags.writeable = False
    np.testing.assert_array_equal(fastsdm.signed_distance(mask), fastsdm.signed_distance(before))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_result_dtype(mask, dtype) -> None:
    exact = fastsdm.signed_distance(torch.from_numpy(mask))
    got = fastsdm.signed_distance(torch.from_numpy(mask), dtype=dtype)
    assert got.dtype == dtype
    assert torch.equal(got, exact.to(dtype))
    name = str(dtype).removeprefix("torch.")
    assert fastsdm.signed_distance(torch.from_numpy(mask), dtype=name).dtype == dtype


def test_numpy_in_numpy_out(mask) -> None:
    got = fastsdm.signed_distance(mask, dtype=np.float64)
    assert isinstance(got, np.ndarray)
    assert got.dtype == np.float64


def test_tensor_subclasses_and_gradients_stay_out() -> None:
    class Image(torch.Tensor):
        pass

    mask = torch.from_numpy(testing.noise((4, 5, 6))).float()
    expected = fastsdm.signed_distance(mask)
    assert type(fastsdm.signed_distance(mask.as_subclass(Image))) is torch.Tensor
    got = fastsdm.signed_distance(mask.requires_grad_())
    assert torch.equal(got, expected)
    assert not got.requires_grad


@pytest.mark.parametrize("spacing", [1.0, SPACING])
def test_distance_transform_is_scipys(mask, spacing) -> None:
    got = fastsdm.distance_transform(mask, spacing=spacing)
    np.testing.assert_allclose(got, ndimage.distance_transform_edt(mask, sampling=spacing), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.uint8])
def test_distance_transform_measures_all_that_is_not_zero(dtype) -> None:
    values = np.random.default_rng(1).choice([0, 0.3, 1, -1, 0], (6, 7, 8)).astype(dtype)
    expected = ndimage.distance_transform_edt(values)
    np.testing.assert_allclose(fastsdm.distance_transform(values), expected, rtol=1e-6)


def test_distance_transform_without_a_zero_voxel() -> None:
    masks = torch.ones(2, 3, 4, 5)
    masks[1] = 0
    got = fastsdm.distance_transform(masks)
    assert (got[0] == math.inf).all()
    assert (got[1] == 0).all()
    assert not torch.signbit(got[1]).any()
    assert (fastsdm.distance_transform(masks, max_distance=3.5)[0] == 3.5).all()


def test_use_backend_and_environment(mask, monkeypatch) -> None:
    calls = []
    scipy_backend = registry.get("scipy")
    original = type(scipy_backend).signed_distance

    def recorded(self, *arguments):
        calls.append("scipy")
        return original(self, *arguments)

    monkeypatch.setattr(type(scipy_backend), "signed_distance", recorded)
    fastsdm.signed_distance(mask)
    assert not calls, "native goes first on the CPU"
    with fastsdm.use_backend("scipy"):
        fastsdm.signed_distance(mask)
        assert len(calls) == 1
        with fastsdm.use_backend("auto"):
            fastsdm.signed_distance(mask)
        fastsdm.signed_distance(mask, backend="native")
        assert len(calls) == 1
    monkeypatch.setenv("FASTSDM_BACKEND", "scipy")
    fastsdm.signed_distance(mask)
    assert len(calls) == 2
    with fastsdm.use_backend("native"):
        fastsdm.signed_distance(mask)
    assert len(calls) == 2


ROWS = [(3.0, 0.8, 0.8), (1.0, 1.0, 2.0)]


@pytest.mark.parametrize(
    "spacing",
    [
        [torch.tensor(row) for row in ROWS],
        tuple(np.array(row, dtype=np.float32) for row in ROWS),
        [[torch.tensor(step) for step in row] for row in ROWS],
        [ROWS[0], np.array(ROWS[1])],
        torch.tensor(ROWS),
        np.array(ROWS, dtype=np.float32),
    ],
    ids=["tensors", "arrays", "0-d tensors", "mixed", "tensor", "array"],
)
def test_every_sequence_of_rows_is_rows(mask, spacing) -> None:
    masks = np.stack([mask, ~mask])
    got = fastsdm.signed_distance(masks, spacing=spacing)
    np.testing.assert_allclose(got, fastsdm.signed_distance(masks, spacing=ROWS), rtol=1e-6)


@pytest.mark.parametrize(
    "spacing",
    [
        [3.0, 0.8, 0.8],
        np.array([3.0, 0.8, 0.8]),
        torch.tensor([3.0, 0.8, 0.8], dtype=torch.float64),
        [np.float64(3), np.float32(0.8), 0.8],
        (torch.tensor(3), 0.8, torch.tensor(0.8)),
    ],
)
def test_one_row_in_any_form(mask, spacing) -> None:
    want = fastsdm.signed_distance(mask, spacing=(3.0, 0.8, 0.8))
    np.testing.assert_allclose(fastsdm.signed_distance(mask, spacing=spacing), want, rtol=1e-6)


@pytest.mark.parametrize("backend", ["native", "scipy", "torch"])
def test_no_samples(backend) -> None:
    labels, rows = np.zeros((0, 4, 5, 6), np.uint8), np.ones((0, 3))
    for spacing in (rows, torch.from_numpy(rows), 2.0):
        got = fastsdm.signed_distance(labels, spacing=spacing, classes=2, backend=backend)
        assert got.shape == (0, 2, 4, 5, 6)


@pytest.mark.parametrize(
    "classes",
    [
        np.int64(3),
        np.array(3),
        torch.tensor(3, dtype=torch.uint8),
        [np.uint8(0), torch.tensor(1), 2],
        np.arange(3),
        torch.unique(torch.tensor([2, 0, 1, 1])),
    ],
)
def test_integers_of_numpy_and_torch_name_classes(mask, classes) -> None:
    labels = mask.astype(np.int16) * 2
    got = fastsdm.signed_distance(labels, classes=classes, spatial_dims=np.int32(3))
    np.testing.assert_array_equal(got, fastsdm.signed_distance(labels, classes=[0, 1, 2]))


@pytest.mark.parametrize("backend", ["native", "scipy", "torch"])
@pytest.mark.parametrize("spacing", [2.0, (3.0, 0.8, 0.8), [[3.0, 0.8, 0.8]], np.array([[3.0, 0.8, 0.8]])])
def test_torch_defaults_change_nothing(mask, backend, spacing) -> None:
    labels = torch.from_numpy(mask)[None]
    settings = {"spacing": spacing, "backend": backend, "empty": "max"}
    want = fastsdm.signed_distance(labels, **settings)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    torch.set_default_device("meta")
    try:
        got = fastsdm.signed_distance(labels, **settings)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(before)
    assert got.device.type == "cpu"
    assert torch.equal(got, want)
