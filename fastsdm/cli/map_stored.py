"""``fastsdm map`` into a zarr store: block by block, in a bounded amount of memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
import typer
from rich.progress import Progress

import fastsdm
from fastsdm import _files, _validate
from fastsdm._settings import MapSettings
from fastsdm.cli.map_report import Outcome
from fastsdm.cli.terminal import USAGE, fail
from fastsdm.integrations import _plan
from fastsdm.integrations._stream import Labels, Part, Stream

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

#: Gives the labels of a file, and notes on what was changed.
ReadWhole: TypeAlias = "Callable[[], tuple[Array, list[str]]]"
ChunksOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Shape of the chunks of a .zarr OUT: '128' or '64,128,128'.")
]
MemoryOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What the process may hold for a .zarr OUT, as '4GiB'; else 3/4 of what is free."),
]
#: Edge of a chunk by the number of axes.
_CHUNK = {2: 1024, 3: 128}
_AXES = ("z", "y", "x")


@dataclass(frozen=True)
class StoredOptions:
    """Options that only a map in a zarr store has.

    Attributes:
        chunks: one size, or one per axis; None for the default.
        memory: bytes that the process may hold.
    """

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
        """The shape of the chunks.

        Raises:
            ValueError: another number of sizes than the volume has axes.
        """
        sizes = self.chunks or (_CHUNK[len(shape)],)
        if len(sizes) not in (1, len(shape)):
            given = ",".join(map(str, sizes))
            raise ValueError(f"chunks: must be one number, or {len(shape)} (one per axis); got {given}")
        return tuple(map(min, sizes * (len(shape) // len(sizes)), shape))


def stored_map(
    opened: _files.VolumeFile,
    output: Path,
    settings: MapSettings,
    read_whole: ReadWhole,
    *,
    negative_inside: bool,
    dtype: str,
    backend: str,
    options: StoredOptions,
    progress: Progress,
) -> Outcome:
    """Make the map of a volume in a zarr store; ``output`` holds all of it or is not touched.

    Args:
        opened: the labels.
        output: the store.
        settings: of the map.
        read_whole: gives the labels of a file that cannot be read block by block, and notes on them.
        negative_inside: whether negative labels are inside of a mask.
        dtype: of the map.
        backend: by name.
        options: chunks and memory.
        progress: where the progress is shown.
    """
    _validate.convention(settings.convention)
    _validate.empty_policy(settings.empty or "inf")
    _validate.max_distance(settings.max_distance)
    _validate.spacing_values(torch.tensor(settings.spacing, dtype=torch.float64, device="cpu"))
    _files.give_back_freed_memory()
    task = progress.add_task("reading", total=100)
    negative = _Negative(settings.ignore_index, of_mask=settings.classes is None, inside=negative_inside)
    changes: list[str] = []
    if opened.blocks is None:
        values, changes = read_whole()
        labels = Labels(values.__getitem__, opened.shape, values.dtype)
    else:
        labels = _stored_labels(opened, negative)
    chunk = options.chunk(opened.shape)
    stream = Stream(
        labels,
        settings,
        backend=backend,
        chunk=chunk,
        dtype=np.dtype(dtype),
        memory=options.memory,
        workers=torch.get_num_threads(),
        on_progress=lambda what, share: progress.update(task, completed=int(100 * share), description=what),
    )
    census = stream.census()
    negative.is_counting = False
    if settings.empty == "raise":
        census.refuse_missing()
    with _files.whole_directory(output) as directory:
        out = _new_array(directory, settings, opened, chunk, dtype)
        extent = stream.write(out, census, directory / "between-passes")
    if negative.count:
        changes.append(
            f"{negative.count} voxels hold negative labels and are outside; --negative-inside counts them in"
        )
    return Outcome(census, extent, dtype, f"computed by {stream.backend} on cpu, {_blocks(stream)}", changes)


class _Negative:
    """Puts the negative labels of a mask outside or inside, and counts the former while each is read once."""

    def __init__(self, ignore_index: int | None, *, of_mask: bool, inside: bool) -> None:
        self._ignore_index, self._of_mask, self._inside = ignore_index, of_mask, inside
        self._lock = Lock()
        self.is_counting, self.count = True, 0

    def cleaned(self, values: Array) -> Array:
        if not self._of_mask:
            return values
        cleaned, count = _files.place_negative(values, self._ignore_index, inside=self._inside)
        if self.is_counting and not self._inside:
            with self._lock:
                self.count += count
        return cleaned


def _stored_labels(opened: _files.VolumeFile, negative: _Negative) -> Labels:
    if opened.dtype.kind not in "biu":
        raise _files.FileError(
            f"{opened.path}: must hold booleans or integers to be read block by block, got {opened.dtype}; "
            "name an OUT of another format and all of it is read at once"
        )
    assert opened.blocks is not None

    def read(part: Part) -> Array:
        return negative.cleaned(opened.block(part))

    chunk = math.prod(opened.blocks.chunks) * opened.dtype.itemsize
    return Labels(read, opened.shape, opened.dtype, chunk)


def _new_array(
    directory: Path, settings: MapSettings, opened: _files.VolumeFile, chunk: tuple[int, ...], dtype: str
) -> Any:
    count = () if settings.classes is None else (len(settings.classes),)
    attributes = {
        "description": f"fastsdm {settings.convention} signed distance",
        "version": fastsdm.__version__,
        "spacing": list(opened.spacing),
        "unit": opened.unit,
        "classes": settings.classes,
        "max_distance": settings.max_distance,
        "ignore_index": settings.ignore_index,
    }
    return _files.zarr_package().create_array(
        store=directory,
        shape=(*count, *opened.shape),
        chunks=(*(1 for _ in count), *chunk),
        dtype=dtype,
        dimension_names=(*("c" for _ in count), *_AXES[-len(opened.shape) :]),
        attributes={name: value for name, value in attributes.items() if value is not None},
    )


def _blocks(stream: Stream) -> str:
    if isinstance(stream.plan, _plan.Passes):
        return f"in {len(stream.plan.axes)} passes"
    return f"in blocks of {' x '.join(map(str, stream.plan.block))}"


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
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
