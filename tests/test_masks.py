"""Masks of any integer type: inside are the labels above 0, and no pass over the labels comes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fastsdm
from fastsdm import _operator, _sdm, testing
from fastsdm._backends.native_axes import scan_axis
from fastsdm.metrics import compute_hausdorff_distance

SIGNED = ["int8", "int16", "int32", "int64"]
DTYPES = ["bool", "uint8", "uint16", "uint32", "uint64", *SIGNED]
BACKENDS = ["native", "scipy", "torch", "jump-flooding"]
NEAREST_BACKENDS = ["native", "scipy", "torch"]


def mask_of(dtype: str, shape: tuple[int, ...] = (9, 10, 37)) -> np.ndarray:
    """Of 0, 1, the largest label, and where it has them -1 and the smallest one."""
    values: list[Any] = [0, 1]
    if dtype != "bool":
        ends = np.iinfo(dtype)
        values += [ends.max] + ([-1, ends.min] if dtype in SIGNED else [])
    return np.random.default_rng(5).choice(np.array(values, dtype), shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("border", [False, True])
def test_map_of_a_mask(backend, dtype, border) -> None:
    mask = mask_of(dtype)
    expected = fastsdm.signed_distance(mask > 0, backend=backend, black_border=border)
    np.testing.assert_array_equal(
        fastsdm.signed_distance(mask, backend=backend, black_border=border), expected
    )


@pytest.mark.parametrize("dtype", SIGNED)
def test_map_of_a_mask_among_ignored_voxels(dtype) -> None:
    mask = mask_of(dtype)
    got = fastsdm.signed_distance(mask, ignore_index=-1)
    inside = np.where(mask == -1, 2, mask > 0)
    np.testing.assert_array_equal(got, fastsdm.signed_distance(inside, classes=[1], ignore_index=2)[0])


@pytest.mark.parametrize("dtype", SIGNED)
@pytest.mark.parametrize("fill", [0, -1])
def test_a_mask_without_a_label_above_0_is_empty(dtype, fill) -> None:
    mask = np.full((4, 5, 6), fill, dtype)
    assert (fastsdm.signed_distance(mask) == np.inf).all()
    with pytest.raises(ValueError, match="the mask of sample 0 has no inside voxel"):
        fastsdm.signed_distance(mask, empty="raise")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("border", [False, True])
def test_distance_transform_measures_negative_voxels(backend, dtype, border) -> None:
    mask = mask_of(dtype)
    expected = ndimage.distance_transform_edt(np.pad(mask, 1) if border else mask)
    if border:
        expected = expected[1:-1, 1:-1, 1:-1]
    got = fastsdm.distance_transform(mask, backend=backend, black_border=border)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 5, 6), (2, 0, 5, 6), (0, 4, 5, 6)])
def test_distance_transform_with_a_border_keeps_the_shape(shape) -> None:
    got = fastsdm.distance_transform(torch.ones(shape, dtype=torch.int8), black_border=True)
    assert got.shape == shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", NEAREST_BACKENDS)
def test_nearest_voxels_of_a_mask(backend, dtype) -> None:
    mask = mask_of(dtype)
    expected = fastsdm.nearest(mask > 0, backend=backend)
    np.testing.assert_array_equal(fastsdm.nearest(mask, backend=backend), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_axis_of_a_mask(dtype, axis) -> None:
    mask = mask_of(dtype)
    np.testing.assert_array_equal(scan_axis(mask, [None], axis), scan_axis(mask > 0, [1], axis))


@pytest.mark.parametrize("dtype", SIGNED)
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_surfaces_of_masks(backend, dtype) -> None:
    masks = torch.from_numpy(mask_of(dtype, (1, 2, 9, 10, 11)))
    reference = torch.from_numpy(testing.shells((1, 2, 9, 10, 11), classes=2)) > 0
    settings = {"include_background": True, "backend": backend}
    expected = compute_hausdorff_distance(masks > 0, reference, **settings)
    assert torch.equal(compute_hausdorff_distance(masks, reference, **settings), expected)


class Reads(TorchDispatchMode):
    """Operations that compute from the labels; those that only look at them in another shape do not count."""

    def __init__(self, labels: torch.Tensor) -> None:
        super().__init__()
        self.names: list[str] = []
        self._memory = labels.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if self._of_labels(args) and not self._of_labels(result):
            self.names.append(func.__name__)
        return result

    def _of_labels(self, values: Any) -> bool:
        tensors = [each for each in tree_leaves(values) if isinstance(each, torch.Tensor)]
        return any(each.untyped_storage().data_ptr() == self._memory for each in tensors)


@pytest.fixture
def transparent_operator(monkeypatch) -> None:
    """Show a dispatch mode what the operator does inside."""
    monkeypatch.setattr(_sdm, "signed_distance_operator", _operator._signed_distance)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "map": fastsdm.signed_distance,
    "map of classes": lambda labels, backend: fastsdm.signed_distance(labels, classes=[2], backend=backend),
    "transform": fastsdm.distance_transform,
    "nearest": fastsdm.nearest,
}


@pytest.mark.usefixtures("transparent_operator")
@pytest.mark.parametrize("dtype", ["uint8", *SIGNED])
@pytest.mark.parametrize(
    ("backend", "function"),
    [
        (backend, function)
        for backend in BACKENDS
        for function in FUNCTIONS
        if function != "nearest" or backend in NEAREST_BACKENDS
    ],
)
def test_labels_are_read_by_the_backend_alone(backend, function, dtype) -> None:
    """Natively by the kernel, elsewhere by the one comparison that finds a class."""
    labels = torch.from_numpy(mask_of(dtype))
    with Reads(labels) as reads:
        FUNCTIONS[function](labels, backend=backend)
    assert len(reads.names) == (0 if backend == "native" else 1), reads.names
