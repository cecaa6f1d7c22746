"""Every loss against its formula, written out in numpy on scipy's distances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastsdm import losses, testing
from tests.losses.cases import label_map, logits, one_hot

SPACINGS = {
    "unit": 1.0,
    "per axis": [3.0, 0.8, 0.5],
    "per sample": [[1.0, 1.0, 1.0], [2.0, 0.5, 1.5], [0.7, 0.7, 3.0]],
}
CLASSES = 3


def rows(spacing: object) -> np.ndarray:
    return np.broadcast_to(np.asarray(spacing, dtype=np.float64), (3, 3))


def plain_maps(masks: np.ndarray, spacing: object) -> np.ndarray:
    """Plain maps ``[B, K, *S]`` of masks of that shape; 0 where a class is absent or everywhere."""
    per_class = [
        testing.reference_signed_distance(masks[:, k], [1], rows(spacing))[:, 0]
        for k in range(masks.shape[1])
    ]
    maps = np.stack(per_class, axis=1)
    return np.where(np.isinf(maps), 0.0, maps)


def kervadec_maps(masks: np.ndarray, spacing: object) -> np.ndarray:
    maps = plain_maps(masks, spacing)
    h = rows(spacing).min(axis=1).reshape(-1, 1, 1, 1, 1)
    return maps + h * (maps < 0)


def case() -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Labels, logits, one-hot masks and softmax probabilities in float64."""
    labels = label_map(3, classes=CLASSES)
    prediction = logits(labels, CLASSES).double()
    return labels, prediction, one_hot(labels, CLASSES).numpy(), torch.softmax(prediction, 1).numpy()


@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
@pytest.mark.parametrize("handed_to", ["constructor", "forward"])
def test_boundary_loss(spacing: object, handed_to: str) -> None:
    labels, prediction, masks, p = case()
    expected = (p * kervadec_maps(masks, spacing)).mean(axis=(2, 3, 4))
    if handed_to == "constructor":
        value = losses.BoundaryLoss(softmax=True, reduction="none", spacing=spacing)(prediction, labels)
    else:
        loss = losses.BoundaryLoss(softmax=True, reduction="none", spacing=17.0)
        value = loss(prediction, labels, spacing=spacing)
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("convention", ["plain", "kervadec-literal"])
def test_boundary_loss_in_other_conventions(convention: str) -> None:
    labels, prediction, masks, p = case()
    spacing = SPACINGS["per axis"]
    maps = plain_maps(masks, spacing)
    maps = maps + (maps < 0) * (convention == "kervadec-literal")
    loss = losses.BoundaryLoss(softmax=True, spacing=spacing, convention=convention)
    np.testing.assert_allclose(loss(prediction, labels).item(), (p * maps).mean(), rtol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
@pytest.mark.parametrize("alpha", [1.0, 2.0, 2.5])
@pytest.mark.parametrize("one_sided", [False, True])
def test_hausdorff_loss(spacing: object, alpha: float, one_sided: bool) -> None:
    labels, prediction, masks, p = case()
    weights = np.abs(plain_maps(masks, spacing)) ** alpha
    if not one_sided:
        weights = weights + np.abs(plain_maps(p > 0.5, spacing)) ** alpha
    expected = ((p - masks) ** 2 * weights).mean(axis=(2, 3, 4))
    arguments = {"softmax": True, "include_background": True, "one_sided": one_sided, "spacing": spacing}
    value = losses.HausdorffDTLoss(alpha, reduction="none", **arguments)(prediction, labels)
    np.testing.assert_allclose(value.flatten(1).numpy(), expected, rtol=1e-6)
    logarithm = losses.LogHausdorffDTLoss(alpha, **arguments)(prediction, labels)
    np.testing.assert_allclose(logarithm.item(), math.log(expected.mean() + 1), rtol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
@pytest.mark.parametrize("class_weights", [None, [0.1, 0.3, 0.6]])
@pytest.mark.parametrize("batch", [False, True])
def test_generalized_surface_loss(spacing: object, class_weights: list[float] | None, batch: bool) -> None:
    labels, prediction, masks, p = case()
    maps = kervadec_maps(masks, spacing)
    w = np.asarray(class_weights or [1.0, 1.0, 1.0])
    kept = w * ((maps * (1 - (masks + p))) ** 2).sum(axis=(2, 3, 4))
    energy = w * (maps**2).sum(axis=(2, 3, 4))
    if batch:
        expected = 1 - kept.sum() / energy.sum()
    else:
        kept, energy = kept.sum(axis=1), energy.sum(axis=1)
        assert energy[2] == 0  # one class fills that sample: nothing to lose
        expected = np.append(1 - kept[:2] / energy[:2], 0.0)
    loss = losses.GeneralizedSurfaceLoss(
        softmax=True, reduction="none", batch=batch, class_weights=class_weights, spacing=spacing
    )
    np.testing.assert_allclose(loss(prediction, labels).numpy(), expected, rtol=1e-6)


def test_generalized_surface_loss_reductions_and_bounds() -> None:
    labels, prediction, masks, _ = case()
    each = losses.GeneralizedSurfaceLoss(softmax=True, reduction="none")(prediction, labels)
    assert each.shape == (3,)
    for reduction in ("mean", "sum"):
        value = losses.GeneralizedSurfaceLoss(softmax=True, reduction=reduction)(prediction, labels)
        torch.testing.assert_close(value, getattr(each, reduction)())
    target = torch.from_numpy(masks)
    loss = losses.GeneralizedSurfaceLoss(reduction="none")
    assert loss(target, labels).abs().max() == 0
    torch.testing.assert_close(loss(1 - target, labels)[:2], torch.ones(2))


def test_inverse_frequency() -> None:
    weights = losses.GeneralizedSurfaceLoss.inverse_frequency([100, 50, 25])
    assert weights == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    with pytest.raises(ValueError, match=r"voxel_counts: must be positive and finite, got \[3, 0\]"):
        losses.GeneralizedSurfaceLoss.inverse_frequency([3, 0])


@pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)
def test_regression_loss(spacing: object) -> None:
    labels, prediction, masks, _ = case()
    y, p = kervadec_maps(masks, spacing), np.tanh(prediction.numpy())
    axes = (2, 3, 4)
    outer, inner = y.max(axis=axes, keepdims=True), -y.min(axis=axes, keepdims=True)
    y = np.where(y > 0, y / np.where(outer > 0, outer, 1), y / np.where(inner > 0, inner, 1))
    assert y[0].max() == 1
    assert y[0].min() == -1
    overlap = (y * p).sum(axis=axes)
    product = -overlap / (overlap + (p**2).sum(axis=axes) + (y**2).sum(axis=axes))
    expected = np.abs(y - p).mean(axis=axes) + product
    loss = losses.SDMRegressionLoss(other_act=torch.tanh, reduction="none", spacing=spacing)
    np.testing.assert_allclose(loss(prediction, labels).numpy(), expected, rtol=1e-5)


def test_regression_loss_at_its_extremes() -> None:
    labels = label_map(3, batch=1)
    loss = losses.SDMRegressionLoss(reduction="none")
    truth = loss.target_map(labels, CLASSES)
    torch.testing.assert_close(loss(truth, labels), torch.full((1, CLASSES), -1 / 3))
    l1 = 2 * truth.abs().mean(dim=(2, 3, 4))
    torch.testing.assert_close(loss(-truth, labels), l1 + 1)
    absent = torch.zeros(1, CLASSES, 4, 4, 4)
    assert loss(absent, absent).abs().max() == 0


def test_normalization() -> None:
    labels = label_map(3)
    maps = losses.BoundaryLoss().target_map(labels, CLASSES)
    largest = maps.abs().amax(dim=(1, 2, 3, 4), keepdim=True)
    assert largest[2] == 0
    expected = maps / largest.clamp(min=1e-9)
    torch.testing.assert_close(losses.BoundaryLoss(normalize="max").target_map(labels, CLASSES), expected)
    unit = losses.BoundaryLoss(normalize="unit").target_map(labels, CLASSES)
    assert unit[0].amax(dim=(1, 2, 3)).tolist() == [1, 1, 1]
    assert unit[0].amin(dim=(1, 2, 3)).tolist() == [-1, -1, -1]
    assert torch.equal(unit.sign(), maps.sign())
    assert unit[2].abs().max() == 0


def test_hausdorff_normalizes_both_maps() -> None:
    labels, prediction, masks, p = case()
    expected = 0.0
    weights = np.zeros_like(masks, dtype=np.float64)
    for mask in (masks, p > 0.5):
        distances = np.abs(plain_maps(mask, 1.0))
        largest = distances.max(axis=(1, 2, 3, 4), keepdims=True)
        weights += (distances / np.where(largest > 0, largest, 1)) ** 2
    expected = ((p - masks) ** 2 * weights).mean()
    loss = losses.HausdorffDTLoss(softmax=True, include_background=True, normalize="max")
    np.testing.assert_allclose(loss(prediction, labels).item(), expected, rtol=1e-6)


def test_max_distance_clamps_both_maps() -> None:
    labels, prediction, masks, p = case()
    limit = 1.5
    boundary = losses.BoundaryLoss(softmax=True, max_distance=limit)
    expected = (p * kervadec_maps(masks, 1.0).clip(-limit, limit)).mean()
    np.testing.assert_allclose(boundary(prediction, labels).item(), expected, rtol=1e-6)
    weights = sum(np.abs(plain_maps(mask, 1.0)).clip(0, limit) ** 2 for mask in (masks, p > 0.5))
    hausdorff = losses.HausdorffDTLoss(softmax=True, include_background=True, max_distance=limit)
    expected = ((p - masks) ** 2 * weights).mean()
    np.testing.assert_allclose(hausdorff(prediction, labels).item(), expected, rtol=1e-6)


def test_empty_policies() -> None:
    labels = torch.zeros(1, 4, 5, 6, dtype=torch.int64)
    prediction = torch.full((1, 2, 4, 5, 6), 0.25)
    diagonal = math.sqrt(16 + 25 + 36)
    for empty, limit, weight in (
        ("zero", None, 0.0),
        ("max", None, diagonal),
        ("max", 3.0, 3.0),
        ("inf", 3.0, 3.0),
    ):
        loss = losses.BoundaryLoss(reduction="none", empty=empty, max_distance=limit)
        expected = torch.tensor([[-0.25 * weight, 0.25 * weight]])
        torch.testing.assert_close(loss(prediction, labels), expected)
    with pytest.raises(ValueError, match=r"empty='raise'.*class 0 of sample 0 has no outside voxel"):
        losses.BoundaryLoss(empty="raise")(prediction, labels)
