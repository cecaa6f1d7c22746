"""Opening a volume: its header first, the values when asked for."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastsdm._files import nifti, zarr_labels
from fastsdm._files.errors import FileError, UnusablePathError
from fastsdm._files.formats import NIFTI, ZARR, check_format, is_zarr
from fastsdm._files.memory import require_memory

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

#: Names under which an ``.npz`` file may hold its labels beside other arrays; nnU-Net's is "seg".
_LABEL_NAMES = ("labels", "seg")
_SPACING_NAME = "spacing"
#: Unit where a file has no voxel size.
_VOXELS = "voxels"


@dataclass(frozen=True)
class VolumeFile:
    """A volume in a file, of which only the header was read.

    Attributes:
        path: the file.
        shape: of its 2 or 3 axes; further axes of size 1 are left out.
        dtype: of the values as ``read`` returns them.
        spacing: voxel size along each axis.
        unit: what spacing and distances are in, or None where nothing says.
        notes: what a user should know of the geometry, one line each.
        image: the NIfTI image with affine and header; None for numpy files.
        array: name of the array in an ``.npz`` file.
        blocks: the volume in a zarr store, which gives an array for a tuple of slices; None for other files.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: tuple[float, ...]
    unit: str | None
    notes: tuple[str, ...] = ()
    image: Any = None
    array: str | None = None
    blocks: zarr_labels.ZarrLabels | None = None

    @property
    def voxels(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    def read(self) -> Array:
        """Read the values, of ``shape`` and ``dtype``.

        Raises:
            FileError: the file is damaged, or its values do not fit into memory.
        """
        require_memory(
            self.path, self.shape, {f"values ({self.dtype.name})": self.voxels * self.dtype.itemsize}
        )
        try:
            return self._values().reshape(self.shape)
        except _damages(self.path) as error:
            raise _unreadable(self.path, error) from error

    def block(self, part: tuple[slice, ...]) -> Array:
        """Read a part of a volume in a zarr store.

        Raises:
            FileError: the store is damaged.
        """
        assert self.blocks is not None
        try:
            return self.blocks[part]
        except _damages(self.path) as error:
            raise _unreadable(self.path, error) from error

    def _values(self) -> Array:
        if self.blocks is not None:
            return self.blocks[(slice(None),) * len(self.shape)]
        if self.image is not None:
            return np.asanyarray(self.image.dataobj)
        stored = np.load(self.path, allow_pickle=False)
        if self.array is None:
            return np.asarray(stored)
        with stored:
            return np.asarray(stored[self.array])


def open_volume(path: Path, spacing: float | Sequence[float] | None = None) -> VolumeFile:
    """Read the header of ``.nii``, ``.nii.gz``, ``.npy``, ``.npz`` or of an array in a ``.zarr`` store.

    The voxel size is that of the NIfTI affine, of an array ``spacing`` in ``.npz``, of the OME-NGFF metadata
    or the attribute ``spacing`` in ``.zarr``; else it is 1 and distances are in voxels.

    Args:
        path: the file.
        spacing: voxel size that counts instead of the file's; one number or one per axis.

    Raises:
        UnusablePathError: there is no such file, or its format is not handled.
        FileError: it is damaged, holds no volume of 2 or 3 axes, or holds an unusable voxel size.
        ValueError: ``spacing`` has another length than the volume has axes.
    """
    suffix = check_format(path, reading=True)
    if not (path.is_dir() if suffix == ZARR else path.is_file()):
        kind = "directory" if suffix == ZARR else "file"
        problem = f"is not a {kind}" if path.exists() else f"there is no such {kind}"
        raise UnusablePathError(f"{path}: {problem}")
    openers = {".npy": _open_npy, ".npz": _open_npz, ZARR: _open_zarr}
    try:
        found = openers.get(suffix, _open_nifti)(path)
    except FileError:
        raise
    except _damages(path) as error:
        raise _unreadable(path, error) from error
    return _with_checked_spacing(found, spacing)


def _with_checked_spacing(found: VolumeFile, spacing: float | Sequence[float] | None) -> VolumeFile:
    if spacing is None:
        if not all(0 < step < math.inf for step in found.spacing):
            raise FileError(
                f"{found.path}: the voxel size must be positive and finite, the file holds "
                f"{nifti.by(found.spacing)}; --spacing replaces it"
            )
        return found
    given = tuple(map(float, spacing)) if isinstance(spacing, Sequence) else (float(spacing),)
    count = len(found.shape)
    if len(given) not in (1, count):
        raise ValueError(
            f"spacing: must be one number, or {count} (one per axis); got {', '.join(map(str, given))}"
        )
    given = given * count if len(given) == 1 else given
    notes = found.notes if found.unit != _VOXELS else ()
    if found.unit != _VOXELS:
        notes = (
            *notes,
            f"--spacing {nifti.by(given)} replaces the file's voxel size {nifti.by(found.spacing)}",
        )
    return replace(found, spacing=given, unit=None, notes=notes)


def _open_nifti(path: Path) -> VolumeFile:
    image, pixdim, notes = nifti.load(path)
    shape = _spatial_shape(path, image.shape, leading=False)
    spacing, more = nifti.voxel_sizes(image, pixdim, shape)
    proxy = image.dataobj
    scaled = (proxy.slope, proxy.inter) != (1, 0)
    dtype = np.dtype(np.float64) if scaled else proxy.dtype
    return VolumeFile(path, shape, dtype, spacing, nifti.unit(image), (*notes, *more), image)


def _open_npy(path: Path) -> VolumeFile:
    with path.open("rb") as file:
        stored, dtype = _npy_header(file)
    shape = _spatial_shape(path, stored)
    return VolumeFile(path, shape, dtype, (1.0,) * len(shape), _VOXELS)


def _open_npz(path: Path) -> VolumeFile:
    with np.load(path, allow_pickle=False) as arrays:
        name = _array_name(path, arrays.files)
        spacing = arrays[_SPACING_NAME] if _SPACING_NAME in arrays.files else None
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        stored, dtype = _npy_header(member)
    shape = _spatial_shape(path, stored)
    if spacing is None:
        return VolumeFile(path, shape, dtype, (1.0,) * len(shape), _VOXELS, array=name)
    if spacing.dtype.kind not in "iuf" or spacing.shape not in ((), (1,), (len(shape),)):
        raise FileError(
            f"{path}: its array 'spacing' must hold one number or {len(shape)}, got {spacing.dtype} of shape "
            f"{spacing.shape}"
        )
    steps = np.broadcast_to(spacing, len(shape)).tolist()
    return VolumeFile(path, shape, dtype, tuple(map(float, steps)), None, array=name)


def _open_zarr(path: Path) -> VolumeFile:
    found = zarr_labels.open_labels(path)
    shape, dtype = found.shape, np.dtype(found.array.dtype)
    if found.spacing is None:
        note = "no voxel size in its metadata, so distances are in voxels; --spacing sets one"
        return VolumeFile(path, shape, dtype, (1.0,) * len(shape), _VOXELS, (note,), blocks=found)
    unit = f" {found.unit}" if found.unit else ""
    note = f"voxel size {nifti.by(found.spacing)}{unit} by {found.origin}"
    return VolumeFile(path, shape, dtype, found.spacing, found.unit, (note,), blocks=found)


def _array_name(path: Path, names: Sequence[str]) -> str:
    """The array that holds the volume."""
    arrays = [name for name in names if name != _SPACING_NAME]
    if len(arrays) == 1:
        return arrays[0]
    for known in _LABEL_NAMES:
        if known in arrays:
            return known
    raise FileError(
        f"{path}: must hold one array beside 'spacing', or one named {' or '.join(map(repr, _LABEL_NAMES))}; "
        f"got {', '.join(names) or 'none'}"
    )


def _npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _spatial_shape(path: Path, stored: Sequence[int], *, leading: bool = True) -> tuple[int, ...]:
    """Drop axes of size 1 beyond three: trailing ones, and in numpy files leading ones (channels)."""
    stored = shape = tuple(map(int, stored))
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    while leading and len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) not in (2, 3) or 0 in shape:
        raise FileError(f"{path}: must hold a volume with 2 or 3 axes, none of size 0; got shape {stored}")
    return shape


def _damages(path: Path) -> tuple[type[Exception], ...]:
    if is_zarr(path):
        return zarr_labels.damages()
    known = (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile)
    return (*known, *nifti.damages()) if check_format(path, reading=True) in NIFTI else known


def _unreadable(path: Path, error: Exception) -> FileError:
    reason = " ".join(str(error).split())
    return FileError(f"{path}: cannot be read as {check_format(path, reading=True)} ({reason})")
