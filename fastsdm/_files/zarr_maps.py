"""Maps as zarr arrays, each in a directory that is never seen half-written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastsdm._files.directory import whole_directory
from fastsdm._files.zarr_package import zarr_package

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

ZARR = ".zarr"
#: Edge of the chunks, in voxels: 1 MiB of float32, which a training patch touches a few of.
CHUNK = 64


def write_zarr(path: Path, maps: Array, spacing: Sequence[float], description: str) -> None:
    """Write a map as a zarr array; ``path`` holds all of it or is not touched.

    Args:
        path: the array's directory.
        maps: ``[*S]`` or ``[K, *S]``; chunks hold one class.
        spacing: voxel size along each spatial axis, kept among the attributes.
        description: kept among them, too.

    Raises:
        FileError: the directory cannot be written.
    """
    zarr = zarr_package()
    spatial = [min(size, CHUNK) for size in maps.shape[maps.ndim - len(spacing) :]]
    with whole_directory(path) as temporary:
        array = zarr.create_array(
            store=temporary,
            shape=maps.shape,
            chunks=(*(1,) * (maps.ndim - len(spatial)), *spatial),
            dtype=maps.dtype,
            attributes={"spacing": list(spacing), "description": description},
        )
        array[...] = maps


def tree_size(path: Path) -> int:
    """Bytes of a file, or of all files in a directory.

    Raises:
        OSError: there is no such file.
    """
    if not path.is_dir():
        return path.stat().st_size
    return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())
