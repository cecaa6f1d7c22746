"""The training example as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


def lines_of(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "examples.train", "--steps", "2", "--patch", "16", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300, env=environment
    )
    return run.stdout.splitlines()


def test_trains_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    pytest.importorskip("nibabel")
    checkpoint = tmp_path / "runs" / "train.pt"
    first = lines_of("--out", str(checkpoint), "--epochs", "2")
    assert [line.split()[1] for line in first] == ["1/2", "2/2"]
    assert all(re.search(r"loss \d+\.\d{3}  boundary weight 0\.\d\d  Dice 0\.\d{3}", line) for line in first)
    more = lines_of("--out", str(checkpoint), "--epochs", "3", "--resume", "--amp")
    assert [line.split()[1] for line in more] == ["3/3"]
    # The checkpoint held the schedule: the first epoch after it has the next weight.
    assert "boundary weight 0.50" in more[0]


def test_stays_short() -> None:
    assert len((ROOT / "examples" / "train.py").read_text().splitlines()) <= 150
