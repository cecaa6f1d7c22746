"""The MONAI pieces in MONAI's own pipelines, losses and trainer."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import monai.losses
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, decollate_batch, list_data_collate
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandAffined,
    RandCropByLabelClassesd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandSpatialCropd,
    SpatialPadd,
    apply_pending,
)

import fastsdm
from fastsdm.integrations import monai as ours
from tests.integrations.volumes import SPACING, affine, warped_copies, write_nifti_folder

MONAIS = ["BoundaryLoss", "HausdorffDTLoss", "LogHausdorffDTLoss"]


def batch_of(*spacings: tuple[float, ...]) -> MetaTensor:
    labels = [
        MetaTensor(torch.from_numpy(label)[None], affine=torch.from_numpy(affine(spacing)))
        for (_, label), spacing in zip(warped_copies(len(spacings)), spacings, strict=True)
    ]
    return list_data_collate([{"label": label} for label in labels])["label"]


def sample() -> dict[str, MetaTensor]:
    image, label = warped_copies(1)[0]
    where = torch.from_numpy(affine())
    return {
        "image": MetaTensor(torch.from_numpy(image)[None], affine=where),
        "label": MetaTensor(torch.from_numpy(label)[None], affine=where),
    }


def test_signed_distance_keeps_the_metadata() -> None:
    label = sample()["label"]
    label.meta["patient"] = "17"
    maps = fastsdm.signed_distance(label[0], classes=3, spacing=SPACING)
    assert isinstance(maps, MetaTensor)
    assert torch.equal(maps.affine, label.affine)
    assert maps.meta["patient"] == "17"
    assert torch.equal(
        maps.as_tensor(), fastsdm.signed_distance(label[0].as_tensor(), classes=3, spacing=SPACING)
    )
    batched = fastsdm.signed_distance(batch_of(SPACING, (1.0, 2.0, 3.0)))
    assert [part.affine[1, 1].item() for part in decollate_batch(batched)] == [5.0, 2.0]


@pytest.mark.parametrize("name", MONAIS)
def test_values_at_the_default_are_monais(name: str) -> None:
    target = batch_of((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    logits = torch.randn(2, 3, *target.shape[2:], generator=torch.Generator().manual_seed(0))
    settings = {"softmax": True, "to_onehot_y": True, "include_background": False}
    theirs = getattr(monai.losses, name)(**settings)(logits, target.as_tensor())
    value = getattr(ours, name)(**settings)(logits, target)
    assert value.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert type(value) is torch.Tensor


@pytest.mark.parametrize(
    "name", ["BoundaryLoss", "HausdorffDTLoss", "LogHausdorffDTLoss", "GeneralizedSurfaceLoss"]
)
def test_spacing_per_sample_from_the_affine(name: str) -> None:
    """The trap: the spacing of a MetaTensor is not looked at, and differs per sample after augmentation."""
    spacings = [(6.0, 5.0, 5.0), (2.0, 1.0, 1.5)]
    target = batch_of(*spacings)
    logits = torch.randn(2, 3, *target.shape[2:], generator=torch.Generator().manual_seed(0))
    by_affine = getattr(ours, name)(softmax=True, spacing="affine")(logits, target)
    by_hand = getattr(fastsdm.losses, name)(softmax=True, spacing=spacings)(logits, target.as_tensor())
    as_cubes = getattr(fastsdm.losses, name)(softmax=True)(logits, target.as_tensor())
    assert by_affine.item() == by_hand.item()
    assert abs(by_affine.item() - as_cubes.item()) > 1e-3
    from_input = getattr(ours, name)(softmax=True, spacing="affine")(
        MetaTensor(logits).copy_meta_from(target), target.as_tensor()
    )
    assert from_input.item() == by_hand.item()


@pytest.mark.parametrize("part", [slice(1, 2), slice(0)], ids=["a micro-batch", "empty"])
def test_a_slice_of_a_batch_has_the_spacing_of_its_samples(part: slice) -> None:
    spacings = [(6.0, 5.0, 5.0), (2.0, 1.0, 1.5)]
    target = batch_of(*spacings)
    logits = torch.randn(2, 3, *target.shape[2:], generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"softmax": True, "reduction": "none"}
    value = ours.BoundaryLoss(**settings, spacing="affine")(logits[part], target[part])
    expected = fastsdm.losses.BoundaryLoss(**settings)(logits, target.as_tensor(), spacing=spacings)[part]
    torch.testing.assert_close(value, expected)


def test_no_affine_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^spacing: 'affine' needs a MetaTensor, got Tensor"):
        ours.BoundaryLoss(softmax=True, spacing="affine")(
            torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4)
        )
    with pytest.raises(ValueError, match=r"^spacing: must be 'affine' or numbers, got 'pixdim'"):
        ours.BoundaryLoss(spacing="pixdim")


def test_maps_made_ahead_have_the_spacing_of_the_affine() -> None:
    spacings = [(6.0, 5.0, 5.0), (2.0, 1.0, 1.5)]
    target = batch_of(*spacings)
    logits = torch.randn(2, 3, *target.shape[2:], generator=torch.Generator().manual_seed(0))
    loss = ours.BoundaryLoss(softmax=True, spacing="affine")
    expected = fastsdm.signed_distance(target.as_tensor()[:, 0], classes=3, spacing=spacings, empty="zero")
    assert torch.equal(torch.as_tensor(loss.target_map(target, 3)), expected)
    pending = loss.prefetch(target, 3)
    assert torch.equal(torch.as_tensor(pending.result()), expected)
    assert loss(logits, target, distance_map=pending).item() == loss(logits, target).item()
    both = fastsdm.losses.RegionBoundaryLoss(torch.nn.Identity(), loss)
    assert torch.equal(torch.as_tensor(both.prefetch(target, 3).result()), expected)
    given = loss.target_map(target, 3, spacing=2.0)
    assert torch.equal(
        torch.as_tensor(given), torch.as_tensor(ours.BoundaryLoss(spacing=2.0).target_map(target, 3))
    )
    with pytest.raises(ValueError, match=r"^spacing: 'affine' needs a MetaTensor, got Tensor"):
        loss.prefetch(target.as_tensor(), 3)
    value = loss(logits, target, distance_map=MetaTensor(loss.target_map(target, 3)))
    assert type(value) is torch.Tensor  # a map from a transform hands no metadata on
    assert value.item() == pytest.approx(loss(logits, target).item())
    with pytest.raises(ValueError, match=r"^distance_map: was made with spacing="):
        loss(logits, target, distance_map=ours.BoundaryLoss(softmax=True, spacing=1.0).prefetch(target, 3))


def test_components_are_measured_in_the_voxels_of_the_affine() -> None:
    spacings = [(6.0, 5.0, 5.0), (2.0, 1.0, 1.5)]
    target = batch_of(*spacings)
    logits = torch.randn(2, 3, *target.shape[2:], generator=torch.Generator().manual_seed(0))
    by_affine = fastsdm.losses.ComponentwiseLoss(ours.BoundaryLoss(softmax=True, spacing="affine"))
    by_hand = fastsdm.losses.ComponentwiseLoss(fastsdm.losses.BoundaryLoss(softmax=True, spacing=spacings))
    assert by_affine(logits, target).item() == by_hand(logits, target.as_tensor()).item()


def test_unequal_voxels_are_told_of_and_can_be_silenced() -> None:
    target, logits = batch_of(SPACING), torch.zeros(1, 3, 33, 47, 38)
    with pytest.warns(
        UserWarning, match=r"^spacing: voxels of \[6.0, 5.0, 5.0\] are taken as cubes"
    ) as caught:
        ours.BoundaryLoss(softmax=True)(logits, target)
    assert Path(caught[0].filename).name == "test_monai.py"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.BoundaryLoss(softmax=True, spacing="affine")(logits, target)
        ours.BoundaryLoss(softmax=True, spacing=1.0)(logits, target)
        ours.BoundaryLoss(softmax=True)(logits, batch_of((2.0, 2.0, 2.0)))
        ours.BoundaryLoss(softmax=True)(logits, target.as_tensor())


def test_sheared_axes_are_told_of() -> None:
    sheared = affine()
    sheared[0, 1] = 2.0
    label = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.from_numpy(sheared))
    with pytest.warns(UserWarning, match=r"^affine: its axes are not at right angles \(cosine up to 0.37\)"):
        ours.spacing_of(label)


def test_transforms_keep_metadata_and_pickle() -> None:
    data = sample()
    transform = pickle.loads(pickle.dumps(ours.SignedDistanced("label", 3, convention="midline")))
    after = transform(data)
    expected = fastsdm.signed_distance(
        data["label"].as_tensor()[0], classes=3, spacing=SPACING, convention="midline"
    )
    assert isinstance(after["distance_map"], MetaTensor)
    assert torch.equal(after["distance_map"].as_tensor(), expected)
    assert torch.equal(after["distance_map"].affine, data["label"].affine)
    assert "distance_map" not in data
    ignoring = ours.SignedDistance(3, ignore_index=1)(data["label"]).as_tensor()
    labels = data["label"].as_tensor()[0]
    assert torch.equal(ignoring, fastsdm.signed_distance(labels, classes=3, spacing=SPACING, ignore_index=1))
    mask = ours.SignedDistance(spacing=1.0)(data["label"].numpy())
    assert isinstance(mask, np.ndarray)
    assert mask.shape == (1, 33, 47, 38)
    assert ours.SignedDistanceD is ours.SignedDistanceDict is ours.SignedDistanced


def test_transforms_refuse() -> None:
    data = sample()
    with pytest.raises(ValueError, match=r"^spacing: 'affine' needs a MetaTensor"):
        ours.SignedDistance()(data["label"].numpy())
    with pytest.raises(ValueError, match=r"^label: must have one channel for classes"):
        ours.SignedDistance(3)(torch.cat([data["label"]] * 2))
    transforms: list[Callable[..., object]] = [ours.SignedDistance, partial(ours.SignedDistanced, "label")]
    for transform in transforms:
        with pytest.raises(TypeError, match=r"^max_distances: is no argument of SignedDistance"):
            transform(max_distances=3.0)
        with pytest.raises(TypeError, match=r"^ignore_index: must be an integer"):
            transform(ignore_index=1.5)
    with pytest.raises(ValueError, match=r"^name: must hold '\{\}' for several keys"):
        ours.SignedDistanced(["a", "b"])
    pending = RandFlipd("label", prob=1, lazy=True)(data)
    with pytest.raises(ValueError, match=r"^label: must hold no pending operations"):
        ours.SignedDistanced("label")(pending)
    assert apply_pending(pending["label"])[0].shape == (1, 33, 47, 38)


def test_lazy_pipeline_moves_voxels_before_the_map() -> None:
    keys = ["image", "label"]
    moves = [RandFlipd(keys, prob=1, spatial_axis=0), CenterSpatialCropd(keys, (20, 30, 24))]
    lazy = Compose([*moves, ours.SignedDistanced("label", 3)], lazy=True)(sample())
    moved = sample()["label"].as_tensor()[0].flip(0)
    start = [(size - part) // 2 for size, part in zip(moved.shape, (20, 30, 24), strict=True)]
    moved = moved[tuple(slice(a, a + n) for a, n in zip(start, (20, 30, 24), strict=True))]
    expected = fastsdm.signed_distance(moved, classes=3, spacing=SPACING)
    assert torch.equal(lazy["label"].as_tensor()[0], moved)
    assert torch.equal(lazy["distance_map"].as_tensor(), expected)


CROPS = {
    "foreground": RandCropByPosNegLabeld(["image", "label"], "label", (16, 20, 12), num_samples=3),
    "classes": RandCropByLabelClassesd(
        ["image", "label"], "label", (16, 20, 12), num_classes=3, num_samples=2
    ),
    "anywhere": RandSpatialCropd(["image", "label"], (16, 20, 12), random_size=False),
}


@pytest.mark.parametrize("kind", CROPS)
@pytest.mark.parametrize("lazy", [False, True])
def test_crops_hold_distances_of_the_whole_volume(kind: str, lazy: bool) -> None:
    data = sample()
    crop = ours.RandCropWithSignedDistanced(CROPS[kind], classes=3, max_distance=25.0)
    pipeline = Compose([crop], lazy=lazy)
    crop.set_random_state(3)  # Compose seeds what it holds
    whole = fastsdm.signed_distance(
        data["label"].as_tensor()[0], classes=3, spacing=SPACING, empty="max", max_distance=25.0
    )
    found = pipeline(data)
    for part in found if isinstance(found, list) else [found]:
        start = (
            (part["label"].affine[:3, 3] / torch.tensor(SPACING, dtype=torch.float64)).round().int().tolist()
        )
        place = tuple(slice(a, a + n) for a, n in zip(start, (16, 20, 12), strict=True))
        torch.testing.assert_close(
            part["distance_map"].as_tensor(), whole[(slice(None), *place)], rtol=3e-7, atol=0
        )
        assert torch.equal(part["image"].as_tensor(), data["image"].as_tensor()[(slice(None), *place)])
        assert torch.equal(part["distance_map"].affine, part["label"].affine)
    again = ours.RandCropWithSignedDistanced(CROPS[kind], classes=3, max_distance=25.0).set_random_state(3)(
        data
    )
    first, second = (x[0] if isinstance(x, list) else x for x in (found, again))
    assert torch.equal(first["label"].affine, second["label"].affine)


@pytest.mark.parametrize("ignored", [2, 0])
def test_crops_leave_ignored_voxels_out_as_the_whole_map_does(ignored: int) -> None:
    data = sample()
    options = {"classes": 3, "max_distance": 25.0, "convention": "midline", "ignore_index": ignored}
    crop = ours.RandCropWithSignedDistanced(CROPS["foreground"], **options).set_random_state(1)
    labels = data["label"].as_tensor()[0]
    whole = fastsdm.signed_distance(labels, spacing=SPACING, empty="max", **options)
    without = fastsdm.signed_distance(
        labels, spacing=SPACING, empty="max", **{**options, "ignore_index": None}
    )
    seen_elsewhere = False
    for part in crop(data):
        start = (part["label"].affine[:3, 3] / torch.tensor(SPACING, dtype=torch.float64)).round().long()
        place = (slice(None), *(slice(a, a + n) for a, n in zip(start.tolist(), (16, 20, 12), strict=True)))
        maps = part["distance_map"].as_tensor()
        torch.testing.assert_close(maps, whole[place], rtol=3e-7, atol=0)
        outside = (part["label"].as_tensor() != ignored).expand_as(maps)
        seen_elsewhere |= bool((maps[outside] != without[place][outside]).any())
    assert seen_elsewhere  # the ignored voxels change distances beside them, not only their own


def test_crop_refuses_more_than_a_crop() -> None:
    def crop_of(transform: object) -> object:
        return ours.RandCropWithSignedDistanced(transform, classes=None, max_distance=5.0)(sample())

    keys = ["image", "label"]
    with pytest.raises(ValueError, match=r"^crop: must only crop"):
        crop_of(RandAffined(keys, prob=1, rotate_range=0.3, scale_range=0.2))
    with pytest.raises(ValueError, match=r"^crop: must lie inside the volume"):
        crop_of(SpatialPadd(keys, (60, 60, 60)))
    with pytest.raises(TypeError, match=r"^crop: must be a dictionary transform"):
        crop_of(None)
    with pytest.raises(TypeError, match=r"^ignore_index: must be an integer"):
        ours.RandCropWithSignedDistanced(CROPS["anywhere"], classes=3, max_distance=5.0, ignore_index="2")


def test_cached_files_through_the_supervised_trainer(tmp_path: Path) -> None:
    folder = write_nifti_folder(tmp_path, 3)
    files = [
        {"image": path, "label": folder / "labels" / path.name}
        for path in sorted((folder / "images").iterdir())
    ]
    keys = ["image", "label"]
    transform = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            ours.SignedDistanced("label", 3),
            ours.RandCropWithSignedDistanced(
                CROPS["foreground"], classes=3, max_distance=30.0, name="cropped"
            ),
            RandFlipd([*keys, "cropped"], prob=0.5),
        ]
    )
    dataset = CacheDataset(files, transform, progress=False)
    loader = DataLoader(dataset, batch_size=1, num_workers=2)
    network = UNet(3, 1, 3, channels=(4, 8), strides=(2,))
    before = [weight.clone() for weight in network.parameters()]
    losses: list[float] = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-2),
        loss_function=ours.BoundaryLoss(softmax=True, spacing="affine", normalize="max"),
    )
    from ignite.engine import Events  # noqa: PLC0415  # comes with the trainer

    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output[0]["loss"])
    )
    trainer.run()
    assert len(losses) == 6
    assert np.isfinite(losses).all()
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
