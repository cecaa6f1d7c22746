"""Device time of the Triton kernels by their limit of registers; needs an NVIDIA GPU.

python -m benchmarks.studies.registers [--limits 80,88,96,104,128]

A map's searches are limited to 96 registers a thread, and some compilers use 80 of them; the searches for
nearest voxels are limited to 104. A time is that of a CUDA graph of ten calls divided by ten, so it holds no
host time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
import typer

import fastsdm
from benchmarks.measure.timing import Timing
from benchmarks.report.markdown import table
from fastsdm import testing
from fastsdm._backends import triton_launcher, triton_passes

LIMITS = (80, 88, 96, 104, 128)
#: Batch and volume.
SHAPES = ((8, 128, 128, 128), (1, 256, 256, 256))
_CALLS, _REPEATS = 10, 15

Call: TypeAlias = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Row:
    """The time of a call under a limit, in milliseconds; the most registers and spills of its kernels."""

    call: str
    shape: tuple[int, ...]
    limit: int
    used: str
    milliseconds: float


@contextmanager
def limited_to(registers: int) -> Iterator[None]:
    """Make the backend compile its searches for so many registers."""
    before = triton_launcher._tiles
    tiles = replace(triton_passes.NVIDIA, registers=registers, nearest_registers=registers)
    triton_launcher._tiles = lambda device: tiles
    try:
        yield
    finally:
        triton_launcher._tiles = before


def measured(
    shape: Sequence[int],
    device: torch.device,
    time_of: Callable[[Call], float],
    *,
    limits: Sequence[int] = LIMITS,
    backend: str = "triton",
) -> Iterator[Row]:
    """Check the map and the nearest voxels of organ-like masks, then time them under every limit.

    Args:
        shape: ``[B, *S]``.
        device: where.
        time_of: measures a call, in seconds.
        limits: of the registers of a thread.
        backend: which one is called.
    """
    masks = np.stack([testing.blobs(shape[1:], seed=seed) for seed in range(shape[0])])
    labels = torch.from_numpy(masks).to(device)
    options: dict[str, Any] = {"spatial_dims": len(shape) - 1, "backend": backend}
    calls: Mapping[str, Call] = {
        "map": partial(fastsdm.signed_distance, labels, convention="plain", **options),
        "nearest": partial(fastsdm.nearest, labels, **options),
    }
    expected = fastsdm.signed_distance(
        torch.from_numpy(masks), convention="plain", spatial_dims=len(shape) - 1
    )
    for name, call in calls.items():
        for limit in limits:
            with limited_to(limit):
                check(name, call().cpu(), expected)
                seconds = time_of(call)
            yield Row(name, tuple(shape), limit, registers_used(limit), 1e3 * seconds)


def check(name: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    """Raise unless the map, or the distances to the nearest voxels, are the CPU's map at unit spacing."""
    if name == "nearest":
        grid = torch.from_numpy(np.indices(got.shape[2:], dtype=np.int32))
        got = ((got - grid) ** 2).sum(dim=1).double().sqrt().float()
        expected = expected.abs()
    if not torch.allclose(got, expected, rtol=testing.ROUNDING, atol=0):
        raise SystemExit(f"{name}: the result is wrong, so nothing is timed")


def registers_used(limit: int) -> str:
    """The most registers, and spills, of what was compiled under the limit; a dash where nothing was."""
    found = [
        (compiled.n_regs, compiled.n_spills)
        for (_device, variant), compiled in triton_launcher._compiled.items()
        if isinstance(variant, tuple) and limit in variant[4:5]
    ]
    if not found:
        return "-"
    registers, spills = max(regs for regs, _ in found), max(spills for _, spills in found)
    return f"{registers} ({spills} spilled)" if spills else f"{registers}"


def graph_time(call: Call) -> float:
    """Seconds that a call takes the device: the median over replays of a graph of several calls."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_CALLS):
            call()
    seconds = []
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1000 / _CALLS)
    return Timing.of(seconds).median_s


def report(rows: Sequence[Row]) -> str:
    """A Markdown table; the last column is the time beside that of the same call at the limit it has now."""
    now = {
        "map": triton_passes.NVIDIA.registers,
        "nearest": triton_passes.NVIDIA.nearest_registers,
    }
    base = {(row.call, row.shape): row.milliseconds for row in rows if row.limit == now[row.call]}
    cells = []
    for row in rows:
        reference = base.get((row.call, row.shape))
        ratio = "-" if reference is None else f"{row.milliseconds / reference:.2f}x"
        size = " x ".join(map(str, row.shape))
        cells.append((row.call, size, f"{row.limit}", row.used, f"{row.milliseconds:.3f}", ratio))
    return table(("call", "labels", "limit", "registers used", "ms", "beside today's limit"), cells)


def main(
    limits: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(map(str, LIMITS)),
) -> None:
    """Print the table."""
    if not torch.cuda.is_available() or torch.version.hip is not None:
        raise SystemExit("no NVIDIA GPU: these limits of registers are NVIDIA's, and times need the hardware")
    print(torch.cuda.get_device_name())
    device = torch.device("cuda", torch.cuda.current_device())
    wanted = tuple(map(int, limits.split(",")))
    print(report([row for shape in SHAPES for row in measured(shape, device, graph_time, limits=wanted)]))


if __name__ == "__main__":
    typer.run(main)
