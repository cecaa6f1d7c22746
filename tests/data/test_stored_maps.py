"""Stored maps as a data set's maps: the crop of the whole map, and of no other map."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import fastsdm
from fastsdm import testing
from fastsdm._distance_map import DistanceMap
from fastsdm.data import (
    PatchDataset,
    PatchPosition,
    PatchSampler,
    RandomOrientation,
    StoredMap,
    StoredMaps,
    Volume,
    precompute,
)
from fastsdm.losses import BoundaryLoss, HausdorffDTLoss
from tests.data.stored import FORMATS, SETTINGS, SHAPE, SIZE, SPACING, cut, drawn, labels, stored_volume


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("classes", [None, 3, [2], [2, 1]])
@pytest.mark.parametrize("shape", [SHAPE, (40, 50)])
def test_patches_are_crops_of_the_whole_map(tmp_path: Path, suffix: str, classes, shape) -> None:
    spacing, size = SPACING[-len(shape) :], SIZE[-len(shape) :]
    values = labels(shape)
    volume = stored_volume(
        tmp_path, values, spacing=spacing, suffix=suffix, classes=classes, convention="plain"
    )
    dataset = PatchDataset([volume], size, classes=classes, context="stored", convention="plain")
    whole = fastsdm.signed_distance(
        torch.from_numpy(values),
        classes=classes,
        spatial_dims=len(shape),
        spacing=spacing,
        convention="plain",
    )
    for position in drawn(dataset):
        patch = dataset[position]
        assert torch.equal(patch["distance_map"], cut(whole, position.start, size))
        assert torch.equal(patch["label"], cut(torch.from_numpy(values), position.start, size))
        assert patch["distance_map"].is_contiguous()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_they_equal_the_maps_made_on_the_fly(tmp_path: Path, dtype: str) -> None:
    volume = stored_volume(tmp_path, labels(), dtype=dtype, **SETTINGS)
    stored, halo = (
        PatchDataset([volume], SIZE, classes=3, context=context, **SETTINGS) for context in ("stored", "halo")
    )
    for position in drawn(stored, foreground=0.5):
        got, expected = stored[position]["distance_map"], halo[position]["distance_map"]
        assert str(got.dtype) == f"torch.{dtype}"
        torch.testing.assert_close(
            got.float(), expected.as_subclass(torch.Tensor), rtol=1e-6 if dtype == "float32" else 1e-3, atol=0
        )
        assert got.settings == expected.settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_distance": 6.0}, r"max_distance=5\.0, not max_distance=6\.0"),
        ({"max_distance": None}, r"max_distance=5\.0, not max_distance=None"),
        ({"convention": "plain"}, "convention='midline', not convention='plain'"),
        ({"convention": None}, "convention='midline', not convention='kervadec'"),
        ({"ignore_index": 255}, "ignore_index=None, not ignore_index=255"),
        ({"classes": [0, 1]}, r"classes=\(0, 1, 2\), not classes=\(0, 1\)"),
        ({"classes": None}, r"classes=\(0, 1, 2\), not classes=None"),
        ({"spacing": (2.0, 1.0, 1.0)}, r"spacing=\(2\.0, 1\.0, 0\.75\), not spacing=\(2\.0, 1\.0, 1\.0\)"),
        ({"spacing": 1.0}, r"spacing=\(2\.0, 1\.0, 0\.75\), not spacing="),
        ({"labels": labels((24, 26, 39))}, r"shape=\(24, 26, 40\), not shape=\(24, 26, 39\)"),
    ],
)
def test_a_map_of_other_settings_is_refused_by_name(tmp_path: Path, change, message: str) -> None:
    volume = stored_volume(tmp_path, labels(), **SETTINGS)
    held = change.pop("labels", volume.labels)
    volume = Volume(held, held, change.pop("spacing", SPACING), volume.distance_map)
    with pytest.raises(ValueError, match=rf"volumes: the stored map .*case\.npy .*{message}"):
        PatchDataset([volume], SIZE, **{"classes": 3, "context": "stored", **SETTINGS, **change})


@pytest.mark.parametrize(
    ("stored", "wanted", "fits"),
    [("zero", "zero", True), ("zero", "max", False), ("max", "max", True), ("inf", "zero", True)],
)
def test_the_policy_for_empty_classes_is_held_to_the_loss(tmp_path: Path, stored, wanted, fits: bool) -> None:
    volume = stored_volume(tmp_path, labels(), empty=stored)
    loss = BoundaryLoss(empty=wanted)
    if fits:
        PatchDataset([volume], SIZE, classes=3, context="stored", loss=loss)
        return
    with pytest.raises(ValueError, match=f"empty='{stored}', not empty='{wanted}'"):
        PatchDataset([volume], SIZE, classes=3, context="stored", loss=loss)


def test_a_loss_with_other_settings_refuses_the_patch(tmp_path: Path) -> None:
    volume = stored_volume(tmp_path, labels(), max_distance=5.0)
    loss = BoundaryLoss(softmax=True, max_distance=5.0)
    dataset = PatchDataset([volume], SIZE, classes=3, context="stored", loss=loss)
    batch = next(iter(DataLoader(dataset, 2, sampler=PatchSampler(dataset, patches_per_epoch=2))))
    assert isinstance(batch["distance_map"], DistanceMap)
    prediction = torch.randn(2, 3, *SIZE)
    handed = {"distance_map": batch["distance_map"]}
    assert torch.isfinite(loss(prediction, batch["label"], **handed))
    assert torch.isfinite(loss(prediction, batch["label"], spacing=batch["spacing"], **handed))
    for other, message in (
        (BoundaryLoss(softmax=True, max_distance=6.0), r"max_distance=5\.0, not max_distance=6\.0"),
        (HausdorffDTLoss(softmax=True, max_distance=5.0), "convention='kervadec', not convention='plain'"),
        (BoundaryLoss(softmax=True, max_distance=5.0, spacing=1.0), r"spacing=\(2\.0, 1\.0, 0\.75\), not"),
    ):
        with pytest.raises(ValueError, match=f"distance_map: was made with {message}"):
            other(prediction, batch["label"], **handed)


def test_a_stored_policy_reaches_the_loss(tmp_path: Path) -> None:
    """An absent class that was stored as 0 is no map for a loss that weighs it by its distance."""
    volume = stored_volume(tmp_path, np.minimum(labels(), 1), max_distance=5.0, empty="zero")
    dataset = PatchDataset([volume], SIZE, classes=3, context="stored", max_distance=5.0)
    patch = dataset[PatchPosition(0, (0, 0, 0))]
    assert not patch["distance_map"][2].any()
    with pytest.raises(ValueError, match="empty='zero', not empty='max'"):
        BoundaryLoss(softmax=True, max_distance=5.0, empty="max")(
            torch.randn(1, 3, *SIZE), patch["label"][None], distance_map=torch.stack([patch["distance_map"]])
        )


IGNORED = 255


@pytest.mark.parametrize("context", ["full", "halo"])
@pytest.mark.parametrize("sparse", [False, True])
def test_ignored_padding_is_the_map_of_the_padded_labels(tmp_path: Path, context: str, sparse: bool) -> None:
    values = labels((10, 26, 12))
    if sparse:
        values[::3] = IGNORED
    volume = stored_volume(tmp_path, values, ignore_index=IGNORED, **SETTINGS)
    options = {"classes": 3, "pad_label": IGNORED, "ignore_index": IGNORED, **SETTINGS}
    stored = PatchDataset([volume], SIZE, context="stored", **options)
    other = PatchDataset([volume], SIZE, context=context, **options)
    for position in drawn(stored, 8):
        got, expected = stored[position], other[position]
        assert (position.start[0], position.start[2]) == (-3, -1)
        assert torch.equal(got["label"], expected["label"])
        torch.testing.assert_close(got["distance_map"], expected["distance_map"], rtol=1e-6, atol=0)
        assert not got["distance_map"][:, :3].any()


def test_padding_that_would_change_the_map_is_refused(tmp_path: Path) -> None:
    volume = stored_volume(tmp_path, labels((10, 26, 12)), **SETTINGS)
    with pytest.raises(
        ValueError, match=r"pad_label: must be the ignore_index .* pad_label=0, ignore_index=N"
    ):
        PatchDataset([volume], SIZE, classes=3, context="stored", **SETTINGS)
    # A volume as large as the patch is not padded.
    assert PatchDataset([volume], (10, 26, 12), classes=3, context="stored", **SETTINGS)


def test_maps_are_found_by_name_and_by_the_hash_of_the_labels(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        np.save(tmp_path / "in" / f"case{number}.npy", labels(seed=number))
    precompute(tmp_path / "in", tmp_path / "maps", classes=3)
    maps = StoredMaps(tmp_path / "maps")
    assert len(maps) == 4
    assert set(maps) == {f"case{number}.npy" for number in range(4)}
    assert maps["case2"].path == maps["case2.npy"].path == tmp_path / "maps" / "case2.npy"
    (tmp_path / "in" / "case3.npy").rename(tmp_path / "moved.npy")
    assert maps.of(tmp_path / "moved.npy").path.name == "case3.npy"
    np.save(tmp_path / "in" / "case1.npy", labels(seed=9))
    with pytest.raises(ValueError, match=r"case1\.npy was made of a file with sha256=\w+\.\.\., not sha256="):
        maps.of(tmp_path / "in" / "case1.npy")
    np.save(tmp_path / "unknown.npy", labels(seed=9))
    with pytest.raises(ValueError, match=r"unknown\.npy: no map of it is in .*maps; run precompute again"):
        maps.of(tmp_path / "unknown.npy")
    with pytest.raises(KeyError, match=r"holds no map 'other'; it has case.\.npy, .* and 1 more"):
        maps["other"]
    (tmp_path / "maps" / "case0.npy").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"case0\.npy: is absent or not as it was written"):
        maps["case0"]
    with pytest.raises(ValueError, match=r"fastsdm-maps\.jsonl: cannot be read"):
        StoredMaps(tmp_path / "in")


@pytest.mark.parametrize("suffix", [".npz", ".nii.gz"])
def test_formats_that_cannot_be_read_by_blocks_get_advice(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"is compressed as a whole, .* store the maps as \.npy, \.zarr or"):
        stored_volume(tmp_path, labels(), suffix=suffix)


def test_a_volume_without_a_stored_map_is_named() -> None:
    volume = Volume(labels(), labels(), SPACING)
    with pytest.raises(TypeError, match=r"distance_map of each, such as StoredMaps.* volume 0 has none"):
        PatchDataset([volume], SIZE, classes=3, context="stored", **SETTINGS)
    volume = Volume(labels(), labels(), SPACING, labels())
    with pytest.raises(TypeError, match="volume 0 has ndarray"):
        PatchDataset([volume], SIZE, classes=3, context="stored", **SETTINGS)


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("convention", ["kervadec", "plain", "kervadec-literal"])
def test_a_map_of_other_labels_is_found_out(tmp_path: Path, classes, convention: str) -> None:
    settings = {"classes": classes, "convention": convention}
    volume = stored_volume(tmp_path, labels(), **settings)
    dataset = PatchDataset([volume], SIZE, context="stored", **settings)
    assert dataset[PatchPosition(0, (3, 4, 5))]["distance_map"].any()
    mirrored = Volume(volume.image, np.flip(volume.labels, 2).copy(), SPACING, volume.distance_map)
    dataset = PatchDataset([mirrored], SIZE, context="stored", **settings)
    with pytest.raises(ValueError, match=r"made of other labels than those of volume 0: .* voxel .*side of"):
        dataset[PatchPosition(0, (3, 4, 5))]


@pytest.mark.parametrize("grows", [False, True])
def test_a_mask_that_grew_or_shrank_is_found_out(tmp_path: Path, grows: bool) -> None:
    small, large = testing.one_voxel(SIZE), testing.blobs(SIZE, sigma=3)
    large |= small
    of_map, held = (small, large) if grows else (large, small)
    volume = stored_volume(tmp_path, of_map, classes=None)
    dataset = PatchDataset(
        [Volume(held, held, SPACING, volume.distance_map)], SIZE, classes=None, context="stored"
    )
    side = (
        "is inside of the mask, where the map holds [0-9]" if grows else "is outside of the mask, .* holds -"
    )
    with pytest.raises(ValueError, match=side):
        dataset[PatchPosition(0, (0, 0, 0))]


def test_labels_are_compared_once_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = stored_volume(tmp_path, labels())
    compared = []
    monkeypatch.setattr(StoredMap, "contradiction", lambda *arguments: compared.append(arguments))
    dataset = PatchDataset([volume, volume], SIZE, classes=3, context="stored")
    for number in (0, 0, 1, 0, 1):
        dataset[PatchPosition(number, (0, 0, 0))]
    assert len(compared) == 2


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same_patches(tmp_path: Path, suffix: str, method: str) -> None:
    held = [
        stored_volume(tmp_path / str(seed), labels(seed=seed), suffix=suffix, **SETTINGS) for seed in range(2)
    ]
    dataset = PatchDataset(held, SIZE, classes=3, context="stored", augment=RandomOrientation(), **SETTINGS)
    position = PatchPosition(1, (1, 2, 3), seed=5)
    expected = dataset[position]["distance_map"]  # opened before the workers are forked
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[position]["distance_map"], expected)
    assert len(pickle.dumps(held[0].distance_map)) < 1500
    batches = []
    for workers in (0, 2):
        sampler = PatchSampler(dataset, patches_per_epoch=6, seed=3)
        options = {"num_workers": 2, "multiprocessing_context": method, "timeout": 120} if workers else {}
        batches.append(list(DataLoader(dataset, batch_size=2, sampler=sampler, **options)))
    for alone, worked in zip(*batches, strict=True):
        assert all(torch.equal(alone[key], worked[key]) for key in alone)
        assert worked["distance_map"].settings == alone["distance_map"].settings


_LIMITED_READER = """
import resource, sys, threading
import numpy as np
from fastsdm.data import PatchDataset, PatchPosition, StoredMaps, Volume

folder, stored, share = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
import nibabel, zarr  # before the limit, for whichever of them the format needs

threading.stack_size(1 << 20)  # the stacks of zarr's threads count, too
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
limit = 1024 * used + stored // share
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
labels = np.load(folder + "/case.npy", mmap_mode="r")
volume = Volume(labels, labels, 1.0, StoredMaps(folder + "/maps")["case"])
dataset = PatchDataset([volume], (32, 32, 32), classes=3, context="stored")
for start in range(0, 192, 24):
    dataset[PatchPosition(0, (start, start, start))]
try:
    np.ones(stored, np.uint8)
except MemoryError:
    print("read, and the whole map does not fit")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on a process's memory")
@pytest.mark.parametrize(("suffix", "share"), [(".npy", 8), (".nii", 8), (".zarr", 2)])
def test_memory_stays_far_below_the_stored_map(tmp_path: Path, suffix: str, share: int) -> None:
    """Patches are read under a limit of a share of the map's size, pages of mapped files not counted.

    Of .zarr, all chunks that a patch touches are held decoded at once.
    """
    shape = (224, 288, 288)
    values = testing.shells(shape, classes=3, thickness=20).astype(np.uint8)
    stored_volume(tmp_path, values, spacing=1.0, suffix=suffix)
    stored = 4 * 3 * int(np.prod(shape))
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED_READER, str(tmp_path), str(stored), str(share)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "read, and the whole map does not fit\n", done.stderr


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_another_shape_is_not_the_map(tmp_path: Path, suffix: str) -> None:
    """The manifest says what was stored; a file of the same size that holds something else is no map."""
    stored_volume(tmp_path, labels(), suffix=suffix)
    manifest = tmp_path / "maps" / "fastsdm-maps.jsonl"
    manifest.write_text(manifest.read_text().replace("[3, 24, 26, 40]", "[3, 26, 24, 40]"))
    with pytest.raises(ValueError, match=r"must have the shape \(3, 26, 24, 40\), got \(3, 24, 26, 40\)"):
        StoredMaps(tmp_path / "maps")["case"]
