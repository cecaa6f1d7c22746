"""Writing: nothing is lost, no partial file is seen or left, errors name the file that was asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

import fastsdm
from fastsdm import _files
from fastsdm._files.output import PARTIAL
from fastsdm._settings import MapSettings

# Without the package's own __init__, which imports torch.
WRITER = f"""
import sys, time, types
from pathlib import Path
sys.modules["fastsdm"] = package = types.ModuleType("fastsdm")
package.__path__ = {fastsdm.__path__!r}
from fastsdm._files.output import whole_file
with whole_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def by_symlink(source: Path) -> Path:
    link = source.with_name("link.npy")
    link.symlink_to(source)
    return link


def by_hard_link(source: Path) -> Path:
    link = source.with_name("hard.npy")
    os.link(source, link)
    return link


def by_dots(source: Path) -> Path:
    (source.parent / "sub").mkdir()
    return source.parent / "sub" / ".." / source.name


def by_linked_directory(source: Path) -> Path:
    link = source.parent / "linked"
    link.symlink_to(source.parent)
    return link / source.name


@pytest.mark.parametrize("way", [Path, by_symlink, by_hard_link, by_dots, by_linked_directory])
@pytest.mark.parametrize("force", [True, False])
def test_the_output_never_replaces_the_input(tmp_path: Path, way, force: bool) -> None:
    source = tmp_path / "labels.npy"
    source.write_text("precious")
    with pytest.raises(_files.UnusablePathError, match=r"is the input.*never replaced"):
        _files.check_output(way(source), [tmp_path / "other", source], force=force)


def test_another_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("in")
    (tmp_path / "out").write_text("out")
    with pytest.raises(_files.UnusablePathError, match="out: exists already; --force"):
        _files.check_output(tmp_path / "out", [tmp_path / "in"], force=False)
    _files.check_output(tmp_path / "out", [tmp_path / "in"], force=True)
    _files.check_output(tmp_path / "new", [tmp_path / "in"], force=False)


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    for path, rule in (
        (tmp_path / "no" / "out", "there is no directory"),
        (tmp_path, "is a directory"),
        (Path(os.devnull), "is not a regular file"),
    ):
        with pytest.raises(_files.UnusablePathError, match=rule):
            _files.check_output(path, [], force=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "no" / "out")
    with pytest.raises(_files.UnusablePathError, match="there is no directory"):
        _files.check_output(tmp_path / "dangling", [], force=True)


def test_a_directory_without_permission_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write everywhere
    with pytest.raises(_files.UnusablePathError, match=r"out: the directory .* cannot be written to"):
        _files.check_output(tmp_path / "out", [], force=True)


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "file")
    with _files.whole_file(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "file").read_text() == "new"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "out").write_text("old")

    def fail() -> None:
        with _files.whole_file(tmp_path / "out") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises((_files.FileError, KeyboardInterrupt)) as caught:
        fail()
    assert (tmp_path / "out").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    if isinstance(error, OSError):
        assert str(caught.value) == f"{tmp_path / 'out'}: cannot be written (No space left on device)"


def test_errors_name_the_target_and_not_the_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(_files.FileError) as caught, _files.whole_file(tmp_path / "out") as temporary:
        (temporary / "below").write_text("x")  # fails with the temporary file's name
    assert str(caught.value).startswith(f"{tmp_path / 'out'}: cannot be written (")
    assert PARTIAL not in str(caught.value)


@pytest.fixture
def writer(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


@pytest.mark.parametrize("killed_by", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("name", ["out", "other"])
def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path, writer, killed_by, name: str) -> None:
    writer.send_signal(killed_by)
    writer.wait()
    assert [path.name for path in tmp_path.iterdir()] == [f"{PARTIAL}out"]
    _files.check_output(tmp_path / name, [], force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_is_written_over(tmp_path: Path, writer) -> None:
    writer.kill()
    writer.wait()
    with _files.whole_file(tmp_path / "out") as temporary:
        temporary.write_text("whole")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out": "whole"}


def test_a_running_process_keeps_its_file(tmp_path: Path, writer) -> None:
    assert _files.remove_leftovers(tmp_path) == []
    start = time.monotonic()
    with (
        pytest.raises(_files.FileError, match="out: another process is writing it"),
        _files.whole_file(tmp_path / "out"),
    ):
        pass
    assert time.monotonic() - start < 30
    assert (tmp_path / f"{PARTIAL}out").read_text() == "half"
    with _files.whole_file(tmp_path / "other") as temporary:
        temporary.write_text("meanwhile")
    assert (tmp_path / "other").read_text() == "meanwhile"


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch) -> None:
    def refused(*_) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fastsdm._files.output.fcntl.flock", refused)
    with _files.whole_file(tmp_path / "out") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "out").read_text() == "whole"
    (tmp_path / f"{PARTIAL}other").write_text("whose?")
    assert _files.remove_leftovers(tmp_path) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nibabel leaves files open
@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".nii", ".nii.gz", ".zarr"])
def test_a_write_that_fails_says_why(tmp_path: Path, suffix: str) -> None:
    import resource  # noqa: PLC0415  # not on Windows

    maps = np.random.default_rng(0).random((20, 20, 20), dtype=np.float32)
    source = _files.VolumeFile(Path("a.npy"), maps.shape, np.dtype(np.uint8), (1.0,) * 3, None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1]))
    try:
        with pytest.raises(_files.FileError, match=rf"out\{suffix}: cannot be written \(File too large\)"):
            _files.write_map(tmp_path / f"out{suffix}", maps, source, MapSettings.of({}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_write_map_mends_the_voxel_size_that_disagrees(tmp_path: Path) -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    image = nibabel.Nifti1Image(labels, np.diag([2.0, 2.0, 2.0, 1.0]))
    image.header["pixdim"][1:4] = 1
    image.to_filename(tmp_path / "a.nii")
    header = nibabel.load(tmp_path / "a.nii").header
    maps, opened = np.zeros((3, 4, 5, 6), np.float32), _files.open_volume(tmp_path / "a.nii")
    _files.write_map(tmp_path / "b.nii", maps, opened, MapSettings.of({"classes": 3}))
    written = nibabel.load(tmp_path / "b.nii")
    assert header.get_zooms() != written.header.get_zooms()[:3]
    np.testing.assert_array_equal(written.header.get_zooms()[:3], (2, 2, 2))
    np.testing.assert_array_equal(written.affine, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert written.shape == (4, 5, 6, 3)
