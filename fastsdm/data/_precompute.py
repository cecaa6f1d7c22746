"""Maps of many label files, computed once and stored beside a manifest; safe to interrupt and run again."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from fastsdm import _files, _validate
from fastsdm._arrays import tensor_from_numpy
from fastsdm._files.formats import FORMATS
from fastsdm._sdm import signed_distance
from fastsdm.data._manifest import Manifest, MapRecord, StoredSettings, is_whole

_DTYPES = ("float32", "float16", "float64")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Job:
    """A label file to work on.

    Attributes:
        source: the file.
        name: of its map, relative to the output directory.
        known: what the manifest says of that map, or None.
    """

    source: Path
    name: str
    known: MapRecord | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        job: the file.
        record: of the map that was made; None where it was there already, or failed.
        error: why there is no map, or None.
        voxels: of the volume, where its map was made.
    """

    job: Job
    record: MapRecord | None = None
    error: str | None = None
    voxels: int = 0


@dataclass(frozen=True)
class Report:
    """The outcome of :func:`precompute`.

    Attributes:
        made: names of the maps that were made.
        kept: names of the maps that were there already.
        failed: why a label file has no map, by its path.
    """

    made: tuple[str, ...]
    kept: tuple[str, ...]
    failed: dict[str, str]


def precompute(
    labels: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    classes: int | Sequence[int] | None,
    spacing: float | Sequence[float] | None = None,
    convention: str = "kervadec",
    empty: str = "inf",
    max_distance: float | None = None,
    ignore_index: int | None = None,
    dtype: str = "float32",
    suffix: str = ".npy",
    workers: int = 1,
    scheduler: str | None = None,
    on_start: Callable[[Sequence[Job]], None] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> Report:
    """Compute the signed distance maps of label files and store them in a directory.

    A file whose map is there already is known by its hash and left alone. No map is ever seen half-written:
    a run may be killed at any moment, and the next one finishes its work. A file that cannot be used is
    reported, and the others go on.

    Args:
        labels: files, folders (searched for volumes, with their subfolders) and glob patterns.
        out: directory of the maps, made if need be, with the manifest ``fastsdm-maps.jsonl``.
        classes: None for masks, K for the labels 0 to K-1, or the label values themselves.
        spacing: voxel size that counts instead of the files' own.
        convention: as in :func:`fastsdm.signed_distance`.
        empty: as there, but not ``"raise"``.
        max_distance: as there.
        ignore_index: as there.
        dtype: of the maps: ``"float32"``, ``"float16"`` or ``"float64"``.
        suffix: format of the maps: ``".npy"`` (class first, can be memory-mapped), ``".npz"``, ``".nii"`` or
            ``".nii.gz"`` (class last, float32 or float64).
        workers: files worked on at once; the processor's threads are shared between them.
        scheduler: address of a running ``dask.distributed`` cluster whose workers see the same files.
        on_start: called with all files before the first.
        on_outcome: called with every file's outcome.

    Returns:
        What was made, what was there, what failed.

    Raises:
        TypeError, ValueError: an argument that cannot be used; a directory with maps of other settings.
    """
    settings = _checked_settings(
        classes, spacing, convention, empty, max_distance, ignore_index, dtype, suffix
    )
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers: must be an integer of at least 1, got {workers!r}")
    directory = Path(out)
    jobs = _jobs([labels] if isinstance(labels, (str, Path)) else labels, suffix)
    _prepare(directory, jobs)
    with Manifest.opened(directory, settings, _version()) as manifest:
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
    try:
        digest = _sha256(job.source)
        known = job.known
        if known is not None and known.sha256 == digest and is_whole(directory, known):
            return Outcome(job)
        opened = _files.open_volume(job.source, settings.spacing)
        values, _ = _files.read_labels(
            opened, mask=settings.classes is None, ignore_index=settings.ignore_index
        )
        maps = signed_distance(
            tensor_from_numpy(values, "labels"),
            classes=settings.classes,
            spatial_dims=values.ndim,
            spacing=opened.spacing,
            convention=settings.convention,  # type: ignore[arg-type]  # checked when the run began
            empty=settings.empty,  # type: ignore[arg-type]
            max_distance=settings.max_distance,
            ignore_index=settings.ignore_index,
            dtype=settings.dtype,
        )
        target = directory / job.name
        target.parent.mkdir(parents=True, exist_ok=True)
        _files.write_map(target, maps.numpy(), opened, f"fastsdm {settings.convention} signed distance")
    except (OSError, ValueError, TypeError, MemoryError) as error:
        return Outcome(job, error=" ".join(str(error).split()) or type(error).__name__)
    size = target.stat().st_size
    record = MapRecord(job.name, str(job.source), digest, size, tuple(maps.shape), tuple(opened.spacing))
    return Outcome(job, record, voxels=values.size)


def _checked_settings(
    classes: int | Sequence[int] | None,
    spacing: float | Sequence[float] | None,
    convention: str,
    empty: str,
    max_distance: float | None,
    ignore_index: int | None,
    dtype: str,
    suffix: str,
) -> StoredSettings:
    values = None if classes is None else tuple(_validate.class_values(classes, torch.int64))
    steps: tuple[float, ...] | None = None
    if spacing is not None:
        rows = _validate.spacing_tensor(spacing)
        _validate.spacing_values(rows.reshape(1, -1))
        steps = tuple(rows.reshape(-1).tolist())
    _validate.convention(convention)
    _validate.choice("empty", empty, ("inf", "zero", "max"))
    _validate.max_distance(max_distance)
    _validate.choice("dtype", dtype, _DTYPES)
    _validate.choice("suffix", suffix, FORMATS)
    if dtype == "float16" and _files.is_nifti(Path(f"map{suffix}")):
        raise ValueError(
            f"dtype: must be float32 or float64 for {suffix}, which cannot hold float16; got {dtype!r}"
        )
    limit = None if max_distance is None else float(max_distance)
    return StoredSettings(values, steps, convention, empty, limit, ignore_index, dtype, suffix)


def _jobs(labels: Sequence[str | Path], suffix: str) -> list[Job]:
    jobs: dict[str, Job] = {}
    for path, relative in _found(labels):
        known = _files.format_of(path) or ""
        stem = str(relative)[: -len(known)] if known else str(relative)
        job = Job(path, stem + suffix)
        other = jobs.setdefault(job.name, job)
        if other.source.resolve() != path.resolve():
            raise ValueError(f"labels: {other.source} and {path} would both be stored as {job.name}")
    if not jobs:
        raise ValueError(
            f"labels: must name at least one volume, found none in {[str(item) for item in labels]}"
        )
    return list(jobs.values())


def _found(labels: Iterable[str | Path]) -> Iterator[tuple[Path, Path]]:
    """Every file, and its path relative to the folder that was named."""
    for item in labels:
        path = Path(item)
        if path.is_dir():
            for inner in sorted(path.rglob("*")):
                if inner.is_file() and _files.format_of(inner) and not inner.name.startswith("."):
                    yield inner, inner.relative_to(path)
        elif not path.exists() and glob.has_magic(str(item)):
            for match in sorted(glob.glob(str(item), recursive=True)):
                yield Path(match), Path(Path(match).name)
        else:  # one that is absent is reported when its turn comes
            yield path, Path(path.name)


def _prepare(directory: Path, jobs: Sequence[Job]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
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

        with Client(scheduler) as client:
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
                if (
                    len(waiting) > workers
                ):  # few at once: the records of all that is done are read by the next
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in waiting:
                future.cancel()


def _version() -> str:
    from fastsdm import __version__  # noqa: PLC0415  # the package itself, once it is imported

    return __version__


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise _files.FileError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()
