"""A map that knows how it was made goes with a loss of the same settings, and with no other."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import fastsdm
from fastsdm import testing
from fastsdm._distance_map import DistanceMap
from fastsdm.data import PatchDataset, PatchPosition, PatchSampler, Volume
from fastsdm.losses import (
    BoundaryLoss,
    GeneralizedSurfaceLoss,
    HausdorffDTLoss,
    RegionBoundaryLoss,
    SDMRegressionLoss,
)

SHAPE = (9, 10, 11)
ANISOTROPIC = (3.0, 0.8, 0.8)


def labels(batch: int = 2) -> torch.Tensor:
    return torch.stack(
        [torch.from_numpy(testing.blobs(SHAPE, sigma=2, seed=seed)) for seed in range(batch)]
    ).long()


def logits(channels: int = 3, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("loss", "options", "setting"),
    [
        (BoundaryLoss(softmax=True, empty="max"), {}, "empty='inf', not empty='max'"),
        (
            BoundaryLoss(convention="midline", spacing=2.0),
            {},
            "convention='kervadec', not convention='midline'",
        ),
        (BoundaryLoss(spacing=2.0), {}, r"spacing=1\.0, not spacing=2\.0"),
        (BoundaryLoss(max_distance=5), {"spacing": ANISOTROPIC}, r"max_distance=None, not max_distance=5\.0"),
        (BoundaryLoss(ignore_index=255), {}, "ignore_index=None, not ignore_index=255"),
        (BoundaryLoss(max_distance=5, empty="zero"), {"max_distance": 5}, "empty='inf', not empty='zero'"),
        (
            BoundaryLoss(include_background=False),
            {"classes": [0, 2]},
            r"classes=\[0, 2\], not classes=\[1, 2\]",
        ),
        (HausdorffDTLoss(softmax=True), {}, "convention='kervadec', not convention='plain'"),
        (SDMRegressionLoss(convention="midline"), {}, "convention='kervadec', not convention='midline'"),
        (GeneralizedSurfaceLoss(spacing=ANISOTROPIC), {}, r"spacing=1\.0, not spacing=\(3\.0, 0\.8, 0\.8\)"),
        (
            RegionBoundaryLoss(lambda p, t: p.sum(), BoundaryLoss(empty="max")),
            {},
            "empty='inf', not empty='max'",
        ),
    ],
)
def test_a_mismatch_is_refused_by_name(loss, options, setting) -> None:
    pending = fastsdm.prefetch(labels(), **{"classes": 3, **options})
    for handed in (pending, pending.result()):
        with pytest.raises(
            ValueError, match=f"distance_map: was made with {setting} as the loss needs"
        ) as error:
            loss(logits(), labels(), distance_map=handed)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("mine", "its"), [(np.float32(2.1), 2.1), (2.1, np.float32(2.1))])
def test_a_limit_that_was_kept_as_float32_is_the_same(mine: float, its: float) -> None:
    loss = BoundaryLoss(softmax=True, max_distance=its)
    maps = fastsdm.prefetch(labels(), classes=3, max_distance=mine, empty="zero")
    assert torch.equal(loss(logits(), labels(), distance_map=maps), loss(logits(), labels()))
    other = fastsdm.prefetch(labels(), classes=3, max_distance=2.1001, empty="zero")
    with pytest.raises(ValueError, match=r"max_distance=2\.1001, not max_distance=2\.(1|09)"):
        loss(logits(), labels(), distance_map=other)


def test_spacing_per_sample_is_compared_row_by_row() -> None:
    rows = [(1.0, 2.0, 3.0), (2.0, 2.0, 2.0)]
    maps = fastsdm.prefetch(labels(), classes=3, spacing=rows)
    loss = BoundaryLoss(softmax=True)
    assert torch.equal(
        loss(logits(), labels(), spacing=rows, distance_map=maps), loss(logits(), labels(), spacing=rows)
    )
    with pytest.raises(
        ValueError, match=r"spacing=\(\(1\.0, 2\.0, 3\.0\), \(2\.0, 2\.0, 2\.0\)\), not spacing="
    ):
        loss(logits(), labels(), spacing=rows[::-1], distance_map=maps)


def test_a_loss_without_spacing_takes_the_maps() -> None:
    loss = HausdorffDTLoss(softmax=True)
    maps = fastsdm.prefetch(labels(), classes=3, spacing=ANISOTROPIC, convention="plain")
    got = loss(logits(), labels(), distance_map=maps)
    assert torch.equal(got, loss(logits(), labels(), spacing=ANISOTROPIC))
    assert not torch.equal(got, loss(logits(), labels()))


def test_a_plain_tensor_is_taken_as_it_is() -> None:
    maps = fastsdm.signed_distance(labels(), classes=3, convention="plain")
    loss = BoundaryLoss(softmax=True)
    assert torch.isfinite(loss(logits(), labels(), distance_map=maps))


@pytest.mark.parametrize(
    "loss",
    [
        BoundaryLoss(softmax=True, empty="max"),
        BoundaryLoss(softmax=True, include_background=False, convention="midline", spacing=2.0),
        BoundaryLoss(softmax=True, max_distance=5, spacing=ANISOTROPIC, ignore_index=1),
        HausdorffDTLoss(softmax=True, normalize="max"),
        SDMRegressionLoss(other_act=torch.tanh),
        GeneralizedSurfaceLoss(softmax=True, classes=[0, 2]),
    ],
    ids=lambda loss: type(loss).__name__,
)
@pytest.mark.parametrize("with_channel", [False, True])
def test_the_loss_prefetches_its_own_map(loss, with_channel: bool) -> None:
    target = labels()[:, None] if with_channel else labels()
    pending = loss.prefetch(target, 3)
    assert torch.equal(loss(logits(), target, distance_map=pending), loss(logits(), target))
    assert torch.equal(loss(logits(), target, distance_map=pending.result()), loss(logits(), target))


def test_the_loss_prefetches_with_a_mask_of_ignored_voxels() -> None:
    loss = BoundaryLoss(softmax=True)
    mask = torch.zeros(2, *SHAPE)
    mask[:, 3:6] = 1
    pending = loss.prefetch(labels(), 3, ignore_mask=mask, spacing=ANISOTROPIC)
    options = {"ignore_mask": mask, "spacing": ANISOTROPIC}
    assert torch.equal(
        loss(logits(), labels(), distance_map=pending, **options), loss(logits(), labels(), **options)
    )
    with pytest.raises(ValueError, match="ignore_mask=True, not ignore_mask=False"):
        loss(logits(), labels(), spacing=ANISOTROPIC, distance_map=pending)


def test_the_prefetching_loss_works_with_the_backend_in_force() -> None:
    loss = BoundaryLoss(softmax=True)
    with fastsdm.use_backend("cupy"):
        pending = loss.prefetch(labels(), 3)
    with pytest.raises(fastsdm.BackendUnavailableError, match="'cupy'"):
        pending.result()


@pytest.mark.parametrize("classes", [None, 3])
def test_maps_of_a_target_with_a_channel_fit(classes) -> None:
    target = labels()[:, None]
    channels = 1 if classes is None else classes
    loss = BoundaryLoss(sigmoid=True)
    expected = loss(logits(channels), target)
    for make in (
        lambda: fastsdm.prefetch(target, classes=classes),
        lambda: fastsdm.signed_distance(target, classes=classes),
    ):
        assert torch.equal(loss(logits(channels), target, distance_map=make()), expected)


def test_the_settings_of_a_map_make_it_again() -> None:
    options = {
        "classes": (1, 2),
        "spacing": ANISOTROPIC,
        "convention": "midline",
        "empty": "max",
        "max_distance": 4.0,
        "ignore_index": 0,
        "black_border": True,
    }
    maps = fastsdm.prefetch(labels(), **options).result()
    assert maps.settings.options() == options
    assert torch.equal(fastsdm.signed_distance(labels(), **maps.settings.options()), maps)


def test_a_deep_copy_keeps_the_settings() -> None:
    sample = {"map": fastsdm.prefetch(labels(), classes=3, empty="zero").result()}
    sample["again"] = sample["map"]
    copied = copy.deepcopy(sample)  # as caches and transforms of frameworks do
    assert type(copied["map"]) is DistanceMap
    assert copied["map"].settings == sample["map"].settings
    assert torch.equal(copied["map"], sample["map"])
    assert copied["map"].data_ptr() != sample["map"].data_ptr()
    assert copied["again"] is copied["map"]


def test_settings_survive_what_a_training_does_to_a_batch() -> None:
    maps = fastsdm.prefetch(labels(), classes=3, spacing=2.0).result()
    assert isinstance(maps, DistanceMap)
    for kept in (
        maps.to(torch.float16),
        maps.clone(),
        maps.cpu(),
        maps.to("cpu", non_blocking=True),
        maps.half(),
    ):
        assert isinstance(kept, DistanceMap)
        assert kept.settings == maps.settings
    for changed in (maps + 1, maps[:1], maps.flip(2), maps.abs()):
        assert type(changed) is torch.Tensor
    assert maps.abs_().settings == maps.settings  # what is written in place is the writer's business


def volumes() -> list[Volume]:
    return [
        Volume(torch.zeros(SHAPE), labels(2)[number], spacing=spacing)
        for number, spacing in enumerate([(1.0, 1.0, 1.0), ANISOTROPIC])
    ]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("context", ["full", "halo", "patch"])
def test_maps_of_a_data_set_know_how_they_were_made(context, workers: int) -> None:
    loss = BoundaryLoss(softmax=True, max_distance=4, convention="midline", ignore_index=255)
    dataset = PatchDataset(volumes(), (5, 5, 5), classes=3, context=context, loss=loss)
    sampler = PatchSampler(dataset, patches_per_epoch=4, seed=1)
    batch = next(iter(DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers)))
    assert batch["distance_map"].shape == (4, 3, 5, 5, 5)
    prediction = torch.randn(4, 3, 5, 5, 5)
    assert torch.isfinite(loss(prediction, batch["label"], distance_map=batch["distance_map"]))
    with pytest.raises(ValueError, match="convention='midline', not convention='plain'"):
        HausdorffDTLoss(max_distance=4, ignore_index=255)(
            prediction, batch["label"], distance_map=batch["distance_map"]
        )
    with pytest.raises(ValueError, match="spacing="):
        loss(prediction, batch["label"], spacing=7.0, distance_map=batch["distance_map"])


def test_a_data_set_takes_its_settings_from_one_place() -> None:
    loss = RegionBoundaryLoss(lambda p, t: p.sum(), BoundaryLoss(max_distance=4, convention="plain"))
    sample = PatchDataset(volumes(), (5, 5, 5), classes=3, loss=loss)[PatchPosition(1, (0, 1, 2))]
    assert sample["distance_map"].settings.convention == "plain"
    with pytest.raises(
        ValueError, match="convention: must not be given beside loss, which brings its own; got 'plain'"
    ):
        PatchDataset(volumes(), (5, 5, 5), classes=3, loss=BoundaryLoss(max_distance=4), convention="plain")
    with pytest.raises(TypeError, match=r"loss: must be one of fastsdm\.losses, got Linear"):
        PatchDataset(volumes(), (5, 5, 5), classes=3, loss=torch.nn.Linear(1, 1))


def test_a_compiled_loss_takes_a_map_that_knows() -> None:
    loss = BoundaryLoss(softmax=True)
    compiled = torch.compile(loss, backend="eager")
    maps = loss.prefetch(labels(), 3).result()
    torch.testing.assert_close(compiled(logits(), labels(), distance_map=maps), loss(logits(), labels()))


def test_a_plain_map_handed_in_breaks_no_graph() -> None:
    loss = HausdorffDTLoss(softmax=True, spacing=ANISOTROPIC)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    maps = loss.target_map(labels(), 3)
    kept = maps.clone()
    torch.testing.assert_close(
        compiled(logits(), labels(), distance_map=maps), loss(logits(), labels(), distance_map=maps)
    )
    assert torch.equal(maps, kept)
