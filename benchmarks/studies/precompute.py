"""`fastsdm.data.precompute` beside a process pool of the published recipe: the table of docs/large.md.

python -m benchmarks.studies.precompute [--volumes 20] [--size 128] [--classes 3] [--workers 2]

Both read the same .npy label files and write .npy maps. The pool's processes have imported scipy before the
clock starts. The first run of ours is not timed; its maps are compared with the pool's. The maps of the timed
ones are removed after each, so that no run pays for memory that the system hands out for the first time.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.measure.cases import organs
from benchmarks.report.markdown import table
from fastsdm import testing
from fastsdm.data import precompute


@dataclass(frozen=True)
class Cost:
    """Of all maps: seconds by the clock, and of processor time, which other programs do not lengthen."""

    seconds: float
    processor: float


def published_file(path: Path, *, out: Path, classes: int) -> float:
    """Make the maps of one label file by the published recipe; return the processor time."""
    begun = time.process_time()
    np.save(out / path.name, testing.published_maps(np.load(path)[None], range(classes))[0])
    return time.process_time() - begun


def warm_up(_: int) -> None:
    """Let a process of the pool import and run what it needs."""
    testing.published_map(testing.one_voxel((8, 8, 8)) > 0)
    time.sleep(0.1)  # so that every process takes one of these


def by_pool(paths: Sequence[Path], out: Path, *, classes: int, workers: int) -> Cost:
    """What the process pool takes, its start not counted."""
    out.mkdir()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(warm_up, range(4 * workers)))
        begun = time.perf_counter()
        processor = sum(pool.map(partial(published_file, out=out, classes=classes), paths))
        return Cost(time.perf_counter() - begun, processor)


def by_fastsdm(paths: Sequence[Path], out: Path, *, classes: int, workers: int) -> Cost:
    """What `precompute` takes with the recipe's settings."""
    begun, processor = time.perf_counter(), time.process_time()
    report = precompute(
        paths, out, classes=classes, convention="kervadec-literal", empty="zero", workers=workers
    )
    cost = Cost(time.perf_counter() - begun, time.process_time() - processor)
    if len(report.made) != len(paths):
        raise SystemExit(f"precompute made {len(report.made)} of {len(paths)} maps: {report.failed}")
    return cost


def check_same(paths: Sequence[Path], ours: Path, theirs: Path) -> None:
    """End the run unless every map is the recipe's, to float32 rounding."""
    for path in paths:
        got, expected = np.load(ours / path.name, mmap_mode="r"), np.load(theirs / path.name, mmap_mode="r")
        if not np.allclose(got, expected, rtol=1e-6, atol=1e-6):
            raise SystemExit(f"{path.name}: the maps differ, so nothing is timed")


def main(
    volumes: Annotated[int, typer.Option(min=1)] = 20,
    size: Annotated[int, typer.Option(min=8)] = 128,
    classes: Annotated[int, typer.Option(min=2)] = 3,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of ours, of which the median counts.")] = 5,
) -> None:
    """Print seconds, throughput and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "labels").mkdir()
        paths = [folder / "labels" / f"case{number:02}.npy" for number in range(volumes)]
        for number, path in enumerate(paths):
            np.save(path, organs((size,) * 3, classes=classes, seed=number))
        by_fastsdm(paths, folder / "ours", classes=classes, workers=workers)
        own = []
        for _ in range(rounds):
            shutil.rmtree(folder / "timed", ignore_errors=True)
            own.append(by_fastsdm(paths, folder / "timed", classes=classes, workers=workers))
        shutil.rmtree(folder / "timed")
        pool = by_pool(paths, folder / "theirs", classes=classes, workers=workers)
        check_same(paths, folder / "ours", folder / "theirs")
    print(
        f"{volumes} volumes of {size}^3, {classes} classes, {workers} workers; maps checked on every voxel\n"
    )
    ours = Cost(*np.median([(cost.seconds, cost.processor) for cost in own], axis=0).tolist())
    rows = [
        (
            what,
            f"{cost.seconds:.2f}",
            f"{volumes * size**3 / cost.seconds / 1e6:.1f}",
            f"{pool.seconds / cost.seconds:.1f}",
            f"{cost.processor:.2f}",
            f"{pool.processor / cost.processor:.1f}",
        )
        for what, cost in (("process pool of the published recipe", pool), ("precompute", ours))
    ]
    head = ("maps by", "seconds", "Mvoxel/s", "times the pool's speed", "processor seconds", "pool's over it")
    print(table(head, rows))


if __name__ == "__main__":
    typer.run(main)
