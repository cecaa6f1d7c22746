"""`python -m benchmarks.host`: every step has a time, and a build that is not there is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.studies import host


def test_every_step_has_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    host.main(beside=None, rounds=1)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    times = dict(rows)
    assert {"native, 4 x 4 x 4", "native, prefetched, asked for at once"} <= times.keys()
    assert sum(name.startswith("triton") for name in times) == 3
    on_cuda = {name: time for name, time in times.items() if name.startswith("CUDA")}
    assert "CUDA: triton" in on_cuda
    if not torch.cuda.is_available():
        assert set(on_cuda.values()) == {"skipped: no CUDA device"}
    # A step may be a difference of two noisy times; none is more than the whole.
    steps = [float(time) for name, time in rows if name.startswith("-")]
    assert len(steps) == 6
    assert all(float(time) > 0 for name, time in rows if name[0] != "-" and name not in on_cuda)


def test_a_folder_without_a_build_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.host", "--beside", str(tmp_path), "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
