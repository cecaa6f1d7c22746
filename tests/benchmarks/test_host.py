"""`python -m benchmarks.host`: every step has a time, and a build that is not there is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.studies import host


def test_every_step_has_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    host.main(beside=None, rounds=1)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert "native, 4 x 4 x 4" in {name for name, _ in rows}
    assert sum("triton" in name for name, _ in rows) == 3
    assert all(float(time) > 0 for _, time in rows)


def test_a_folder_without_a_build_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.host", "--beside", str(tmp_path), "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
