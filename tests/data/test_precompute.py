"""Stored maps: right, known again by their hash, and never half-written, whenever a run is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import zarr
from dask.distributed import LocalCluster

import fastsdm
from fastsdm import testing
from fastsdm._files.output import PARTIAL
from fastsdm.data import StoredMaps, precompute
from fastsdm.data._manifest import MANIFEST, Manifest

SHAPE = (20, 17, 14)


def labels(seed: int, shape=SHAPE) -> np.ndarray:
    return testing.blobs(shape, sigma=3, seed=seed) + testing.blobs(shape, sigma=2, fraction=0.05, seed=seed)


def write_labels(folder: Path, count: int, shape=SHAPE) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"case{number}.npy" for number in range(count)]
    for number, path in enumerate(paths):
        np.save(path, labels(number, shape))
    return paths


def in_store(path: Path, chunk: int = 16) -> Path:
    """Move the labels of a .npy file into a zarr store."""
    store = path.with_suffix(".zarr")
    values = np.load(path)
    zarr.create_array(store, shape=values.shape, chunks=(chunk,) * 3, dtype=values.dtype)[...] = values
    path.unlink()
    return store


def in_image(store: Path, values: np.ndarray, scale: list[float]) -> Path:
    """Store the labels of an OME-NGFF image, whose voxel size stands above them."""
    zarr.create_group(store).create_group("labels").create_group("cells")
    path = store / "labels" / "cells"
    zarr.create_array(path / "0", shape=values.shape, chunks=(16,) * 3, dtype=values.dtype)[...] = values
    describe(path, scale)
    return path


def describe(group: Path, scale: list[float]) -> None:
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    datasets: list[Any] = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    zarr.open_group(group).attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets}],
    }


def expected(path: Path, **options) -> torch.Tensor:
    values = np.load(path) if path.suffix == ".npy" else zarr.open_array(path, mode="r")[...]
    return fastsdm.signed_distance(torch.from_numpy(values), **options)


def test_maps_are_those_of_signed_distance_and_can_be_mapped_into_memory(tmp_path: Path) -> None:
    paths = write_labels(tmp_path / "in", 3)
    settings = {"classes": 3, "spacing": (2.0, 1.0, 0.5), "max_distance": 6.0}
    report = precompute(tmp_path / "in", tmp_path / "out", workers=2, dtype="float16", **settings)
    assert sorted(report.made) == ["case0.npy", "case1.npy", "case2.npy"]
    assert not report.failed
    for path in paths:
        stored = np.load(tmp_path / "out" / path.name, mmap_mode="r")
        assert isinstance(stored, np.memmap)
        assert np.array_equal(stored, expected(path, **settings, dtype="float16").numpy())


def test_the_manifest_says_how_maps_were_made(tmp_path: Path) -> None:
    (path,) = write_labels(tmp_path, 1)
    precompute(path, tmp_path / "out", classes=[1, 2], max_distance=5, convention="plain")
    manifest = Manifest.read(tmp_path / "out")
    maps = manifest.settings.maps
    assert (maps.classes, maps.convention, maps.max_distance) == ((1, 2), "plain", 5.0)
    record = manifest.records["case0.npy"]
    assert (record.shape, record.spacing) == ((2, *SHAPE), (1.0, 1.0, 1.0))
    header = json.loads((tmp_path / "out" / MANIFEST).read_text().splitlines()[0])
    assert header["version"] == fastsdm.__version__


def test_a_second_run_makes_only_what_changed(tmp_path: Path) -> None:
    paths = write_labels(tmp_path / "in", 3)
    precompute(tmp_path / "in", tmp_path / "out", classes=3)
    before = {path.name: (tmp_path / "out" / path.name).stat().st_mtime_ns for path in paths}
    np.save(paths[1], labels(7))
    (tmp_path / "out" / "case2.npy").write_bytes(b"cut short")
    report = precompute(tmp_path / "in", tmp_path / "out", classes=3)
    assert sorted(report.made) == ["case1.npy", "case2.npy"]
    assert report.kept == ("case0.npy",)
    assert (tmp_path / "out" / "case0.npy").stat().st_mtime_ns == before["case0.npy"]
    for path in paths:
        assert np.array_equal(np.load(tmp_path / "out" / path.name), expected(path, classes=3).numpy())


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    write_labels(tmp_path / "in", 1)
    precompute(tmp_path / "in", tmp_path / "out", classes=3, max_distance=5)
    with pytest.raises(
        ValueError, match=r"were made with max_distance: 5\.0, not 7\.0; name another directory"
    ):
        precompute(tmp_path / "in", tmp_path / "out", classes=3, max_distance=7)
    with pytest.raises(ValueError, match=r"were made with classes: \(0, 1, 2\), not None"):
        precompute(tmp_path / "in", tmp_path / "out", classes=None, max_distance=5)


def test_a_broken_file_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    write_labels(tmp_path / "in", 2)
    (tmp_path / "in" / "broken.npy").write_bytes(b"no array")
    np.save(tmp_path / "in" / "fractions.npy", np.full(SHAPE, 0.5))
    report = precompute(tmp_path / "in", tmp_path / "out", classes=3)
    assert sorted(report.made) == ["case0.npy", "case1.npy"]
    assert {Path(path).name for path in report.failed} == {"broken.npy", "fractions.npy"}
    assert all("\n" not in message for message in report.failed.values())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["case0.npy", "case1.npy", MANIFEST]


def test_folders_patterns_and_files_name_the_maps(tmp_path: Path) -> None:
    write_labels(tmp_path / "in" / "site1", 1)
    write_labels(tmp_path / "in" / "site2", 1)
    assert sorted(precompute(tmp_path / "in", tmp_path / "a", classes=3).made) == [
        "site1/case0.npy",
        "site2/case0.npy",
    ]
    assert precompute([tmp_path / "in" / "site1" / "*.npy"], tmp_path / "b", classes=3).made == ("case0.npy",)
    with pytest.raises(
        ValueError, match=r"labels: .*site1/case0\.npy and .*site2/case0\.npy would both be stored as"
    ):
        precompute(
            [tmp_path / "in" / "site1" / "case0.npy", tmp_path / "in" / "site2" / "case0.npy"],
            tmp_path / "c",
            classes=3,
        )
    with pytest.raises(ValueError, match="labels: must name at least one volume, found none"):
        precompute(tmp_path / "in" / "*.nii", tmp_path / "d", classes=3)
    report = precompute(tmp_path / "absent.npy", tmp_path / "e", classes=3)
    assert list(report.failed) == [str(tmp_path / "absent.npy")]


def test_zarr_stores_are_labels_in_folders_and_patterns(tmp_path: Path) -> None:
    stores = [in_store(path) for path in write_labels(tmp_path / "in", 2)]
    (tmp_path / "in" / "more").mkdir()
    np.save(tmp_path / "in" / "more" / "other.npy", labels(2))
    np.save(stores[0] / "inner.npy", labels(3))
    broken = tmp_path / "in" / "broken.zarr"
    broken.mkdir()
    (tmp_path / "in" / f"{PARTIAL}gone.zarr").mkdir()
    report = precompute(tmp_path / "in", tmp_path / "out", classes=3)
    assert sorted(report.made) == ["case0.npy", "case1.npy", "more/other.npy"]
    assert list(report.failed) == [str(broken)]
    assert "cannot be read as .zarr" in report.failed[str(broken)]
    for store in stores:
        maps = np.load(tmp_path / "out" / f"{store.stem}.npy")
        assert np.array_equal(maps, expected(store, classes=3).numpy())
        assert StoredMaps(tmp_path / "out").of(store).shape == (3, *SHAPE)
    for pattern in ("*.zarr", "case*", "**/*.zarr", "**/c*"):
        report = precompute(tmp_path / "in" / pattern, tmp_path / pattern[-4:], classes=3, suffix=".zarr")
        assert {"case0.zarr", "case1.zarr"} == {*report.made, *report.kept}, pattern
        assert set(report.failed) <= {str(broken)}, "parts of a store are no labels"


def test_an_array_in_a_store_has_the_voxel_size_above_it(tmp_path: Path) -> None:
    values = [labels(0), labels(1)]
    groups = [in_image(tmp_path / f"{n}.zarr", each, [3, 1, 0.5]) for n, each in enumerate(values)]
    paths = [groups[0], groups[1] / "0"]
    report = precompute(paths, tmp_path / "out", classes=3)
    assert set(report.made) == {"0/labels/cells.npy", "1/labels/cells/0.npy"}
    for name, each in zip(sorted(report.made), values, strict=True):
        maps = fastsdm.signed_distance(each, classes=3, spacing=(3, 1, 0.5))
        np.testing.assert_array_equal(np.load(tmp_path / "out" / name), maps)
        assert Manifest.read(tmp_path / "out").records[name].spacing == (3, 1, 0.5)
    assert set(precompute(paths, tmp_path / "out", classes=3).kept) == set(report.made)


@pytest.mark.parametrize("part", ["array", "group"])
def test_a_store_is_known_by_its_content(tmp_path: Path, part: str) -> None:
    group = in_image(tmp_path / "a.zarr", labels(0), [3, 1, 0.5])
    path = group if part == "group" else group / "0"
    (made,) = precompute(path, tmp_path / "out", classes=3).made
    for inner in (tmp_path / "a.zarr").rglob("*"):
        os.utime(inner)
    assert precompute(path, tmp_path / "out", classes=3).kept == (made,)
    describe(group, [1, 1, 1])
    assert precompute(path, tmp_path / "out", classes=3).made == (made,)
    maps = fastsdm.signed_distance(labels(0), classes=3)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / made), maps)
    zarr.open_array(group / "0", mode="r+")[3, 3, 3] = 2
    assert precompute(path, tmp_path / "out", classes=3).made == (made,)


@pytest.mark.parametrize("is_recorded", [True, False])
@pytest.mark.parametrize("out", ["in/maps", "in", "."])
@pytest.mark.parametrize("suffix", [".zarr", ".npz"])
def test_maps_are_not_taken_for_labels(tmp_path: Path, out: str, suffix: str, is_recorded: bool) -> None:
    write_labels(tmp_path / "in", 2)
    made = precompute(tmp_path / "in", tmp_path / out, classes=3, suffix=suffix).made
    assert set(made) == {f"case0{suffix}", f"case1{suffix}"}
    manifest = tmp_path / out / MANIFEST
    if not is_recorded:  # a run killed between a map and its record
        manifest.write_text(manifest.read_text().splitlines()[0] + "\n")
    for named in (tmp_path / "in", tmp_path / "in" / "**" / "case*"):
        report = precompute(named, tmp_path / out, classes=3, suffix=suffix)
        assert ({*report.made, *report.kept}, report.failed) == (set(made), {})
        assert is_recorded <= (report.made == ())
    (tmp_path / "in" / "case0.npy").unlink()
    report = precompute(tmp_path / "in", tmp_path / out, classes=3, suffix=suffix)
    assert (report.made, report.kept) == ((), (f"case1{suffix}",))


def test_labels_below_the_maps_stay_labels(tmp_path: Path) -> None:
    write_labels(tmp_path / "in", 2)
    made = precompute(tmp_path / "in", tmp_path, classes=3).made
    for _ in range(2):
        assert set(precompute(tmp_path / "in", tmp_path, classes=3).kept) == set(made) != set()


def test_settings_that_differ_by_rounding_to_float32_are_the_same(tmp_path: Path) -> None:
    write_labels(tmp_path / "in", 1)
    made = precompute(tmp_path / "in", tmp_path / "out", classes=3, max_distance=2.1, spacing=0.7).made
    single = {"max_distance": np.float32(2.1), "spacing": np.float32(0.7)}
    assert precompute(tmp_path / "in", tmp_path / "out", classes=3, **single).kept == made
    with pytest.raises(ValueError, match=r"were made with max_distance: 2\.1, not 2\.1001"):
        precompute(tmp_path / "in", tmp_path / "out", classes=3, max_distance=2.1001, spacing=0.7)


def test_label_files_are_never_replaced(tmp_path: Path) -> None:
    (path,) = write_labels(tmp_path, 1)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"out: .* is one of the label files"):
        precompute(path, tmp_path, classes=3)
    assert path.read_bytes() == before


def test_what_a_killed_run_left_of_a_map_that_is_done_is_removed(tmp_path: Path) -> None:
    (path,) = write_labels(tmp_path, 1)
    precompute(path, tmp_path / "out", classes=3, suffix=".zarr")
    (tmp_path / "out" / f"{PARTIAL}case0.zarr" / "c").mkdir(parents=True)
    (tmp_path / "out" / f"{PARTIAL}old-case0.zarr").mkdir()
    (tmp_path / "out" / f"{PARTIAL}case0.npy").write_text("half")
    assert precompute(path, tmp_path / "out", classes=3, suffix=".zarr").kept == ("case0.zarr",)
    assert sorted(inner.name for inner in (tmp_path / "out").iterdir()) == ["case0.zarr", MANIFEST]


def test_two_runs_do_not_share_a_directory(tmp_path: Path) -> None:
    write_labels(tmp_path / "in", 1)

    def meddle(_) -> None:
        with pytest.raises(ValueError, match="another run is writing to this directory"):
            precompute(tmp_path / "in", tmp_path / "out", classes=3)

    assert precompute(tmp_path / "in", tmp_path / "out", classes=3, on_start=meddle).made == ("case0.npy",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers: must be at least 1, got 0"),
        ({"workers": True}, "workers: must be an integer, got True"),
        ({"dtype": "int8"}, "dtype: must be one of .* got 'int8'"),
        ({"suffix": ".mha"}, r"suffix: must be one of .* got '\.mha'"),
        ({"suffix": ".nii", "dtype": "float16"}, r"dtype: must be one of float32, float64 in \.nii; got"),
        ({"out": "in.zarr/maps"}, r"out: must be a folder outside of any zarr store, got .*in\.zarr/maps"),
        ({"empty": "raise"}, "empty: must be one of .* got 'raise'"),
        ({"max_distance": -1}, "max_distance: must be positive and finite, got -1"),
        ({"spacing": 0}, "spacing: must be positive and finite, got 0"),
        ({"spacing": np.ones((2, 3))}, "spacing: must be one number, or one per spatial axis"),
        ({"ignore_index": 2.0}, r"ignore_index: must be an integer, got 2\.0"),
        (
            {"format": "zarr"},
            "format: is no argument of precompute; it takes classes, dtype, suffix, .*convention",
        ),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path, options, message) -> None:
    write_labels(tmp_path / "in", 1)
    options = dict(options)
    out = tmp_path / options.pop("out", "out")
    with pytest.raises((TypeError, ValueError), match=message):
        precompute(tmp_path / "in", out, **{"classes": 3, **options})
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".zarr", ".npz", ".nii", ".nii.gz"])
@pytest.mark.parametrize("classes", [None, 3])
def test_every_format_holds_the_map(tmp_path: Path, suffix: str, classes) -> None:
    (path,) = write_labels(tmp_path, 1)
    report = precompute(path, tmp_path / "out", classes=classes, spacing=(2.0, 1.0, 0.5), suffix=suffix)
    assert report.made == (f"case0{suffix}",)
    stored = tmp_path / "out" / f"case0{suffix}"
    if suffix == ".zarr":
        array = zarr.open_array(stored, mode="r")
        assert array.attrs["spacing"] == [2.0, 1.0, 0.5]
        values = array[...]
    elif suffix == ".npz":
        values = np.load(stored)["distance"]
    else:
        values = np.asanyarray(nibabel.load(stored).dataobj)
        values = values if classes is None else np.moveaxis(values, -1, 0)
    assert np.array_equal(values, expected(path, classes=classes, spacing=(2.0, 1.0, 0.5)).numpy())
    assert precompute(
        path, tmp_path / "out", classes=classes, spacing=(2.0, 1.0, 0.5), suffix=suffix
    ).kept == (f"case0{suffix}",)


def test_a_damaged_zarr_map_is_made_again(tmp_path: Path) -> None:
    (path,) = write_labels(tmp_path, 1, (70, 20, 20))
    precompute(path, tmp_path / "out", classes=3, suffix=".zarr")
    stored = tmp_path / "out" / "case0.zarr"
    chunk = max(stored.rglob("*"), key=lambda inner: inner.stat().st_size if inner.is_file() else 0)
    chunk.unlink()
    assert precompute(path, tmp_path / "out", classes=3, suffix=".zarr").made == ("case0.zarr",)
    assert np.array_equal(zarr.open_array(stored, mode="r")[...], expected(path, classes=3).numpy())
    assert sorted(inner.name for inner in (tmp_path / "out").iterdir()) == ["case0.zarr", MANIFEST]


def test_zarr_chunks_hold_one_class_and_64_voxels_an_axis(tmp_path: Path) -> None:
    (path,) = write_labels(tmp_path, 1, (70, 20, 80))
    precompute(path, tmp_path / "out", classes=3, suffix=".zarr")
    assert zarr.open_array(tmp_path / "out" / "case0.zarr", mode="r").chunks == (1, 64, 20, 64)


def test_zarr_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write_labels(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ValueError, match=r"zarr: the package is not installed; .* pip install '\.\[zarr\]'"):
        precompute(path, tmp_path / "out", classes=3, suffix=".zarr")
    assert not (tmp_path / "out").exists()


def test_a_dask_cluster_makes_the_maps(tmp_path: Path) -> None:
    paths = write_labels(tmp_path / "in", 4)
    (tmp_path / "in" / "broken.npy").write_bytes(b"no array")
    with LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address=None, local_directory=str(tmp_path / "scratch")
    ) as cluster:
        address = cluster.scheduler_address
        report = precompute(tmp_path / "in", tmp_path / "out", classes=3, scheduler=address)
        assert sorted(report.made) == [path.name for path in paths]
        assert [Path(path).name for path in report.failed] == ["broken.npy"]
        again = precompute(tmp_path / "in", tmp_path / "out", classes=3, scheduler=address)
    assert sorted(again.kept) == [path.name for path in paths]
    for path in paths:
        assert np.array_equal(np.load(tmp_path / "out" / path.name), expected(path, classes=3).numpy())


# Imported once; every run is a fork of it, so that kills fall into the work and not into the imports.
_SERVER = """
import os, sys, torch, zarr
from fastsdm.data import StoredMaps, precompute
torch.set_num_threads(1)
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        precompute(sys.argv[1], sys.argv[2], classes=3, workers=2, suffix=sys.argv[3])
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_killed_at_any_moment_the_next_run_finishes_the_work(tmp_path: Path, suffix: str) -> None:
    """Twenty kills at moments drawn with a fixed seed; the last run, by the command, finishes the work."""
    paths = write_labels(tmp_path / "in", 20, (60, 64, 60))
    if suffix == ".zarr":  # labels in stores, too
        paths = [in_store(path, 64) for path in paths]
    broken = tmp_path / "in" / "broken.npy"
    broken.write_bytes(b"no array")
    out = tmp_path / "out"
    rng = np.random.default_rng(0)
    made_at: dict[str, int] = {}
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(tmp_path / "in"), str(out), suffix],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    cut_short = 0
    for _ in range(20):
        print(file=server.stdin, flush=True)
        child = int(server.stdout.readline())
        time.sleep(rng.uniform(0, 0.12))
        with suppress(ProcessLookupError):  # the last of the work may be done sooner
            os.kill(child, signal.SIGKILL)
        assert server.stdout.readline() == "ended\n"
        known = Manifest.read(out).records if _has_lines(out / MANIFEST) else {}
        for name in known:
            stamp = (out / name).stat().st_mtime_ns
            assert made_at.setdefault(name, stamp) == stamp, f"{name} was done and was made again"
        cut_short += len(known) < len(paths)
    server.stdin.close()
    assert server.wait(timeout=60) == 0
    server.stdout.close()
    assert cut_short, "no kill fell into the work"
    arguments = ["--out", str(out), "--classes", "3", "--format", suffix]
    last = subprocess.run(
        [sys.executable, "-m", "fastsdm.cli", "precompute", str(tmp_path / "in"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert last.returncode == 1, "one input is broken"
    assert str(broken) in last.stderr
    kept, rest = len(made_at), len(paths) - len(made_at)
    assert f"{rest} maps made, {kept} already there, 1 failed" in " ".join(last.stdout.split())
    for name, stamp in made_at.items():
        assert (out / name).stat().st_mtime_ns == stamp
    for path in paths:
        stored = out / f"{path.stem}{suffix}"
        values = np.load(stored) if suffix == ".npy" else zarr.open_array(stored, mode="r")[...]
        assert np.array_equal(values, expected(path, classes=3).numpy())
    assert not list((tmp_path / "in").glob(".*"))
    assert {path.name for path in out.iterdir()} == {f"{path.stem}{suffix}" for path in paths} | {MANIFEST}


def _has_lines(path: Path) -> bool:
    return path.exists() and b"\n" in path.read_bytes()
