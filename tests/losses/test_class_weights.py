"""Weights of the classes, for all samples or per sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from fastsdm import losses
from fastsdm.losses._base import DistanceMapLoss
from tests.losses.cases import label_map, logits
from tests.losses.test_compound import cross_entropy, scales
from tests.losses.test_targets import LOSSES, every_loss

CLASSES = 3
LABELS = label_map(3)
PREDICTION = logits(LABELS, CLASSES)
ROWS = [[1.0, 0.0, 2.0], [0.5, 3.0, 0.0], [0.0, 1.0, 1.0]]
voxel_losses = pytest.mark.parametrize(
    "make", [losses.BoundaryLoss, losses.HausdorffDTLoss, losses.SDMRegressionLoss]
)
ALL = {"softmax": True, "include_background": True}


@voxel_losses
@pytest.mark.parametrize("weights", [ROWS[0], ROWS])
def test_values_are_multiplied_before_the_reduction(make, weights) -> None:
    each = make(**ALL, reduction="none")(PREDICTION, LABELS).flatten(1)
    weighed = each * torch.tensor(weights)
    given = {"class_weights": weights}
    torch.testing.assert_close(make(**ALL, **given)(PREDICTION, LABELS), weighed.mean())
    torch.testing.assert_close(make(**ALL, **given, reduction="sum")(PREDICTION, LABELS), weighed.sum())
    by_batch = make(**ALL, **given, reduction="sum", batch=True)(PREDICTION, LABELS)
    torch.testing.assert_close(by_batch, weighed.mean(dim=0).sum())
    none = make(**ALL, **given, reduction="none")(PREDICTION, LABELS)
    torch.testing.assert_close(none.flatten(1), weighed)
    if make is losses.HausdorffDTLoss:
        logarithm = losses.LogHausdorffDTLoss(**ALL, **given)(PREDICTION, LABELS)
        torch.testing.assert_close(logarithm, torch.log(weighed.mean() + 1))


@every_loss
def test_a_call_s_weights_replace_the_constructor_s(make: Callable[..., DistanceMapLoss]) -> None:
    expected = make(**ALL, class_weights=ROWS)(PREDICTION, LABELS)
    assert not torch.allclose(expected, make(**ALL)(PREDICTION, LABELS))
    other = make(**ALL, class_weights=[1.0, 1.0, 1.0])
    forms = (
        ROWS,
        np.array(ROWS),
        torch.tensor(ROWS),
        [torch.tensor(row) for row in ROWS],
        torch.tensor(ROWS).double(),
    )
    for weights in forms:
        assert torch.equal(other(PREDICTION, LABELS, class_weights=weights), expected)
    assert torch.equal(other.class_weights, torch.ones(3))


@pytest.mark.parametrize("make", [*LOSSES.values(), partial(losses.GeneralizedSurfaceLoss, per_class=True)])
def test_a_class_that_is_not_annotated_in_a_case(make: Callable[..., DistanceMapLoss]) -> None:
    """Whatever is predicted and labelled there, value and gradient are those of the other classes."""
    loss = make(sigmoid=True, include_background=True)
    weights = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    other = PREDICTION.clone()
    other[0, 2] += 1
    other.requires_grad_()
    channels = torch.nn.functional.one_hot(LABELS, 3).movedim(-1, 1)
    changed = channels.clone()
    changed[0, 2] = channels[0, 2].flip(0)
    value = loss(other, changed, class_weights=weights)
    torch.testing.assert_close(value, loss(PREDICTION, channels, class_weights=weights))
    value.backward()
    assert other.grad[0, 2].abs().max() == 0
    assert other.grad[0, :2].abs().max() > 0


def ratio(maps: np.ndarray, masks: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    energy = (maps**2).sum(axis=(2, 3, 4))
    return energy - ((maps * (1 - masks - p)) ** 2).sum(axis=(2, 3, 4)), energy


def surface_terms() -> tuple[np.ndarray, np.ndarray]:
    maps = losses.BoundaryLoss().target_map(LABELS, CLASSES).double().numpy()
    masks = torch.nn.functional.one_hot(LABELS, CLASSES).movedim(-1, 1).numpy()
    return ratio(maps, masks, torch.softmax(PREDICTION.double(), 1).numpy())


@pytest.mark.parametrize("weights", [None, ROWS[0], ROWS])
@pytest.mark.parametrize("batch", [False, True])
def test_surface_loss_of_ratios_per_class(weights, batch) -> None:
    lost, energy = surface_terms()
    w = np.broadcast_to(np.asarray(weights or [1.0, 1.0, 1.0]), (3, 3))
    if batch:
        lost, energy, w = (w * lost).sum(axis=0), (w * energy).sum(axis=0), w.sum(axis=0)
    ratios = lost / np.where(energy > 0, energy, 1)
    expected = (w * ratios).sum(axis=-1) / w.sum(axis=-1)
    loss = losses.GeneralizedSurfaceLoss(
        softmax=True, per_class=True, reduction="none", class_weights=weights, batch=batch
    )
    np.testing.assert_allclose(loss(PREDICTION, LABELS).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("batch", [False, True])
def test_surface_loss_of_one_ratio_with_weights_per_sample(batch) -> None:
    lost, energy = (np.asarray(ROWS) * part for part in surface_terms())
    axes = (0, 1) if batch else 1
    lost, energy = lost.sum(axis=axes), energy.sum(axis=axes)
    expected = lost / np.where(energy > 0, energy, 1)
    loss = losses.GeneralizedSurfaceLoss(softmax=True, reduction="none", class_weights=ROWS, batch=batch)
    np.testing.assert_allclose(loss(PREDICTION, LABELS).numpy(), expected, rtol=1e-5)


def test_ratios_of_the_foreground_are_those_of_mist() -> None:
    """Its formula, written out; every class has a boundary here, so its smoothing term does nothing."""
    labels, prediction = LABELS[:1], PREDICTION[:1].double()
    lost, energy = (part[:1, 1:] for part in surface_terms())
    loss = losses.GeneralizedSurfaceLoss(softmax=True, include_background=False, per_class=True)
    np.testing.assert_allclose(
        loss(prediction, labels).item(), (1 - (energy - lost) / energy).mean(), rtol=1e-6
    )
    pooled = losses.GeneralizedSurfaceLoss(softmax=True, include_background=False)(prediction, labels)
    assert abs(pooled - loss(prediction, labels)) > 1e-4


@pytest.mark.parametrize("weights", [ROWS[0], ROWS])
def test_wrapped_losses_pass_the_weights_on(weights) -> None:
    outputs, targets = scales(LABELS[:, :8, :8, :4])
    inner = losses.BoundaryLoss(softmax=True)
    loss = losses.DeepSupervision(inner, [0.5, 0.3, 0.2])
    expected = sum(
        weight * inner(output, target, spacing=spacing, class_weights=weights)
        for weight, output, target, spacing in zip(
            loss.weights, outputs, targets, ((1.0, 1, 1), (2.0, 2, 2), (2.0, 4, 4)), strict=True
        )
    )
    torch.testing.assert_close(loss(outputs, targets, class_weights=weights), expected)
    torch.testing.assert_close(
        losses.DeepSupervision(losses.BoundaryLoss(softmax=True, class_weights=weights), [0.5, 0.3, 0.2])(
            outputs, targets
        ),
        expected,
    )
    single = losses.DeepSupervision(inner, spatial_dims=3)(outputs[0], targets[0], class_weights=weights)
    torch.testing.assert_close(single, inner(outputs[0], targets[0], class_weights=weights))
    both = losses.RegionBoundaryLoss(cross_entropy, inner)
    value = both(PREDICTION, LABELS, class_weights=weights)
    boundary = inner(PREDICTION, LABELS, class_weights=weights)
    torch.testing.assert_close(value, cross_entropy(PREDICTION, LABELS) + 0.01 * boundary)


def test_weights_reach_no_gradient_and_are_not_shared() -> None:
    weights = torch.ones(3, requires_grad=True)
    loss = losses.BoundaryLoss(softmax=True, class_weights=weights)
    prediction = PREDICTION.clone().requires_grad_()
    loss(prediction, LABELS, class_weights=weights).backward()
    assert weights.grad is None
    with torch.no_grad():
        weights.fill_(7.0)
    assert torch.equal(loss.class_weights, torch.ones(3))


def test_weights_per_sample_compile_without_a_graph_for_each() -> None:
    torch.compiler.reset()
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    loss = losses.BoundaryLoss(softmax=True)
    compiled = torch.compile(loss, fullgraph=True, backend=count)
    for factor in (1.0, 2.0, 3.0):
        weights = factor * torch.tensor(ROWS)
        expected = loss(PREDICTION, LABELS, class_weights=weights)
        torch.testing.assert_close(compiled(PREDICTION, LABELS, class_weights=weights), expected)
    assert len(graphs) == 1
