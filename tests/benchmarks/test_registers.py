"""The study of register limits, with the CPU's backend and a stand-in for the device's clock."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from benchmarks.studies import registers
from fastsdm._backends import triton_launcher, triton_passes

CPU = torch.device("cpu")


@dataclass
class Compiled:
    n_regs: int
    n_spills: int


def test_every_call_is_checked_and_timed_under_every_limit(monkeypatch) -> None:
    seen = []

    def time_of(call) -> float:
        assert call().shape[0] == 2
        seen.append(triton_launcher._tiles(CPU))
        return 0.001 * seen[-1].registers

    before = triton_launcher._tiles
    rows = list(registers.measured((2, 12, 13, 14), CPU, time_of, limits=(80, 96, 104), backend="native"))
    assert triton_launcher._tiles is before
    assert [(tiles.registers, tiles.nearest_registers) for tiles in seen] == [
        (80, 80),
        (96, 96),
        (104, 104),
    ] * 2
    assert [(row.call, row.limit) for row in rows] == [
        (call, limit) for call in ("map", "nearest") for limit in (80, 96, 104)
    ]
    text = registers.report(rows)
    assert "| map | 2 x 12 x 13 x 14 | 80 | - | 80.000 | 0.83x |" in text
    assert "| nearest | 2 x 12 x 13 x 14 | 80 | - | 80.000 | 0.77x |" in text


def test_a_wrong_result_is_not_timed(monkeypatch) -> None:
    for name in ("signed_distance", "nearest"):
        with monkeypatch.context() as patch:
            real = getattr(registers.fastsdm, name)

            def off_by_one(labels, *, backend="auto", real=real, **options):
                got = real(labels, backend=backend, **options)
                return got + 1 if backend == "native" else got

            patch.setattr(registers.fastsdm, name, off_by_one)
            with pytest.raises(SystemExit, match="the result is wrong, so nothing is timed"):
                list(registers.measured((1, 9, 10), CPU, lambda call: 0.0, limits=(96,), backend="native"))


def test_registers_are_those_of_kernels_compiled_under_the_limit(monkeypatch) -> None:
    launches = triton_passes.passes((1, 8, 8, 8), torch.uint8, 1)
    kernels = {(CPU, launch.variant): Compiled(60 + i, 0) for i, launch in enumerate(launches)}
    monkeypatch.setattr(triton_launcher, "_compiled", kernels)
    assert registers.registers_used(96) == "62", "the scan has no limit"
    assert registers.registers_used(80) == "-"
    kernels[CPU, launches[1].variant] = Compiled(96, 8)
    assert registers.registers_used(96) == "96 (8 spilled)"


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what is said without a GPU")
def test_without_a_gpu_it_says_so() -> None:
    command = [sys.executable, "-m", "benchmarks.studies.registers"]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "no NVIDIA GPU" in run.stderr
