"""The example of augmentation on the device, as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


def test_prints_shapes_and_shares_of_the_step() -> None:
    pytest.importorskip("nilearn")
    pytest.importorskip("nibabel")
    options = ["--steps", "2", "--size", "16", "12", "20", "--device", "cpu"]
    command = [sys.executable, "-m", "examples.augment_on_device", *options]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    lines = run.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["step", "0"], ["step", "1"]]
    assert lines[2] == "images (2, 1, 16, 12, 20), labels (2, 16, 12, 20), maps (2, 3, 16, 12, 20) on cpu", (
        "image, labels and maps must be of one patch"
    )
    shares = [float(re.search(r"([\d.]+)% of the step", line)[1]) for line in lines[3:]]
    assert [line.split()[0] for line in lines[3:]] == ["augment", "maps", "network"]
    assert sum(shares) == pytest.approx(100, abs=0.2)
