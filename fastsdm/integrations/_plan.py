"""How a volume is cut into blocks so that what is in memory at once stays below a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TypeAlias

from fastsdm._files import size

Shape: TypeAlias = "tuple[int, ...]"
#: A larger block saves little more.
_LARGEST_BLOCK = 1 << 27
#: A block with its halo may hold this many times its voxels; beyond it the passes of the exact map cost less.
_LARGEST_HALO = 8.0
#: How many chunks zarr reads or writes at once for each worker; it holds each of them twice.
CONCURRENT_CHUNKS = 2


@dataclass(frozen=True)
class Room:
    """The memory that blocks may take.

    Attributes:
        memory: bytes that the process may hold.
        libraries: bytes of them that it holds already.
        chunk: bytes of the largest chunk that is read or written.
        workers: blocks worked on at once, at most.
    """

    memory: int
    libraries: int
    chunk: int
    workers: int

    def of_each(self, workers: int) -> int:
        """Bytes for the block of one worker."""
        return (self.memory - self.libraries) // workers - 2 * CONCURRENT_CHUNKS * self.chunk

    def most_workers(self, fits: Callable[[int], bool]) -> int:
        """The largest number of workers for which a plan fits.

        Raises:
            ValueError: none does; the message says how much memory would suffice.
        """
        for workers in range(self.workers, 0, -1):
            if fits(self.of_each(workers)):
                return workers
        block = self.chunk
        while not fits(block):
            block += block // 16 + 1
        needed = self.libraries + block + 2 * CONCURRENT_CHUNKS * self.chunk
        enough = 16 * (1 + (needed >> 24))  # in MiB; libraries do not always hold the same
        raise ValueError(
            f"memory: must hold the libraries ({size(self.libraries)}) and a block, for which {enough}MiB "
            f"suffices; got {size(self.memory)}; smaller chunks need less"
        )


@dataclass(frozen=True)
class Overlapping:
    """Blocks of whole chunks that are computed from themselves and a halo.

    ``overhead`` is how many voxels are read for each voxel of a block.
    """

    block: Shape
    workers: int
    overhead: float


@dataclass(frozen=True)
class Passes:
    """The axes along which the blocks of each pass are whole, and their shape.

    ``between`` is the shape of the chunks that are stored between a pass and the next.
    """

    axes: tuple[tuple[int, ...], ...]
    blocks: tuple[Shape, ...]
    between: tuple[Shape, ...]
    workers: int


def overlapping(
    shape: Shape, chunk: Shape, halo: Sequence[int], room: Room, of_halo: int, of_block: int
) -> Overlapping:
    """Plan blocks with a halo, made of whole chunks.

    A voxel of the block with its halo takes ``of_halo`` bytes, one of the block itself ``of_block`` more.

    Raises:
        ValueError: not even one chunk fits.
    """

    def need(block: Shape) -> int:
        return _with_halo(block, halo, shape) * of_halo + math.prod(block) * of_block

    workers = room.most_workers(lambda each: need(chunk) <= each)
    each = room.of_each(workers)
    block = _grown(chunk, shape, range(len(shape)), lambda larger: need(larger) <= each, workers)
    return Overlapping(block, workers, _with_halo(block, halo, shape) / math.prod(block))


def is_worth_it(plan: Overlapping) -> bool:
    """Whether blocks with a halo cost less than the passes of the exact map."""
    return plan.overhead <= _LARGEST_HALO


def passes(
    shape: Shape,
    chunk: Shape,
    groups: Callable[[int], tuple[tuple[int, ...], ...]],
    room: Room,
    of_first: int,
    of_last: int,
) -> Passes:
    """Plan the passes of the exact map; blocks of the last one are made of whole chunks.

    Args:
        shape: of the volume.
        chunk: of the map's chunks.
        groups: the axes of each pass, for a number of voxels that a block may hold.
        room: what may be taken.
        of_first: bytes for each voxel of a block in the passes before the last.
        of_last: bytes for each voxel of a block of the last pass.

    Raises:
        ValueError: not even the smallest blocks fit.
    """

    def plan(each: int, workers: int) -> Passes | None:
        axes = groups(max(each, 0) // of_first)
        (last,) = axes[-1]
        column = tuple(n if axis == last else c for axis, (n, c) in enumerate(zip(shape, chunk, strict=True)))
        if math.prod(column) * of_last > each:
            return None
        others = [axis for axis in range(len(shape)) if axis != last]
        blocks = [_grown(column, shape, others, lambda larger: math.prod(larger) * of_last <= each, workers)]
        for group, after in zip(reversed(axes[:-1]), reversed(axes[1:]), strict=True):
            block = [n if axis in group else blocks[0][axis] for axis, n in enumerate(shape)]
            while math.prod(block) * of_first > each:
                widest = max((axis for axis in after if axis not in group), key=lambda axis: block[axis])
                if block[widest] == 1:
                    return None
                block[widest] = -(-block[widest] // 2)
            blocks.insert(0, tuple(block))
        between = tuple(tuple(map(min, one, other)) for one, other in pairwise(blocks))
        return Passes(axes, tuple(blocks), between, workers)

    workers = room.most_workers(lambda each: plan(each, 1) is not None)
    found = plan(room.of_each(workers), workers)
    assert found is not None
    return found


def parts(shape: Shape, block: Shape) -> list[tuple[slice, ...]]:
    """The blocks of a volume."""
    ranges = [
        [slice(first, min(first + step, whole)) for first in range(0, whole, step)]
        for whole, step in zip(shape, block, strict=True)
    ]
    return list(product(*ranges))


def _grown(
    block: Shape, shape: Shape, axes: Sequence[int], fits: Callable[[Shape], bool], workers: int
) -> Shape:
    """The block doubled along its shortest axes while it fits, and while all workers have blocks to do."""
    while True:
        candidates = sorted((block[axis], axis) for axis in axes if block[axis] < shape[axis])
        for length, axis in candidates:
            larger = (*block[:axis], 2 * length, *block[axis + 1 :])
            count = math.prod(-(-n // b) for n, b in zip(shape, larger, strict=True))
            if fits(larger) and math.prod(larger) <= _LARGEST_BLOCK and count >= 2 * workers:
                block = larger
                break
        else:
            return tuple(map(min, block, shape))


def _with_halo(block: Shape, halo: Sequence[int], shape: Shape) -> int:
    return math.prod(min(b + 2 * h, n) for b, h, n in zip(block, halo, shape, strict=True))
