"""Opening volumes: which array of a file counts, the voxel size that it has, what is at odds in it."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.spatial import cKDTree

import fastsdm
from fastsdm import _files
from fastsdm._files import memory
from fastsdm._settings import MapSettings

LABELS = np.zeros((20, 24, 12), np.uint8)
LABELS[5:12, 6:15, 3:8] = 1
TWO_MM = np.diag([2.0, 2.0, 2.0, 1.0])


def nifti(
    path: Path, affine: np.ndarray, labels: np.ndarray = LABELS, *, qform: int = 0, sform: int = 1
) -> Path:
    image = nibabel.Nifti1Image(labels, affine)
    image.set_qform(affine, qform)
    image.set_sform(affine, sform)
    nibabel.save(image, path)
    return path


def with_pixdim(path: Path, *pixdim: float) -> Path:
    """The same file with other voxel sizes beside its affine."""
    content = bytearray(path.read_bytes())
    content[80 : 80 + 4 * len(pixdim)] = struct.pack(f"<{len(pixdim)}f", *pixdim)
    path.write_bytes(content)
    return path


def rotated(degrees: float, sizes: tuple[float, float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= sizes
    return affine


@pytest.mark.parametrize(
    ("affine", "pixdim", "spacing", "said"),
    [
        (TWO_MM, (2, 2, 2), (2, 2, 2), None),
        (TWO_MM, (0, 0, 0), (2, 2, 2), "voxel size 2 x 2 x 2 counts, not pixdim 0 x 0 x 0"),
        (TWO_MM, (1, 1, 1), (2, 2, 2), "voxel size 2 x 2 x 2 counts, not pixdim 1 x 1 x 1"),
        (TWO_MM, (-2, 2, 2), (2, 2, 2), None),
        (rotated(30, (0.8, 0.7, 3)), (0.8, 0.7, 3.3), (0.8, 0.7, 3), "not pixdim 0.8 x 0.7 x 3.3"),
        (rotated(-17, (0.8, 0.8, 3)), (0.8, 0.8, 3), np.float32([0.8, 0.8, 3]), None),
    ],
)
def test_the_affine_counts_and_another_pixdim_is_said(
    tmp_path: Path, affine, pixdim, spacing, said, capfd
) -> None:
    path = with_pixdim(nifti(tmp_path / "a.nii", affine), *pixdim)
    opened = _files.open_volume(path)
    np.testing.assert_allclose(opened.spacing, spacing, rtol=1e-6)
    assert len(opened.notes) == (said is not None)
    assert said is None or said in opened.notes[0]
    assert capfd.readouterr() == ("", "")


def test_rounding_of_a_rotated_affine_leaves_equal_sizes_equal(tmp_path: Path) -> None:
    opened = _files.open_volume(nifti(tmp_path / "a.nii", rotated(33, (0.7, 0.7, 0.7))))
    assert len(set(opened.spacing)) == 1


@pytest.mark.parametrize("size", [0, np.nan, np.inf])
def test_sizes_that_are_none_are_refused(tmp_path: Path, size: float) -> None:
    path = with_pixdim(nifti(tmp_path / "a.nii", TWO_MM, qform=0, sform=0), size, 1, 1)
    with pytest.raises(_files.FileError, match=f"positive and finite, the file holds {size:g} x 1 x 1; --sp"):
        _files.open_volume(path)


def test_sizes_without_any_affine_are_those_of_pixdim(tmp_path: Path) -> None:
    path = with_pixdim(nifti(tmp_path / "a.nii", TWO_MM, qform=0, sform=0), 0.5, 0.6, 4)
    opened = _files.open_volume(path)
    np.testing.assert_allclose(opened.spacing, (0.5, 0.6, 4), rtol=1e-6)
    assert opened.notes == ()


def test_a_qform_counts_where_there_is_no_sform(tmp_path: Path) -> None:
    opened = _files.open_volume(nifti(tmp_path / "a.nii", rotated(20, (1, 2, 3)), qform=1, sform=0))
    np.testing.assert_allclose(opened.spacing, (1, 2, 3), rtol=1e-6)
    assert opened.notes == ()


def test_no_voxel_size_is_refused_unless_one_is_given(tmp_path: Path) -> None:
    path = with_pixdim(nifti(tmp_path / "a.nii", TWO_MM, sform=0), 0, 2, 2)
    with pytest.raises(
        _files.FileError, match=r"a\.nii: the voxel size must be positive.*0 x 2 x 2; --spacing"
    ):
        _files.open_volume(path)
    opened = _files.open_volume(path, (3.0, 2.0, 2.0))
    assert opened.spacing == (3, 2, 2)
    assert "--spacing 3 x 2 x 2 replaces the file's voxel size 0 x 2 x 2" in opened.notes[-1]


def test_an_axis_of_one_voxel_needs_no_size(tmp_path: Path) -> None:
    path = with_pixdim(nifti(tmp_path / "a.nii", TWO_MM, LABELS[:, :, :1], sform=0), 2, 2, 0)
    assert _files.open_volume(path).spacing == (2, 2, 1)


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0, 0], [0, 1, 2.0], [0, 0, 3]],  # gantry tilt: each slice 2 mm further
        [[0.8, 0.2, 0], [0, 0.8, 0], [0.1, 0, 2]],
    ],
)
def test_a_shear_is_said_with_a_bound_of_its_error(tmp_path: Path, matrix) -> None:
    affine = np.eye(4)
    affine[:3, :3] = matrix
    opened = _files.open_volume(nifti(tmp_path / "a.nii", affine))
    (line,) = opened.notes
    assert "the affine is sheared" in line
    large, small = (float(part.split()[-1]) / 100 for part in line.split(" %")[:2])
    got = fastsdm.signed_distance(LABELS, spacing=opened.spacing, convention="plain")
    places, inside = np.argwhere(np.ones_like(LABELS)) @ affine[:3, :3].T, LABELS.ravel() > 0
    outside_distance, inside_distance = (
        cKDTree(places[inside]).query(places)[0],
        cKDTree(places[~inside]).query(places)[0],
    )
    ratio = np.abs(got.ravel()) / np.where(inside, inside_distance, outside_distance)
    assert 1 - small * 1.05 <= ratio.min()
    assert ratio.max() <= 1 + large * 1.05  # the bound is printed with two digits
    assert ratio.max() > 1 + large / 2


def test_rounding_of_an_affine_is_no_shear(tmp_path: Path) -> None:
    affine = np.round(rotated(12.3, (0.9, 0.9, 2.5)), 4)
    assert _files.open_volume(nifti(tmp_path / "a.nii", affine)).notes == ()


def test_an_npz_brings_its_spacing(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, labels=LABELS, spacing=np.array([0.5, 1, 2]))
    opened = _files.open_volume(path)
    assert (opened.spacing, opened.unit, opened.notes) == ((0.5, 1, 2), None, ())
    other = _files.open_volume(path, 3.0)
    assert other.spacing == (3, 3, 3)
    assert other.notes == ("--spacing 3 x 3 x 3 replaces the file's voxel size 0.5 x 1 x 2",)
    np.savez(path, whatever=LABELS, spacing=2)
    assert _files.open_volume(path).spacing == (2, 2, 2)


def test_a_map_that_was_written_is_read_with_its_spacing(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", labels=LABELS, spacing=[0.5, 1, 2])
    opened = _files.open_volume(tmp_path / "a.npz")
    _files.write_map(tmp_path / "b.npz", LABELS / 2, opened, MapSettings.of({}))
    again = _files.open_volume(tmp_path / "b.npz")
    assert again.spacing == (0.5, 1, 2)
    np.testing.assert_array_equal(again.read(), LABELS / 2)


@pytest.mark.parametrize(
    ("spacing", "rule"),
    [
        ([1.0, 2.0], "'spacing' must hold one number or 3, got float64 of shape (2,)"),
        (["a", "b", "c"], "'spacing' must hold one number or 3"),
        ([1.0, np.nan, 2.0], "the voxel size must be positive and finite, the file holds 1 x nan x 2"),
        (-1.0, "the voxel size must be positive and finite"),
    ],
)
def test_an_unusable_spacing_array_is_refused(tmp_path: Path, spacing, rule: str) -> None:
    np.savez(tmp_path / "a.npz", labels=LABELS, spacing=spacing)
    with pytest.raises(_files.FileError) as caught:
        _files.open_volume(tmp_path / "a.npz")
    assert rule in str(caught.value)


def test_numpy_files_without_spacing_are_in_voxels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    opened = _files.open_volume(tmp_path / "a.npy")
    assert (opened.spacing, opened.unit) == ((1, 1, 1), "voxels")
    given = _files.open_volume(tmp_path / "a.npy", 2.0)
    assert (given.spacing, given.unit, given.notes) == ((2, 2, 2), None, ())
    with pytest.raises(
        ValueError, match=r"^spacing: must be one number, or 3 \(one per axis\); got 1.0, 2.0"
    ):
        _files.open_volume(tmp_path / "a.npy", (1.0, 2.0))


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((1, 20, 24, 12), (20, 24, 12)),
        ((20, 24, 12, 1), (20, 24, 12)),
        ((1, 1, 5, 6), (1, 5, 6)),
        ((1, 5, 6), (1, 5, 6)),
        ((1, 1, 5, 6, 7), (5, 6, 7)),
    ],
)
def test_channel_axes_of_one_are_left_out(tmp_path: Path, shape, kept) -> None:
    values = np.arange(np.prod(shape)).reshape(shape)
    np.save(tmp_path / "a.npy", values)
    opened = _files.open_volume(tmp_path / "a.npy")
    assert opened.shape == kept
    np.testing.assert_array_equal(opened.read(), values.reshape(kept))


def test_nnunet_archives_are_read_by_their_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", data=LABELS[None].astype("f4"), seg=LABELS[None])
    opened = _files.open_volume(tmp_path / "a.npz")
    assert (opened.shape, opened.dtype) == (LABELS.shape, np.uint8)
    np.testing.assert_array_equal(opened.read(), LABELS)


def test_scaled_nifti_is_read_as_values(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(LABELS * 255, np.eye(4))
    image.header.set_slope_inter(1 / 255, 0)
    nibabel.save(image, tmp_path / "a.nii")
    opened = _files.open_volume(tmp_path / "a.nii")
    values = opened.read()
    assert values.dtype == opened.dtype == np.float64
    np.testing.assert_allclose(values, LABELS, atol=1e-6)


def huge_nifti(path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000,) * 3)
    header.set_data_dtype(np.uint8)
    path.write_bytes(header.binaryblock + bytes(400))


def huge_npy(path: Path) -> None:
    header = {"descr": "<i2", "fortran_order": False, "shape": (40000, 40000, 40000)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)


@pytest.mark.parametrize(
    ("make", "name", "need"), [(huge_nifti, "a.nii", "24.6 TiB"), (huge_npy, "a.npy", "116 TiB")]
)
def test_what_does_not_fit_is_refused_before_it_is_allocated(
    tmp_path: Path, make, name: str, need: str
) -> None:
    make(tmp_path / name)
    opened = _files.open_volume(tmp_path / name)
    with pytest.raises(_files.FileError) as caught:
        opened.read()
    assert f"{name}: {opened.shape[0]} x {opened.shape[0]} x {opened.shape[0]} voxels need" in str(
        caught.value
    )
    assert need in str(caught.value)


def test_the_smaller_of_container_and_machine_bounds_the_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CONTROL_GROUP_LIMITS", (tmp_path / "limit",))
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 3000 kB\nSwapFree: 1000 kB\n")
    assert memory.available_memory() == 4000 * 1024
    (tmp_path / "limit").write_text("1000000\n")
    assert memory.available_memory() == 1000000
    (tmp_path / "limit").write_text("max\n")
    assert memory.available_memory() == 4000 * 1024
    memory.require_memory(Path("x"), (2, 2), {"map": 4000 * 1024})
    with pytest.raises(
        _files.FileError, match=r"x: 2 x 2 voxels need at least 3.91 MiB of memory \(map 3.91 MiB"
    ):
        memory.require_memory(Path("x"), (2, 2), {"map": 4000 * 1024 + 1})
