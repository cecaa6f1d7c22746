"""Deep supervision: MONAI's own DeepSupervisionLoss around our losses, and ours with MONAI's weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import monai.losses
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.networks.nets import DynUNet

from fastsdm import losses
from fastsdm.integrations import monai as ours
from fastsdm.schedules import Constant
from tests.integrations.reference import boundary_by_scipy
from tests.integrations.volumes import affine, warped_copies

SPACINGS = [(6.0, 5.0, 5.0), (2.0, 1.0, 1.5)]
SHAPE = (33, 47, 38)
#: Of three outputs; the ratios to the whole are no whole numbers, and differ by axis.
SCALES: list[tuple[int, ...]] = [SHAPE, (17, 24, 19), (9, 24, 10)]
WEIGHTS = [1.0, 0.5, 0.25]


def target_and_outputs(scales: list[tuple[int, ...]] = SCALES) -> tuple[MetaTensor, list[torch.Tensor]]:
    labels = [
        MetaTensor(torch.from_numpy(label)[None].float(), affine=torch.from_numpy(affine(spacing)))
        for (_, label), spacing in zip(warped_copies(2), SPACINGS, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(2, 3, *scale, generator=generator) for scale in scales]
    return list_data_collate([{"label": label} for label in labels])["label"], outputs


def by_scipy(target: MetaTensor, outputs: list[torch.Tensor], *, scaled: bool = True) -> float:
    """Every scale's distances with the spacing that its voxels have; or, to compare, with the finest's."""
    plain, total = target.as_tensor(), 0.0
    for weight, output in zip(WEIGHTS, outputs, strict=False):
        labels = torch.nn.functional.interpolate(plain, size=output.shape[2:], mode="nearest-exact")
        ratios = [a / b for a, b in zip(SHAPE, output.shape[2:], strict=True)] if scaled else [1.0] * 3
        rows = [[step * ratio for step, ratio in zip(row, ratios, strict=True)] for row in SPACINGS]
        total += weight * boundary_by_scipy(output, labels, rows)
    return total


def with_dice(loss: torch.nn.Module) -> torch.nn.Module:
    return losses.RegionBoundaryLoss(lambda output, target: output.new_zeros(()), loss, Constant(1.0))


@pytest.mark.parametrize("wrapped", [lambda loss: loss, with_dice], ids=["alone", "beside a region loss"])
@pytest.mark.parametrize("spacing", ["affine", SPACINGS], ids=["affine", "numbers"])
def test_monais_deep_supervision_measures_each_scale_in_its_own_voxels(
    spacing: Any, wrapped: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    target, outputs = target_and_outputs()
    loss = DeepSupervisionLoss(wrapped(ours.BoundaryLoss(softmax=True, spacing=spacing)))
    truth, trap = by_scipy(target, outputs), by_scipy(target, outputs, scaled=False)
    assert loss(outputs, target).item() == pytest.approx(truth, rel=1e-5)
    assert abs(truth - trap) > 0.1 * abs(truth)
    # And the very loss is unchanged where it is called without MONAI's wrapper.
    alone = wrapped(ours.BoundaryLoss(softmax=True, spacing=spacing))
    assert alone(outputs[0], target).item() == pytest.approx(by_scipy(target, outputs[:1]), rel=1e-5)


def test_no_output_at_the_targets_resolution() -> None:
    target, outputs = target_and_outputs(SCALES[1:])
    truth = by_scipy(target, outputs)
    boundary = ours.BoundaryLoss(softmax=True, spacing="affine")
    assert DeepSupervisionLoss(boundary)(outputs, target).item() == pytest.approx(truth, rel=1e-5)
    as_meta = [MetaTensor(output).copy_meta_from(target) for output in outputs]
    from_input = DeepSupervisionLoss(boundary)(as_meta, target.as_tensor())
    assert from_input.item() == pytest.approx(truth, rel=1e-5)


def test_ours_takes_the_affine_through_a_region_loss() -> None:
    """A wrapper has no affine of its own: its boundary loss has to be asked."""
    target, outputs = target_and_outputs([SHAPE, (17, 24, 19)])
    boundary = ours.BoundaryLoss(softmax=True, spacing="affine")
    expected = ours.DeepSupervision(boundary)(outputs, target).item()
    assert ours.DeepSupervision(with_dice(boundary))(outputs, target).item() == pytest.approx(expected)
    unscaled = ours.DeepSupervision(losses.BoundaryLoss(softmax=True))(outputs, target).item()
    assert abs(expected - unscaled) > 0.1 * abs(expected)


def test_the_general_deep_supervision_refuses_what_it_cannot_read() -> None:
    target, outputs = target_and_outputs()
    with pytest.raises(TypeError, match=r"^spacing: must be a number or numbers, got 'affine'"):
        losses.DeepSupervision(ours.BoundaryLoss(softmax=True, spacing="affine"))(outputs, target)


@pytest.mark.parametrize("mode", ["exp", "two", "same"])
def test_at_the_default_values_are_monais(mode: str) -> None:
    target, outputs = target_and_outputs()
    plain = target.as_tensor()
    settings = {"softmax": True, "to_onehot_y": True}
    theirs = DeepSupervisionLoss(monai.losses.HausdorffDTLoss(**settings), weight_mode=mode)
    drop_in = DeepSupervisionLoss(ours.HausdorffDTLoss(**settings), weight_mode=mode)
    assert drop_in(outputs, plain).item() == pytest.approx(theirs(outputs, plain).item(), rel=1e-5)
    assert ours.DeepSupervision(ours.HausdorffDTLoss(**settings), mode)._weights(6) == theirs.get_weights(6)


def test_takes_dynunets_stack_and_a_single_output() -> None:
    target = MetaTensor(torch.randint(0, 3, (2, 1, 32, 32, 32)), affine=torch.eye(4).expand(2, 4, 4) * 2)
    settings = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "deep_supervision": True}
    network = DynUNet(
        kernel_size=[3] * 4, strides=[1, 2, 2, 2], upsample_kernel_size=[2] * 3, filters=[4] * 4,
        deep_supr_num=2, **settings,
    )  # fmt: skip
    stacked = network(torch.rand(2, 1, 32, 32, 32))
    assert stacked.ndim == 6
    loss = ours.DeepSupervision(ours.BoundaryLoss(softmax=True, spacing="affine"))
    value = loss(stacked, target)
    assert value.item() == pytest.approx(loss(list(stacked.unbind(1)), target).item())
    value.backward()
    single = loss(stacked[:, 0], target)
    assert single.item() == pytest.approx(loss.loss(stacked[:, 0], target).item())
    with pytest.raises(ValueError, match=r"^weights: must be one of exp, two, same or numbers, got 'halves'"):
        ours.DeepSupervision(loss.loss, "halves")


def test_dice_and_boundary_under_monais_deep_supervision_train() -> None:
    target, outputs = target_and_outputs()
    outputs = [output.requires_grad_() for output in outputs]
    region = DiceCELoss(softmax=True, to_onehot_y=True)
    boundary = ours.BoundaryLoss(softmax=True, to_onehot_y=True, spacing="affine", normalize="max")
    DeepSupervisionLoss(losses.RegionBoundaryLoss(region, boundary))(outputs, target).backward()
    assert all(output.grad is not None and output.grad.isfinite().all() for output in outputs)


@pytest.mark.parametrize("wrapped", [lambda loss: loss, with_dice], ids=["alone", "beside a region loss"])
def test_a_compiled_wrapper_is_one_graph(wrapped: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    target, outputs = target_and_outputs()
    loss = DeepSupervisionLoss(wrapped(ours.BoundaryLoss(softmax=True, spacing=SPACINGS)))
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert compiled(outputs, target.as_tensor()).item() == pytest.approx(by_scipy(target, outputs), rel=1e-5)


@pytest.mark.parametrize("spacing", [None, 2.0, SPACINGS[0]])
def test_a_compiled_loss_is_one_graph(spacing: Any) -> None:
    target, outputs = target_and_outputs()
    loss = ours.BoundaryLoss(softmax=True, spacing=spacing)
    expected = loss(outputs[0], target.as_tensor()).item()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert compiled(outputs[0], target.as_tensor()).item() == pytest.approx(expected, rel=1e-5)


def test_copies_and_keywords_measure_the_same() -> None:
    target, outputs = target_and_outputs()
    loss = DeepSupervisionLoss(ours.BoundaryLoss(softmax=True, spacing="affine"))
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert copied(outputs, target=target).item() == pytest.approx(by_scipy(target, outputs), rel=1e-5)


def test_nothing_of_a_wrapper_is_left_in_the_loss() -> None:
    target, outputs = target_and_outputs()
    boundary = ours.BoundaryLoss(softmax=True, spacing=SPACINGS)
    coarse = torch.nn.functional.interpolate(target.as_tensor(), size=SCALES[1], mode="nearest-exact")
    expected = boundary(outputs[1], coarse).item()
    wrapper = DeepSupervisionLoss(boundary)
    wrapper(outputs, target)
    assert boundary(outputs[1], coarse).item() == expected
    with pytest.raises(ValueError, match=r"^target: must have batch size"):
        wrapper([*outputs, torch.zeros(3, 3, *SCALES[1])], target)
    assert boundary(outputs[1], coarse).item() == expected
