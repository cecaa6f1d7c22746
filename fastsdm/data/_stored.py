"""Maps that ``fastsdm precompute`` stored, read by blocks and held to what a data set asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastsdm import _files
from fastsdm._settings import MapSettings
from fastsdm.data._manifest import Manifest, MapRecord


class StoredMap:
    """A stored map, of which only the requested voxels are read.

    Worker processes get the file name and open the file themselves.

    Attributes:
        path: file of the map.
        settings: how the map was made.
        shape: ``[*S]`` of a mask's map, else ``[K, *S]``.
    """

    def __init__(self, path: Path, record: MapRecord, settings: MapSettings) -> None:
        _files.check_blocks(path)
        self.path = path.absolute()
        self.settings = settings
        self.shape = record.shape
        self._opened: Any = None
        self._array()  # a damaged file is reported now, not in a worker

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Sizes of the spatial axes."""
        return self.shape if self.settings.classes is None else self.shape[1:]

    def __getitem__(self, block: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        """The block that a slice for each axis cuts out."""
        return np.asarray(self._array()[block])

    def __repr__(self) -> str:
        return f"StoredMap({str(self.path)!r}, shape={self.shape})"

    def __getstate__(self) -> dict[str, Any]:
        """All but the open file."""
        return {**self.__dict__, "_opened": None}

    def patch_settings(self) -> MapSettings:
        """How the map of a patch of it was made.

        Where it holds what :func:`fastsdm.data.signed_distance_patch` would compute, no policy for empty
        classes stands between the two.
        """
        held = self.settings
        is_known = held.empty == "max" or (held.empty == "inf" and held.max_distance is not None)
        return replace(held, empty=None) if is_known else held

    def difference(self, wanted: MapSettings) -> str | None:
        """Name the first setting that differs from those of a request, with both values, or None.

        Args:
            wanted: ``empty=None`` takes every policy.
        """
        held = self.patch_settings()
        if held.classes != wanted.classes:
            return f"classes={held.classes}, not classes={wanted.classes}"
        return held.difference(wanted if wanted.empty is not None else replace(wanted, empty=held.empty))

    def contradiction(self, labels: torch.Tensor, maps: torch.Tensor) -> str | None:
        """Say where the signs of a patch ``maps`` do not fit its labels, or None."""
        is_mask = self.settings.classes is None
        if labels.is_floating_point():
            labels = labels > 0.5 if is_mask else labels.round()
        labels = labels.long()  # torch compares not all unsigned integers
        values: tuple[int | None, ...] = self.settings.classes or (None,)
        rows = self.settings.spacing or ((1.0,),)
        # The published shift of 1 turns the sign inside where voxels are smaller.
        only_outside = self.settings.convention == "kervadec-literal" and min(rows[0]) < 1
        for value, distance in zip(values, maps if maps.ndim > labels.ndim else [maps], strict=True):
            inside = labels > 0 if value is None else labels == value
            wrong = ~inside & (distance < 0)
            if is_mask:  # whether negative labels are inside was decided when the map was made
                wrong &= labels == 0
            if not only_outside:
                wrong |= inside & (distance > 0)
            if bool(wrong.any()):
                voxel = tuple(torch.nonzero(wrong)[0].tolist())
                of = "the mask" if value is None else f"label {value}"
                side = "inside" if bool(inside[voxel]) else "outside"
                return f"voxel {voxel} is {side} of {of}, where the map holds {distance[voxel].item():g}"
        return None

    def _array(self) -> Any:
        if self._opened is None:
            self._opened = _files.open_blocks(self.path, self.shape, len(self.spatial_shape))
        return self._opened


class StoredMaps(Mapping[str, StoredMap]):
    """The maps that :func:`fastsdm.data.precompute` or ``fastsdm precompute`` stored in a directory.

    ``maps.of("labels/case7.nii.gz")`` is the map of a label file, ``maps["case7"]`` the map of that name.
    Give it to a :class:`fastsdm.data.Volume` as its ``distance_map``, and ``PatchDataset(...,
    context="stored")`` reads its patches.

    Args:
        directory: folder that holds the manifest ``fastsdm-maps.jsonl``.

    Raises:
        ValueError: the manifest is missing or damaged.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._manifest = Manifest.read(self.directory)
        self._by_hash = {record.sha256: name for name, record in self._manifest.records.items()}

    def __len__(self) -> int:
        """How many maps are finished."""
        return len(self._manifest.records)

    def __iter__(self) -> Iterator[str]:
        """Names of the finished maps, relative to the directory."""
        return iter(self._manifest.records)

    def __getitem__(self, name: str) -> StoredMap:
        """The map of that name, with or without the suffix.

        Raises:
            KeyError: the manifest has no map of that name.
            ValueError: its file is absent, cut short, or of a format that cannot be read by blocks.
        """
        records = self._manifest.records
        record = records.get(name) or records.get(f"{name}{self._manifest.settings.suffix}")
        if record is None:
            raise KeyError(f"{self.directory}: holds no map {name!r}; it has {_listed(list(records))}")
        if not record.is_whole(self.directory):
            raise _files.FileError(
                f"{self.directory / record.map}: is absent or not as it was written; run precompute again"
            )
        return StoredMap(self.directory / record.map, record, self._manifest.settings_of(record))

    def of(self, labels: str | Path) -> StoredMap:
        """Return the map of a label file or zarr store, found by the SHA-256 of its content.

        Args:
            labels: its path, which may have changed since.

        Raises:
            ValueError: no map was made of the file's present content, or the map's file is missing.
        """
        path = Path(labels)
        digest = _files.sha256_of(path)
        name = self._by_hash.get(digest)
        if name is None:
            raise _files.FileError(f"{path}: {self._why_not(path, digest)}; run precompute again")
        return self[name]

    def _why_not(self, path: Path, digest: str) -> str:
        for record in self._manifest.records.values():
            if Path(record.source).name == path.name:
                made = f"sha256={record.sha256[:12]}..., not sha256={digest[:12]}..."
                return f"the map {self.directory / record.map} was made of a file with {made}"
        return f"no map of it is in {self.directory}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "none"
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
