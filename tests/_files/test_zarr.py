"""Volumes in zarr stores: which array, which voxel size; directories that are written whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fastsdm import _files
from fastsdm._files.output import _REPLACED, PARTIAL

zarr = pytest.importorskip("zarr")

SPACE = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
CHANNELS = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]


def image(path: Path, values: np.ndarray, multiscale: dict, *, version: int = 3, name: str = "0") -> Path:
    attributes = {"multiscales": [multiscale]}
    group = zarr.create_group(
        path, zarr_format=version, attributes=attributes if version == 2 else {"ome": attributes}
    )
    array = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=values.shape)
    array[...] = values
    return path


def multiscale(scale: list, axes: list | None = None, name: str = "0", **more) -> dict:
    change = {"type": "scale", "scale": scale}
    return {
        "axes": SPACE if axes is None else axes,
        "datasets": [{"path": name, "coordinateTransformations": [change]}],
        **more,
    }


VALUES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("inside", [False, True])
def test_the_voxel_size_of_an_ome_ngff_image(tmp_path: Path, version: int, inside: bool) -> None:
    path = image(tmp_path / "labels.zarr", VALUES, multiscale([4, 0.5, 0.25]), version=version)
    opened = _files.open_volume(path / "0" if inside else path)
    assert (opened.shape, opened.dtype) == (VALUES.shape, np.uint8)
    assert (opened.spacing, opened.unit) == ((4.0, 0.5, 0.25), "um")
    assert opened.notes == ("voxel size 4 x 0.5 x 0.25 um by its OME-NGFF multiscales (array 0)",)
    np.testing.assert_array_equal(opened.read(), VALUES)
    part = (slice(1, 2), slice(0, 3), slice(2, 4))
    np.testing.assert_array_equal(opened.block(part), VALUES[part])


def test_the_files_of_a_store_are_no_volumes(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr", VALUES, multiscale([1, 1, 1]))
    assert _files.format_of(path) == _files.format_of(path / "0") == ".zarr"
    files = [inner for inner in path.rglob("*") if inner.is_file()]
    assert files
    assert not any(map(_files.format_of, files))


def test_labels_deep_inside_of_an_image(tmp_path: Path) -> None:
    """A store of an image, its labels in a group of it, with metadata of their own."""
    outer = image(tmp_path / "image.zarr", VALUES, multiscale([1, 1, 1]))
    zarr.open_group(outer).create_group("labels")
    inner = outer / "labels" / "cells"
    image(inner, VALUES, multiscale([3, 2, 2], name="scale/0"), name="scale/0")
    for path in (inner, inner / "scale" / "0"):
        assert _files.open_volume(path).spacing == (3.0, 2.0, 2.0)


def test_scales_of_array_and_image_multiply(tmp_path: Path) -> None:
    both = multiscale([2, 1, 1], coordinateTransformations=[{"type": "scale", "scale": [1.5, 0.5, 0.5]}])
    both["datasets"][0]["coordinateTransformations"].append({"type": "translation", "translation": [9, 9, 9]})
    assert _files.open_volume(image(tmp_path / "a.zarr", VALUES, both)).spacing == (3.0, 0.5, 0.5)


def test_time_and_channels_of_one(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr", VALUES[None, None], multiscale([7, 1, 4, 2, 2], [*CHANNELS, *SPACE]))
    opened = _files.open_volume(path)
    assert (opened.shape, opened.spacing) == (VALUES.shape, (4.0, 2.0, 2.0))
    np.testing.assert_array_equal(opened.read(), VALUES)
    part = (slice(1, 2), slice(0, 3), slice(2, 4))
    np.testing.assert_array_equal(opened.block(part), VALUES[part])


def test_two_axes_of_an_image_with_channels(tmp_path: Path) -> None:
    axes = [CHANNELS[1], *SPACE[1:]]
    opened = _files.open_volume(image(tmp_path / "a.zarr", VALUES[:1], multiscale([1, 0.5, 0.5], axes)))
    assert (opened.shape, opened.spacing) == (VALUES.shape[1:], (0.5, 0.5))


def test_axes_of_version_0_3(tmp_path: Path) -> None:
    old = {"axes": ["z", "y", "x"], "datasets": [{"path": "0"}]}
    opened = _files.open_volume(image(tmp_path / "a.zarr", VALUES, old, version=2))
    assert (opened.spacing, opened.unit) == ((1.0, 1.0, 1.0), None)


def test_plain_arrays(tmp_path: Path) -> None:
    for name, attributes in (("a.zarr", {}), ("b.zarr", {"spacing": [3.0, 1.0, 2.0]})):
        zarr.create_array(tmp_path / name, shape=(1, *VALUES.shape), dtype="u1", attributes=attributes)
    plain, spaced = (_files.open_volume(tmp_path / name) for name in ("a.zarr", "b.zarr"))
    assert (plain.shape, plain.spacing, plain.unit) == (VALUES.shape, (1, 1, 1), "voxels")
    assert "distances are in voxels; --spacing sets one" in plain.notes[0]
    assert (spaced.spacing, spaced.unit) == ((3, 1, 2), None)
    assert "voxel size 3 x 1 x 2 by its attribute 'spacing'" in spaced.notes
    given = _files.open_volume(tmp_path / "a.zarr", (1.0, 2.0, 2.0))
    assert (given.spacing, given.notes) == ((1, 2, 2), ())
    replaced = _files.open_volume(tmp_path / "b.zarr", 5.0)
    assert "--spacing 5 x 5 x 5 replaces the file's voxel size 3 x 1 x 2" in replaced.notes


def test_a_group_with_one_array(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("labels", shape=VALUES.shape, dtype="u1")[...] = VALUES
    np.testing.assert_array_equal(_files.open_volume(tmp_path / "a.zarr").read(), VALUES)


@pytest.mark.parametrize(
    ("scale", "axes", "shape", "message"),
    [
        ([1, 1], SPACE, (2, 3, 4), "must be positive and finite, the file holds nan x nan x nan; --spacing"),
        ([1, "a", 1], SPACE, (2, 3, 4), "must be positive and finite"),
        ([1, 0, 1], SPACE, (2, 3, 4), "the voxel size must be positive and finite"),
        ([1] * 4, [CHANNELS[1], *SPACE], (2, 2, 3, 4), "after axes of size 1; got shape (2, 2, 3, 4)"),
        ([1] * 3, [*SPACE[1:], {**SPACE[0], "unit": "meter"}], (2, 3, 4), "must be positive and finite"),
        ([1] * 3, SPACE[1:], (2, 3, 4), "must have an entry for each of its 3 axes"),
        ([1] * 4, [*SPACE, CHANNELS[1]], (2, 3, 4, 1), "spatial ones last; got ['z', 'y', 'x', 'c']"),
    ],
)
def test_metadata_that_cannot_be_used(tmp_path: Path, scale, axes, shape, message: str) -> None:
    path = image(tmp_path / "a.zarr", np.zeros(shape, np.uint8), multiscale(scale, axes))
    with pytest.raises(_files.FileError) as caught:
        _files.open_volume(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_given_spacing_replaces_unusable_metadata(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr", VALUES, multiscale([1, 1]))
    assert _files.open_volume(path, (2.0, 1.0, 1.0)).spacing == (2, 1, 1)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GiB", 4 << 30),
        ("500MB", 500_000_000),
        ("1.5 kib", 1536),
        ("1e3", 1000),
        ("7B", 7),
        ("2g", 2 * 10**9),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert _files.byte_count(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "4 apples", "-1", "0", "1..2", "nan", "e", "1e999"])
def test_texts_that_are_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size such as '4GiB'"):
        _files.byte_count(text)


def store(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "zarr.json").write_text(text)
    return path


@pytest.mark.parametrize("new_is_left", [True, False])
def test_a_run_killed_between_two_renames_loses_nothing(tmp_path: Path, new_is_left: bool) -> None:
    out = tmp_path / "out.zarr"
    store(tmp_path / f"{_REPLACED}out.zarr", "old")
    if new_is_left:
        store(tmp_path / f"{PARTIAL}out.zarr", "new")
    _files.check_output(out, [tmp_path / "in.zarr"], force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]
    assert (out / "zarr.json").read_text() == "old"


def test_what_was_replaced_goes_once_the_new_one_is_there(tmp_path: Path) -> None:
    out = store(tmp_path / "out.zarr", "new")
    store(tmp_path / f"{_REPLACED}out.zarr", "old")
    _files.check_output(out, [tmp_path / "in.zarr"], force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]
    assert (out / "zarr.json").read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="Windows does not lock directories")
def test_a_running_process_keeps_its_directory(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    with _files.whole_directory(out) as temporary:
        (temporary / "zarr.json").write_text("running")
        replaced = store(tmp_path / f"{_REPLACED}out.zarr", "old")
        assert _files.remove_leftovers(tmp_path) == []
        assert replaced.exists(), "the process is between its two renames"
        with (
            pytest.raises(_files.FileError, match="another process is writing it"),
            _files.whole_directory(out),
        ):
            pytest.fail("lent twice")
        assert (temporary / "zarr.json").read_text() == "running"
        assert not out.exists()
    assert (out / "zarr.json").read_text() == "running"


def test_stale_parts_do_not_reach_the_new_store(tmp_path: Path) -> None:
    (tmp_path / f"{PARTIAL}out.zarr" / "c").mkdir(parents=True)
    with _files.whole_directory(tmp_path / "out.zarr") as temporary:
        assert not list(temporary.iterdir())
