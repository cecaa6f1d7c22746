"""The mean of a loss over the components' cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from fastsdm import losses, nearest_label, testing
from fastsdm.targets import component_weights

SHAPE = (13, 14, 15)


def masks(channels: int = 2, batch: int = 2, shape=SHAPE) -> torch.Tensor:
    """One channel per class; a sample lacks the last class."""
    made = np.stack(
        [
            np.stack(
                [testing.blobs(shape, sigma=1.3, fraction=0.06, seed=7 * b + c) for c in range(channels)]
            )
            for b in range(batch)
        ]
    )
    made[0, -1] = 0
    return torch.from_numpy(made.astype(np.uint8))


def prediction(channels: int = 2, batch: int = 2, shape=SHAPE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *shape, generator=generator, dtype=torch.float64).requires_grad_()


def cells_of(mask: torch.Tensor, spacing) -> torch.Tensor:
    labels, _ = ndimage.label(mask.numpy(), np.ones((3,) * mask.ndim))
    return torch.from_numpy(nearest_label(labels, spatial_dims=mask.ndim, spacing=spacing))


LOSSES = {
    "boundary": lambda **options: losses.BoundaryLoss(sigmoid=True, **options),
    "hausdorff": lambda **options: losses.HausdorffDTLoss(sigmoid=True, include_background=True, **options),
    "log hausdorff": lambda **options: losses.LogHausdorffDTLoss(
        sigmoid=True, include_background=True, **options
    ),
    "one-sided hausdorff": lambda **options: losses.HausdorffDTLoss(
        sigmoid=True, include_background=True, one_sided=True, **options
    ),
    "regression": lambda **options: losses.SDMRegressionLoss(other_act=torch.tanh, normalize=None, **options),
}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.7, 1.1)])
@pytest.mark.parametrize("with_ignored", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_equal_to_the_loss_of_every_cell(name, spacing, with_ignored) -> None:
    loss = LOSSES[name](reduction="none")
    given, target = prediction(), masks()
    unknown = torch.rand(2, 1, *SHAPE, generator=torch.Generator().manual_seed(1)) < 0.1 * with_ignored
    mask = unknown if with_ignored else None
    got = losses.ComponentwiseLoss(loss)(given, target, spacing=spacing, ignore_mask=mask)
    maps = loss.target_map(target, 2, spacing=spacing, ignore_mask=mask)
    target = target.masked_fill(unknown, 0)
    assert got.shape == (2, 2)
    for sample in range(2):
        for channel in range(2):
            cells = cells_of(target[sample, channel], spacing)
            values = []
            for number in cells.unique().tolist():
                ignored = torch.ones(2, 2, *SHAPE, dtype=torch.bool)
                ignored[sample, channel] = (cells != number) | unknown[sample, 0]
                values.append(
                    loss(given, target, spacing=spacing, distance_map=maps, ignore_mask=ignored)
                    .reshape(2, 2)[sample, channel]
                    .item()
                )
            assert len(values) > 1 or (sample, channel) == (0, 1)
            assert got[sample, channel].item() == pytest.approx(np.mean(values), rel=1e-6)


def test_the_boundary_loss_is_a_weighted_sum() -> None:
    loss = losses.BoundaryLoss(sigmoid=True, reduction="none")
    given, target = prediction(), masks()
    weights = component_weights(target)
    expected = (given.sigmoid() * loss.target_map(target, 2) * weights).flatten(2).sum(dim=2)
    torch.testing.assert_close(
        losses.ComponentwiseLoss(loss)(given, target), expected.double(), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_single_component_gives_the_loss_itself(name) -> None:
    loss = LOSSES[name](reduction="none")
    target = torch.zeros(2, 2, *SHAPE, dtype=torch.uint8)
    target[:, 0, 3:6, 4:8, 2:9] = 1
    target[1, 1, :7] = 1
    expected = loss(prediction(), target).reshape(2, 2)
    torch.testing.assert_close(losses.ComponentwiseLoss(loss)(prediction(), target), expected)
    mean = losses.ComponentwiseLoss(LOSSES[name]())(prediction(), target)
    torch.testing.assert_close(mean, expected.mean())
    total = losses.ComponentwiseLoss(LOSSES[name](reduction="sum"))(prediction(), target)
    torch.testing.assert_close(total, expected.sum())


def test_a_small_component_counts_as_much_as_a_large_one() -> None:
    target = torch.zeros(1, 1, 10, 60, dtype=torch.uint8)
    target[..., 1:9, 5:25], target[..., 4, 50] = 1, 1
    missed_small, missed_large = (target.float() for _ in range(2))
    missed_small[..., 40:], missed_large[..., :40] = 0, 0
    plain = losses.HausdorffDTLoss(one_sided=True, include_background=True)
    whole = [plain(each, target).item() for each in (missed_small, missed_large)]
    fair = [losses.ComponentwiseLoss(plain)(each, target).item() for each in (missed_small, missed_large)]
    assert whole[0] / whole[1] < fair[0] / fair[1]


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name) -> None:
    loss = losses.ComponentwiseLoss(LOSSES[name](spacing=(1.0, 2.0)))
    given, target = prediction(shape=(7, 8)), masks(shape=(7, 8))
    target[:, 0, 1, 1] = target[:, 0, 5, 6] = 1
    (gradient,) = torch.autograd.grad(loss(given, target), given)
    assert gradient.isfinite().all()
    step = 1e-4  # away from 0.5, where the prediction's own map changes
    flat = given.detach().flatten()
    for index in range(0, len(flat), 17):
        if abs(flat[index]) < 0.05:
            continue
        ends = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[index] += sign * step
            ends.append(loss(moved.view_as(given), target).item())
        assert gradient.flatten()[index].item() == pytest.approx(
            (ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-8
        )


def test_label_maps_and_ignored_voxels() -> None:
    labels = torch.from_numpy(testing.shells((12, 13, 14), classes=3).astype(np.int64))[None]
    labels[0, :2] = 255
    loss = losses.BoundaryLoss(softmax=True, include_background=False, ignore_index=255, reduction="none")
    given = prediction(3, 1, (12, 13, 14))
    got = losses.ComponentwiseLoss(loss)(given, labels)
    assert got.shape == (1, 2)
    changed = given.detach().clone()
    changed[:, :, :2] = torch.nan
    assert torch.equal(losses.ComponentwiseLoss(loss)(changed, labels), got)
    assert torch.equal(losses.ComponentwiseLoss(loss)(given, labels[:, None]), got)
    assert torch.equal(losses.ComponentwiseLoss(loss)(given, labels.numpy()), got)
    masked = losses.BoundaryLoss(softmax=True, include_background=False, reduction="none")
    known = torch.where(labels == 255, 0, labels)
    by_mask = losses.ComponentwiseLoss(masked)(given, known, ignore_mask=labels == 255)
    torch.testing.assert_close(by_mask, got)


def test_any_loss_with_a_value_per_voxel() -> None:
    given, target = prediction(), masks()
    bce = torch.nn.BCEWithLogitsLoss(reduction="none")
    values = bce(given, target.double())
    expected = (values * component_weights(target)).flatten(2).sum(dim=2)
    got = losses.ComponentwiseLoss(bce, reduction="none")(given, target.double())
    torch.testing.assert_close(got, expected)
    assert losses.ComponentwiseLoss(bce, reduction="sum")(given, target.double()).item() == pytest.approx(
        expected.sum().item()
    )

    labels = torch.from_numpy(testing.shells(SHAPE, classes=2).astype(np.int64))[None].repeat(2, 1, 1, 1)
    cross_entropy = torch.nn.CrossEntropyLoss(reduction="none")
    got = losses.ComponentwiseLoss(cross_entropy)(given, labels, spacing=(1.0, 2.0, 3.0))
    weights = component_weights(labels, spacing=(1.0, 2.0, 3.0))
    assert got.item() == pytest.approx((cross_entropy(given, labels) * weights).sum().item() / 2)
    got.backward()
    assert given.grad.isfinite().all()


def _inputs():
    return prediction(), masks()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: losses.ComponentwiseLoss("boundary"),
            TypeError,
            "loss: must be a loss or a function, got str",
        ),
        (
            lambda: losses.ComponentwiseLoss(losses.BoundaryLoss(batch=True)),
            ValueError,
            "loss: must not average over the batch",
        ),
        (
            lambda: losses.ComponentwiseLoss(losses.BoundaryLoss(normalize="max")),
            ValueError,
            "loss: must have normalize=None.*got 'max'",
        ),
        (
            lambda: losses.ComponentwiseLoss(losses.GeneralizedSurfaceLoss(softmax=True)),
            TypeError,
            "loss: must have a value per sample and class, got GeneralizedSurfaceLoss",
        ),
        (
            lambda: losses.ComponentwiseLoss(torch.nn.MSELoss(), reduction="median"),
            ValueError,
            "reduction: must be one of .* got 'median'",
        ),
        (
            lambda: losses.ComponentwiseLoss(torch.nn.MSELoss())(*_inputs()),
            ValueError,
            r"loss: must return a value per voxel .* got shape \(\)",
        ),
        (
            lambda: losses.ComponentwiseLoss(torch.nn.MSELoss(reduction="none"))(
                *_inputs(), ignore_mask=masks()
            ),
            ValueError,
            "ignore_mask: must be None for a loss of type MSELoss",
        ),
        (
            lambda: losses.ComponentwiseLoss(losses.BoundaryLoss())(prediction(), masks()[:1]),
            ValueError,
            "target: must have batch size and spatial shape of the prediction",
        ),
        (
            lambda: losses.ComponentwiseLoss(losses.BoundaryLoss())(*_inputs(), spacing=(1.0, -1.0, 1.0)),
            ValueError,
            "spacing: must be positive and finite, got -1.0",
        ),
        (
            lambda: losses.ComponentwiseLoss(losses.BoundaryLoss(), backend=3),
            TypeError,
            "backend: must be 'auto' or the name of a backend, got 3",
        ),
    ],
)
def test_refusals(make, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_labels_that_cross_entropy_ignores_are_no_component() -> None:
    target = torch.zeros(1, 9, 9, dtype=torch.int64)
    target[0, 2:4, 2:4] = 1
    target[0, 6:, 6:] = -100  # what torch ignores by default
    prediction = torch.rand(1, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    per_voxel = torch.nn.CrossEntropyLoss(reduction="none")
    got = losses.ComponentwiseLoss(per_voxel)(prediction, target)
    # One component, whose cell is the whole volume.
    torch.testing.assert_close(got, per_voxel(prediction, target).mean())
