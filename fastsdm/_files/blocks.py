"""Stored maps opened to be read by blocks: only the voxels that are asked for leave the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastsdm._files import nifti
from fastsdm._files.errors import FileError
from fastsdm._files.formats import ZARR
from fastsdm._files.zarr_package import zarr_package

_ADVICE = (
    "is compressed as a whole, so that no part of it can be read alone; store the maps as .npy, .zarr or "
    "uncompressed .nii"
)


def open_blocks(path: Path, shape: Sequence[int], ndim: int) -> Any:
    """Open a map ``[*S]`` or ``[K, *S]`` of ``ndim`` spatial axes; it gives an array for a tuple of slices.

    ``.npy`` and ``.nii`` are mapped into memory, ``.zarr`` is read chunk by chunk.

    Raises:
        FileError: the format cannot be read by blocks, or the file is not that map.
    """
    check_blocks(path)
    try:
        if path.suffix == ZARR:
            array = zarr_package().open_array(path, mode="r")
        elif path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            array = _open_nifti(path, len(shape) > ndim, ndim)
    except (OSError, ValueError, KeyError) as error:
        raise FileError(f"{path}: cannot be read as {path.suffix} ({error})") from error
    if tuple(array.shape) != tuple(shape):
        raise FileError(f"{path}: must have the shape {tuple(shape)}, got {tuple(array.shape)}")
    return array


def check_blocks(path: Path) -> None:
    """Raise FileError for a format that cannot be read by blocks."""
    if path.name.endswith((".nii.gz", ".npz")):
        raise FileError(f"{path}: {_ADVICE}")
    if path.suffix not in {ZARR, ".npy", ".nii"}:
        raise FileError(f"{path}: the name must end in .npy, .zarr or .nii")


def _open_nifti(path: Path, has_classes: bool, ndim: int) -> Any:
    image, _, _ = nifti.load(path)
    proxy = image.dataobj
    # Maps are stored as floats, which NIfTI does not scale.
    array: Any = np.memmap(path, proxy.dtype, "r", proxy.offset, proxy.shape, order="F")
    if has_classes and ndim == 2:
        array = array[:, :, 0]
    return np.moveaxis(array, -1, 0) if has_classes else array
