"""The map under torch.vmap: the values of a loop, in one call of the backend."""

from __future__ import annotations

import pytest
import torch

import fastsdm
from fastsdm import losses, testing
from fastsdm._backends import registry

SHAPE = (6, 7, 8)


def labels(*leading: int) -> torch.Tensor:
    count = int(torch.tensor(leading).prod())
    volumes = [testing.shells(SHAPE, classes=3, thickness=1 + seed / 2) for seed in range(count)]
    return torch.stack([torch.from_numpy(volume) for volume in volumes]).reshape(*leading, *SHAPE)


@pytest.fixture
def calls(monkeypatch) -> list[torch.Size]:
    """The shapes that the backend is asked for."""
    asked = []
    native = type(registry.get("native"))
    finished = native.finished_region
    monkeypatch.setattr(
        native,
        "finished_region",
        lambda self, some, *a: (asked.append(some.shape), finished(self, some, *a))[1],
    )
    return asked


@pytest.mark.parametrize("in_dim", [0, 1, 2, -1])
@pytest.mark.parametrize("out_dim", [0, -1])
def test_in_dims_and_out_dims(calls, capfd, in_dim, out_dim) -> None:
    volumes = labels(3)
    mapped = torch.vmap(
        lambda volume: fastsdm.signed_distance(volume, classes=[2, 0]), in_dims=in_dim, out_dims=out_dim
    )(volumes.movedim(0, in_dim))
    assert calls == [(3, *SHAPE)]
    assert torch.equal(mapped.movedim(out_dim, 0), fastsdm.signed_distance(volumes, classes=[2, 0]))
    assert "performance" not in capfd.readouterr().err, "torch says so where there is no rule"


def test_batches_within(calls) -> None:
    for leading, in_dim in (((3, 2), 0), ((3, 2), 1)):
        volumes = labels(*leading)
        mapped = torch.vmap(fastsdm.signed_distance, in_dims=in_dim, out_dims=in_dim)(volumes)
        assert calls.pop() == (6, *SHAPE)
        assert torch.equal(mapped, fastsdm.signed_distance(volumes))


def test_spacing_per_sample_mapped_and_not(calls) -> None:
    volumes, spacing = labels(3, 2), torch.rand(3, 2, 3, dtype=torch.float64) + 0.5
    expected = fastsdm.signed_distance(volumes, spacing=spacing)
    along = torch.vmap(lambda some, rows: fastsdm.signed_distance(some, spacing=rows))
    assert torch.equal(along(volumes, spacing), expected)
    across = torch.vmap(lambda some, rows: fastsdm.signed_distance(some, spacing=rows), in_dims=1, out_dims=1)
    assert torch.equal(across(volumes, spacing), expected)
    alike = torch.vmap(lambda some: fastsdm.signed_distance(some, spacing=spacing[0]))
    assert torch.equal(alike(volumes), fastsdm.signed_distance(volumes, spacing=spacing[:1].expand(3, 2, 3)))
    of_one_volume = torch.vmap(lambda rows: fastsdm.signed_distance(volumes[0, 0], spacing=rows))
    repeated = volumes[:1, 0].expand(3, *SHAPE)
    assert torch.equal(of_one_volume(spacing[:, 1]), fastsdm.signed_distance(repeated, spacing=spacing[:, 1]))
    assert len(calls) == 7, "one for each call"


def test_vmap_within_vmap_and_other_backends(calls) -> None:
    volumes = labels(2, 3)
    mapped = torch.vmap(torch.vmap(fastsdm.signed_distance))(volumes)
    assert calls == [(6, *SHAPE)]
    assert torch.equal(mapped, fastsdm.signed_distance(volumes))
    for backend in ("scipy", "torch"):
        other = torch.vmap(lambda some: fastsdm.signed_distance(some, backend=backend))(volumes)  # noqa: B023
        torch.testing.assert_close(other, mapped)


def test_masks_of_floats_ignored_labels_and_2d() -> None:
    soft = torch.rand(3, *SHAPE)
    assert torch.equal(torch.vmap(fastsdm.signed_distance)(soft), fastsdm.signed_distance(soft))
    options = {"classes": 2, "ignore_index": 2, "max_distance": 3.0}
    mapped = torch.vmap(lambda some: fastsdm.signed_distance(some, **options))(labels(3))
    assert torch.equal(mapped, fastsdm.signed_distance(labels(3), **options))
    slices = labels(1)[0]
    mapped = torch.vmap(lambda some: fastsdm.signed_distance(some, spatial_dims=2))(slices)
    assert torch.equal(mapped, fastsdm.signed_distance(slices, spatial_dims=2))


def test_gradients_beside_it() -> None:
    """Per-sample gradients of a boundary loss, as torch.func makes them."""
    volumes, logits = labels(3), torch.randn(3, *SHAPE)

    def loss(some, target):
        return (torch.sigmoid(some) * fastsdm.signed_distance(target)).mean()

    for target in (volumes > 0, volumes.float()):
        mapped = torch.vmap(torch.func.grad(loss))(logits, target)
        for sample in range(3):
            torch.testing.assert_close(mapped[sample], torch.func.grad(loss)(logits[sample], target[sample]))


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's own, of addcmul_
@pytest.mark.parametrize("loss", [losses.BoundaryLoss, losses.HausdorffDTLoss, losses.GeneralizedSurfaceLoss])
@pytest.mark.parametrize("as_channels", [False, True])
def test_gradients_per_sample_of_the_losses(loss, as_channels) -> None:
    function, volumes = loss(softmax=True), labels(3)
    predictions = torch.randn(3, 3, *SHAPE)
    targets = torch.stack([volumes == value for value in range(3)], 1).float() if as_channels else volumes

    def of_one(prediction, target):
        return function(prediction.unsqueeze(0), target.unsqueeze(0))

    mapped = torch.vmap(torch.func.grad(of_one))(predictions, targets)
    for prediction, target, gradient in zip(predictions, targets, mapped, strict=True):
        torch.testing.assert_close(gradient, torch.func.grad(of_one)(prediction, target))
