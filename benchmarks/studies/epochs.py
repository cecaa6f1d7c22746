"""Samples per second with maps that are stored, made with a halo, or made by the loss: docs/patches.md.

python -m benchmarks.studies.epochs [--volumes 4] [--size 192] [--patch 96] [--limit 20] [--workers 0]

Every way reads the same patches of memory-mapped images and labels, and computes the same boundary loss at
the end; there is no network. The maps are compared before anything is timed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.utils.data import DataLoader

from benchmarks.measure.cases import organs
from benchmarks.measure.timing import Budget, in_turns
from benchmarks.report.markdown import table
from fastsdm.data import PatchDataset, PatchSampler, StoredMaps, Volume, precompute
from fastsdm.losses import BoundaryLoss

CLASSES, BATCH = 4, 2
#: The ways that are stored, by format and dtype.
STORED = {
    "stored, .npy float32": (".npy", "float32"),
    "stored, .npy float16": (".npy", "float16"),
    "stored, .zarr float16": (".zarr", "float16"),
}


def volumes(folder: Path, count: int, size: int, limit: float) -> dict[str, list[Volume]]:
    """The volumes as memory maps, without a stored map and with one of each kind."""
    (folder / "labels").mkdir()
    paths = [folder / "labels" / f"case{number}.npy" for number in range(count)]
    for number, path in enumerate(paths):
        labels = organs((size,) * 3, classes=CLASSES, seed=number)
        np.save(path, labels)
        np.save(folder / path.name, labels.astype(np.float32) / CLASSES)
    images = [np.load(folder / path.name, mmap_mode="r") for path in paths]
    labels_of = {path: np.load(path, mmap_mode="r") for path in paths}
    held = {"": [Volume(image, labels_of[path]) for image, path in zip(images, paths, strict=True)]}
    for way, (suffix, dtype) in STORED.items():
        out = folder / f"maps{len(held)}"
        precompute(paths, out, classes=CLASSES, max_distance=limit, suffix=suffix, dtype=dtype)
        maps = StoredMaps(out)
        held[way] = [
            Volume(image, labels_of[path], distance_map=maps.of(path))
            for image, path in zip(images, paths, strict=True)
        ]
    return held


def epoch(
    dataset: PatchDataset, sampler: PatchSampler, loss: BoundaryLoss, logits: torch.Tensor, workers: int
) -> float:
    """The mean loss of an epoch of patches; the loss makes the maps that the data set does not."""
    sampler.set_epoch(0)
    values = []
    for batch in DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers):
        maps = batch.get("distance_map")
        values.append(float(loss(logits, batch["label"], spacing=batch["spacing"], distance_map=maps)))
    return float(np.mean(values))


def check_same(ways: dict[str, PatchDataset], sampler: PatchSampler) -> None:
    """End the run unless the stored maps are those of the halo."""
    for position in list(sampler)[:4]:
        truth = ways["halo"][position]["distance_map"]
        for way in STORED:
            got = ways[way][position]["distance_map"].float()
            if not torch.allclose(got, truth, rtol=1e-3, atol=0):
                raise SystemExit(f"{way}: the map differs from the halo's, so nothing is timed")


def with_processor_time(run: Callable[[], object], seconds: list[float]) -> None:
    """Run once and note the processor time, which other programs do not lengthen."""
    begun = time.process_time()
    run()
    seconds.append(time.process_time() - begun)


def main(
    count: Annotated[int, typer.Option("--volumes", min=1)] = 4,
    size: Annotated[int, typer.Option(min=16)] = 192,
    patch: Annotated[int, typer.Option(min=8)] = 96,
    limit: Annotated[float, typer.Option(help="The maps' max_distance.")] = 20.0,
    patches: Annotated[int, typer.Option(min=2, help="Patches of an epoch.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Of the DataLoader.")] = 0,
    repeats: Annotated[int, typer.Option(min=1)] = 7,
) -> None:
    """Print a table of samples per second."""
    loss = BoundaryLoss(softmax=True, max_distance=limit)
    logits = torch.randn(BATCH, CLASSES, *(patch,) * 3, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as name:
        held = volumes(Path(name), count, size, limit)
        make: Callable[..., PatchDataset] = partial(
            PatchDataset, size=(patch,) * 3, classes=CLASSES, loss=loss
        )
        ways = {way: make(held[way], context="stored") for way in STORED}
        ways["halo"] = make(held[""], context="halo")
        ways["the loss, of the patch alone"] = bare = make(held[""], context=None)
        sampler = PatchSampler(ways["halo"], patches_per_epoch=patches, seed=0)
        check_same(ways, sampler)

        def read_only() -> None:
            for _ in DataLoader(bare, BATCH, sampler=sampler, num_workers=workers):
                pass

        runs: dict[str, Callable[[], object]] = {
            way: partial(epoch, dataset, sampler, loss, logits, workers) for way, dataset in ways.items()
        }
        runs["no maps, no loss"] = read_only
        processor: dict[str, list[float]] = {way: [] for way in runs}
        counted = {way: partial(with_processor_time, run, processor[way]) for way, run in runs.items()}
        timings = in_turns(counted, Budget(600.0, most=repeats))
    print(
        f"{patches} patches of {patch}^3 from {count} volumes of {size}^3, {CLASSES} classes, "
        f"max_distance={limit:g}, batches of {BATCH}, {workers} workers, {torch.get_num_threads()} threads\n"
    )
    rows = [
        (
            way,
            f"{patches / timing.median_s:.1f}",
            f"{patches / timing.p80_s:.1f} to {patches / timing.p20_s:.1f}",
            f"{1000 * float(np.median(processor[way])) / patches:.0f}",
        )
        for way, timing in timings.items()
    ]
    print(table(("maps", "samples/s", "20th to 80th percentile", "processor ms per sample"), rows))


if __name__ == "__main__":
    typer.run(main)
