"""Maps of many label files, computed once and stored beside a manifest; safe to interrupt and run again."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import torch

from fastsdm import _files, _validate
from fastsdm._arrays import tensor_from_numpy
from fastsdm._sdm import signed_distance
from fastsdm._settings import MapOptions, MapSettings, check_options
from fastsdm._types import Convention, EmptyPolicy
from fastsdm.data._manifest import MANIFEST, Manifest, MapRecord, StoredSettings

if TYPE_CHECKING:
    from typing_extensions import Unpack


class StoredOptions(TypedDict, total=False):
    """Settings of stored maps, as :func:`fastsdm.signed_distance` takes them."""

    spacing: float | Sequence[float] | None
    convention: Convention
    empty: EmptyPolicy
    max_distance: float | None
    ignore_index: int | None


@dataclass(frozen=True)
class Job:
    """A label file or zarr store to work on.

    ``name`` is that of its map, relative to the output directory; ``known`` what the manifest says of it.
    """

    source: Path
    name: str
    known: MapRecord | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a file: the record of a new map, an error, or neither for a map that was there."""

    job: Job
    record: MapRecord | None = None
    error: str | None = None
    voxels: int = 0


@dataclass(frozen=True)
class Report:
    """The outcome of :func:`precompute`.

    Attributes:
        made: names of the maps that were made.
        kept: names of the maps that an earlier run had made.
        failed: for each label file without a map, by path, the reason.
    """

    made: tuple[str, ...]
    kept: tuple[str, ...]
    failed: dict[str, str]


def precompute(
    labels: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    classes: int | Sequence[int] | None,
    dtype: str = "float32",
    suffix: str = ".npy",
    workers: int = 1,
    scheduler: str | None = None,
    on_start: Callable[[Sequence[Job]], None] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    **options: Unpack[StoredOptions],
) -> Report:
    """Compute the signed distance maps of label files and store them in a directory.

    Labels with a finished map are recognized by the hash of their content and skipped. A map gets its name
    when it is complete, so a run may be killed at any moment, and the next one continues. A file that cannot
    be used is reported, and the other files are still processed. :class:`fastsdm.data.StoredMaps` reads the
    directory.

    Args:
        labels: files, ``.zarr`` stores or arrays in them, folders (searched for both, with their subfolders)
            and glob patterns.
        out: directory of the maps, made if need be, with the manifest ``fastsdm-maps.jsonl``.
        classes: None for masks, K for the labels 0 to K-1, or the label values themselves.
        dtype: of the maps: ``"float32"``, ``"float16"`` or ``"float64"``.
        suffix: format of the maps. Single patches can be read from ``".npy"`` (class first, can be
            memory-mapped), ``".zarr"`` (class first, chunks of 64^3 or 512^2 voxels of one class) and
            ``".nii"``; ``".nii.gz"`` and ``".npz"`` are smaller. NIfTI has the class axis last, and is
            float32 or float64.
        workers: files worked on at once; the processor's threads are shared between them.
        scheduler: address of a running ``dask.distributed`` cluster whose workers can open the same files.
        on_start: called with all files before the first.
        on_outcome: called with every file's outcome.
        options: ``convention``, ``empty`` (but not ``"raise"``), ``max_distance`` and ``ignore_index`` of
            :func:`fastsdm.signed_distance`, and ``spacing``: voxel size that replaces the files'.

    Returns:
        The names of the new maps and of the kept ones, and the failures.

    Raises:
        TypeError, ValueError: an argument that cannot be used; a directory with maps of other settings.
        ModuleNotFoundError: a package that the format or the scheduler needs is not installed.
    """
    check_options(precompute, options, StoredOptions)
    settings = _checked_settings(classes, options, dtype, suffix)
    workers = _validate.integer("workers", workers)
    if workers < 1:
        raise ValueError(f"workers: must be at least 1, got {workers!r}")
    directory = Path(out)
    jobs = _jobs([labels] if isinstance(labels, (str, Path)) else labels, directory, suffix)
    _prepare(directory, jobs)
    with Manifest.opened(directory, settings) as manifest:
        jobs = [replace(job, known=manifest.records.get(job.name)) for job in jobs]
        if on_start is not None:
            on_start(jobs)
        made, kept, failed = [], [], {}
        run = partial(make_map, directory=directory.resolve(), settings=settings)
        for outcome in _outcomes(run, jobs, workers, scheduler):
            if outcome.error is not None:
                failed[str(outcome.job.source)] = outcome.error
            elif outcome.record is not None:
                manifest.add(outcome.record)
                made.append(outcome.job.name)
            else:
                kept.append(outcome.job.name)
            if on_outcome is not None:
                on_outcome(outcome)
    return Report(tuple(made), tuple(kept), failed)


def make_map(job: Job, *, directory: Path, settings: StoredSettings) -> Outcome:
    """Make the map of one file, unless it is there."""
    given, known = settings.maps, job.known
    try:
        digest = _files.sha256_of(job.source)
        if known is not None and known.sha256 == digest and known.is_whole(directory):
            return Outcome(job)
        opened = _files.open_volume(job.source, None if given.spacing is None else given.spacing[0])
        how = given.with_spacing(opened.spacing)
        values, _ = _files.read_labels(opened, mask=how.classes is None, ignore_index=how.ignore_index)
        options: MapOptions = {**how.options(), "spatial_dims": values.ndim, "dtype": settings.dtype}
        maps = signed_distance(tensor_from_numpy(values, "labels"), **options)
        target = directory / job.name
        target.parent.mkdir(parents=True, exist_ok=True)
        _files.write_map(target, maps.numpy(), opened, how)
        size = _files.size_of(target)
    except (OSError, ValueError, TypeError, MemoryError) as error:
        return Outcome(job, error=" ".join(str(error).split()) or type(error).__name__)
    record = MapRecord(job.name, str(job.source), digest, size, tuple(maps.shape), tuple(opened.spacing))
    return Outcome(job, record, voxels=values.size)


def _checked_settings(
    classes: int | Sequence[int] | None, options: StoredOptions, dtype: str, suffix: str
) -> StoredSettings:
    spacing = options.get("spacing")
    held = cast("MapOptions", {**options, "classes": classes, "spacing": 1.0 if spacing is None else spacing})
    maps = MapSettings.checked(held)
    _validate.choice("empty", held.get("empty", "inf"), ("inf", "zero", "max"))
    assert maps.spacing is not None
    if len(maps.spacing) > 1:
        raise ValueError(f"spacing: must be one number, or one per spatial axis; got {spacing!r}")
    _validate.choice("suffix", suffix, (*_files.FORMATS, _files.ZARR))
    _files.check_dtype(Path(f"map{suffix}"), dtype)
    if suffix == _files.ZARR:
        _files.zarr_package()
    return StoredSettings(maps if spacing is not None else replace(maps, spacing=None), dtype, suffix)


def _jobs(labels: Sequence[str | Path], directory: Path, suffix: str) -> list[Job]:
    jobs: dict[str, Job] = {}
    found = [Job(path, name + suffix) for path, name in _found(labels)]
    maps = _stored_maps(found, directory)
    for job in found:
        path = job.source
        if path.resolve() in maps:
            continue
        other = jobs.setdefault(job.name, job)
        if other.source.resolve() != path.resolve():
            raise ValueError(f"labels: {other.source} and {path} would both be stored as {job.name}")
    if not jobs:
        raise ValueError(
            f"labels: must name at least one volume, found none in {[str(item) for item in labels]}"
        )
    return list(jobs.values())


def _found(labels: Iterable[str | Path]) -> Iterator[tuple[Path, str]]:
    """Every volume, and its name without the suffix, relative to the folder that was named."""
    for item in labels:
        path = Path(item)
        if path.is_dir() and not _files.is_zarr(path):
            for inner in _volumes_in(path):
                yield inner, _stem(inner.relative_to(path))
        elif not path.exists() and glob.has_magic(str(item)):
            matches = [Path(match) for match in sorted(glob.glob(str(item), recursive=True))]
            stores = {match for match in matches if match.is_dir() and match.suffix.lower() == _files.ZARR}
            for match in matches:
                if stores.isdisjoint(match.parents):  # "**" matches the files of a store, too
                    yield match, _stem(_named(match))
        else:  # one that is absent is reported when its turn comes
            yield path, _stem(_named(path))


def _volumes_in(folder: Path) -> Iterator[Path]:
    """Files and zarr stores in a folder and its subfolders, hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        stores = [name for name in folders if name.lower().endswith(_files.ZARR)]
        folders[:] = sorted(set(folders).difference(stores))
        for name in sorted([*files, *stores]):
            if not name.startswith(".") and _files.format_of(Path(name)):
                yield Path(parent, name)


def _named(path: Path) -> Path:
    """The name of a file or store; of an array inside of a store, its path from there."""
    in_store = [number for number, part in enumerate(path.parts) if part.lower().endswith(_files.ZARR)]
    return Path(*path.parts[in_store[0] :]) if in_store else Path(path.name)


def _stem(relative: Path) -> str:
    """The path without the suffixes of files and stores."""
    *above, last = relative.parts
    known = _files.format_of(Path(last)) or ""
    stores = [part[: -len(_files.ZARR)] if part.lower().endswith(_files.ZARR) else part for part in above]
    return "/".join([*stores, last[: len(last) - len(known)]])


def _stored_maps(found: Sequence[Job], directory: Path) -> set[Path]:
    """The maps that an earlier run stored, which are no labels where the directory lies among these."""
    if not (directory / MANIFEST).is_file():
        return set()
    names: set[str] = set()
    with suppress(_files.FileError):  # a run that was killed as it began
        names.update(Manifest.read(directory).records)
    maps = {(directory / name).resolve() for name in names}
    for job in found:  # a killed run may have stored a map without a record
        target = (directory / job.name).resolve()
        if target != job.source.resolve():
            maps.add(target)
    return maps


def _prepare(directory: Path, jobs: Sequence[Job]) -> None:
    if _files.is_zarr(directory.resolve()):
        raise ValueError(f"out: must be a folder outside of any zarr store, got {directory}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"out: must be a folder, or a new one; {directory} is not ({reason})") from error
    for place in {(directory / job.name).parent for job in jobs}:
        if place.is_dir():
            _files.remove_leftovers(place)
    for job in jobs:
        target = directory / job.name
        if target.exists() and job.source.exists() and target.samefile(job.source):
            raise ValueError(f"out: {target} is one of the label files, which are never replaced")


def _outcomes(
    run: Callable[[Job], Outcome], jobs: Sequence[Job], workers: int, scheduler: str | None
) -> Iterator[Outcome]:
    if scheduler is not None:
        from dask.distributed import Client, as_completed  # noqa: PLC0415  # optional

        try:
            client = Client(scheduler)
        except (OSError, ValueError) as error:
            raise ValueError(f"scheduler: must be the address of one, got {scheduler!r} ({error})") from error
        with client:
            futures = client.map(run, jobs, pure=False)
            for future in as_completed(futures):
                yield future.result()
        return
    threads = max(torch.get_num_threads() // workers, 1)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        waiting: set[Future[Outcome]] = set()
        rest = iter(jobs)
        try:
            for job in rest:
                waiting.add(pool.submit(run, job))
                if len(waiting) > workers:  # few at once: a killed run loses the records of what waits
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in waiting:
                future.cancel()
