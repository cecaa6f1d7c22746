"""Bad input to nearest, nearest_label and instance_distance: argument, rule and value in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fastsdm

FUNCTIONS: list[Any] = [fastsdm.nearest, fastsdm.nearest_label, fastsdm.instance_distance]
NAMES = dict(zip(FUNCTIONS, ("target", "labels", "labels"), strict=True))
LABELS = np.ones((2, 3, 4, 5), np.uint8)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([[1, 0]], TypeError, "must be a torch tensor, a numpy array or a cupy array, got list"),
        (None, TypeError, "must be a torch tensor, .* got NoneType"),
        (LABELS.astype(complex), TypeError, "must hold booleans, integers or floats, got dtype complex128"),
        (torch.zeros(3, 4, 5, dtype=torch.complex64), TypeError, "must hold .* got dtype torch.complex64"),
        (LABELS.astype(object), TypeError, "must hold .* got dtype object"),
        (LABELS.astype(np.longdouble), TypeError, "must hold .* got dtype"),
        (LABELS[0, 0], ValueError, r"must have at least 3 axes for spatial_dims=3, got shape \(4, 5\)"),
        (np.float32(1), TypeError, "must be a torch tensor, .* got float32"),
        (np.full((3, 4, 5), np.nan), ValueError, "must not contain NaN"),
        (torch.full((3, 4, 5), torch.nan), ValueError, "must not contain NaN"),
    ],
)
def test_labels(function, labels, error, message) -> None:
    with pytest.raises(error, match=f"^{NAMES[function]}: {message}"):
        function(labels)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"spatial_dims": 1}, ValueError, "spatial_dims: must be 2 or 3, got 1"),
        ({"spatial_dims": 4}, ValueError, "spatial_dims: must be 2 or 3, got 4"),
        ({"spatial_dims": 3.0}, TypeError, "spatial_dims: must be an integer, got 3.0"),
        ({"spatial_dims": True}, TypeError, "spatial_dims: must be an integer, got True"),
        ({"spatial_dims": np.bool_(True)}, TypeError, "spatial_dims: must be an integer, got .*True"),
        ({"spatial_dims": None}, TypeError, "spatial_dims: must be an integer, got None"),
        ({"spatial_dims": "3"}, TypeError, "spatial_dims: must be an integer, got '3'"),
        ({"spacing": 0}, ValueError, "spacing: must be positive and finite, got 0.0"),
        ({"spacing": (1, -1, 1)}, ValueError, "spacing: must be positive and finite, got -1.0"),
        ({"spacing": float("nan")}, ValueError, "spacing: must be positive and finite, got nan"),
        ({"spacing": (1, 2)}, ValueError, r"spacing: must be a number, 3 numbers .* got shape \(2,\)"),
        ({"spacing": np.ones((3, 3))}, ValueError, r"spacing: .* leading axes \(2,\); got shape \(3, 3\)"),
        ({"spacing": True}, TypeError, "spacing: must be a number or numbers, got True"),
        ({"spacing": "fine"}, TypeError, "spacing: must be a number or numbers, got 'fine'"),
        ({"spacing": None}, TypeError, "spacing: .* got None"),
        ({"max_distance": 0}, ValueError, "max_distance: must be positive and finite, got 0"),
        ({"max_distance": -1.5}, ValueError, "max_distance: must be positive and finite, got -1.5"),
        ({"max_distance": float("nan")}, ValueError, "max_distance: must be positive and finite, got nan"),
        ({"max_distance": float("inf")}, ValueError, "max_distance: must be positive and finite, got inf"),
        ({"max_distance": True}, TypeError, "max_distance: must be None or a number, got bool"),
        ({"max_distance": "far"}, TypeError, "max_distance: must be None or a number, got str"),
        ({"backend": None}, TypeError, "backend: must be 'auto' or the name of a backend, got None"),
        ({"backend": "fast"}, ValueError, "backend: must be 'auto' or one of .* got 'fast'"),
        ({"backend": "jump-flooding"}, fastsdm.BackendUnavailableError, "it does not compute"),
    ],
)
def test_arguments(function, arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        function(LABELS, **arguments)


@pytest.mark.parametrize("function", [fastsdm.nearest_label, fastsdm.instance_distance])
@pytest.mark.parametrize(
    ("background", "error", "message"),
    [
        (True, TypeError, "background: must be an integer, got True"),
        (np.bool_(True), TypeError, "background: must be an integer, got .*True"),
        (0.0, TypeError, "background: must be an integer, got 0.0"),
        (None, TypeError, "background: must be an integer, got None"),
        (-1, ValueError, r"background: must fit the labels' dtype torch.uint8 \(0 to 255\), got -1"),
        (256, ValueError, "background: must fit .* got 256"),
    ],
)
def test_background(function, background, error, message) -> None:
    with pytest.raises(error, match=message):
        function(LABELS, background=background)


@pytest.mark.parametrize("function", [fastsdm.nearest_label, fastsdm.instance_distance])
def test_labels_that_are_no_whole_numbers(function) -> None:
    with pytest.raises(ValueError, match=r"labels: float label maps must hold whole numbers, got 0\.5"):
        function(np.full((3, 4, 5), 0.5))
    with pytest.raises(ValueError, match=r"labels: .* whole numbers up to 9007199254740992, got 1e\+300"):
        function(np.full((3, 4, 5), 1e300))


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (0, ValueError, "classes: must be at least 1, got 0"),
        ([], ValueError, "classes: must name at least one"),
        ([1, 1], ValueError, r"classes: must not name a label value twice, got \[1, 1\]"),
        ([256], ValueError, r"classes: .* dtype torch.uint8 \(0 to 255\), got 256"),
        (True, TypeError, "classes: .* got bool"),
        ([True], TypeError, "classes: must hold integers, got True"),
        (1.5, TypeError, "classes: .* got float"),
        ("12", TypeError, "classes: .* got str"),
    ],
)
def test_classes(classes, error, message) -> None:
    with pytest.raises(error, match=message):
        fastsdm.nearest(LABELS, classes=classes)
    with pytest.raises(ValueError, match=r"target: .* whole numbers, got 1\.5"):
        fastsdm.nearest(np.full((3, 4, 5), 1.5), classes=2)


@pytest.mark.parametrize("border", [None, 1, "yes"])
def test_black_border(border) -> None:
    with pytest.raises(TypeError, match=f"black_border: must be True or False, got {border!r}"):
        fastsdm.instance_distance(LABELS, black_border=border)


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 3, 4, 5), (2, 0, 0, 0)])
def test_no_voxels(shape) -> None:
    """No error: an empty result, its arguments checked all the same."""
    empty = np.zeros(shape, np.int16)
    assert fastsdm.nearest(empty).shape == (*shape[:-3], 3, *shape[-3:])
    assert fastsdm.nearest(empty, classes=2).shape == (*shape[:-3], 2, 3, *shape[-3:])
    assert fastsdm.nearest_label(empty).shape == fastsdm.instance_distance(empty).shape == shape
    if 0 not in shape[:-3]:  # there is a sample, and with it a spacing
        for function in FUNCTIONS:
            with pytest.raises(ValueError, match="spacing: must be positive"):
                function(empty, spacing=-1)


def test_negative_labels_are_labels() -> None:
    labels = np.zeros((1, 3, 9), np.int8)
    labels[..., 0], labels[..., 8] = -3, -128  # and 0 between them
    assert fastsdm.nearest_label(labels)[0, 0].tolist() == [-3] * 5 + [-128] * 4
    assert fastsdm.instance_distance(labels, background=-3)[0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 1]
    assert (fastsdm.nearest(labels, classes=[-128])[0, 2, ..., :8] == 8).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_nearest_label_of_large_unsigned_labels(dtype) -> None:
    largest = np.iinfo(dtype).max
    labels = np.array([[[1, largest, largest, largest, 7]]], dtype)
    got = fastsdm.nearest_label(labels, background=int(largest))
    assert got.dtype == dtype
    assert got.tolist() == [[[1, 1, 1, 7, 7]]]
    assert fastsdm.nearest_label(got).tolist() == got.tolist()


def test_resampled_float_labels_count_as_the_next_whole_number() -> None:
    labels = np.array([[[2.9995, 0.0004, 0, 0, 4.0005]]], np.float32)
    whole = labels.round().astype(int)
    np.testing.assert_array_equal(
        fastsdm.nearest(labels, classes=[3, 4]), fastsdm.nearest(whole, classes=[3, 4])
    )
    np.testing.assert_array_equal(fastsdm.nearest_label(labels).round(), fastsdm.nearest_label(whole))
    np.testing.assert_array_equal(fastsdm.instance_distance(labels), fastsdm.instance_distance(whole))


def test_a_float_mask_is_that_of_a_map() -> None:
    mask = np.array([[[0.2, 0.5, 0.6, 1.0, 0.0]]], np.float32)
    np.testing.assert_array_equal(fastsdm.nearest(mask), fastsdm.nearest(mask > 0.5))
    np.testing.assert_array_equal(fastsdm.signed_distance(mask), fastsdm.signed_distance(mask > 0.5))
