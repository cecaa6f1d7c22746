"""Maps of volumes in zarr stores, block by block, in a bounded amount of memory.

The blocks are computed as those of :mod:`fastsdm.integrations.dask`. What stands between two passes of the
exact map is stored beside the output, one class at a time.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import torch

from fastsdm import _conventions, _files
from fastsdm._backends import registry
from fastsdm._settings import MapSettings
from fastsdm.data._patch_map import patch_halo, signed_distance_patch
from fastsdm.integrations import _plan
from fastsdm.integrations._passes import ClassPasses
from fastsdm.integrations._summary import Census, Extent

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Part: TypeAlias = "tuple[slice, ...]"
Write: TypeAlias = "Callable[[Part, Array], None]"


@dataclass(frozen=True)
class Labels:
    """Labels that are read block by block; ``chunk_bytes`` are decoded at once to read one voxel."""

    read: Callable[[Part], Array]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_bytes: int = 0

    def __getitem__(self, part: Part) -> Array:
        return self.read(part)


class Stream:
    """Makes the map of a volume.

    Args:
        labels: the volume.
        settings: of the map, with one row of spacing.
        backend: as in :func:`fastsdm.signed_distance`.
        chunk: of the output, one number per axis of the volume.
        dtype: of the output.
        memory: bytes that the process may hold, its libraries included.
        workers: how many blocks are worked on at once, at most.
        on_progress: called with a description and the share that is done.

    Raises:
        ValueError: the memory does not suffice for one block, or the backend cannot work on blocks.
        BackendUnavailableError: the backend cannot run.
    """

    def __init__(
        self,
        labels: Labels,
        settings: MapSettings,
        *,
        backend: str,
        chunk: Sequence[int],
        dtype: np.dtype[Any],
        memory: int,
        workers: int,
        on_progress: Callable[[str, float], None] = lambda what, share: None,
    ) -> None:
        assert settings.spacing is not None
        self._labels, self._settings, self._dtype = labels, settings, dtype
        self._values: Sequence[int | None] = (None,) if settings.classes is None else settings.classes
        self._chunk = tuple(map(min, chunk, labels.shape))
        (row,) = settings.spacing
        self._row = row * (len(labels.shape) // len(row))
        self._on_progress, self._lock = on_progress, Lock()
        self._finish = _conventions.finish(
            settings.convention, settings.empty or "inf", (self._row,), labels.shape, settings.max_distance
        )
        self.backend = registry.select(backend, torch.device("cpu")).name
        chunk_bytes = max(labels.chunk_bytes, math.prod(self._chunk) * max(dtype.itemsize, 4))
        self._room = _plan.Room(memory, _files.resident_memory(), chunk_bytes, workers)
        self.plan = self._planned(is_named=backend != "auto")

    def census(self) -> Census:
        """Count the voxels of each class; every label is read once."""
        settings = self._settings
        found = Census(0, dict.fromkeys(self._values, 0))

        def count(part: Part) -> None:
            labels = self._labels[part]
            if settings.ignore_index is not None:
                labels = labels[labels != settings.ignore_index]
            counted = Census.of(labels, settings.classes)
            with self._lock:
                found.include(counted)

        block = self.plan.blocks[0] if isinstance(self.plan, _plan.Passes) else self.plan.block
        self._for_each(count, block, "reading")
        return found

    def write(self, out: Any, census: Census, scratch: Path) -> Extent:
        """Compute the map into a zarr array ``[*S]`` or ``[K, *S]``, and return its extent.

        What stands between two passes goes to the directory ``scratch``, which is removed.
        """
        extent = Extent()
        for number, value in enumerate(self._values):
            first = () if value is None else (number,)

            def write(part: Part, maps: Array, first: tuple[int, ...] = first) -> None:
                out[(*first, *part)] = maps
                of_block = Extent.of(maps)
                with self._lock:
                    extent.include(of_block)

            where = "computing" if value is None else f"computing class {value}"
            if census.missing(value):
                self._constant(write, where, census.missing(value))
            elif isinstance(self.plan, _plan.Passes):
                self._exact(write, value, where, self.plan, scratch)
            else:
                self._limited(write, value, where, self.plan)
        return extent

    def _planned(self, *, is_named: bool) -> _plan.Overlapping | _plan.Passes:
        is_native = self.backend == "native"
        if self._settings.max_distance is not None:
            try:
                blocks = self._overlapping()
                if _plan.is_worth_it(blocks) or (is_named and not is_native):
                    return blocks
            except ValueError:  # a chunk with its halo does not fit
                if not is_native:
                    raise
        if not is_native:
            where = "without" if self._settings.max_distance is None else "with so large a"
            raise ValueError(
                f"backend: must be 'native' to store a map {where} max_distance block by block, "
                f"got {self.backend!r}"
            )
        item, is_ignoring = self._labels.dtype.itemsize, self._settings.ignore_index is not None
        passes = self._passes(None)
        return _plan.passes(
            self._labels.shape,
            self._chunk,
            passes.groups,
            self._room,
            of_first=2 * item + 8 * passes.fields + (4 if is_ignoring else 0),
            of_last=8 * passes.fields + 2 * self._dtype.itemsize + 5 + (2 * item + 4 if is_ignoring else 0),
        )

    def _overlapping(self) -> _plan.Overlapping:
        settings, item = self._settings, self._labels.dtype.itemsize
        assert settings.max_distance is not None
        halo = patch_halo(
            settings.max_distance,
            spacing=self._row,
            convention=settings.convention,  # type: ignore[arg-type]  # checked by the caller
        )
        is_ignoring = settings.ignore_index is not None
        # Labels are held twice while they are read; a kernel keeps 4 bytes a voxel, twice when ignoring.
        return _plan.overlapping(
            self._labels.shape,
            self._chunk,
            halo,
            self._room,
            of_halo=2 * item + (20 if is_ignoring else 8),
            of_block=(12 if is_ignoring else 4) + 2 * self._dtype.itemsize + 5,
        )

    def _passes(self, value: int | None) -> ClassPasses:
        return ClassPasses(self._labels.shape, self._row, value, self._settings.ignore_index, self._finish)

    def _limited(self, write: Write, value: int | None, where: str, plan: _plan.Overlapping) -> None:
        def compute(part: Part) -> None:
            maps = signed_distance_patch(
                self._labels,
                [axis.start for axis in part],
                [axis.stop - axis.start for axis in part],
                classes=None if value is None else [value],
                spacing=self._row,
                max_distance=self._finish.limit,
                convention=self._settings.convention,  # type: ignore[arg-type]
                ignore_index=self._settings.ignore_index,
                backend=self.backend,
            )
            write(part, (maps if value is None else maps[0]).astype(self._dtype, copy=False))

        self._for_each(compute, plan.block, where)

    def _exact(self, write: Write, value: int | None, where: str, plan: _plan.Passes, scratch: Path) -> None:
        passes, last = self._passes(value), len(plan.axes) - 1
        before: Any = None
        for number, (axes, block) in enumerate(zip(plan.axes, plan.blocks, strict=True)):
            after = None
            if number < last:
                after = self._scratch(scratch / str(number), passes.fields, plan.between[number])
            compute = self._pass(passes, axes, before, after, write)
            self._for_each(compute, block, f"{where}, pass {number + 1} of {last + 1}")
            if number > 0:
                shutil.rmtree(scratch / str(number - 1))
            before = after
        shutil.rmtree(scratch)

    def _pass(
        self, passes: ClassPasses, axes: tuple[int, ...], before: Any, after: Any, write: Write
    ) -> Callable[[Part], None]:
        """What a pass does with a block: read what the pass before stored, store what the next one reads."""

        def compute(part: Part) -> None:
            all_fields = (slice(None), *part)
            if before is None:
                after[all_fields] = passes.squares(self._labels[part], axes)
            elif after is not None:
                after[all_fields] = passes.relaxed(before[all_fields], axes[0])
            else:
                labels = None if passes.ignore_index is None else self._labels[part]
                write(part, passes.distances(before[all_fields], axes[0], labels, self._dtype))

        return compute

    def _scratch(self, path: Path, fields: int, chunk: Sequence[int]) -> Any:
        zarr = _files.zarr_package()
        return zarr.create_array(
            store=path,
            shape=(fields, *self._labels.shape),
            chunks=(fields, *chunk),
            dtype=np.float32,
            compressors=zarr.codecs.BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"),
        )

    def _constant(self, write: Write, where: str, sign: int) -> None:
        """The map of a class without inside (1) or without outside voxels (-1)."""
        number = sign * min(self._finish.missing[0], self._finish.limit)
        ignored = self._settings.ignore_index

        def fill(part: Part) -> None:
            maps = np.full([axis.stop - axis.start for axis in part], number, self._dtype)
            if ignored is not None:
                maps[self._labels[part] == ignored] = 0
            write(part, maps)

        block = self.plan.blocks[-1] if isinstance(self.plan, _plan.Passes) else self.plan.block
        self._for_each(fill, block, where)

    def _for_each(self, work: Callable[[Part], None], block: tuple[int, ...], what: str) -> None:
        """Work on all blocks, several at once; the first error ends it."""
        zarr = _files.zarr_package()
        parts = _plan.parts(self._labels.shape, block)
        workers = self.plan.workers
        threads = max(torch.get_num_threads() // workers, 1)
        self._on_progress(what, 0.0)
        with (
            zarr.config.set({"async.concurrency": _plan.CONCURRENT_CHUNKS}),
            ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool,
        ):
            futures = [pool.submit(work, part) for part in parts]
            pending = set(futures)
            try:
                while pending:
                    finished, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
                    for future in finished:
                        future.result()
                    self._on_progress(what, 1 - len(pending) / len(parts))
            finally:
                for future in futures:
                    future.cancel()
