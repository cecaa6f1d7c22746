"""The exact map of one class in passes over blocks: the passes, and how a volume is cut into blocks.

The transform is separable: a pass along an axis needs blocks that are whole along it, and nothing else. The
first pass takes two axes at once where such a slab is small enough, so that the volume is cut anew only once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fastsdm._backends.contract import Finish
from fastsdm._backends.native_axes import axis_order, relax_axis, scan_axis

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Chunks: TypeAlias = "tuple[tuple[int, ...], ...]"

#: A slab of one voxel's thickness may be this large; beyond it the axes are passed one by one.
LARGEST_SLAB = 1 << 27
#: The kernels copy their block, so a large one is worked on in pieces of about so many voxels.
_PIECE = 1 << 18


@dataclass(frozen=True)
class ClassPasses:
    """The passes that make the exact map of one class, of the label ``value`` or of all above 0 (None)."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    value: int | None
    ignore_index: int | None
    finish: Finish

    @property
    def fields(self) -> int:
        """How many fields of squares the map is made of: 2 where voxels are ignored."""
        return 1 if self.ignore_index is None else 2

    def groups(self, most: int | None = None) -> tuple[tuple[int, ...], ...]:
        """The axes of each pass, along which blocks must be whole; the first holds up to ``most`` voxels."""
        most = LARGEST_SLAB if most is None else most
        first, *rest = axis_order(self.shape)
        if len(rest) == 2 and self.shape[first] * self.shape[rest[0]] <= most:
            return (first, rest[0]), (rest[1],)
        return (first,), *((axis,) for axis in rest)

    def squares(self, labels: Array, axes: Sequence[int]) -> Array:
        """The first pass: signed squares ``[F, *S]`` from labels that are whole along ``axes``.

        F is 1; with ``ignore_index`` it is 2: with the ignored voxels outside, and inside.
        """
        result = np.empty((self.fields, *labels.shape), np.float32)
        for part in _pieces(labels.shape, axes):
            for field, (piece, value) in zip(result, self._fields(labels[part]), strict=True):
                squares = scan_axis(piece, [value], axes[0])
                for axis in axes[1:]:
                    squares = relax_axis(squares, axis, self.shape, self.spacing)
                field[part] = squares[0]
        return result

    def relaxed(self, squares: Array, axis: int) -> Array:
        """A pass between the first and the last one: squares ``[F, *S]`` with one more axis included."""
        result = np.empty(squares.shape, np.float32)
        for part in _pieces(squares.shape[1:], [axis]):
            result[(slice(None), *part)] = relax_axis(
                squares[(slice(None), *part)], axis, self.shape, self.spacing
            )
        return result

    def distances(self, squares: Array, axis: int, labels: Array | None, dtype: Any) -> Array:
        """The last pass: the map ``[*S]`` from squares; ``labels`` are needed with ``ignore_index`` only."""
        result = np.empty(squares.shape[1:], dtype)
        for part in _pieces(result.shape, [axis]):
            maps = relax_axis(squares[(slice(None), *part)], axis, self.shape, self.spacing, self.finish)
            if self.ignore_index is None:
                result[part] = maps[0]
            else:
                assert labels is not None
                inside, ignored = self._phases(labels[part])
                result[part] = np.where(ignored, 0, np.where(inside, maps[1], maps[0]))
        return result

    def _fields(self, labels: Array) -> Iterator[tuple[Array, int | None]]:
        """Labels and the value inside, once for each field of squares."""
        if self.ignore_index is None:
            yield labels, self.value
            return
        # With the ignored voxels outside the map is right outside of the class, and the other way round.
        inside, ignored = self._phases(labels)
        yield inside & ~ignored, None
        yield inside | ignored, None

    def _phases(self, labels: Array) -> tuple[Array, Array]:
        ignored = labels == self.ignore_index
        return (labels > 0 if self.value is None else labels == self.value), ignored


def cut(chunks: Chunks, axes: Sequence[int], voxels: int) -> Chunks:
    """Chunks that are whole along ``axes`` and lie inside the given ones along the others.

    A new chunk holds at most so many ``voxels``, unless one line or plane holds more.
    """
    parts = [1] * len(chunks)
    others = [axis for axis in range(len(chunks)) if axis not in axes]

    def largest(axis: int) -> int:
        return -(-max(chunks[axis], default=0) // parts[axis])

    whole = math.prod(sum(chunks[axis]) for axis in axes)
    while whole * math.prod(map(largest, others)) > voxels:
        widest = max(others, key=largest)
        if largest(widest) <= 1:
            break
        parts[widest] += 1
    return tuple(
        (sum(sizes),) if axis in axes else tuple(_split(sizes, largest(axis)))
        for axis, sizes in enumerate(chunks)
    )


def _split(sizes: Sequence[int], most: int) -> Iterator[int]:
    for size in sizes:
        count = max(-(-size // max(most, 1)), 1)
        for i in range(count):
            yield (i + 1) * size // count - i * size // count


def _pieces(shape: Sequence[int], axes: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Parts of a block that are whole along some axes, cut along the first other one."""
    other = next((axis for axis in range(len(shape)) if axis not in axes), None)
    everything = [slice(None)] * len(shape)
    if other is None:
        yield tuple(everything)
        return
    step = max(_PIECE * shape[other] // max(math.prod(shape), 1), 1)
    for start in range(0, shape[other], step):
        everything[other] = slice(start, start + step)
        yield tuple(everything)
