"""``fastsdm map`` into a zarr store: block by block, in a bounded amount of memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
import typer
from rich.progress import Progress

from fastsdm import _files
from fastsdm.cli.map_job import Job, Outcome
from fastsdm.cli.options import integers
from fastsdm.cli.terminal import USAGE, fail
from fastsdm.integrations import _plan
from fastsdm.integrations._stream import Labels, Part, Stream

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

ChunksOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Shape of the chunks of a .zarr OUT: '128' or '64,128,128'.")
]
MemoryOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What the process may hold for a .zarr OUT, as '4GiB'; else 3/4 of what is free."),
]


@dataclass(frozen=True)
class StoredOptions:
    """Options that only a map in a zarr store has; ``chunks`` is one size, one per axis, or None."""

    chunks: tuple[int, ...] | None
    memory: int

    @classmethod
    def of(
        cls, output: Path, chunks: str | None, memory: str | None, place: torch.device
    ) -> StoredOptions | None:
        """Read the options; None for an output that is no zarr store."""
        if not _files.is_zarr(output):
            for name, given in (("--chunks", chunks), ("--memory", memory)):
                if given is not None:
                    fail(f"{name}: only for a map that is stored as .zarr, got {output}", USAGE)
            return None
        if place.type != "cpu":
            fail(f"--device: must be cpu for a map that is stored as .zarr, got {place}", USAGE)
        return cls(None if chunks is None else _sizes(chunks), _bytes(memory))

    def chunk(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the chunks of a volume's map; ValueError for another number of sizes than axes."""
        sizes = self.chunks or (_files.CHUNK[len(shape)],)
        if len(sizes) not in (1, len(shape)):
            given = ",".join(map(str, sizes))
            raise ValueError(f"chunks: must be one number, or {len(shape)} (one per axis); got {given}")
        return tuple(map(min, sizes * (len(shape) // len(sizes)), shape))


def stored_map(job: Job, options: StoredOptions, progress: Progress) -> Outcome:
    """Make the map of a volume in a zarr store; the output holds all of it or is not touched."""
    opened, settings, dtype = job.opened, job.settings, np.dtype(job.dtype)
    chunk = options.chunk(opened.shape)
    _files.give_back_freed_memory()
    task = progress.add_task("reading", total=100)
    labels, changes = _stored_labels(job) if opened.blocks is not None else _labels_in_memory(job)
    stream = Stream(
        labels,
        settings,
        backend=job.backend,
        chunk=chunk,
        dtype=dtype,
        memory=options.memory,
        workers=torch.get_num_threads(),
        on_progress=lambda what, share: progress.update(task, completed=int(100 * share), description=what),
    )
    census = stream.census()
    if settings.empty == "raise":
        census.refuse_missing()
    if census.negative:
        changes.append(
            f"{census.negative} voxels hold negative labels and are outside; --negative-inside counts them in"
        )
    with _files.whole_directory(job.output) as directory:
        out = _files.new_zarr_map(directory, opened, settings, dtype, chunk)
        extent = stream.write(out, census, directory / "between-passes")
    how = f"computed by {stream.backend} on cpu, {_blocks(stream)}"
    return Outcome(census, extent, job.dtype, how, changes)


def _labels_in_memory(job: Job) -> tuple[Labels, list[str]]:
    values, changes = job.read_whole()
    return Labels(values.__getitem__, values.shape, values.dtype), changes


def _stored_labels(job: Job) -> tuple[Labels, list[str]]:
    opened, ignored = job.opened, job.settings.ignore_index
    if opened.dtype.kind not in "biu":
        raise _files.FileError(
            f"{opened.path}: must hold booleans or integers to be read block by block, got {opened.dtype}; "
            "name an OUT of another format and all of it is read at once"
        )
    assert opened.blocks is not None

    def read(part: Part) -> Array:
        values = opened.block(part)
        if job.settings.classes is None and job.negative_inside:
            values, _ = _files.place_negative(values, ignored, inside=True)
        return values

    chunk = math.prod(opened.blocks.chunks) * opened.dtype.itemsize
    return Labels(read, opened.shape, opened.dtype, chunk), []


def _blocks(stream: Stream) -> str:
    if isinstance(stream.plan, _plan.Passes):
        return f"in {len(stream.plan.axes)} passes"
    return f"in blocks of {' x '.join(map(str, stream.plan.block))}"


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(integers(text))
    if not sizes or min(sizes) < 1:
        fail(
            f"--chunks: must be one positive number, or one per axis separated by commas; got {text!r}", USAGE
        )
    return sizes


def _bytes(text: str | None) -> int:
    if text is None:
        free = _files.available_memory()
        return _files.byte_count("4GiB") if free is None else free * 3 // 4
    try:
        return _files.byte_count(text)
    except ValueError as error:
        fail(f"--memory: {error}", USAGE)
