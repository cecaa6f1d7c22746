"""Peak memory of one call, in a separate process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.measure.cases import CASES
from benchmarks.measure.contenders import our_contenders
from benchmarks.measure.losses import LossBatch
from benchmarks.measure.maps import Settings, warm_up
from benchmarks.measure.peers import peer_contenders
from benchmarks.measure.timing import Budget

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class MemoryRow:
    """What one call added to the memory in use.

    Attributes:
        case: name of the case, or of the loss and its batch.
        contender: its name.
        output_bytes: of the maps as float32, whatever type the contender returns.
        peak_bytes: largest growth during the call, the contender's result included.
        where: "host" for the resident set, "device" for the allocators of torch and CuPy.
    """

    case: str
    contender: str
    output_bytes: int
    peak_bytes: int
    where: str

    @property
    def peak_over_output(self) -> float:
        """1 when nothing but the result was allocated."""
        return self.peak_bytes / self.output_bytes


def can_measure(device: torch.device) -> bool:
    """Whether the peak can be reset: on CUDA always, on the host where Linux allows it."""
    return device.type == "cuda" or (_STATUS.exists() and _RESET.exists())


def peak_memory(case: str, contender: str, device: torch.device, threads: int) -> MemoryRow:
    """Run one contender on one case in a fresh process and return its peak.

    Raises:
        BrokenProcessPool: the process was killed, for example because memory ran out.
    """
    return _in_fresh_process(_map_peak, case, contender, device, threads)


def loss_peak(task: str, owner: str, size: int, device: torch.device, threads: int) -> MemoryRow:
    """The same of a loss forward and backward, beyond logits and labels."""
    return _in_fresh_process(_loss_peak, task, owner, size, device, threads)


def _in_fresh_process(measure: Callable[..., MemoryRow], *arguments: object) -> MemoryRow:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        return fresh.submit(measure, *arguments).result()


def _map_peak(case: str, name: str, device: torch.device, threads: int) -> MemoryRow:
    everyone = [*our_contenders(device), *peer_contenders(device)[0]]
    contender = next(each for each in everyone if each.name == name)
    warm_up([contender], Settings(device, threads, Budget(1.0), reference_s=0.0))
    prepared = contender.prepared(CASES[case], CASES[case].make(), threads)
    return _row(case, name, CASES[case].map_voxels, lambda: prepared.run(0), device)


def _loss_peak(task: str, owner: str, size: int, device: torch.device, threads: int) -> MemoryRow:
    torch.set_num_threads(threads)
    LossBatch.of_size(16, device).runs(task)[owner]()  # imports and compilers
    batch = LossBatch.of_size(size, device)
    return _row(f"{task}, {batch.title}", owner, batch.logits.numel(), batch.runs(task)[owner], device)


def _row(
    case: str, contender: str, voxels: int, run: Callable[[], object], device: torch.device
) -> MemoryRow:
    on_device = device.type == "cuda"
    peak = _device_peak(run, device) if on_device else _host_peak(run)
    return MemoryRow(case, contender, 4 * voxels, peak, "device" if on_device else "host")


def _host_peak(run: Callable[[], object]) -> int:
    _RESET.write_text("5")  # sets the high-water mark to what is resident now
    before = _status_bytes("VmRSS")
    result = run()
    peak = _status_bytes("VmHWM")
    del result
    return peak - before


def _status_bytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return 1024 * int(line.split()[1])


def _device_peak(run: Callable[[], object], device: torch.device) -> int:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
    before, cupy_before = torch.cuda.memory_allocated(device), _cupy_pool_bytes()
    result = run()
    torch.cuda.synchronize(device)
    growth = torch.cuda.max_memory_allocated(device) - before + _cupy_pool_bytes() - cupy_before
    del result
    return growth


def _cupy_pool_bytes() -> int:
    """What CuPy's pool holds; it keeps freed blocks: after one call on an emptied pool, the peak."""
    if "cupy" not in sys.modules:
        return 0
    return int(sys.modules["cupy"].get_default_memory_pool().total_bytes())
