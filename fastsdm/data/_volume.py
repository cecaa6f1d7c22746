"""Volumes as datasets read them: block by block, padded where a patch is larger than they are."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

from fastsdm._arrays import as_tensor
from fastsdm._types import SpacingLike
from fastsdm._validate import label_range
from fastsdm.data._patch_map import ArraySource, shape_of
from fastsdm.data._stored import StoredMap


@dataclass(frozen=True, eq=False)
class Volume:
    """An image with its labels, as arrays, tensors, memory maps or open files.

    Attributes:
        image: ``[*S]`` or ``[C, *S]``.
        labels: ``[*S]``, integer or bool.
        spacing: voxel size: a number or one per spatial axis.
        distance_map: the stored map of the labels, from :class:`fastsdm.data.StoredMaps`; read by
            ``PatchDataset(..., context="stored")`` only.
    """

    image: ArraySource = field(repr=False)
    labels: ArraySource = field(repr=False)
    spacing: SpacingLike = 1.0
    distance_map: StoredMap | None = None


def check_volumes(volumes: object, ndim: int) -> Sequence[Volume]:
    """Return the volumes of a data set; TypeError or ValueError unless they are such."""
    if not (hasattr(volumes, "__len__") and hasattr(volumes, "__getitem__")) or hasattr(volumes, "shape"):
        raise TypeError(
            "volumes: must be a sequence of objects with image, labels and spacing (see Volume), "
            f"got {type(volumes).__name__}"
        )
    held = cast("Sequence[Volume]", volumes)
    if len(held) == 0:
        raise ValueError("volumes: must hold at least one volume, got none")
    for number, volume in enumerate(held):
        if not all(hasattr(volume, name) for name in ("image", "labels", "spacing")):
            raise TypeError(
                "volumes: each must have image, labels and spacing (see Volume), "
                f"volume {number} is of type {type(volume).__name__}"
            )
        labels, image = shape_of("volumes", volume.labels), shape_of("volumes", volume.image)
        if len(labels) != ndim:
            raise ValueError(
                f"volumes: labels must have {ndim} axes (as many as size has), "
                f"volume {number} has shape {labels}"
            )
        if image[-ndim:] != labels:
            raise ValueError(
                f"volumes: image and labels must have the same spatial shape, volume {number} has "
                f"{image} and {labels}"
            )
    return held


class PaddedSource:
    """A source that is at least as large as ``size``: shorter axes are padded evenly on both sides.

    Attributes:
        shape: of the spatial axes, padding included.
        fill: value of padded voxels.
        before: how many voxels are padded in front of each spatial axis.

    Raises:
        ValueError: the dtype cannot hold ``fill``; known at once of an array, else when a block is read.
    """

    def __init__(
        self, source: ArraySource, size: Sequence[int], fill: float = 0, fill_name: str = "fill"
    ) -> None:
        self._source: Any = source
        self.fill, self._fill_name = fill, fill_name
        if isinstance(source, (np.ndarray, torch.Tensor)):
            _check_fill(fill_name, fill, as_tensor(source[:0], "volumes")[0].dtype)
        self._inner = shape_of("volumes", source)[-len(size) :]
        self.shape = tuple(max(n, whole) for n, whole in zip(size, self._inner, strict=True))
        self.before = tuple((n - whole) // 2 for n, whole in zip(self.shape, self._inner, strict=True))

    def __getitem__(self, block: tuple[slice, ...]) -> torch.Tensor:
        """A copy of the block ``[..., *block]``; only the voxels in it are read."""
        moved = [slice(b.start - skip, b.stop - skip) for b, skip in zip(block, self.before, strict=True)]
        held = [slice(max(m.start, 0), min(m.stop, n)) for m, n in zip(moved, self._inner, strict=True)]
        channels = (slice(None),) * (len(self._source.shape) - len(block))
        voxels, _ = as_tensor(self._source[(*channels, *held)], "volume")
        _check_fill(self._fill_name, self.fill, voxels.dtype)
        if held == moved:
            return voxels.clone(memory_format=torch.contiguous_format)
        shape = (*voxels.shape[: len(channels)], *(b.stop - b.start for b in block))
        padded = voxels.new_full(shape, self.fill)
        target = (slice(h.start - m.start, h.stop - m.start) for h, m in zip(held, moved, strict=True))
        place: tuple[Any, ...] = (..., *target)
        padded[place] = voxels
        return padded

    def whole(self) -> torch.Tensor:
        """All of it, padding included."""
        return self[tuple(slice(0, n) for n in self.shape)]

    def __getstate__(self) -> dict[str, Any]:
        """A memory map goes to another process by its file's name, not by its contents."""
        state = dict(self.__dict__)
        source = self._source
        owner: object = getattr(source, "base", None)
        if isinstance(source, np.memmap) and isinstance(owner, mmap.mmap) and source.filename:
            order = "F" if source.flags.f_contiguous and not source.flags.c_contiguous else "C"
            state["_source"] = (source.filename, source.dtype, "r", source.offset, source.shape, order)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the memory map again."""
        self.__dict__ = state
        if isinstance(self._source, tuple):
            self._source = np.memmap(*self._source)


def _check_fill(name: str, value: float, dtype: torch.dtype) -> None:
    if dtype.is_floating_point:
        largest = torch.finfo(dtype).max
        held, rule = abs(value) <= largest or not math.isfinite(value), f"up to {largest:g} in size"
    else:
        low, high = label_range(dtype)
        held, rule = low <= value <= high and value == int(value), f"a whole number from {low} to {high}"
    if not held:
        raise ValueError(f"{name}: must fit the volumes' dtype {dtype}, {rule}; got {value!r}")
