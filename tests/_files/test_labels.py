"""Labels in files: floats are rounded or refused, NaN is asked about, negative labels are outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastsdm import _files


def labels_of(path: Path, values, **options):
    np.save(path / "a.npy", np.asarray(values)[None, None])
    got, notes = _files.read_labels(_files.open_volume(path / "a.npy"), **{"mask": False, **options})
    return got[0, 0], notes


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ([0, np.inf], r"must lie between -16777216 and 16777216 in float32, got inf"),
        ([0, -np.inf], "got -inf"),
        ([0, 1e30], r"got 1e\+30"),
        ([0, np.nan], r"1 voxels hold NaN; --nan-as 0"),
        ([0, 1.5], r"must be whole numbers.*, got 1.5"),
        ([0, 1.002], r"must be whole numbers.*, got 1.002"),
        ([-0.5, 1], r"must be whole numbers.*, got -0.5"),
    ],
)
def test_values_that_are_no_labels_are_refused(tmp_path: Path, values, rule: str, mask: bool) -> None:
    with pytest.raises(_files.FileError, match=r"a\.npy: .*" + rule):
        labels_of(tmp_path, np.array(values, np.float32), mask=mask)


def test_the_largest_label_depends_on_the_precision(tmp_path: Path) -> None:
    got, _ = labels_of(tmp_path, np.array([0, 2.0**40]))
    assert got.tolist() == [0, 2**40]
    with pytest.raises(_files.FileError, match="between -2048 and 2048 in float16"):
        labels_of(tmp_path, np.array([0, 4096], np.float16))


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize(
    "values", [[0, 0.99999994, 2], [1e-9, 1, 2], [0, 1.0009, 2], [-0.0009, 1, 2.0], [0, 1.0000001, 1.9991]]
)
def test_labels_within_a_thousandth_are_rounded_and_it_is_said(tmp_path: Path, values, mask: bool) -> None:
    got, notes = labels_of(tmp_path, np.array(values, np.float32), mask=mask)
    assert got.dtype.kind == "i"
    assert got.tolist() == [0, 1, 2]
    assert "rounded to whole labels, by " in notes[0]


def test_whole_floats_need_no_note(tmp_path: Path) -> None:
    got, notes = labels_of(tmp_path, np.array([0.0, 3.0, 7.0]))
    assert (got.tolist(), notes) == ([0, 3, 7], [])


def test_probabilities_are_a_mask_above_a_half(tmp_path: Path) -> None:
    got, notes = labels_of(tmp_path, np.array([0.0, 0.2, 0.5, 0.51, 1.0], np.float32), mask=True)
    assert got.tolist() == [False, False, False, True, True]
    assert "above 0.5 is inside" in notes[0]


def test_nan_takes_the_label_that_is_given(tmp_path: Path) -> None:
    values = np.array([np.nan, 1, np.nan, 2], np.float32)
    got, notes = labels_of(tmp_path, values, nan_as=0)
    assert got.tolist() == [0, 1, 0, 2]
    assert notes == ["2 voxels hold NaN, read as label 0"]
    assert labels_of(tmp_path, values, nan_as=255)[0].tolist() == [255, 1, 255, 2]


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32])
def test_negative_labels_are_outside_of_a_mask_unless_asked(tmp_path: Path, dtype) -> None:
    values = np.array([-1, 0, 1, -3], dtype)
    got, notes = labels_of(tmp_path, values, mask=True)
    assert got.tolist() == [0, 0, 1, 0]
    assert "2 voxels hold negative labels (down to -3) and are outside" in notes[0]
    got, notes = labels_of(tmp_path, values, mask=True, negative_inside=True)
    assert (np.flatnonzero(got).tolist(), notes) == ([0, 2, 3], [])
    assert labels_of(tmp_path, values, mask=True, ignore_index=-1)[0].tolist() == [-1, 0, 1, 0]
    got, _ = labels_of(tmp_path, values, mask=True, ignore_index=-1, negative_inside=True)
    assert got.tolist() == [-1, 0, 1, 1]
    assert labels_of(tmp_path, values, mask=False)[0].tolist() == [-1, 0, 1, -3]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, ">u2"])
def test_clean_labels_stay_as_they_are(tmp_path: Path, dtype) -> None:
    values = np.array([0, 1, 1, 0], dtype)
    got, notes = labels_of(tmp_path, values, mask=True)
    assert got.dtype == values.dtype
    assert (got.tolist(), notes) == (values.tolist(), [])


@pytest.mark.parametrize("dtype", [complex, "U3", "M8[s]"])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, dtype) -> None:
    with pytest.raises(_files.FileError, match="must hold booleans, integers or floats, got dtype"):
        labels_of(tmp_path, np.zeros(3, dtype))
