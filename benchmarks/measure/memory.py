"""Peak memory of one call, in a process of its own: `python -m benchmarks.measure.memory CASE CONTENDER`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.measure.cases import CASES
from benchmarks.measure.contenders import Contender, Prepared, our_contenders, peer_contenders
from benchmarks.measure.maps import Settings, warm_up
from benchmarks.measure.timing import Budget

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class MemoryRow:
    """What one call added to the memory in use.

    Attributes:
        case: name of the case.
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
        RuntimeError: the process failed; the message ends with its last line.
    """
    command = [sys.executable, "-m", "benchmarks.measure.memory", case, contender, "--device", str(device)]
    done = subprocess.run([*command, "--threads", str(threads)], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"exit code {done.returncode}, {reason}")
    return MemoryRow(**json.loads(done.stdout.splitlines()[-1]))


def main(
    case: str,
    contender: str,
    device: Annotated[str, typer.Option()] = "cpu",
    threads: Annotated[int, typer.Option()] = 2,
) -> None:
    """Print the peak of one call as a line of JSON."""
    where = torch.device(device)
    chosen = _contender(contender, where)
    warm_up([chosen], Settings(where, threads, Budget(1.0), reference_s=0.0))
    prepared = chosen.prepared(CASES[case], CASES[case].make(), threads)
    peak = _device_peak(prepared, where) if where.type == "cuda" else _host_peak(prepared)
    row = MemoryRow(
        case, contender, 4 * CASES[case].map_voxels, peak, "device" if where.type == "cuda" else "host"
    )
    print(json.dumps(asdict(row)))


def _contender(name: str, device: torch.device) -> Contender:
    everyone = [*our_contenders(device), *peer_contenders(device)[0]]
    return next(contender for contender in everyone if contender.name == name)


def _host_peak(prepared: Prepared) -> int:
    _RESET.write_text("5")  # sets the high-water mark to what is resident now
    before = _status_bytes("VmRSS")
    result = prepared.run(0)
    peak = _status_bytes("VmHWM")
    del result
    return peak - before


def _status_bytes(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return 1024 * int(line.split()[1])


def _device_peak(prepared: Prepared, device: torch.device) -> int:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
    before, cupy_before = torch.cuda.memory_allocated(device), _cupy_pool_bytes()
    result = prepared.run(0)
    torch.cuda.synchronize(device)
    growth = torch.cuda.max_memory_allocated(device) - before + _cupy_pool_bytes() - cupy_before
    del result
    return growth


def _cupy_pool_bytes() -> int:
    """What CuPy's pool holds; it keeps freed blocks: after one call on an emptied pool, the peak."""
    if "cupy" not in sys.modules:
        return 0
    return int(sys.modules["cupy"].get_default_memory_pool().total_bytes())


if __name__ == "__main__":
    typer.run(main)
