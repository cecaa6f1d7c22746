"""What a file or a zarr store holds: its size, and a hash by which it is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from fastsdm._files.errors import FileError
from fastsdm._files.formats import METADATA, is_store

_CHUNK = 1 << 20


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a directory; OSError where there is none."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(inner.stat().st_size for inner in _files_in(path))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files in a zarr store.

    Of an array or group inside of a store, the metadata of the groups above it are included: they hold its
    voxel size.

    Raises:
        FileError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for inner in [*_metadata_above(path), *_files_in(path)]:
                name = inner.relative_to(path).as_posix() if path in inner.parents else inner.name
                digest.update(f"{name}\0{inner.stat().st_size}\0".encode())
                _update(digest, inner)
        else:
            _update(digest, path)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def _update(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)


def _files_in(directory: Path) -> list[Path]:
    return sorted(inner for inner in directory.rglob("*") if inner.is_file())


def _metadata_above(path: Path) -> Iterator[Path]:
    for above in path.absolute().parents:
        if not is_store(above):
            return
        yield from (above / name for name in METADATA if (above / name).is_file())
