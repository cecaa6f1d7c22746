"""The counts of bytes and launches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.studies import traffic


@pytest.mark.parametrize("shape", traffic.SHAPES)
@pytest.mark.parametrize("classes", [1, 4])
def test_ours_stays_below_its_bound(shape, classes) -> None:
    ours = traffic.triton_traffic(shape, classes)
    assert ours.launches == 3
    # One byte of label, shared by the classes; 2 + 2 + 4 + 4 + 4 for the fields.
    assert ours.bytes_per_voxel == 16 + 1 / classes


def test_labels_are_read_once_for_all_classes() -> None:
    shape = (2, 32, 32, 32)
    for dtype in (torch.bool, torch.int16, torch.int64):
        assert traffic.triton_traffic(shape, 4, dtype).bytes_per_voxel == 16 + dtype.itemsize / 4


def test_cucim_pays_for_its_cube() -> None:
    cube, flat = traffic.cucim_traffic((1, 512, 512, 512), 1), traffic.cucim_traffic((1, 64, 512, 512), 1)
    per_call = 61 + 8  # padded voxels: 1 + 15 sites of 4 bytes; then sites in, distances out
    assert cube.bytes_per_voxel == 2 * per_call + 16
    assert flat.bytes_per_voxel == 2 * (8 * 61 + 8 * 1 + 1 + 8) + 16
    assert flat.launches == cube.launches + 2 * 2
    assert traffic.cucim_traffic((3, 32, 32, 32), 2).launches == 6 * cube.launches


def test_cucim_packs_large_cubes_into_64_bits() -> None:
    small, large = (
        traffic.cucim_traffic((1, 1024, 1024, 1024), 1),
        traffic.cucim_traffic((1, 1056, 1056, 1056), 1),
    )
    assert large.bytes_per_voxel - small.bytes_per_voxel == 2 * (15 * 4 + 4)


def test_the_command_prints_the_table() -> None:
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-m", "benchmarks.studies.traffic"]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == traffic.report()
    assert "| 1 x 64 x 512 x 512 | 1 | 3 | 17.0 |" in printed
    assert traffic.report() in (root / "docs" / "triton.md").read_text(encoding="utf-8")
