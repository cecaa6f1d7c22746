"""The pytest-benchmark suite, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.integration
def test_suite_times_what_it_checked(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ["-k", "empty-128 and (native or edt or SimpleITK)", "-q", "--threads=1"]
    command = [sys.executable, "-m", "pytest", "benchmarks/suite", f"--benchmark-json={out}", *options]
    # In a worker's environment pytest-benchmark would disable itself.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert run.returncode == 0, run.stdout
    assert "SimpleITK has no answer for an absent class" in run.stdout
    found = json.loads(out.read_text())["benchmarks"]
    assert {each["params"]["name"] for each in found} == {"empty-128"}
    assert len(found) == 2
    assert all(each["extra_info"]["checked"] == "every voxel" for each in found)
