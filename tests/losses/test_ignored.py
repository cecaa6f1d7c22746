"""Ignored voxels neither supervise nor shape the map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fastsdm import losses
from fastsdm.losses._base import DistanceMapLoss
from tests.losses.cases import label_map, logits, one_hot
from tests.losses.test_targets import every_loss

CLASSES = 3
IGNORED = 255


def scattered(shape: torch.Size, *, share: float = 0.3) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) < share


def brute_force_map(inside: np.ndarray, ignored: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The kervadec map of one mask by looking at every pair of voxels that count."""
    points = np.argwhere(np.ones_like(inside)) * spacing
    between = np.linalg.norm(points[:, None] - points[None], axis=-1)
    is_inside, counts = inside.ravel(), ~ignored.ravel()

    def nearest(sources: np.ndarray) -> np.ndarray:
        return between[:, sources].min(axis=1) if sources.any() else np.zeros(len(points))

    outside_distance = nearest(is_inside & counts)
    inside_distance = nearest(~is_inside & counts)
    depth = np.where(inside_distance > 0, inside_distance - spacing.min(), 0)
    return (np.where(is_inside, -depth, outside_distance) * counts).reshape(inside.shape)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.5, 1.0)])
def test_map_by_brute_force(spacing: tuple[float, ...]) -> None:
    labels = label_map(3)
    ignored = scattered(labels.shape)
    marked = torch.where(ignored, IGNORED, labels)
    loss = losses.BoundaryLoss(ignore_index=IGNORED, spacing=spacing)
    maps = loss.target_map(marked, CLASSES)
    for sample in range(3):
        for k in range(CLASSES):
            expected = brute_force_map(
                (labels[sample] == k).numpy(), ignored[sample].numpy(), np.asarray(spacing)
            )
            np.testing.assert_allclose(maps[sample, k], expected, rtol=1e-6, atol=1e-6)


@every_loss
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_an_ignored_border_changes_nothing(make: Callable[..., DistanceMapLoss], reduction: str) -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    padding = (2, 1, 0, 3, 1, 1)
    padded_labels = torch.nn.functional.pad(labels, padding, value=IGNORED)
    padded = torch.nn.functional.pad(prediction, padding, value=5.0).requires_grad_()
    settings = {"softmax": True, "include_background": True, "reduction": reduction}
    expected = make(**settings)(prediction, labels)
    value = make(**settings, ignore_index=IGNORED)(padded, padded_labels)
    torch.testing.assert_close(value, expected)
    value.sum().backward()
    ignored = (padded_labels == IGNORED).unsqueeze(1).expand_as(padded)
    assert padded.grad[ignored].abs().max() == 0
    assert padded.grad[~ignored].abs().max() > 0


@every_loss
def test_index_and_mask_are_one_and_add_up(make: Callable[..., DistanceMapLoss]) -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    first, second = scattered(labels.shape, share=0.2), scattered(labels.shape, share=0.4)
    plain, with_index = make(softmax=True), make(softmax=True, ignore_index=IGNORED)
    expected = plain(prediction, labels, ignore_mask=second)
    assert not torch.allclose(expected, plain(prediction, labels))
    marked = torch.where(first, IGNORED, labels)
    torch.testing.assert_close(with_index(prediction, torch.where(second, IGNORED, labels)), expected)
    torch.testing.assert_close(with_index(prediction, marked, ignore_mask=second), expected)
    channels = one_hot(labels, CLASSES)
    for mask in (second, second.unsqueeze(1), second.float(), second.to(torch.uint8)):
        torch.testing.assert_close(plain(prediction, channels, ignore_mask=mask), expected)


@every_loss
def test_what_is_predicted_or_labelled_at_ignored_voxels_is_of_no_account(
    make: Callable[..., DistanceMapLoss],
) -> None:
    labels = label_map(3)
    ignored = scattered(labels.shape)
    other_labels = torch.where(ignored, (labels + 1) % CLASSES, labels)
    prediction = torch.softmax(logits(labels, CLASSES), 1)
    other = torch.where(ignored.unsqueeze(1), prediction.roll(1, dims=1), prediction)
    loss = make()
    torch.testing.assert_close(
        loss(other, other_labels, ignore_mask=ignored), loss(prediction, labels, ignore_mask=ignored)
    )


@every_loss
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_values_that_are_not_finite_may_be_ignored(
    make: Callable[..., DistanceMapLoss], activation: str | None, wrong: float
) -> None:
    labels = label_map(3)
    ignored = scattered(labels.shape)
    prediction = torch.softmax(logits(labels, CLASSES), 1)
    broken = torch.where(ignored.unsqueeze(1), wrong, prediction).requires_grad_()
    targets = torch.where(ignored.unsqueeze(1), wrong, one_hot(labels, CLASSES))
    loss = make(include_background=True, **({activation: True} if activation else {}))
    value = loss(broken, targets, ignore_mask=ignored)
    torch.testing.assert_close(value, loss(prediction, labels, ignore_mask=ignored))
    value.backward()
    assert broken.grad.isfinite().all()


@every_loss
def test_a_sample_that_is_all_ignored_counts_nothing(make: Callable[..., DistanceMapLoss]) -> None:
    labels = torch.full((2, 4, 4, 4), IGNORED)
    prediction = torch.rand(2, CLASSES, 4, 4, 4, requires_grad=True)
    value = make(ignore_index=IGNORED)(prediction, labels)
    value.backward()
    assert value == 0
    assert prediction.grad.abs().max() == 0


def test_an_ignored_class_is_absent() -> None:
    labels = label_map(3)
    prediction = torch.softmax(logits(labels, CLASSES), 1)
    value = losses.BoundaryLoss(ignore_index=0)(prediction, labels)
    elsewhere = torch.where(labels == 0, IGNORED, labels)
    torch.testing.assert_close(value, losses.BoundaryLoss(ignore_index=IGNORED)(prediction, elsewhere))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool])
def test_an_index_the_labels_cannot_hold_finds_nothing(dtype: torch.dtype) -> None:
    labels = label_map(3, classes=2).to(dtype)
    prediction = torch.softmax(logits(labels.bool().long(), 2), 1)
    value = losses.BoundaryLoss(ignore_index=-1)(prediction, labels)
    torch.testing.assert_close(value, losses.BoundaryLoss()(prediction, labels))


@every_loss
@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_wide_unsigned_labels(make: Callable[..., DistanceMapLoss], dtype: torch.dtype) -> None:
    labels = label_map(3)
    prediction = torch.softmax(logits(labels, CLASSES), 1)
    labels[0, :4] = IGNORED
    loss = make(ignore_index=IGNORED)
    torch.testing.assert_close(loss(prediction, labels.to(dtype)), loss(prediction, labels))


def test_a_map_handed_in_is_masked_too() -> None:
    labels = label_map(3)
    prediction = torch.softmax(logits(labels, CLASSES), 1)
    ignored = scattered(labels.shape)
    loss = losses.BoundaryLoss()
    maps = loss.target_map(labels, CLASSES, ignore_mask=ignored)
    elsewhere = torch.where(ignored.unsqueeze(1), 99.0, maps)
    value = loss(prediction, labels, distance_map=elsewhere, ignore_mask=ignored)
    torch.testing.assert_close(value, loss(prediction, labels, ignore_mask=ignored))


@pytest.mark.parametrize("empty", ["max", "raise"])
def test_policies_see_only_voxels_that_count(empty: str) -> None:
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    labels[0, 0] = 1
    labels[0, 3] = IGNORED
    prediction = torch.rand(1, 2, 4, 4, 4)
    assert losses.BoundaryLoss(ignore_index=IGNORED, empty=empty)(prediction, labels).isfinite()
    all_one = torch.where(labels == 0, IGNORED, labels)  # class 1 wherever a voxel counts
    loss = losses.BoundaryLoss(ignore_index=IGNORED, empty=empty, max_distance=2.0)
    if empty == "raise":
        with pytest.raises(ValueError, match="has no"):
            loss(prediction, all_one)
    else:
        maps = loss.target_map(all_one, 2)
        assert torch.equal(maps[0, 1, 0], torch.full((4, 4), -2.0))
        assert torch.equal(maps[0, 0, 0], torch.full((4, 4), 2.0))
