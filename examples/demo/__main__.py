"""``python -m examples.demo``: times on a real volume, a short training, a figure and the numbers."""

from __future__ import annotations

import json
import platform
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

import fastsdm
from examples.demo.figure import write_figure
from examples.demo.training import BATCH, PATCH, Costs, Training
from examples.networks import dice_scores
from fastsdm import testing
from fastsdm._backends import registry
from fastsdm._files import FileError, whole_file
from fastsdm.cli.options import usable_device
from fastsdm.cli.terminal import console, fail, one_line_errors, progress_bar
from fastsdm.data import LabelledVolume, mni_icbm152

_REPEATS = 5
#: Axial slices that the trained network is shown on, around the brain; sizes are multiples of 4.
_SLAB = (slice(24, 172), slice(16, 216), slice(64, 96))


def demo(
    out: Annotated[Path, typer.Option(help="Directory for demo.png and demo.json, which are overwritten.")],
    steps: Annotated[int, typer.Option(min=2, help="Steps of the training.")] = 40,
    device: Annotated[str | None, typer.Option(help="Where to run; else cuda where there is one.")] = None,
) -> None:
    """Time the maps of a brain volume, train a small U-Net with the boundary loss, draw what came of it.

    The volume is the MNI ICBM152 T1 template with its tissue labels, which the package nilearn ships; nothing
    is downloaded.
    """
    place = usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with one_line_errors(OSError):
        out.mkdir(parents=True, exist_ok=True)
    with one_line_errors(ModuleNotFoundError, FileNotFoundError):
        volume = mni_icbm152()
    shape = " x ".join(map(str, volume.labels.shape))
    console.print(f"[bold]{volume.name}[/], {shape} voxels of 1 mm: {', '.join(volume.label_names)}")
    console.print(f"{volume.citation}")

    with one_line_errors(fastsdm.BackendUnavailableError):
        backend = registry.select("auto", place).name
    maps, numbers = _timed_maps(volume, place)
    console.print(_map_table(numbers, backend, place))
    if not numbers["equal"]:
        fail(f"the two maps differ by {numbers['largest_difference']:.3g} mm, more than rounding explains")

    training = Training(volume, steps, place)
    taken = []
    start = time.perf_counter()
    with progress_bar() as progress:
        task = progress.add_task("training", total=steps)
        for step in training.run(steps):
            taken.append(step)
            progress.update(task, advance=1, description=f"training, Dice loss {step.dice:.3f}")
    seconds = time.perf_counter() - start
    costs = Costs.of(taken)
    patches = f"{BATCH} patches of {' x '.join(map(str, PATCH))}"
    console.print(
        f"{steps} steps on {patches}, flipped, turned, scaled and bent at random: {seconds:.0f} s, "
        f"Dice loss {taken[0].dice:.3f} to {taken[-1].dice:.3f}",
        soft_wrap=True,
    )
    console.print(_cost_table(costs, backend))

    prediction = training.prediction(torch.from_numpy(volume.image[_SLAB]))
    scores = dice_scores(prediction, torch.from_numpy(volume.labels[_SLAB]), len(volume.label_names))
    report = {
        "fastsdm": fastsdm.__version__,
        "machine": _machine(place),
        "backend": backend,
        "volume": {"name": volume.name, "shape": volume.labels.shape, **numbers},
        "training": {
            "steps": steps,
            "batch": BATCH,
            "patch": PATCH,
            "seconds": seconds,
            "median_step_without_map_s": costs.rest,
            "median_map_fastsdm_s": costs.map_fastsdm,
            "median_map_scipy_s": costs.map_scipy,
            "map_share_fastsdm": costs.share_fastsdm,
            "map_share_scipy": costs.share_scipy,
            "dice_loss": [step.dice for step in taken],
            "boundary_loss_mm": [step.boundary for step in taken],
            "dice_on_training_slab": dict(zip(volume.label_names[1:], scores, strict=True)),
        },
    }
    with one_line_errors(FileError):
        with whole_file(out / "demo.json") as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")
        with whole_file(out / "demo.png") as temporary:
            write_figure(temporary, volume, maps, prediction.numpy(), _SLAB, scores, taken, costs)
    console.print(
        f"wrote [bold]{escape(str(out / 'demo.png'))}[/] and [bold]{escape(str(out / 'demo.json'))}[/]"
    )


def _timed_maps(volume: LabelledVolume, device: torch.device) -> tuple[testing.Array, dict[str, Any]]:
    """The map of every label by scipy's recipe and by fastsdm, with times and the largest difference."""
    classes = range(len(volume.label_names))
    published = np.empty((len(classes), *volume.labels.shape))
    scipy_seconds = 0.0
    labels = torch.from_numpy(volume.labels).to(device)
    with progress_bar() as progress:
        task = progress.add_task("scipy recipe", total=len(classes))
        for value in classes:
            inside = volume.labels == value
            start = time.perf_counter()
            published[value] = testing.published_map(inside)
            scipy_seconds += time.perf_counter() - start
            progress.advance(task)
    times = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        maps = fastsdm.signed_distance(labels, classes=len(classes))
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        times.append(time.perf_counter() - start)
    got = maps.cpu().numpy()
    difference = np.abs(got - published)
    allowed = testing.ROUNDING * (np.abs(published) + 1)
    fastsdm_seconds = statistics.median(times[1:])  # the first call warms up
    return got, {
        "scipy_s": scipy_seconds,
        "fastsdm_s": fastsdm_seconds,
        "times_faster": scipy_seconds / fastsdm_seconds,
        "largest_difference": float(difference.max()),
        "equal": bool(np.all(difference <= allowed)),
    }


def _map_table(numbers: dict[str, Any], backend: str, device: torch.device) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title="Map of 3 classes, whole volume", title_justify="left"
    )
    table.add_column("by")
    table.add_column("seconds", justify="right")
    table.add_column("times faster", justify="right")
    table.add_column("largest difference", justify="right")
    table.add_row("published recipe (scipy)", f"{numbers['scipy_s']:.2f}", "1", "")
    table.add_row(
        f"fastsdm ({backend} on {device})",
        f"{numbers['fastsdm_s']:.4f}",
        f"[bold]{numbers['times_faster']:.0f}[/]",
        f"{numbers['largest_difference']:.1e} mm",
    )
    return table


def _cost_table(costs: Costs, backend: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Median training step", title_justify="left")
    table.add_column("map by")
    for name in ("map, ms", "rest of the step, ms", "share of the map"):
        table.add_column(name, justify="right")
    rest = f"{costs.rest * 1e3:.0f}"
    table.add_row(
        "published recipe (scipy)", f"{costs.map_scipy * 1e3:.1f}", rest, f"{costs.share_scipy:.1%}"
    )
    table.add_row(
        f"fastsdm ({backend})",
        f"{costs.map_fastsdm * 1e3:.1f}",
        rest,
        f"[bold]{costs.share_fastsdm:.1%}[/]",
    )
    return table


def _machine(device: torch.device) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    typer.run(demo)
