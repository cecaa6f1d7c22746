"""Directories that appear whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from fastsdm import _files
from fastsdm._files import FileError
from fastsdm._files.output import PARTIAL
from fastsdm._settings import MapSettings

MAPS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def write(target: Path, maps: np.ndarray) -> None:
    source = _files.VolumeFile(Path("labels.npy"), (3, 4), np.dtype(np.uint8), (1.0, 2.0), None)
    _files.write_map(target, maps, source, MapSettings.of({"classes": 2}))


def test_a_directory_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "map.zarr"
    with _files.whole_directory(target) as temporary:
        (temporary / "part").write_text("half")
        assert not target.exists()
        assert _files.remove_leftovers(tmp_path) == [], "it is being written"
    assert (target / "part").read_text() == "half"
    assert [path.name for path in tmp_path.iterdir()] == ["map.zarr"]


def test_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "map.zarr"
    write(target, MAPS)

    def fail() -> None:
        with _files.whole_directory(target) as temporary:
            (temporary / "part").write_text("half")
            raise OSError("no space left")

    with pytest.raises(FileError, match=r"map\.zarr: cannot be written \(no space left\)"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["map.zarr"]
    assert np.array_equal(zarr.open_array(target, mode="r")[...], MAPS)
    write(target, MAPS + 1)
    assert np.array_equal(zarr.open_array(target, mode="r")[...], MAPS + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["map.zarr"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks on directories")
def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / f"{PARTIAL}gone.zarr"
    (leftover / "c" / "0").mkdir(parents=True)
    (leftover / "c" / "0" / "0").write_text("half")
    assert _files.remove_leftovers(tmp_path) == [leftover]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match=r"map\.zarr: cannot be written \(Permission denied\)"):
        write(tmp_path / "map.zarr", MAPS)


def test_size_of_a_tree(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(b"123")
    (tmp_path / "a" / "b" / "y").write_bytes(b"4567")
    assert _files.size_of(tmp_path / "a") == 7
    assert _files.size_of(tmp_path / "a" / "x") == 3
    with pytest.raises(FileNotFoundError):
        _files.size_of(tmp_path / "absent")
