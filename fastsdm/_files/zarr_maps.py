"""Maps as zarr arrays, each in a directory that is never seen half-written."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastsdm._files.errors import FileError
from fastsdm._files.output import PARTIAL

if sys.platform != "win32":  # Windows neither opens nor locks directories
    import fcntl

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

ZARR = ".zarr"
#: Edge of the chunks, in voxels: 1 MiB of float32, which a training patch touches a few of.
CHUNK = 64


def zarr_package() -> Any:
    """Import zarr.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import zarr  # noqa: PLC0415  # optional, and only for these files
    except ModuleNotFoundError as error:
        if error.name != "zarr":
            raise
        raise ModuleNotFoundError(
            "zarr: the format needs the package zarr, which is not installed; install it, in a checkout of "
            "fastsdm, with: pip install '.[zarr]'",
            name="zarr",
        ) from error
    return zarr


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


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Lend an empty directory beside ``path``, which takes its place at the end, or is removed.

    Raises:
        FileError: it cannot be written; the message names ``path``.
    """
    target = path.resolve()
    temporary, old = (target.with_name(f"{PARTIAL}{what}{target.name}") for what in ("", "old-"))
    try:
        for stale in (temporary, old):
            shutil.rmtree(stale, ignore_errors=True)
        temporary.mkdir()
        with _locked(temporary):
            try:
                yield temporary
                if target.exists():  # a directory does not replace another one
                    target.rename(old)
                temporary.rename(target)
            finally:
                for rest in (temporary, old):
                    shutil.rmtree(rest, ignore_errors=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror or error})") from error


def remove_leftover_directories(parent: Path) -> list[Path]:
    """Remove half-written directories of runs that were killed; those of running processes stay.

    Returns:
        The directories that were removed.
    """
    found = [path for path in parent.glob(f"{PARTIAL}*") if path.is_dir() and not _in_use(path)]
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    return found


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _in_use(directory: Path) -> bool:
    if sys.platform == "win32":
        return False
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
