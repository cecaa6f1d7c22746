"""Region plus boundary under a schedule, deep supervision, and how losses print and travel."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import fastsdm
from fastsdm import losses
from fastsdm.losses._base import DistanceMapLoss
from fastsdm.schedules import Constant, Increase, Rebalance
from tests.losses.cases import label_map, logits
from tests.losses.test_targets import every_loss

CLASSES = 3


def cross_entropy(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(prediction, target)


def test_region_and_boundary_are_weighed_by_the_schedule() -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES).requires_grad_()
    boundary = losses.BoundaryLoss(softmax=True)
    loss = losses.RegionBoundaryLoss(cross_entropy, boundary, Rebalance(start=0.1, end=0.9, steps=2))
    region_value, boundary_value = cross_entropy(prediction, labels), boundary(prediction, labels)
    for alpha in (0.1, 0.5, 0.9, 0.9):
        value = loss(prediction, labels)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, (1 - alpha) * region_value + alpha * boundary_value)
        assert loss.schedule.weights == pytest.approx((1 - alpha, alpha))
        loss.schedule.step()
    loss(prediction, labels).backward()
    assert prediction.grad.isfinite().all()


def test_keywords_reach_the_boundary_loss() -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    ignored = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    boundary = losses.BoundaryLoss(softmax=True)
    loss = losses.RegionBoundaryLoss(lambda _, __: torch.zeros(()), boundary, Constant(2.0))
    for keywords in (
        {"spacing": 3.0},
        {"distance_map": torch.rand(3, CLASSES, *labels.shape[1:])},
        {"ignore_mask": ignored},
    ):
        expected = 2 * boundary(prediction, labels, **keywords)
        torch.testing.assert_close(loss(prediction, labels, **keywords), expected)
        assert not torch.allclose(loss(prediction, labels), expected)


def test_the_boundary_loss_may_be_componentwise() -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    boundary = losses.ComponentwiseLoss(losses.BoundaryLoss(softmax=True))
    loss = losses.RegionBoundaryLoss(lambda _, __: torch.zeros(()), boundary, Constant(2.0))
    for keywords in ({}, {"spacing": 3.0}, {"ignore_mask": labels == 1}):
        expected = 2 * boundary(prediction, labels, **keywords)
        torch.testing.assert_close(loss(prediction, labels, **keywords), expected)


def test_checkpoints_hold_the_schedule() -> None:
    def new() -> losses.RegionBoundaryLoss:
        return losses.RegionBoundaryLoss(cross_entropy, losses.BoundaryLoss(softmax=True), Increase())

    trained, resumed = new(), new()
    for _ in range(7):
        trained.schedule.step()
    resumed.load_state_dict(trained.state_dict())
    assert resumed.schedule.weights == trained.schedule.weights != new().schedule.weights
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    assert torch.equal(resumed(prediction, labels), trained(prediction, labels))


def test_region_boundary_loss_refuses() -> None:
    boundary = losses.BoundaryLoss()
    with pytest.raises(TypeError, match="region: must be callable, got int"):
        losses.RegionBoundaryLoss(3, boundary)
    with pytest.raises(TypeError, match="boundary: must be a torch module, got function"):
        losses.RegionBoundaryLoss(cross_entropy, cross_entropy)
    with pytest.raises(TypeError, match=r"schedule: must be one of fastsdm.schedules, got float"):
        losses.RegionBoundaryLoss(cross_entropy, boundary, 0.5)
    assert losses.RegionBoundaryLoss(cross_entropy, boundary).schedule.weights == (1.0, 0.01)


def scales(labels: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Outputs and targets at full, half and quarter size; the first axis is halved once only."""
    targets = [labels, labels[:, ::2, ::2, ::2], labels[:, ::2, ::4, ::4]]
    return [logits(target, CLASSES, seed=i) for i, target in enumerate(targets)], targets


@pytest.mark.parametrize("spacing", [None, [3.0, 1.0, 0.5]])
def test_deep_supervision_scales_the_spacing(spacing: list[float] | None) -> None:
    outputs, targets = scales(label_map(3)[:, :8, :8, :4])
    inner = losses.BoundaryLoss(softmax=True, spacing=2.0)
    loss = losses.DeepSupervision(inner, weights=[0.5, 0.3, 0.2])
    step = torch.tensor([2.0, 2.0, 2.0] if spacing is None else spacing)
    factors = torch.tensor([[1, 1, 1], [2, 2, 2], [2, 4, 4]])
    expected = sum(
        weight * inner(output, target, spacing=step * factor)
        for weight, output, target, factor in zip(loss.weights, outputs, targets, factors, strict=True)
    )
    torch.testing.assert_close(loss(outputs, targets, spacing=spacing), expected)


def test_deep_supervision_takes_spacing_per_sample_and_wraps_compound_losses() -> None:
    outputs, targets = scales(label_map(3)[:, :8, :8, :4])
    inner = losses.RegionBoundaryLoss(cross_entropy, losses.BoundaryLoss(softmax=True, spacing=2.0))
    loss = losses.DeepSupervision(inner)
    assert loss(outputs, targets).isfinite()
    rows = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [0.5, 0.5, 2.0]])
    factors = torch.tensor([[1, 1, 1], [2, 2, 2], [2, 4, 4]])
    expected = sum(
        weight * inner(output, target, spacing=rows * factor)
        for weight, output, target, factor in zip(
            (4 / 7, 2 / 7, 1 / 7), outputs, targets, factors, strict=True
        )
    )
    torch.testing.assert_close(loss(outputs, targets, spacing=rows), expected)


def test_deep_supervision_resamples_a_single_target() -> None:
    labels = label_map(3)[:, :8, :8, :4]
    outputs, _ = scales(labels)
    shapes = [output.shape[2:] for output in outputs]
    nearest = [
        torch.nn.functional.interpolate(
            labels[:, None].float(), size=tuple(shape), mode="nearest-exact"
        ).long()
        for shape in shapes
    ]
    loss = losses.DeepSupervision(losses.BoundaryLoss(softmax=True))
    expected = loss(outputs, nearest)
    for target in (labels, labels[:, None], labels.to(torch.uint8), labels.numpy()):
        torch.testing.assert_close(loss(outputs, target), expected)
    ignored = labels == 1
    masks = [level == 1 for level in nearest]
    torch.testing.assert_close(
        loss(outputs, labels, ignore_mask=ignored), loss(outputs, nearest, ignore_mask=masks)
    )


def test_deep_supervision_leaves_out_what_weighs_nothing() -> None:
    outputs, targets = scales(label_map(3)[:, :8, :8, :4])
    inner = losses.BoundaryLoss(softmax=True)
    loss = losses.DeepSupervision(inner, weights=[1.0, 0.0, 0.0])
    maps = [inner.target_map(targets[0], CLASSES), None, None]
    value = loss(outputs, [targets[0], None, None], distance_map=maps)
    torch.testing.assert_close(value, inner(outputs[0], targets[0]))


def test_deep_supervision_refuses() -> None:
    outputs, targets = scales(label_map(3)[:, :8, :8, :4])
    inner = losses.BoundaryLoss(softmax=True)
    for weights in ([-1.0, 2.0], [0.0, 0.0], [1.0, float("inf")], [float("nan")], []):
        message = "weights: must be at least 0 and finite, and one of them positive, got"
        with pytest.raises(ValueError, match=f"{message} {re.escape(str(weights))}"):
            losses.DeepSupervision(inner, weights)
    with pytest.raises(TypeError, match="loss: must have a spacing, as fastsdm's have, got CrossEntropyLoss"):
        losses.DeepSupervision(torch.nn.CrossEntropyLoss())
    loss = losses.DeepSupervision(inner)
    with pytest.raises(ValueError, match=r"target: must be one per output \(3\), got 2"):
        loss(outputs, targets[:2])
    with pytest.raises(ValueError, match=r"distance_map: must be one per output \(3\), got 1"):
        loss(outputs, targets, distance_map=[torch.rand(1)])
    with pytest.raises(ValueError, match=r"input: must hold one output per weight \(2\), got 3"):
        losses.DeepSupervision(inner, [1.0, 1.0])(outputs, targets)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input": None}, "input: must be a sequence of predictions, got NoneType"),
        ({"input": []}, r"input: must hold at least one prediction, got \[\]"),
        ({"input": [None]}, "input: must hold tensors, got NoneType"),
        (
            {"input": [torch.rand(1, 3, 8, 8, 4), torch.rand(1, 3, 4, 4)]},
            r"input: must hold predictions .* all with as many axes, got shapes \[\(1, 3, 8, 8, 4\), \(1, 3,",
        ),
        ({"input": [torch.rand(3, 8, 8)]}, r"input: must hold predictions .* got shapes \[\(3, 8, 8\)\]"),
        ({"target": None}, "target: must be a torch tensor, .* got NoneType"),
        (
            {"target": torch.zeros(4)},
            r"target: must have batch size and .*\(3, 3, 8, 8, 4\), got \(4,\)",
        ),
        ({"spacing": [1.0, 2.0]}, r"spacing: must be a number, 3 numbers .* got shape \(2,\)"),
        ({"spacing": torch.ones(2, 3)}, r"spacing: must be a number, 3 numbers .* got shape \(2, 3\)"),
        ({"spacing": "wide"}, "spacing: must be a number or numbers, got 'wide'"),
        ({"distance_map": torch.rand(3, 3, 8, 8, 4)}, "distance_map: must be a sequence, got Tensor"),
        ({"ignore_mask": 3}, "ignore_mask: must be a torch tensor, .* got int"),
    ],
)
def test_deep_supervision_names_what_is_wrong(changed: dict[str, Any], message: str) -> None:
    outputs, targets = scales(label_map(3)[:, :8, :8, :4])
    loss = losses.DeepSupervision(losses.BoundaryLoss(softmax=True))
    with pytest.raises((TypeError, ValueError), match=message):
        loss(**{"input": outputs, "target": targets[0], **changed})


@every_loss
def test_losses_pickle_copy_and_save(make: Callable[..., DistanceMapLoss]) -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    loss = make(softmax=True, normalize="max", spacing=[1.0, 2.0, 0.5], ignore_index=2)
    expected = loss(prediction, labels)
    for twin in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert torch.equal(twin(prediction, labels), expected)
    loss.load_state_dict(loss.state_dict())
    assert loss.state_dict() == {}


@every_loss
def test_repr_builds_the_loss_again(make: Callable[..., DistanceMapLoss]) -> None:
    loss = make(softmax=True, reduction="sum", spacing=[1.0, 2.0, 0.5], max_distance=7.5, ignore_index=4)
    twin = eval(repr(loss), vars(losses))
    assert repr(twin) == repr(loss)
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    assert torch.equal(twin(prediction, labels), loss(prediction, labels))
    for name in inspect.signature(make).parameters:
        assert f"{name}=" in repr(loss)
    assert "max_distance=7.5" in repr(loss)


def test_reprs_of_compound_losses_show_their_settings() -> None:
    loss = losses.RegionBoundaryLoss(cross_entropy, losses.BoundaryLoss(), Rebalance(steps=50))
    assert "Rebalance(start=0.01, end=0.99, steps=50, shape='linear')" in repr(loss)
    assert "cross_entropy" in repr(loss)
    assert "weights=[1.0, 0.5]" in repr(losses.DeepSupervision(loss, [1, 0.5]))


def test_moves_class_weights_along() -> None:
    loss = losses.GeneralizedSurfaceLoss(class_weights=[0.25, 0.75])
    assert loss.to("meta").class_weights.device.type == "meta"
    assert "class_weights=[0.25, 0.75]" in repr(losses.GeneralizedSurfaceLoss(class_weights=[0.25, 0.75]))


def test_prefetched_maps_are_taken() -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    loss = losses.BoundaryLoss(softmax=True)
    pending = fastsdm.prefetch(labels, classes=CLASSES)
    torch.testing.assert_close(loss(prediction, labels, distance_map=pending), loss(prediction, labels))
