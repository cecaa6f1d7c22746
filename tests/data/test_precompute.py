"""Stored maps: right, known again by their hash, and never half-written, whenever a run is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import testing
from fastsdm.data import precompute
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


def expected(path: Path, **options) -> torch.Tensor:
    return fastsdm.signed_distance(torch.from_numpy(np.load(path)), **options)


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


def test_label_files_are_never_replaced(tmp_path: Path) -> None:
    (path,) = write_labels(tmp_path, 1)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"out: .* is one of the label files"):
        precompute(path, tmp_path, classes=3)
    assert path.read_bytes() == before


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
        ({"suffix": ".nii", "dtype": "float16"}, r"dtype: must be float32 or float64 for \.nii"),
        ({"empty": "raise"}, "empty: must be one of .* got 'raise'"),
        ({"max_distance": -1}, "max_distance: must be positive and finite, got -1"),
        ({"spacing": 0}, "spacing: must be positive and finite, got 0"),
        ({"spacing": np.ones((2, 3))}, "spacing: must be one number, or one per spatial axis"),
        ({"ignore_index": 2.0}, r"ignore_index: must be an integer, got 2\.0"),
        ({"max_dist": 3}, "max_dist: is no argument of precompute; its settings are convention, empty"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path, options, message) -> None:
    write_labels(tmp_path / "in", 1)
    with pytest.raises((TypeError, ValueError), match=message):
        precompute(tmp_path / "in", tmp_path / "out", **{"classes": 3, **options})
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX's")
def test_killed_at_any_moment_the_next_run_finishes_the_work(tmp_path: Path) -> None:
    """Twenty kills at moments drawn with a fixed seed, over a single directory."""
    paths = write_labels(tmp_path / "in", 20, (60, 64, 60))
    out = tmp_path / "out"
    # The imports are done before the clock starts, so that kills fall into the work.
    code = (
        "import sys, torch; from fastsdm.data import precompute; torch.set_num_threads(1); "
        "print('ready', flush=True); precompute(sys.argv[1], sys.argv[2], classes=3, workers=2)"
    )
    rng = np.random.default_rng(0)
    made_at: dict[str, int] = {}
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "in"), str(out)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.12))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        known = (
            Manifest.read(out).records
            if (out / MANIFEST).exists() and (out / MANIFEST).stat().st_size
            else {}
        )
        for name in known:
            stamp = (out / name).stat().st_mtime_ns
            assert made_at.setdefault(name, stamp) == stamp, f"{name} was done and was made again"
    report = precompute(tmp_path / "in", out, classes=3)
    assert not report.failed
    assert set(report.kept) >= set(made_at)
    for name, stamp in made_at.items():
        assert (out / name).stat().st_mtime_ns == stamp
    for path in paths:
        assert np.array_equal(np.load(out / path.name), expected(path, classes=3).numpy())
    assert {path.name for path in out.iterdir()} == {path.name for path in paths} | {MANIFEST}
