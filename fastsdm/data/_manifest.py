"""The manifest beside stored maps: how they were made, from which files, and which are done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from fastsdm._files import FileError, size_of
from fastsdm._settings import MapSettings, same

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Name of the manifest in its directory.
MANIFEST = "fastsdm-maps.jsonl"
_FORMAT = 1
#: Settings of a map as the first line names them; further ones are those of their storage.
_MAP_SETTINGS = ("classes", "spacing", "convention", "empty", "max_distance", "ignore_index")


@dataclass(frozen=True)
class StoredSettings:
    """Settings of every map in a directory.

    Attributes:
        maps: how they were made; its spacing is the one that was given instead of the files' own, or None.
        dtype: name of the maps' dtype.
        suffix: file format of the maps: ``".npy"``, ``".zarr"`` and so on.
    """

    maps: MapSettings
    dtype: str
    suffix: str

    def difference(self, other: StoredSettings) -> str | None:
        """Name the first setting that differs and both values, or None."""
        mine, theirs = self.line(), other.line()
        differing = (name for name in mine if not same(mine[name], theirs[name]))
        return next((f"{name}: {mine[name]!r}, not {theirs[name]!r}" for name in differing), None)

    def line(self) -> dict[str, Any]:
        """The settings as the manifest's first line holds them."""
        held = {name: getattr(self.maps, name) for name in _MAP_SETTINGS}
        held["spacing"] = None if self.maps.spacing is None else self.maps.spacing[0]
        return {**held, "dtype": self.dtype, "suffix": self.suffix}

    @classmethod
    def from_line(cls, stored: Mapping[str, Any]) -> StoredSettings:
        """The settings that :meth:`line` wrote."""
        held = {name: stored[name] for name in _MAP_SETTINGS}
        if held["classes"] is not None:
            held["classes"] = tuple(held["classes"])
        if held["spacing"] is not None:
            held["spacing"] = (tuple(held["spacing"]),)
        return cls(MapSettings(**held), stored["dtype"], stored["suffix"])


@dataclass(frozen=True)
class MapRecord:
    """A finished map.

    Attributes:
        map: its file, relative to the manifest.
        source: the label file it was made from, as it was named.
        sha256: of the label file or store.
        size: of the map's file or store, in bytes.
        shape: of the map.
        spacing: voxel size along each spatial axis.
    """

    map: str
    source: str
    sha256: str
    size: int
    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    @classmethod
    def from_line(cls, stored: Mapping[str, Any]) -> MapRecord:
        """The record that a line of the manifest holds."""
        held = {field.name: stored[field.name] for field in fields(cls)}
        return cls(**{**held, "shape": tuple(held["shape"]), "spacing": tuple(held["spacing"])})

    def is_whole(self, directory: Path) -> bool:
        """Whether the map is there with the size that it was written with."""
        try:
            return size_of(directory / self.map) == self.size
        except OSError:
            return False


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
        """Read the manifest of a directory; FileError where there is none, or a damaged one."""
        path = directory / MANIFEST
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            raise FileError(f"{path}: cannot be read ({error.strerror or error})") from error
        try:
            first = json.loads(lines[0])
            if first.get("fastsdm-maps") != _FORMAT:
                raise ValueError(
                    f"its first line must name format {_FORMAT}, got {first.get('fastsdm-maps')!r}"
                )
            settings = StoredSettings.from_line(first)
            # The last line is empty, or was being written when the run was killed.
            found = [MapRecord.from_line(json.loads(line)) for line in lines[1:-1]]
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(f"{path}: is damaged ({error})") from error
        return cls(directory, settings, {record.map: record for record in found})

    @classmethod
    @contextmanager
    def opened(cls, directory: Path, settings: StoredSettings) -> Iterator[Manifest]:
        """Go on with the manifest of a directory, or begin one; no other run may, until the block ends.

        Raises:
            FileError: the manifest there has other settings or is in use, or cannot be read or written.
        """
        from fastsdm import __version__  # noqa: PLC0415  # the package is imported by now

        path = directory / MANIFEST
        try:
            with path.open("a+b") as file:
                _lock(path, file)
                file.seek(0)
                whole = file.read()
                # What a killed run was writing has no end of line.
                file.truncate(whole.rfind(b"\n") + 1)
                if b"\n" not in whole:
                    _append(file, {"fastsdm-maps": _FORMAT, "version": __version__, **settings.line()})
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

    def settings_of(self, record: MapRecord) -> MapSettings:
        """How that map was made, with the voxel size of its file."""
        return self.settings.maps.with_spacing(record.spacing)


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
