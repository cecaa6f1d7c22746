"""Writing without harm: nothing is overwritten unasked, no file is ever seen half-written."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastsdm._files.errors import FileError, UnusablePathError

if sys.platform != "win32":  # Windows has no such locks, and does not delete a file that is open
    import fcntl

PARTIAL = ".fastsdm-partial-"


def check_output(path: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse, before any work is done, what must not or could not be written in the end.

    Files that a killed run left half-written in the same directory are removed.

    Args:
        path: where the output goes.
        inputs: files that are read; the output replaces none of them, whatever path or link leads there.
        force: whether an existing file may be replaced.

    Raises:
        UnusablePathError: the path cannot be written, is an input, or exists and ``force`` is not given.
    """
    for parent in (path.parent, path.resolve().parent):
        if not parent.is_dir():
            raise UnusablePathError(f"{path}: there is no directory {parent}")
        if not os.access(parent, os.W_OK):
            raise UnusablePathError(f"{path}: the directory {parent} cannot be written to")
    if path.is_dir():
        raise UnusablePathError(f"{path}: is a directory")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            same = "is the input" if path == source else f"is the input {source} by another name"
            raise UnusablePathError(f"{path}: {same}, which is never replaced; name another output")
    if path.exists() and not path.is_file():
        raise UnusablePathError(f"{path}: is not a regular file")
    if path.exists() and not force:
        raise UnusablePathError(f"{path}: exists already; --force overwrites it")
    remove_leftovers(path.resolve().parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Lend a name beside ``path`` to write to, which takes its place at the end, or is removed.

    A symbolic link is followed. The temporary file is locked while it is written, so that what a killed
    process leaves can be recognised by ``remove_leftovers``.

    Raises:
        FileError: the file cannot be written; the message names ``path``.
    """
    target = path.resolve()
    temporary = target.with_name(PARTIAL + target.name)
    try:
        with _locked(temporary, path):
            try:
                yield temporary
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror or error})") from error


def remove_leftovers(directory: Path) -> list[Path]:
    """Remove half-written files of runs that were killed; those of running processes stay.

    Returns:
        The files that were removed.
    """
    return [leftover for leftover in directory.glob(f"{PARTIAL}*") if _remove_if_abandoned(leftover)]


def _remove_if_abandoned(leftover: Path) -> bool:
    try:
        if sys.platform == "win32":
            leftover.unlink()
            return True
        descriptor = os.open(leftover, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()
        finally:
            os.close(descriptor)
    except OSError:  # in use, not ours to remove, or on a file system without locks
        return False
    return True


@contextmanager
def _locked(temporary: Path, path: Path, patience: float = 1.0) -> Iterator[None]:
    """Create the temporary file and lock it, where the file system has locks."""
    if sys.platform == "win32":
        yield
        return
    deadline = time.monotonic() + patience
    while True:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _lock(descriptor) and _is_named(descriptor, temporary):
                yield
                return
        finally:
            os.close(descriptor)
        # Another process is writing the file, or took it for a leftover before it was locked.
        if time.monotonic() > deadline:
            raise FileError(f"{path}: another process is writing it")
        time.sleep(0.02)


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
