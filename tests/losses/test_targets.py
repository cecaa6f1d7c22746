"""What may be handed in as target and as map, and that each form means the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import fastsdm
from fastsdm import losses
from fastsdm.losses._base import DistanceMapLoss
from tests.losses.cases import label_map, logits, one_hot

CLASSES = 3
LOSSES: dict[str, Callable[..., DistanceMapLoss]] = {
    "boundary": losses.BoundaryLoss,
    "hausdorff": losses.HausdorffDTLoss,
    "log hausdorff": losses.LogHausdorffDTLoss,
    "surface": losses.GeneralizedSurfaceLoss,
    "regression": losses.SDMRegressionLoss,
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


class Pending:
    """A map that is ready when it is asked for."""

    def __init__(self, maps: torch.Tensor) -> None:
        self.maps = maps

    def result(self) -> torch.Tensor:
        return self.maps


@every_loss
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("include_background", [True, False])
def test_all_forms_of_a_target_mean_the_same(
    make: Callable[..., DistanceMapLoss], ndim: int, include_background: bool
) -> None:
    labels = label_map(ndim, classes=CLASSES)
    prediction = logits(labels, CLASSES)
    loss = (
        make(include_background, softmax=True)
        if make is losses.BoundaryLoss
        else make(include_background=include_background, softmax=True)
    )
    expected = loss(prediction, labels)
    assert expected != 0
    channels = one_hot(labels, CLASSES)
    forms = {
        "uint8": labels.to(torch.uint8),
        "int16, a channel": labels.unsqueeze(1).to(torch.int16),
        "float labels": labels.float(),
        "numpy": labels.numpy(),
        "transposed memory": labels.transpose(1, -1).contiguous().transpose(1, -1),
        "one-hot floats": channels,
        "one-hot bool": channels.bool(),
        "one-hot int": channels.int(),
        "channels of 0 and 255": (255 * channels).to(torch.uint8),
    }
    for name, target in forms.items():
        torch.testing.assert_close(loss(prediction, target), expected, msg=name)


@every_loss
def test_maps_are_made_ahead_of_arrays_too(make: Callable[..., DistanceMapLoss]) -> None:
    labels = label_map(3, classes=CLASSES)
    prediction = logits(labels, CLASSES)
    loss = make(include_background=False, softmax=True)
    expected = loss(prediction, labels)
    for maps in (loss.target_map(labels.numpy(), CLASSES), loss.prefetch(labels.numpy(), CLASSES)):
        torch.testing.assert_close(loss(prediction, labels, distance_map=maps), expected)
    with pytest.raises(TypeError, match=r"target: must be a torch tensor, .* got list"):
        loss.target_map(labels.tolist(), CLASSES)
    with pytest.raises(ValueError, match="target: must have a batch axis before the axes of spatial_dims=3"):
        loss.target_map(labels[0], CLASSES)


def test_overlapping_regions_are_measured_one_by_one() -> None:
    labels = label_map(3)
    regions = torch.stack([labels > 0, labels == 2], dim=1)
    prediction = logits(labels.clamp(max=1), 2)
    both = losses.BoundaryLoss(sigmoid=True, reduction="none")(prediction, regions)
    for k in range(2):
        alone = losses.BoundaryLoss(sigmoid=True, reduction="none")(prediction[:, k : k + 1], regions[:, k])
        torch.testing.assert_close(both[:, k : k + 1], alone)


@every_loss
def test_single_channel_targets_are_masks(make: Callable[..., DistanceMapLoss]) -> None:
    labels = label_map(3, classes=2)
    prediction = logits(labels, 1)
    loss = make(include_background=True, sigmoid=True)
    expected = loss(prediction, labels.bool())
    for target in (labels, labels.unsqueeze(1), labels.float(), labels * 7, -7 + 14 * labels):
        torch.testing.assert_close(loss(prediction, target), expected)


@pytest.mark.parametrize("setting", ["softmax", "to_onehot_y", "include_background"])
def test_single_channel_predictions_warn_of_settings_without_effect(setting: str) -> None:
    labels = label_map(3, classes=2)
    prediction = torch.sigmoid(logits(labels, 1))
    loss = losses.BoundaryLoss(**{setting: setting != "include_background"})
    with pytest.warns(UserWarning, match=rf"single channel prediction, `{setting}=\w+` ignored"):
        value = loss(prediction, labels.unsqueeze(1))
    torch.testing.assert_close(value, losses.BoundaryLoss()(prediction, labels.unsqueeze(1)))


def test_soft_targets_of_the_hausdorff_loss_stay_soft() -> None:
    labels = label_map(2, batch=1)
    soft = 0.8 * one_hot(labels, CLASSES) + 0.2 / CLASSES
    prediction = torch.softmax(logits(labels, CLASSES), 1)
    hard = losses.HausdorffDTLoss(include_background=True, reduction="none")(prediction, labels)
    mixed = losses.HausdorffDTLoss(include_background=True, reduction="none")(prediction, soft)
    assert not torch.allclose(hard, mixed)


@every_loss
@pytest.mark.parametrize("include_background", [True, False])
def test_a_map_handed_in_replaces_the_computed_one(
    make: Callable[..., DistanceMapLoss], include_background: bool
) -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    settings = {"softmax": True, "include_background": include_background, "normalize": "max"}
    loss = make(**settings, spacing=[2.0, 1.0, 0.5])
    expected = loss(prediction, labels)
    maps = loss.target_map(labels, CLASSES)
    assert maps.shape[1] == CLASSES - (not include_background)
    torch.testing.assert_close(loss(prediction, labels, distance_map=maps), expected)
    torch.testing.assert_close(loss(prediction, labels, distance_map=Pending(maps)), expected)
    assert not torch.allclose(loss(prediction, labels, distance_map=torch.rand_like(maps)), expected)


@pytest.mark.parametrize("include_background", [True, False])
def test_all_channels_of_a_plain_map_may_be_handed_in(include_background: bool) -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    maps = fastsdm.signed_distance(labels, classes=CLASSES)
    assert maps.isinf().any()
    loss = losses.BoundaryLoss(include_background, softmax=True)
    value = loss(prediction, labels, distance_map=maps)
    torch.testing.assert_close(value, loss(prediction, labels))
    half = loss(prediction, labels, distance_map=maps.half())
    torch.testing.assert_close(half, value, rtol=1e-2, atol=1e-3)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int16, torch.int64])
def test_a_map_of_a_narrow_type_is_weighed_in_float32(
    make: Callable[..., DistanceMapLoss], dtype: torch.dtype
) -> None:
    labels = torch.zeros(1, 1, 300, 2, 2, dtype=torch.int64)
    labels[:, :, 0] = 1
    prediction = torch.full(labels.shape, 0.3, requires_grad=True)
    loss = make(include_background=True)
    maps = loss.target_map(labels, 1).to(dtype)
    value = loss(prediction, labels, distance_map=maps)
    assert torch.equal(value, loss(prediction, labels, distance_map=maps.float()))
    assert value.dtype == torch.float32
    value.backward()
    assert value.isfinite()
    assert prediction.grad.isfinite().all()


def test_infinities_of_a_map_follow_the_policy() -> None:
    labels = torch.zeros(1, 4, 5, 6, dtype=torch.int64)
    prediction = torch.full((1, 2, 4, 5, 6), 0.25)
    maps = fastsdm.signed_distance(labels, classes=2)
    for empty, limit, weight in (("zero", 3.0, 0.0), ("max", 3.0, 3.0), ("max", None, torch.inf)):
        loss = losses.BoundaryLoss(reduction="none", empty=empty, max_distance=limit)
        value = loss(prediction, labels, distance_map=maps)
        torch.testing.assert_close(value, torch.tensor([[-0.25 * weight, 0.25 * weight]]))


def test_target_map_of_2d_and_channels() -> None:
    labels = label_map(2)
    loss = losses.BoundaryLoss()
    expected = fastsdm.signed_distance(labels, classes=CLASSES, spatial_dims=2, empty="zero")
    for target in (labels, labels.unsqueeze(1), one_hot(labels, CLASSES)):
        torch.testing.assert_close(loss.target_map(target, CLASSES, spatial_dims=2), expected)
    wider = loss.target_map(labels, CLASSES, spatial_dims=2, spacing=2.0)
    torch.testing.assert_close(wider, 2 * expected)


def test_subclasses_of_tensor_are_taken() -> None:
    class Image(torch.Tensor):
        pass

    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    loss = losses.BoundaryLoss(softmax=True)
    torch.testing.assert_close(loss(prediction, labels.as_subclass(Image)), loss(prediction, labels))


@every_loss
@pytest.mark.parametrize("form", ["labels", "channels", "map handed in"])
@pytest.mark.parametrize("subset", [(0, 2), (1,), (1, 3), (0, 1, 2, 3)])
def test_a_subset_of_the_classes(
    make: Callable[..., DistanceMapLoss], form: str, subset: tuple[int, ...]
) -> None:
    labels = label_map(3, classes=4)
    prediction = logits(labels, 4)
    loss = make(classes=subset, softmax=True)
    alone = make(include_background=True)  # handed only these classes' predictions and targets
    expected = alone(torch.softmax(prediction, 1)[:, subset], one_hot(labels, 4)[:, subset])
    target = one_hot(labels, 4) if form == "channels" else labels
    maps = None
    if form == "map handed in":
        maps = make(include_background=True).target_map(labels, 4)
        kept = loss.target_map(labels, 4)
        assert torch.equal(kept, maps[:, subset])
        torch.testing.assert_close(loss(prediction, target, distance_map=kept), expected)
    value = loss(prediction.requires_grad_(), target, distance_map=maps)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert prediction.grad.isfinite().all()
    assert f"classes={list(subset)}" in repr(loss)
