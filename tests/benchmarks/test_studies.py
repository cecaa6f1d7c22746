"""What the studies measure, on inputs where the answer is known."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastsdm
from benchmarks.studies import augmentation, epochs, patches, precompute, traffic
from benchmarks.studies.augmentation import Case, Comparison
from fastsdm import testing
from fastsdm.data import PatchDataset, PatchSampler, Volume
from fastsdm.losses import BoundaryLoss

ROOT = Path(__file__).parents[2]
HARD = {case.name: case for case in testing.hard_cases(20)}


def test_share_of_wrong_voxels() -> None:
    """One foreground voxel: no patch knows more than itself, and most hold none."""
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[12, 12, 12] = 1
    wrong, silent = patches.wrong_shares(Volume(labels, labels), (8, 8, 8), 2, 6.0)
    assert len(wrong) == len(silent) == patches.SHARE_PATCHES
    for share, without_foreground in zip(wrong, silent, strict=True):
        # The patch that holds the voxel misses nothing. Another reads 0 throughout, which is wrong by more
        # than a voxel but for at most 11 of 1024: those within 2 of the foreground.
        assert share > 0.98 if without_foreground else share == 0
    assert 0 < np.mean(silent) < 1


def test_cost_is_not_timed_of_a_wrong_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "signed_distance_patch", lambda *_, **__: torch.zeros(2, 4, 128, 128, 128))
    with pytest.raises(SystemExit, match="nothing is timed"):
        patches.cost(torch.zeros(256, 256, 256, dtype=torch.uint8))


def small_labels() -> torch.Tensor:
    labels = torch.zeros(1, 1, 30, 28, 32, dtype=torch.uint8)
    labels[..., 8:20, 9:19, 11:22] = 1
    labels[..., 12:16, 12:16, 14:18] = 2
    return labels


@pytest.mark.parametrize("case", augmentation.CASES[:2], ids=lambda case: case.name)
def test_transforms_that_commute(case: Case) -> None:
    assert augmentation.errors(case.compare(small_labels())).largest == 0


def test_a_spacing_that_is_not_permuted_shows() -> None:
    assert augmentation.errors(augmentation.CASES[2].compare(small_labels())).largest > 1


def test_scaling_needs_its_factor() -> None:
    scaled = augmentation.affine(2 * np.eye(3))
    without = augmentation.errors(Case("", scaled).compare(small_labels()))
    right = augmentation.errors(Case("", scaled, factor=2.0).compare(small_labels()))
    assert right.largest < 1.5 < without.mean


def test_errors_are_those_of_the_known_voxels() -> None:
    truth = torch.tensor([-2.0, 1.0, 8.0, 20.0]).reshape(1, 1, 1, 1, 4)
    warped = torch.tensor([-2.5, 1.0, 11.0, math.nan]).reshape(1, 1, 1, 1, 4)
    known = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 1, 4)
    e = augmentation.errors(Comparison(torch.zeros_like(truth), truth, warped, known))
    assert (e.mean, e.mean_in_band) == (pytest.approx(3.5 / 3), pytest.approx(0.25))
    assert (e.largest, e.share_over_one) == (3.0, pytest.approx(1 / 3))


@pytest.mark.parametrize("shape", traffic.SHAPES)
@pytest.mark.parametrize("classes", [1, 4])
def test_ours_stays_below_its_bound(shape, classes) -> None:
    ours = traffic.triton_traffic(shape, classes)
    assert ours.launches == 3
    # One byte of label, shared by the classes; 2 + 2 + 4 + 4 + 4 for the fields.
    assert ours.bytes_per_voxel == 16 + 1 / classes


def test_labels_are_read_once_for_all_classes() -> None:
    shape = (2, 32, 32, 32)
    for dtype in (torch.bool, torch.int16, torch.int64):
        assert traffic.triton_traffic(shape, 4, dtype).bytes_per_voxel == 16 + dtype.itemsize / 4


def test_cucim_pays_for_its_cube() -> None:
    cube, flat = traffic.cucim_traffic((1, 512, 512, 512), 1), traffic.cucim_traffic((1, 64, 512, 512), 1)
    per_call = 61 + 8  # padded voxels: 1 + 15 sites of 4 bytes; then sites in, distances out
    assert cube.bytes_per_voxel == 2 * per_call + 16
    assert flat.bytes_per_voxel == 2 * (8 * 61 + 8 * 1 + 1 + 8) + 16
    assert flat.launches == cube.launches + 2 * 2
    assert traffic.cucim_traffic((3, 32, 32, 32), 2).launches == 6 * cube.launches


def test_cucim_packs_large_cubes_into_64_bits() -> None:
    small, large = (
        traffic.cucim_traffic((1, 1024, 1024, 1024), 1),
        traffic.cucim_traffic((1, 1056, 1056, 1056), 1),
    )
    assert large.bytes_per_voxel - small.bytes_per_voxel == 2 * (15 * 4 + 4)


def test_the_command_prints_the_table() -> None:
    command = [sys.executable, "-m", "benchmarks.studies.traffic"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == traffic.report()
    assert "| 1 x 64 x 512 x 512 | 1 | 3 | 17.0 |" in printed
    assert traffic.report() in (ROOT / "docs" / "triton.md").read_text(encoding="utf-8")


def test_precompute_is_not_timed_of_wrong_maps(tmp_path: Path) -> None:
    paths = [tmp_path / f"case{number}.npy" for number in range(2)]
    for number, path in enumerate(paths):
        np.save(path, testing.blobs((12, 13, 14), sigma=2, seed=number))
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    cost = precompute.by_fastsdm(paths, ours, classes=2, workers=2)
    pool = precompute.by_pool(paths, theirs, classes=2, workers=2)
    assert min(cost.seconds, cost.processor, pool.seconds, pool.processor) > 0
    precompute.check_same(paths, ours, theirs)
    wrong = np.load(theirs / "case1.npy")
    wrong[0, 3, 4, 5] += 1e-3
    np.save(theirs / "case1.npy", wrong)
    with pytest.raises(SystemExit, match=r"case1\.npy: the maps differ"):
        precompute.check_same(paths, ours, theirs)


def test_epochs_of_every_way_see_the_same_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = epochs.volumes(tmp_path, 2, 24, 4.0)
    loss = BoundaryLoss(softmax=True, max_distance=4.0)
    logits = torch.zeros(epochs.BATCH, epochs.CLASSES, 12, 12, 12)
    options = {"size": (12, 12, 12), "classes": epochs.CLASSES, "loss": loss}
    ways = {way: PatchDataset(held[way], context="stored", **options) for way in epochs.STORED}
    ways["halo"] = PatchDataset(held[""], context="halo", **options)
    sampler = PatchSampler(ways["halo"], patches_per_epoch=4)
    epochs.check_same(ways, sampler)
    values = [epochs.epoch(dataset, sampler, loss, logits, 0) for dataset in ways.values()]
    assert values == pytest.approx([values[0]] * len(values), rel=1e-3)
    monkeypatch.setattr(epochs, "STORED", dict.fromkeys(["shifted"]))
    ways["shifted"] = PatchDataset(held[""], context="halo", **{**options, "loss": None}, max_distance=3.0)
    with pytest.raises(SystemExit, match="shifted: the map differs"):
        epochs.check_same(ways, sampler)


def test_labels_by_path_bring_no_labels_along(tmp_path: Path) -> None:
    large = pytest.importorskip("benchmarks.studies.large")
    labels = testing.shells((30, 31, 32), classes=3, thickness=4).astype(np.uint8)
    large.zarr.create_array(tmp_path / "labels.zarr", data=labels, chunks=(8, 9, 10))
    lazy = large.labels_by_path(tmp_path / "labels.zarr")
    assert lazy.chunks == ((8, 8, 8, 6), (9, 9, 9, 4), (10, 10, 10, 2))
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), labels)
    assert len(pickle.dumps(lazy.dask)) < labels.size


@pytest.mark.parametrize("road", ["exact", "max_distance=20"])
def test_a_large_map_is_compared_voxel_by_voxel(tmp_path: Path, road: str) -> None:
    large = pytest.importorskip("benchmarks.studies.large")
    labels = testing.shells((30, 31, 32), classes=2, thickness=4).astype(np.uint8)
    large.zarr.create_array(tmp_path / "labels.zarr", data=labels, chunks=(8, 9, 10))
    maps = fastsdm.signed_distance(labels, classes=2, max_distance=large.ROADS[road])
    stored = large.zarr.create_array(tmp_path / f"{road}.zarr", data=maps, chunks=(1, 30, 31, 32))
    large.check_map(tmp_path, road, 2)
    stored[1, 29, 30, 31] += 0.5
    with pytest.raises(AssertionError, match="class 1 differs"):
        large.check_map(tmp_path, road, 2)


def test_a_limit_above_the_map_shows_nothing() -> None:
    large = pytest.importorskip("benchmarks.studies.large")
    with pytest.raises(SystemExit, match="must be below the map's 977 MiB, got 1GiB"):
        large.main(400, 4, "1GiB")
