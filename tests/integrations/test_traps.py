"""What goes wrong in silence when a distance map or loss meets a framework unprepared, in numbers.

Each test states the true value, which scipy confirms, and the value of the trap, which the framework itself
gives: were a framework to close its trap, the test would say so.
"""

from __future__ import annotations

import monai.losses
import numpy as np
import pytest
import torch
import torchio as tio
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from monai.data import MetaTensor, list_data_collate
from monai.transforms import RandAffined
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

import fastsdm
from fastsdm import losses
from fastsdm.integrations import monai as ours
from fastsdm.integrations.nnunet import RegionAndDistanceLoss
from fastsdm.integrations.torchio import SignedDistance
from fastsdm.schedules import Constant
from tests.integrations.reference import boundary_by_scipy


def box(shape: tuple[int, ...], low: int, high: int) -> torch.Tensor:
    """Labels ``[*shape]``: 1 from ``low`` to ``high - 1`` along every axis."""
    labels = torch.zeros(shape, dtype=torch.int16)
    labels[(slice(low, high),) * len(shape)] = 1
    return labels


def undecided(shape: tuple[int, ...]) -> torch.Tensor:
    """Logits of two classes that are as likely as each other, but for a slope along the first axis."""
    logits = torch.zeros(1, 2, *shape)
    logits[:, 1] = torch.linspace(-2, 2, shape[0])[:, None, None]
    return logits


def test_monai_spacing_of_a_metatensor_is_not_looked_at() -> None:
    labels, logits = box((12, 16, 20), 3, 9), undecided((12, 16, 20))
    spacing = (3.0, 0.8, 0.8)
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    target = list_data_collate([{"label": MetaTensor(labels[None], affine=affine)}])["label"]
    settings = {"softmax": True, "to_onehot_y": True, "include_background": False}

    truth = ours.BoundaryLoss(**settings, spacing="affine")(logits, target).item()
    assert truth == pytest.approx(
        boundary_by_scipy(logits, labels[None, None], [spacing], include_background=False), rel=1e-5
    )
    assert truth == pytest.approx(2.8709, rel=1e-3)

    trap = monai.losses.BoundaryLoss(**settings)(logits, target).item()
    assert trap == pytest.approx(2.6062, rel=1e-3)
    with pytest.warns(UserWarning, match=r"^spacing: voxels of \[3.0, 0.8, 0.8\] are taken as cubes"):
        assert ours.BoundaryLoss(**settings)(logits, target).item() == pytest.approx(trap, rel=1e-5)


def test_monai_spacing_differs_by_sample_after_rand_affined() -> None:
    """No constructor can know it: one spacing for all is right for no sample but the first."""
    labels = box((12, 16, 20), 3, 9)
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    zoom = RandAffined("label", prob=1, scale_range=((0.0, 0.5),) * 3, mode="nearest").set_random_state(0)
    samples = [zoom({"label": MetaTensor(labels[None].float(), affine=affine)}) for _ in range(2)]
    target = list_data_collate(samples)["label"]
    rows = [sample["label"].affine[:3, :3].norm(dim=0).tolist() for sample in samples]
    assert np.abs(np.subtract(*rows)).min() > 0.01

    logits = undecided((12, 16, 20)).expand(2, -1, -1, -1, -1)
    truth = ours.BoundaryLoss(softmax=True, spacing="affine")(logits, target).item()
    assert truth == pytest.approx(boundary_by_scipy(logits, target.as_tensor(), rows), rel=1e-5)
    trap = losses.BoundaryLoss(softmax=True, spacing=2.0)(logits, target.as_tensor()).item()
    assert trap == pytest.approx(boundary_by_scipy(logits, target.as_tensor(), [[2.0] * 3] * 2), rel=1e-5)
    assert abs(truth - trap) > 0.1 * abs(truth)


def test_monai_metadata_of_a_map() -> None:
    affine = torch.diag(torch.tensor([3.0, 0.8, 0.8, 1.0], dtype=torch.float64))
    label = MetaTensor(box((12, 16, 20), 3, 9)[None], affine=affine, meta={"patient": "17"})
    kept = fastsdm.signed_distance(label)
    assert isinstance(kept, MetaTensor)
    assert kept.pixdim.tolist() == pytest.approx([3.0, 0.8, 0.8])
    assert kept.meta["patient"] == "17"
    # Through numpy, as a wrapper of scipy goes, voxels would be cubes of 1.
    assert MetaTensor(fastsdm.signed_distance(label.numpy())).pixdim.tolist() == [1.0, 1.0, 1.0]


def test_torchio_a_map_that_is_moved_like_an_image() -> None:
    """A cube of 15 voxels, moved by two: behind the edge comes the image's minimum, deep inside the cube."""
    labels = box((37, 37, 37), 9, 24)[None]
    move = tio.Affine(scales=1, degrees=0, translation=2)
    subject = tio.Subject(label=tio.LabelMap(tensor=labels))

    moved = SignedDistance([1])(move(subject)).distance_map.data
    assert moved[0, 0, 0, 0].item() == pytest.approx(19.05, abs=0.01)  # 11 voxels along each axis

    mapped = SignedDistance([1])(subject).distance_map.data
    as_image = move(tio.Subject(image=tio.ScalarImage(tensor=mapped))).image.data
    assert as_image[0, 0, 0, 0].item() == -7

    with pytest.raises(RuntimeError, match=r"^Affine: cannot be applied to a distance map"):
        move(SignedDistance([1])(subject))


def test_torchio_a_map_that_is_normalised_like_an_image() -> None:
    mapped = SignedDistance([1])(tio.Subject(label=tio.LabelMap(tensor=box((37, 37, 37), 9, 24)[None])))
    known = mapped.distance_map.data
    assert (known.min().item(), known.max().item()) == (-7, pytest.approx(13 * 3**0.5))
    scaled = tio.RescaleIntensity((0, 1))
    assert torch.equal(scaled(mapped).distance_map.data, known)
    as_image = scaled(tio.Subject(image=tio.ScalarImage(tensor=known))).image.data
    assert (as_image.min().item(), as_image.max().item()) == (0, 1)  # no inside any more


def test_nnunet_deep_supervision_does_not_scale_the_spacing() -> None:
    spacing, weights = (2.0, 1.0, 1.0), [4 / 7, 2 / 7, 1 / 7]
    downsampled = DownsampleSegForDSTransform([[1, 1, 1], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]])
    targets = [
        scale[None] for scale in downsampled(segmentation=box((16, 16, 16), 4, 12)[None])["segmentation"]
    ]
    outputs = [torch.zeros(1, 2, *target.shape[2:]) for target in targets]
    boundary = losses.BoundaryLoss(softmax=True, include_background=False, spacing=spacing)
    region = lambda output, target: output.new_zeros(())  # noqa: E731
    truth = RegionAndDistanceLoss(region, boundary, Constant(1.0), weights=weights)(outputs, targets).item()
    by_scipy = [
        boundary_by_scipy(output, target, [[step * f for step in spacing]], include_background=False)
        for output, target, f in zip(outputs, targets, (1, 2, 4), strict=True)
    ]
    assert truth == pytest.approx(np.dot(weights, by_scipy), rel=1e-5)
    assert truth == pytest.approx(2.2068, rel=1e-3)
    trap = DeepSupervisionWrapper(boundary, weights)(outputs, targets).item()
    assert trap == pytest.approx(1.5454, rel=1e-3)


def test_nnunet_the_first_region_is_no_background() -> None:
    regions = torch.stack([box((12, 12, 12), 2, 10), box((12, 12, 12), 5, 8)])[None]
    for include, expected in ((True, True), (False, False)):
        output = torch.zeros(1, 2, 12, 12, 12, requires_grad=True)
        losses.BoundaryLoss(sigmoid=True, include_background=include)(output, regions).backward()
        assert bool(output.grad[:, 0].any()) is expected
        assert bool(output.grad[:, 1].any())


def test_lightning_a_map_prefetched_with_other_settings() -> None:
    labels, logits = box((12, 16, 20), 3, 9)[None], undecided((12, 16, 20))
    loss = losses.BoundaryLoss(softmax=True, include_background=False, spacing=(3.0, 0.8, 0.8))
    truth = loss(logits, labels, distance_map=loss.prefetch(labels, 2)).item()
    assert truth == pytest.approx(2.8709, rel=1e-3)
    other = fastsdm.prefetch(labels, classes=2)
    with pytest.raises(ValueError, match=r"^distance_map: was made with spacing=1.0, not spacing=\(3.0, 0.8"):
        loss(logits, labels, distance_map=other)
    trap = loss(logits, labels, distance_map=other.result().clone().as_subclass(torch.Tensor)).item()
    assert trap == pytest.approx(2.6062, rel=1e-3)
