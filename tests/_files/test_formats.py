"""Formats that are not read: each message gives a command, and the command works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from fastsdm import _files

LABELS = np.zeros((5, 6, 7), np.uint8)
LABELS[1:3, 2:4, 3:5] = 2


def itk(path: Path) -> None:
    image = SimpleITK.GetImageFromArray(LABELS)
    image.SetSpacing((3.0, 0.5, 1.5))
    SimpleITK.WriteImage(image, str(path))


def freesurfer(path: Path) -> None:
    nibabel.save(nibabel.MGHImage(LABELS.T, np.diag([3.0, 0.5, 1.5, 1.0])), path)


@pytest.mark.parametrize(
    ("name", "make"), [("a.mha", itk), ("b.seg.nrrd", itk), ("c.NRRD", itk), ("d.mgz", freesurfer)]
)
def test_the_command_in_the_message_converts_the_file(tmp_path: Path, name: str, make) -> None:
    make(tmp_path / name)
    with pytest.raises(_files.UnusablePathError) as caught:
        _files.open_volume(tmp_path / name)
    command = re.search(r'convert it: python -c "(.*)"', str(caught.value))[1]
    subprocess.run([sys.executable, "-c", command], check=True)
    (written,) = tmp_path.glob("*.nii.gz")
    opened = _files.open_volume(written)
    np.testing.assert_allclose(opened.spacing, (3, 0.5, 1.5))
    np.testing.assert_array_equal(opened.read(), LABELS.T)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("a.mhd", "SimpleITK"),
        ("a.dcm", "segimage2itkimage --inputDICOM"),
        ("a.tiff", "tifffile.imread"),
        ("a.hdf5", "h5py.File"),
        ("a.b2nd", "blosc2.open"),
        ("a.img", "nibabel"),
    ],
)
def test_other_formats_have_a_command_too(tmp_path: Path, name: str, command: str) -> None:
    with pytest.raises(_files.UnusablePathError) as caught:
        _files.open_volume(tmp_path / name)
    assert command in str(caught.value)
    assert str(tmp_path / name) in str(caught.value).partition("convert it: ")[2]


def test_dicom_is_recognised_without_a_suffix(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(20))
    with pytest.raises(_files.UnusablePathError, match="dcm2niix"):
        _files.open_volume(tmp_path / "IM0001")
    with pytest.raises(_files.UnusablePathError, match="dcm2niix"):
        _files.open_volume(tmp_path)


def test_an_unknown_format_is_refused_without_a_guess(tmp_path: Path) -> None:
    with pytest.raises(_files.UnusablePathError) as caught:
        _files.open_volume(tmp_path / "a.doc")
    assert str(caught.value).endswith("the name must end in one of .nii, .nii.gz, .npy, .npz, .zarr")
    with pytest.raises(_files.UnusablePathError) as caught:
        _files.check_format(tmp_path / "a.mha", reading=False)
    assert "convert" not in str(caught.value)
