"""The manifest beside stored maps: how they were made, from which files, and which are done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from fastsdm._files import FileError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Name of the manifest in its directory.
MANIFEST = "fastsdm-maps.jsonl"
_FORMAT = 1


@dataclass(frozen=True)
class StoredSettings:
    """Settings of every map in a directory.

    Attributes:
        classes: label values of the class axis; None for masks.
        spacing: voxel size that was given instead of the files' own; None: each file's.
        convention: as in :func:`fastsdm.signed_distance`.
        empty: as there.
        max_distance: as there.
        ignore_index: as there.
        dtype: name of the maps' dtype.
        suffix: file format of the maps: ``".npy"``, ``".nii.gz"`` and so on.
    """

    classes: tuple[int, ...] | None
    spacing: tuple[float, ...] | None
    convention: str
    empty: str
    max_distance: float | None
    ignore_index: int | None
    dtype: str
    suffix: str

    def difference(self, other: StoredSettings) -> str | None:
        """Name the first setting that differs and both values, or None."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs:
                return f"{field.name}: {mine!r}, not {theirs!r}"
        return None


@dataclass(frozen=True)
class MapRecord:
    """A finished map.

    Attributes:
        map: its file, relative to the manifest.
        source: the label file it was made from, as it was named.
        sha256: of the label file.
        size: of the map's file, in bytes.
        shape: of the map.
        spacing: voxel size along each spatial axis.
    """

    map: str
    source: str
    sha256: str
    size: int
    shape: tuple[int, ...]
    spacing: tuple[float, ...]


class Manifest:
    """The manifest of a directory: one line of settings, then one line per finished map.

    Lines are only appended, so that a run that is killed loses at most the line it was writing.
    """

    def __init__(self, directory: Path, settings: StoredSettings, records: Mapping[str, MapRecord]) -> None:
        self.directory = directory
        self.settings = settings
        self.records = dict(records)
        self._file: IO[bytes] | None = None

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read the manifest of a directory.

        Raises:
            FileError: there is none, or it is damaged.
        """
        path = directory / MANIFEST
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise FileError(f"{path}: cannot be read ({error.strerror or error})") from error
        try:
            settings = _settings_from(json.loads(lines[0]))
            # The last line is empty, or was being written when the run was killed.
            found = [_record_from(json.loads(line)) for line in lines[1:-1]]
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(f"{path}: is damaged ({error})") from error
        return cls(directory, settings, {record.map: record for record in found})

    @classmethod
    @contextmanager
    def opened(cls, directory: Path, settings: StoredSettings, version: str) -> Iterator[Manifest]:
        """Go on with the manifest of a directory, or begin one; no other run may, until the block ends.

        Raises:
            FileError: the manifest there has other settings or is in use, or cannot be read or written.
        """
        path = directory / MANIFEST
        try:
            with path.open("a+b") as file:
                _lock(path, file)
                file.seek(0)
                whole = file.read()
                # What a killed run was writing has no end of line.
                file.truncate(whole.rfind(b"\n") + 1)
                if b"\n" not in whole:
                    header = {"fastsdm-maps": _FORMAT, "version": version, **asdict(settings)}
                    _append(file, header)
                found = cls.read(directory)
                if difference := found.settings.difference(settings):
                    raise FileError(
                        f"{path}: the maps there were made with {difference}; name another directory"
                    )
                found._file = file
                yield found
        except OSError as error:
            raise FileError(f"{path}: cannot be used ({error.strerror or error})") from error

    def add(self, record: MapRecord) -> None:
        """Append a finished map to a manifest that was opened."""
        assert self._file is not None
        _append(self._file, asdict(record))
        self.records[record.map] = record


def is_whole(directory: Path, record: MapRecord) -> bool:
    """Whether the map of a record is there with the size that it was written with."""
    try:
        return (directory / record.map).stat().st_size == record.size
    except OSError:
        return False


def _lock(path: Path, file: IO[bytes]) -> None:
    try:
        if fcntl is not None:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FileError(f"{path}: another run is writing to this directory") from error
    except OSError:  # a file system without locks
        return


def _append(file: IO[bytes], line: dict[str, Any]) -> None:
    file.write(json.dumps(line).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _settings_from(stored: dict[str, Any]) -> StoredSettings:
    if stored.get("fastsdm-maps") != _FORMAT:
        raise ValueError(f"its first line must name format {_FORMAT}, got {stored.get('fastsdm-maps')!r}")
    held = {field.name: stored[field.name] for field in fields(StoredSettings)}
    for name in ("classes", "spacing"):
        held[name] = None if held[name] is None else tuple(held[name])
    return StoredSettings(**held)


def _record_from(stored: dict[str, Any]) -> MapRecord:
    held = {field.name: stored[field.name] for field in fields(MapRecord)}
    return MapRecord(**{**held, "shape": tuple(held["shape"]), "spacing": tuple(held["spacing"])})
