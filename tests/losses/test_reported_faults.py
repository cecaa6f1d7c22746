"""Faults that people's bug reports led to, each with a second example of its kind."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import losses
from fastsdm.data import PatchDataset, PatchSampler, Volume, random_affine_elastic
from fastsdm.schedules import Constant, Increase, Rebalance
from fastsdm.testing import vessels
from tests.losses.cases import label_map, logits, one_hot

CLASSES = 3
LABELS = label_map(3)
PREDICTION = logits(LABELS, CLASSES)


@pytest.mark.parametrize(
    ("value", "dtype"), [(255, torch.uint8), (3, torch.int64), (-1, torch.int16), (7, torch.float32)]
)
def test_a_label_without_a_channel_is_refused(value, dtype) -> None:
    labels = LABELS.clone().to(dtype)
    labels[0, 0, 0, 0] = value
    loss = losses.BoundaryLoss(softmax=True)
    with pytest.raises(ValueError, match=f"target: label {value} has no channel, the prediction has 3"):
        loss(PREDICTION, labels)
    assert losses.BoundaryLoss(softmax=True, ignore_index=value)(PREDICTION, labels).isfinite()
    assert loss(PREDICTION, labels, ignore_mask=labels == value).isfinite()


@pytest.mark.parametrize("other", [255, -1, 9])
def test_foreground_is_what_the_data_set_says(other) -> None:
    labels = np.zeros((40, 24, 24), np.int16)
    labels[30:34, 10:14, 10:14] = 1
    labels[:2] = other
    options = {"ignore_index": 255} if other == 255 else {}
    dataset = PatchDataset([Volume(labels, labels)], (8, 8, 8), classes=2, max_distance=4.0, **options)
    sampler = PatchSampler(dataset, patches_per_epoch=40, foreground=1.0)
    assert all((dataset[position]["label"] == 1).any() for position in sampler)


def test_float_masks_are_inside_above_a_half() -> None:
    soft = torch.tensor([[0.2, 0.4, 0.6, 0.9]])
    options = {"spatial_dims": 2, "convention": "plain"}
    assert fastsdm.signed_distance(soft, **options).tolist() == [[2, 1, -1, -2]]
    assert fastsdm.signed_distance(soft - 1, **options).isinf().all()
    resampled = np.array([[0, 0.99999994, 1.0005, 2]])
    assert fastsdm.signed_distance(resampled, classes=3, **options)[:, 1:].tolist() == (
        fastsdm.signed_distance(np.array([[0, 1, 1, 2]]), classes=3, **options)[:, 1:].tolist()
    )


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, 1e30, 0.4, np.nan])
def test_floats_that_are_no_labels(wrong) -> None:
    labels = LABELS.double()
    labels[0, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match=r"target: (float label maps must hold whole|must not contain NaN)"):
        fastsdm.signed_distance(labels, classes=2)
    loss = losses.BoundaryLoss(softmax=True)
    with pytest.raises(ValueError, match=r"target: (float label maps must hold whole|must not contain NaN)"):
        loss(PREDICTION, labels)
    mask = torch.zeros_like(LABELS, dtype=torch.bool)
    mask[0, 0, 0, 0] = True
    expected = loss(PREDICTION, LABELS, ignore_mask=mask)
    torch.testing.assert_close(loss(PREDICTION, labels, ignore_mask=mask), expected)


def test_thin_structures_are_worth_something_under_midline_and_plain_only() -> None:
    truth = torch.from_numpy(vessels((24, 24, 24), count=4))[None, None] > 0
    for convention, is_seen in (("kervadec", False), ("midline", True), ("plain", True)):
        value = losses.BoundaryLoss(convention=convention)(truth.float(), truth)
        assert (value < -1e-4) == is_seen


def test_midline_across_a_coarse_axis() -> None:
    """The figures of docs/theory.md."""
    slices = np.zeros((6, 4, 4), np.uint8)
    slices[3:] = 1
    maps = fastsdm.signed_distance(slices, spacing=(10, 1, 1), convention="midline")
    assert maps[:3, 0, 0].tolist() == [29.5, 19.5, 9.5]


def test_helper_tensors_follow_no_default_device() -> None:
    image, labels = torch.rand(2, 1, 8, 8, 8), torch.randint(0, 3, (2, 8, 8, 8))
    prediction = torch.randn(2, 3, 8, 8, 8)
    outputs = [prediction, prediction[..., ::2, ::2, ::2]]
    torch.set_default_device("meta")  # stands for an accelerator; what we make for ourselves is on the CPU
    try:
        random_affine_elastic(image, labels)
        losses.DeepSupervision(losses.BoundaryLoss(softmax=True, ignore_index=255))(outputs, labels)
        losses.GeneralizedSurfaceLoss(softmax=True, class_weights=[1, 2, 3])(prediction, labels)
        region = losses.RegionBoundaryLoss(torch.nn.functional.cross_entropy, losses.BoundaryLoss())
        region.schedule.step()
        region(prediction, labels)
    finally:
        torch.set_default_device(None)


class Trained(torch.nn.Module):
    def __init__(self, criterion: torch.nn.Module) -> None:
        super().__init__()
        self.net = torch.nn.Conv3d(1, 2, 1)
        self.criterion = criterion


def region_boundary() -> losses.RegionBoundaryLoss:
    return losses.RegionBoundaryLoss(torch.nn.functional.cross_entropy, losses.BoundaryLoss(), Increase())


def test_checkpoints_of_a_module_with_a_schedule() -> None:
    tuned = Trained(region_boundary())
    tuned.criterion.schedule.set_epoch(np.int64(7))
    assert all(isinstance(value, torch.Tensor) for value in tuned.state_dict().values())
    averaged = copy.deepcopy(tuned)
    for mean, new in zip(averaged.state_dict().values(), tuned.state_dict().values(), strict=True):
        mean.copy_(0.9 * mean + 0.1 * new)
    tuned.load_state_dict(Trained(torch.nn.CrossEntropyLoss()).state_dict())
    assert tuned.criterion.schedule.steps_taken == 7
    resumed = Trained(region_boundary())
    resumed.load_state_dict(tuned.state_dict())
    assert resumed.criterion.schedule.steps_taken == 7
    former = {**tuned.state_dict(), "criterion._extra_state": {"steps_taken": 3}}
    del former["criterion.schedule_steps"]
    resumed.load_state_dict(former)
    assert resumed.criterion.schedule.steps_taken == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Increase("a"), "start: must be a number, got 'a'"),
        (lambda: Rebalance(end="b"), "end: must be a number, got 'b'"),
        (lambda: Rebalance(steps=2.5), "steps: must be an integer, got 2.5"),
        (lambda: Rebalance(steps=True), "steps: must be an integer, got True"),
        (lambda: Increase().set_epoch(1.5), "epoch: must be an integer, got 1.5"),
        (lambda: Increase().set_epoch(True), "epoch: must be an integer, got True"),
        (lambda: Constant(True), "alpha: must be a number, got True"),
        (lambda: Constant(torch.tensor(True)), r"alpha: must be a number, got tensor\(True\)"),
        (lambda: Rebalance(start=None), "start: must be a number, got None"),
    ],
)
def test_schedules_name_what_has_a_wrong_type(call, message) -> None:
    with pytest.raises(TypeError, match=message):
        call()
    assert Rebalance(steps=np.int64(10)).steps == 10


@pytest.mark.parametrize(
    "classes",
    [
        list(np.array([1, 2])),
        np.array([1, 2], np.uint8),
        [torch.tensor(1), np.int64(2)],
        torch.unique(LABELS)[1:],
        (1, 2),
        range(1, 3),
    ],
    ids=lambda classes: type(classes).__name__,
)
def test_classes_are_integers_of_any_kind(classes) -> None:
    loss = losses.BoundaryLoss(softmax=True, classes=classes)
    assert loss.classes == [1, 2]
    assert all(type(value) is int for value in loss.classes)
    expected = losses.BoundaryLoss(False, softmax=True)(PREDICTION, LABELS)
    torch.testing.assert_close(loss(PREDICTION, LABELS), expected)


@pytest.mark.parametrize("three", [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_integers_of_any_kind(three) -> None:
    assert losses.BoundaryLoss(ignore_index=three).ignore_index == 3
    loss = losses.BoundaryLoss()
    assert torch.equal(loss.target_map(LABELS, three, spatial_dims=three), loss.target_map(LABELS, 3))
    schedule = Increase(steps=three)
    schedule.load_state_dict({"steps_taken": three})
    assert (schedule.steps, schedule.steps_taken, type(schedule.steps_taken)) == (3, 3, int)
    schedule.set_epoch(three)
    assert schedule.weights.boundary == schedule.end
    assert losses.DeepSupervision(loss, spatial_dims=three).spatial_dims == 3


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), torch.tensor(0.5), np.array(0.5)])
def test_numbers_of_any_kind(half) -> None:
    assert losses.HausdorffDTLoss(half).alpha == 0.5
    assert Constant(half).weights == (1.0, 0.5)
    assert losses.DeepSupervision(losses.BoundaryLoss(), [half, 1]).weights == [0.5, 1.0]
    assert losses.BoundaryLoss(softmax=np.bool_(True)).softmax is True


@pytest.mark.parametrize("ndim", [2, 3])
def test_deep_supervision_of_one_and_of_stacked_outputs(ndim) -> None:
    labels = label_map(ndim)
    prediction = logits(labels, CLASSES)
    inner = losses.BoundaryLoss(softmax=True)
    loss, told = losses.DeepSupervision(inner), losses.DeepSupervision(inner, spatial_dims=ndim)
    for target in (labels, labels[:, None], one_hot(labels, CLASSES)):
        stacked = torch.stack([prediction, prediction.flip(0)], dim=1)
        expected = told([prediction, prediction.flip(0)], target)
        torch.testing.assert_close(told(stacked, target), expected)
        assert torch.equal(told(prediction, target), inner(prediction, target))
        if (target.shape != (3, *labels.shape[1:]) and target.ndim == ndim + 2 == 5) or target.ndim == 3:
            torch.testing.assert_close(loss(stacked, target), expected)
            assert torch.equal(loss(prediction, target), inner(prediction, target))


AMBIGUOUS = {  # five axes: one prediction in 3D and a label map, or outputs in 2D and channels
    "in 3D": (PREDICTION, LABELS, losses.BoundaryLoss(softmax=True)(PREDICTION, LABELS)),
    "in 2D": (
        torch.stack([logits(label_map(2), CLASSES)] * 2, dim=1),
        one_hot(label_map(2), CLASSES),
        losses.BoundaryLoss(softmax=True)(logits(label_map(2), CLASSES), label_map(2)),
    ),
    "in 2D, one channel": (
        torch.stack([logits(label_map(2, classes=2), 1)] * 2, dim=1),
        label_map(2, classes=2)[:, None],
        losses.BoundaryLoss()(logits(label_map(2, classes=2), 1), label_map(2, classes=2)),
    ),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_five_axes_that_may_be_either_are_refused_or_settled(case) -> None:
    prediction, target, expected = AMBIGUOUS[case]
    dims = 3 if case == "in 3D" else 2
    settings = {} if "channel" in case else {"softmax": True}
    inner = losses.BoundaryLoss(**settings)
    with pytest.raises(ValueError, match=r"input: \(3, .* may be one prediction in 3D .* spatial_dims=2"):
        losses.DeepSupervision(inner)(prediction, target)
    by_spacing = losses.BoundaryLoss(**settings, spacing=(1.0,) * dims)
    settled = {
        "spatial_dims": losses.DeepSupervision(inner, spatial_dims=dims)(prediction, target),
        "spacing of the loss": losses.DeepSupervision(by_spacing)(prediction, target),
        "spacing of the call": losses.DeepSupervision(inner)(prediction, target, spacing=[1.0] * dims),
    }
    if dims == 3:
        settled["weights"] = losses.DeepSupervision(inner, [0.5, 0.5])(prediction, target)
        labelled = losses.BoundaryLoss(softmax=True, to_onehot_y=True)
        settled["to_onehot_y"] = losses.DeepSupervision(labelled)(prediction, target)
    for name, value in settled.items():
        torch.testing.assert_close(value, expected, msg=name)


def test_region_targets_with_an_ignore_channel() -> None:
    regions = torch.stack([LABELS > 0, LABELS == 2], dim=1)
    ignored = torch.rand(LABELS.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    stored = torch.cat([regions, ignored[:, None]], dim=1)
    for loss in (losses.BoundaryLoss(sigmoid=True), losses.HausdorffDTLoss(sigmoid=True)):
        expected = loss(PREDICTION[:, :2], regions, ignore_mask=ignored)
        torch.testing.assert_close(loss(PREDICTION[:, :2], stored), expected)
    deep = losses.DeepSupervision(losses.BoundaryLoss(sigmoid=True))
    expected = deep([PREDICTION[:, :2]], regions, ignore_mask=ignored)
    torch.testing.assert_close(deep([PREDICTION[:, :2]], stored), expected)


@pytest.mark.parametrize("make", [losses.BoundaryLoss, losses.HausdorffDTLoss, losses.SDMRegressionLoss])
def test_a_class_that_is_not_annotated(make) -> None:
    """Ignored everywhere in one class: the others are as without it, and it gets no gradient of its own."""
    loss = make(sigmoid=True, include_background=True, reduction="none")
    mask = torch.zeros(PREDICTION.shape, dtype=torch.bool)
    mask[:, 1] = True
    prediction = PREDICTION.clone().requires_grad_()
    value = loss(prediction, LABELS, ignore_mask=mask)
    expected = loss(PREDICTION, LABELS)
    torch.testing.assert_close(value[:, [0, 2]], expected[:, [0, 2]])
    assert (value[:, 1] == 0).all()
    value.sum().backward()
    assert (prediction.grad[:, 1] == 0).all()
    with pytest.raises(ValueError, match=r"ignore_mask: must have one channel, 3 \(one per class\) or none"):
        loss(PREDICTION, LABELS, ignore_mask=mask[:, :2])


def test_a_warning_points_to_the_caller() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses.BoundaryLoss(softmax=True)(PREDICTION[:, :1], LABELS > 0)
    assert [warning.filename for warning in caught] == [__file__]
