"""Directories written as files are: none is ever seen half-written, or lost."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastsdm._files.errors import FileError, UnusablePathError
from fastsdm._files.output import PARTIAL

if sys.platform != "win32":  # Windows neither opens nor locks directories
    import fcntl

_REPLACED = ".fastsdm-replaced-"


def check_output_directory(path: Path, source: Path, *, force: bool) -> None:
    """Refuse, before any work is done, a store that must not or could not be written in the end.

    Directories that a killed run left in the same place are removed.

    Args:
        path: where the zarr store goes.
        source: what is read; the output neither replaces it nor lies inside of it.
        force: whether an existing zarr store may be replaced.

    Raises:
        UnusablePathError: the message names the path and the rule.
    """
    target, read = path.resolve(), source.resolve()
    if not target.parent.is_dir():
        raise UnusablePathError(f"{path}: there is no directory {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise UnusablePathError(f"{path}: the directory {target.parent} cannot be written to")
    if target == read or target in read.parents:
        raise UnusablePathError(
            f"{path}: is the input, or holds it, and is never replaced; name another output"
        )
    if read in target.parents or any(above.suffix == ".zarr" for above in target.parents):
        raise UnusablePathError(f"{path}: lies inside of another zarr store; name another output")
    remove_leftover_directories(target.parent)
    if target.exists() and not _is_store(target):
        raise UnusablePathError(f"{path}: exists and is not a zarr store, and is never replaced")
    if target.exists() and not force:
        raise UnusablePathError(f"{path}: exists already; --force overwrites it")


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Lend a directory beside ``path`` to write to, which takes its place at the end, or is removed.

    Raises:
        FileError: it cannot be written; the message names ``path``.
    """
    target = path.resolve()
    temporary, replaced = (target.with_name(prefix + target.name) for prefix in (PARTIAL, _REPLACED))
    try:
        temporary.mkdir(exist_ok=True)
        with _locked(temporary, path):
            try:
                for stale in temporary.iterdir():
                    shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
                yield temporary
                if target.exists():  # a directory does not replace another one
                    target.rename(replaced)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
                if target.exists():
                    shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror or error})") from error


def remove_leftover_directories(parent: Path) -> list[Path]:
    """Remove what killed runs left half-written, and give back what they moved away last.

    Returns:
        The directories that were removed.
    """
    prefixes = (PARTIAL, _REPLACED)
    found = [path for prefix in prefixes for path in parent.glob(f"{prefix}*") if path.is_dir()]
    removed = []
    for name in {path.name.removeprefix(PARTIAL).removeprefix(_REPLACED) for path in found}:
        temporary, replaced, target = (parent / f"{prefix}{name}" for prefix in (*prefixes, ""))
        descriptor = _lock(temporary) if temporary.exists() else None
        if descriptor is None and temporary.exists() and sys.platform != "win32":  # a process is writing it
            continue
        if replaced.exists() and not target.exists():  # killed between two renames
            replaced.rename(target)
        for rest in (temporary, replaced):
            if rest.exists():
                shutil.rmtree(rest, ignore_errors=True)
                removed.append(rest)
        if descriptor is not None:
            os.close(descriptor)
    return removed


@contextmanager
def _locked(directory: Path, path: Path) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    descriptor = _lock(directory)
    if descriptor is None:
        raise FileError(f"{path}: another process is writing it")
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(directory: Path) -> int | None:
    """A descriptor that holds the directory's lock; None where another process does."""
    if sys.platform == "win32":
        return None
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # no locks on this file system: go on without
        pass
    return descriptor


def _is_store(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))
