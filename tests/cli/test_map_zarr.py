"""``fastsdm map`` into and out of zarr stores: the same maps, in bounded memory, whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

import fastsdm
from fastsdm import testing
from fastsdm.cli.map_stored import StoredOptions
from fastsdm.integrations import _passes, _plan

zarr = pytest.importorskip("zarr")


@pytest.fixture
def store(tmp_path: Path, labels: np.ndarray) -> Path:
    return stored(tmp_path / "labels.zarr", labels)


def stored(path: Path, labels: np.ndarray, **options) -> Path:
    array = zarr.create_array(
        path, shape=labels.shape, dtype=labels.dtype, chunks=(5,) * labels.ndim, **options
    )
    array[...] = labels
    return path


def small_blocks(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Leave so many bytes for each worker that the volume is cut into many blocks."""
    monkeypatch.setattr(_plan.Room, "of_each", lambda self, workers: room)


CLASSES = {None: None, "3": 3, "2,0": [2, 0]}


@pytest.mark.parametrize("room", [45_000, 10**9])
@pytest.mark.parametrize(
    ("limit", "ignored", "classes"),
    [
        (None, None, None),
        (None, None, "3"),
        (None, 2, "2,0"),
        (None, 2, None),
        (None, 77, "3"),
        (2.0, None, "2,0"),
        (2.0, 2, None),
        (2.0, 2, "3"),
        (100.0, None, "3"),  # the halo is larger than the blocks
        (100.0, 2, None),
    ],
)
def test_the_map_is_that_made_in_memory(
    command, store: Path, labels, monkeypatch, limit, ignored, classes, room
) -> None:
    small_blocks(monkeypatch, room)
    out = store.with_name("sdm.zarr")
    options = {"--max-distance": limit, "--ignore-index": ignored, "--classes": classes}
    given = [part for name, value in options.items() if value is not None for part in (name, value)]
    done = command("map", store, out, "--chunks", "7,6,5", "--spacing", "2,1,1", *given)
    assert done.exit_code == 0, done.stderr
    maps = zarr.open_array(out, mode="r")
    expected = fastsdm.signed_distance(
        labels, classes=CLASSES[classes], max_distance=limit, ignore_index=ignored, spacing=(2, 1, 1)
    )
    np.testing.assert_allclose(maps[...], expected, rtol=2.4e-7)
    assert maps.chunks == ((7, 6, 5) if classes is None else (1, 7, 6, 5))
    assert set(store.parent.iterdir()) == {store, out}


@pytest.mark.parametrize("ignored", [None, 2])
def test_planes_larger_than_the_memory(command, tmp_path: Path, monkeypatch, ignored: int | None) -> None:
    labels = testing.shells((10, 40, 44), classes=3, thickness=3).astype(np.uint8)
    store, out = stored(tmp_path / "labels.zarr", labels), tmp_path / "sdm.zarr"
    small_blocks(monkeypatch, 15_000 if ignored is None else 28_000)
    given = () if ignored is None else ("--ignore-index", ignored)
    done = command("map", store, out, "--chunks", "5,8,8", "--spacing", "1,2,1", *given)
    assert "in 3 passes" in done.stdout
    expected = fastsdm.signed_distance(labels, ignore_index=ignored, spacing=(1, 2, 1))
    np.testing.assert_allclose(zarr.open_array(out, mode="r")[...], expected, rtol=2.4e-7)


@pytest.mark.parametrize("limit", [(), ("--max-distance", 2)])
@pytest.mark.parametrize("empty", ["inf", "zero", "max"])
@pytest.mark.parametrize("ignored", [None, 9])
def test_absent_classes_follow_the_policy(command, tmp_path: Path, limit, empty: str, ignored) -> None:
    labels = np.ones((6, 7, 8), np.uint8)
    labels[:2] = 1 if ignored is None else ignored
    store, out = stored(tmp_path / "ones.zarr", labels), tmp_path / "sdm.zarr"
    given = () if ignored is None else ("--ignore-index", ignored)
    done = command("map", store, out, "--classes", "0,1", "--empty", empty, "--chunks", 3, *limit, *given)
    assert done.exit_code == 0
    assert "class 0 has no inside voxel" in done.stdout
    assert "class 1 has no outside voxel" in done.stdout
    expected = fastsdm.signed_distance(
        labels, classes=[0, 1], empty=empty, ignore_index=ignored, max_distance=limit[1] if limit else None
    )
    np.testing.assert_allclose(zarr.open_array(out, mode="r")[...], expected, rtol=1e-6)


def test_every_option_reaches_the_map(command, store: Path, labels: np.ndarray) -> None:
    out = store.with_name("out.zarr")
    options = {
        "--classes": "1,7",
        "--spacing": "2,1,0.5",
        "--convention": "midline",
        "--empty": "max",
        "--max-distance": "3",
        "--dtype": "float16",
        "--backend": "scipy",
        "--chunks": "8",
        "--memory": "3GiB",
    }
    done = command("map", store, out, *(part for pair in options.items() for part in pair))
    assert done.exit_code == 0, done.stderr
    expected = fastsdm.signed_distance(
        labels,
        classes=[1, 7],
        spacing=(2, 1, 0.5),
        convention="midline",
        empty="max",
        max_distance=3.0,
        dtype="float16",
    )
    maps = zarr.open_array(out, mode="r")
    assert maps.dtype == np.float16
    np.testing.assert_array_equal(maps[...], expected)
    assert maps.attrs["spacing"] == [2, 1, 0.5]
    assert maps.attrs["classes"] == [1, 7]
    assert maps.attrs["max_distance"] == 3
    assert maps.metadata.dimension_names == ("c", "z", "y", "x")
    assert "computed by scipy on cpu, in blocks of" in done.stdout


def test_two_axes(command, tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    store, out = stored(tmp_path / "flat.zarr", labels[6]), tmp_path / "sdm.zarr"
    small_blocks(monkeypatch, 2_000)
    assert command("map", store, out, "--classes", 3, "--chunks", "5").exit_code == 0
    expected = fastsdm.signed_distance(labels[6], classes=3, spatial_dims=2)
    np.testing.assert_array_equal(zarr.open_array(out, mode="r")[...], expected)


def test_chunks_without_an_option(command, tmp_path: Path) -> None:
    for shape, chunks in (((70, 20, 80), (64, 20, 64)), ((20, 600), (20, 512))):
        np.save(tmp_path / "in.npy", np.ones(shape, np.uint8))
        done = command("map", tmp_path / "in.npy", tmp_path / "out.zarr", "--force")
        assert done.exit_code == 0, done.stderr
        assert zarr.open_array(tmp_path / "out.zarr", mode="r").chunks == chunks


def test_other_formats_go_in_and_out(command, npy: Path, store: Path, labels: np.ndarray) -> None:
    expected = fastsdm.signed_distance(labels, classes=3)
    assert command("map", npy, npy.with_name("a.zarr"), "--classes", 3).exit_code == 0
    np.testing.assert_array_equal(zarr.open_array(npy.with_name("a.zarr"), mode="r")[...], expected)
    assert command("map", store, npy.with_name("b.npy"), "--classes", 3).exit_code == 0
    np.testing.assert_array_equal(np.load(npy.with_name("b.npy")), expected)


def test_negative_labels_of_a_mask(command, tmp_path: Path) -> None:
    labels = np.zeros((12, 12, 12), np.int16)
    labels[2:5], labels[8:], labels[6] = 1, -3, -1
    store = stored(tmp_path / "in.zarr", labels)
    done = command("map", store, tmp_path / "a.zarr", "--max-distance", 4, "--ignore-index", -1)
    assert "note: " in done.stdout
    assert f"{(labels == -3).sum()} voxels hold negative labels and are outside" in done.stdout
    expected = fastsdm.signed_distance(np.where(labels == -3, 0, labels), max_distance=4, ignore_index=-1)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr", mode="r")[...], expected)
    done = command("map", store, tmp_path / "b.zarr", "--negative-inside")
    assert "negative labels" not in done.stdout
    np.testing.assert_array_equal(
        zarr.open_array(tmp_path / "b.zarr", mode="r")[...], fastsdm.signed_distance(labels != 0)
    )


def test_a_mask_of_negative_labels_only_is_empty(command, tmp_path: Path) -> None:
    labels = np.zeros((6, 7, 8), np.int16)
    labels[2:4] = -1
    done = command("map", stored(tmp_path / "in.zarr", labels), tmp_path / "out.zarr")
    assert "the mask has no inside voxel" in done.stdout
    assert np.isinf(zarr.open_array(tmp_path / "out.zarr", mode="r")[...]).all()


def bad_stores(directory: Path, labels: np.ndarray) -> None:
    stored(directory / "good.zarr", labels)
    (directory / "link.zarr").symlink_to(directory / "good.zarr")
    stored(directory / "float.zarr", labels.astype("f4"))
    stored(directory / "line.zarr", labels[0, 0])
    group = zarr.create_group(directory / "group.zarr")
    for name in "ab":
        group.create_array(name, shape=labels.shape, dtype="u1")
    (directory / "plain.zarr").mkdir()
    (directory / "plain.zarr" / "precious.txt").write_text("precious")
    stored(directory / "damaged.zarr", labels)
    (directory / "damaged.zarr" / "c" / "0" / "0" / "0").write_bytes(b"broken")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("missing.zarr", "out.zarr"), 2, "missing.zarr: there is no such directory"),
        (("good.zarr", "good.zarr", "--force"), 2, "good.zarr: is the input, which is never replaced"),
        (("good.zarr", "link.zarr", "--force"), 2, "by another name, which is never replaced"),
        (("group.zarr/a", "group.zarr", "--force"), 2, "group.zarr: holds the input, which is never"),
        (("good.zarr", "good.zarr/sdm.zarr"), 2, "lies inside of a zarr store"),
        (("group.zarr/a", "group.zarr/sdm.zarr"), 2, "lies inside of a zarr store"),
        (("good.zarr", "float.zarr"), 2, "float.zarr: exists already; --force overwrites it"),
        (("good.zarr", "plain.zarr", "--force"), 2, "plain.zarr: exists and is not a zarr store"),
        (("good.zarr", "nowhere/out.zarr"), 2, "there is no directory"),
        (("good.zarr", "out.zarr", "--chunks", "0"), 2, "--chunks: must be one positive number"),
        (("good.zarr", "out.zarr", "--chunks", "x"), 2, "separated by commas; got 'x'"),
        (("good.zarr", "out.zarr", "--chunks", "3,3"), 2, "must be one number, or 3 (one per axis); got 3,3"),
        (("good.zarr", "out.zarr", "--memory", "much"), 2, "--memory: must be a size such as '4GiB'"),
        (("good.zarr", "out.zarr", "--memory", "1MiB"), 2, "--memory: must hold the libraries"),
        (("good.zarr", "out.zarr", "--memory", "1MiB", "--max-distance", "3"), 2, "--memory: must hold"),
        (("good.zarr", "out.npy", "--memory", "4GiB"), 2, "--memory: only for a map that is stored"),
        (("good.zarr", "out.npy", "--chunks", "4"), 2, "--chunks: only for a map that is stored as .zarr"),
        (("good.zarr", "out.zarr", "--backend", "scipy"), 2, "--backend: must be 'native' to store"),
        (("good.zarr", "out.zarr", "--classes", "300,"), 2, "--classes: label 300 cannot be in"),
        (("good.zarr", "out.zarr", "--convention", "x"), 2, "--convention: must be one of"),
        (("good.zarr", "out.zarr", "--empty", "x"), 2, "--empty: must be one of"),
        (("good.zarr", "out.zarr", "--max-distance", "-1"), 2, "--max-distance: must be positive"),
        (("good.zarr", "out.zarr", "--spacing", "0"), 2, "--spacing: must be positive and finite"),
        (("float.zarr", "out.zarr"), 1, "float.zarr: must hold booleans or integers"),
        (("line.zarr", "out.zarr"), 1, "must hold a volume with 2 or 3 axes"),
        (("group.zarr", "out.zarr"), 1, "holds the arrays a, b; name one: "),
        (("plain.zarr", "out.zarr"), 1, "plain.zarr: cannot be read as .zarr"),
        (("damaged.zarr", "out.zarr"), 1, "damaged.zarr: cannot be read as .zarr"),
        (("good.zarr", "out.zarr", "--empty", "raise", "--classes", "9,"), 1, "class 9 has no inside voxel"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_no_file(
    command, tmp_path: Path, labels, arguments, code: int, message: str
) -> None:
    bad_stores(tmp_path, labels)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    source, out, *options = arguments
    done = command("map", tmp_path / source, tmp_path / out, *options)
    assert (done.exit_code, message in done.stderr) == (code, True), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_replaced_store_stays_until_the_new_one_is_whole(command, store: Path, labels, monkeypatch) -> None:
    out = store.with_name("sdm.zarr")
    assert command("map", store, out).exit_code == 0
    before = zarr.open_array(out, mode="r")[...]

    def fail(*_, **__) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(_passes.ClassPasses, "distances", fail)
    done = command("map", store, out, "--spacing", 2, "--force")
    assert (done.exit_code, "sdm.zarr: cannot be written (disk full)" in done.stderr) == (1, True)
    np.testing.assert_array_equal(zarr.open_array(out, mode="r")[...], before)
    assert set(store.parent.iterdir()) == {store, out}
    monkeypatch.undo()
    assert command("map", store, out, "--spacing", 2, "--force").exit_code == 0
    np.testing.assert_array_equal(zarr.open_array(out, mode="r")[...], 2 * before)
    assert set(store.parent.iterdir()) == {store, out}


_RUN = """
import sys
from pathlib import Path
from fastsdm.cli import main

try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


_LIBRARIES = """
from pathlib import Path
import fastsdm.cli.app, fastsdm.cli.map_stored, zarr
print(*(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts resident memory as Linux does")
@pytest.mark.parametrize("limit", [(), ("--max-distance", "12")])
def test_the_process_stays_below_the_limit(tmp_path: Path, limit: tuple[str, ...]) -> None:
    """A map of 500 MiB in a process that takes 160 MiB beside its libraries, which differ by machine."""
    values = testing.shells((320, 320, 320), classes=4, thickness=9).astype(np.uint8)
    labels = zarr.create_array(tmp_path / "labels.zarr", shape=values.shape, chunks=(96,) * 3, dtype="u1")
    labels[...] = values
    run = [sys.executable, "-c", _RUN, "map", "labels.zarr", "sdm.zarr", "--classes", "4", *limit]
    libraries = subprocess.run(
        [sys.executable, "-c", _LIBRARIES], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    allowed = (int(libraries.stdout) >> 10) + 160
    run += ["--chunks", "128,128,128", "--memory", f"{allowed}MiB"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    maps = zarr.open_array(tmp_path / "sdm.zarr", mode="r")
    assert int(done.stdout.split()[-1]) << 10 < allowed << 20 < maps.nbytes
    for value in range(4):
        expected = fastsdm.signed_distance(
            values, classes=[value], max_distance=float(limit[1]) if limit else None
        )[0]
        for start in range(0, 320, 128):
            part = slice(start, start + 128)
            assert np.array_equal(maps[value, part], expected[part]), (value, start)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_a_killed_run_leaves_no_map_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    values = testing.shells((96, 96, 96), classes=3, thickness=9).astype(np.uint8)
    labels = zarr.create_array(tmp_path / "labels.zarr", shape=values.shape, chunks=(48,) * 3, dtype="u1")
    labels[...] = values
    out = tmp_path / "sdm.zarr"
    run = [sys.executable, "-m", "fastsdm.cli", "map", "labels.zarr", "sdm.zarr", "--classes", "3"]
    run += ["--chunks", "16"]
    with subprocess.Popen(run, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(tmp_path.glob(".fastsdm-partial*/c/1")):
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".fastsdm-partial*/c/1"))
    assert not out.exists()
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob(".fastsdm*"))
    expected = fastsdm.signed_distance(values, classes=3)
    np.testing.assert_array_equal(zarr.open_array(out, mode="r")[...], expected)


def test_a_device_that_is_not_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        StoredOptions.of(Path("a.zarr"), None, None, torch.device("cuda"))
    assert "--device: must be cpu for a map that is stored as .zarr, got cuda" in capsys.readouterr().err
