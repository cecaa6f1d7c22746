"""Writing without harm: nothing is overwritten unasked, no file or zarr store is ever seen half-written."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastsdm._files.errors import FileError, UnusablePathError
from fastsdm._files.formats import ZARR, is_store, is_zarr

if sys.platform != "win32":  # Windows has no such locks, and does not delete a file that is open
    import fcntl

PARTIAL = ".fastsdm-partial-"
_REPLACED = ".fastsdm-replaced-"


def check_output(path: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse, before any work is done, what must not or could not be written in the end.

    What killed runs left in the same directory is removed.

    Args:
        path: where the output goes: a zarr store if its name says so, else a file.
        inputs: what is read; the output neither replaces nor enters any of it, whatever path or link leads
            there.
        force: whether an existing output may be replaced.

    Raises:
        UnusablePathError: the path cannot be written, is an input, or exists and ``force`` is not given.
    """
    target = path.resolve()
    for parent in (path.parent, target.parent):
        if not parent.is_dir():
            raise UnusablePathError(f"{path}: there is no directory {parent}")
        if not os.access(parent, os.W_OK):
            raise UnusablePathError(f"{path}: the directory {parent} cannot be written to")
    for source in inputs:
        is_same = path.exists() and source.exists() and path.samefile(source)
        if is_same or target in source.resolve().parents:
            verb = "is" if is_same else "holds"
            by = "" if path == source or not is_same else f" {source} by another name"
            raise UnusablePathError(
                f"{path}: {verb} the input{by}, which is never replaced; name another output"
            )
    if any(above.suffix == ZARR for above in target.parents):
        raise UnusablePathError(f"{path}: lies inside of a zarr store; name another output")
    remove_leftovers(target.parent)
    if is_zarr(path):
        if path.exists() and not is_store(path):
            raise UnusablePathError(f"{path}: exists and is not a zarr store, and is never replaced")
    elif path.is_dir():
        raise UnusablePathError(f"{path}: is a directory")
    elif path.exists() and not path.is_file():
        raise UnusablePathError(f"{path}: is not a regular file")
    if path.exists() and not force:
        raise UnusablePathError(f"{path}: exists already; --force overwrites it")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Lend a name beside ``path`` to write to, which takes its place at the end, or is removed.

    A symbolic link is followed. The temporary file is locked while it is written, so that what a killed
    process leaves can be recognised by ``remove_leftovers``.

    Raises:
        FileError: the file cannot be written; the message names ``path``.
    """
    with _temporary(path, is_directory=False) as temporary:
        yield temporary
        temporary.replace(path.resolve())


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Lend an empty directory beside ``path``, as :func:`whole_file` lends a file."""
    target = path.resolve()
    replaced = target.with_name(_REPLACED + target.name)
    with _temporary(path, is_directory=True) as temporary:
        for stale in temporary.iterdir():
            _remove(stale)
        try:
            yield temporary
            if target.exists():  # a directory does not replace another one
                target.rename(replaced)
            temporary.rename(target)
        finally:
            if target.exists():
                _remove(replaced)


def remove_leftovers(directory: Path) -> list[Path]:
    """Remove what killed runs left half-written, and put back the store that the last of them moved away.

    What a running process writes stays.

    Returns:
        The files and directories that were removed.
    """
    removed = [leftover for leftover in directory.glob(f"{PARTIAL}*") if _remove_if_abandoned(leftover)]
    for replaced in directory.glob(f"{_REPLACED}*"):
        name = replaced.name.removeprefix(_REPLACED)
        if (directory / (PARTIAL + name)).exists():  # a process is about to replace it
            continue
        if (directory / name).exists():
            _remove(replaced)
            removed.append(replaced)
        else:  # killed between two renames
            replaced.rename(directory / name)
    return removed


@contextmanager
def _temporary(path: Path, *, is_directory: bool, patience: float = 1.0) -> Iterator[Path]:
    """Create what is written to and lock it, where the file system has locks; it is removed at the end."""
    target = path.resolve()
    temporary = target.with_name(PARTIAL + target.name)
    deadline = time.monotonic() + patience
    try:
        while True:
            descriptor = _created(temporary, is_directory=is_directory)
            try:
                if descriptor is None or (_lock(descriptor) and _is_named(descriptor, temporary)):
                    try:
                        yield temporary
                    finally:
                        _remove(temporary)
                    return
            finally:
                if descriptor is not None:
                    os.close(descriptor)
            # Another process is writing it, or took it for a leftover before it was locked.
            if time.monotonic() > deadline:
                raise FileError(f"{path}: another process is writing it")
            time.sleep(0.02)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror or error})") from error


def _created(temporary: Path, *, is_directory: bool) -> int | None:
    if is_directory:
        temporary.mkdir(exist_ok=True)
    if sys.platform == "win32":
        return None
    return os.open(temporary, os.O_RDONLY if is_directory else os.O_RDWR | os.O_CREAT, 0o666)


def _remove_if_abandoned(leftover: Path) -> bool:
    try:
        if sys.platform == "win32":
            _remove(leftover)
            return True
        descriptor = os.open(leftover, os.O_RDONLY if leftover.is_dir() else os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(leftover)
        finally:
            os.close(descriptor)
    except OSError:  # in use, not ours to remove, or on a file system without locks
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system: go on without
        pass
    return True


def _is_named(descriptor: int, temporary: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), temporary.stat())
    except FileNotFoundError:
        return False
