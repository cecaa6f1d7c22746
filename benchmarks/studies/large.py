"""A map larger than the memory of each process, one of two workers killed: the table of docs/large.md.

python -m benchmarks.studies.large [--size 400] [--classes 4] [--limit 800MiB]

Every process runs under RLIMIT_DATA, which bounds its heap, its stacks and all its private memory. The
workers read their labels from a zarr store by path, so the graph holds nothing large. Once a quarter of the
map is stored, one worker is killed with SIGKILL. Afterwards the map is compared with the one made in memory,
block by block, without the limit; a wrong map ends the study.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import dask.array as da
import numpy as np
import torch
import typer
import zarr
from distributed import Client, LocalCluster

import fastsdm
from benchmarks.report.markdown import table
from fastsdm import _files, testing
from fastsdm.integrations.dask import signed_distance
from fastsdm.testing import Array

CHUNK = 96
ROADS = {"exact": None, "max_distance=20": 20.0}
_STACK = 1 << 20


@dataclass(frozen=True)
class Run:
    """A map that was made and found right.

    Attributes:
        road: exact, or with a limit.
        seconds: from the first task to the last stored chunk.
        peak: largest resident memory of a worker, in bytes.
        killed_at: share of the map that was stored when a worker was killed.
    """

    road: str
    seconds: float
    peak: int
    killed_at: float


def read_block(path: str, block_info: Any = None) -> Array:
    """Read the labels of a block from the store."""
    location = block_info[None]["array-location"]
    values: Array = np.asarray(zarr.open_array(path, mode="r")[tuple(slice(*ends) for ends in location)])
    return values


def labels_by_path(path: Path) -> da.Array:
    """The labels as a dask array whose graph holds the path only."""
    stored = zarr.open_array(path, mode="r")
    chunks = da.core.normalize_chunks(stored.chunks, stored.shape)
    return da.map_blocks(
        read_block, str(path), chunks=chunks, dtype=stored.dtype, meta=np.empty((0, 0, 0), "u1")
    )


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def make_map(folder: Path, road: str, classes: int, worker_memory: int) -> Run:
    """Make the map with two workers and kill one."""
    maps = signed_distance(labels_by_path(folder / "labels.zarr"), classes=classes, max_distance=ROADS[road])
    out = folder / f"{road}.zarr"
    count = int(np.prod(maps.numblocks))
    killed: list[tuple[float, int]] = []
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            memory_limit=worker_memory,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,  # the death of a worker is reported at length
            local_directory=str(folder / "spilled"),
        ) as cluster,
        Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        is_done = threading.Event()

        def kill_one() -> None:
            address, pid = next(iter(pids.items()))
            while not is_done.wait(0.05):
                share = sum(1 for path in out.glob("c/**/*") if path.is_file()) / count
                if share > 0.25:
                    peak = client.run(peak_memory, workers=[address])[address]
                    os.kill(pid, signal.SIGKILL)
                    killed.append((share, peak))
                    return

        killer = threading.Thread(target=kill_one)
        killer.start()
        begun = time.perf_counter()
        maps.to_zarr(str(out))
        seconds = time.perf_counter() - begun
        is_done.set()
        killer.join()
        peaks = client.run(peak_memory).values()
    if not killed:
        raise SystemExit(f"{road}: no worker was killed, so the run shows nothing")
    share, peak = killed[0]
    return Run(road, seconds, max(peak, *peaks), share)


def check_map(folder: Path, road: str, classes: int) -> None:
    """Raise unless the stored map is the one made in memory."""
    labels = np.asarray(zarr.open_array(folder / "labels.zarr", mode="r")[...])
    maps = zarr.open_array(folder / f"{road}.zarr", mode="r")
    for value in range(classes):
        expected = fastsdm.signed_distance(labels, classes=[value], max_distance=ROADS[road])[0]
        for start in range(0, len(labels), CHUNK):
            part = slice(start, start + CHUNK)
            if not np.array_equal(maps[value, part], expected[part]):
                raise AssertionError(f"{road}: class {value} differs at {part}, so nothing is reported")


@contextmanager
def limited_memory(limit: int) -> Iterator[None]:
    """Bound the private memory of this process and its children."""
    bounds = {resource.RLIMIT_DATA: limit, resource.RLIMIT_STACK: _STACK}
    before = {what: resource.getrlimit(what) for what in bounds}
    for what, bound in bounds.items():
        resource.setrlimit(what, (bound, before[what][1]))
    try:
        yield
    finally:
        for what, values in before.items():
            resource.setrlimit(what, values)


def measure(size: int, classes: int, limit: int) -> list[Run]:
    """Make and check the map by both roads."""
    torch.set_num_threads(1)
    runs = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = testing.shells((size,) * 3, classes=classes, thickness=size / 18).astype(np.uint8)
        stored = zarr.create_array(
            folder / "labels.zarr", shape=labels.shape, chunks=(CHUNK,) * 3, dtype="u1"
        )
        stored[...] = labels
        del labels
        for road in ROADS:
            with limited_memory(limit):  # which the workers inherit
                runs.append(make_map(folder, road, classes, limit * 3 // 4))
            check_map(folder, road, classes)
    return runs


def main(
    size: Annotated[int, typer.Option(help="Edge of the volume.")] = 400,
    classes: Annotated[int, typer.Option(help="How many maps.")] = 4,
    limit: Annotated[str, typer.Option(help="RLIMIT_DATA of every process.")] = "800MiB",
) -> None:
    """Print a table."""
    begun = time.perf_counter()
    allowed, whole = _files.byte_count(limit), 4 * classes * size**3
    if allowed >= whole:
        raise SystemExit(f"--limit: must be below the map's {_files.size(whole)}, got {limit}")
    runs = measure(size, classes, allowed)
    print(
        f"{size}^3 voxels, {classes} classes: a map of {_files.size(whole)}; two workers of one thread, each "
        f"process under RLIMIT_DATA of {_files.size(allowed)}; every map equal to that made in memory\n"
    )
    rows = [
        [run.road, f"{run.seconds:.0f}", _files.size(run.peak), f"{100 * run.killed_at:.0f} %"]
        for run in runs
    ]
    print(table(["map", "seconds", "largest worker", "stored when one was killed"], rows))
    print(f"\n{time.perf_counter() - begun:.0f} s in all")


if __name__ == "__main__":
    typer.run(main)
