"""The triton backend: its launches, when it is unavailable, the kernels in the interpreter."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastsdm._backends import triton_launcher

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        # Every size along every axis and random volumes take minutes here; the other file has the edges.
        ("test_contract.py", "-k", "triton-cpu and not every_size and not random_volumes"),
        ("interpreted_triton.py",),
    ],
    ids=["contract", "tiles"],
)
def test_kernels_under_the_interpreter(arguments: tuple[str, ...]) -> None:
    pytest.importorskip("triton")
    file, *options = arguments
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / file), *options]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("spatial", [(40, 41), (10, 200, 33), (64, 512, 512)])
def test_one_launch_an_axis_whatever_the_batch(batch, classes, spatial) -> None:
    launches = triton_launcher.passes((batch, *spatial), torch.uint8, classes)
    assert len(launches) == len(spatial)
    voxels = batch * classes * math.prod(spatial)
    assert [launch.target_items for launch in launches] == [voxels] * len(spatial)
    assert sum(launch.bytes for launch in launches) <= voxels * (17 if len(spatial) == 3 else 9)


def test_the_grid_covers_every_voxel() -> None:
    for tiles in (triton_launcher.NVIDIA, triton_launcher.AMD):
        scan, second, first = triton_launcher.passes((2, 9, 300, 33), torch.uint8, 3, tiles)
        assert scan.grid == 2 * math.ceil(9 * 300 / tiles.rows)
        assert second.grid == 2 * 3 * math.ceil(300 / (8 * tiles.long_step)) * math.ceil(
            9 * 33 / tiles.columns
        )
        assert first.grid == 2 * 3 * math.ceil(300 * 33 / tiles.columns)
        assert first.constants["FINAL"]
        assert not second.constants["FINAL"]


def test_only_rows_that_half_precision_counts_are_stored_in_it() -> None:
    for width, dtype in ((2048, torch.float16), (2049, torch.float32)):
        assert triton_launcher.passes((1, 2, 2, width), torch.uint8, 1)[0].target_dtype == dtype
    assert float(torch.tensor(2047.0, dtype=torch.float16)) == 2047.0


def test_tables_hold_each_sample_in_voxels_of_the_axis_at_work() -> None:
    spacing = torch.tensor([[4.0, 2.0, 1.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    along_second, along_first = triton_launcher._axis_tables(spacing, 8.0).tolist()
    assert along_second == [[0.25, 4.0, 4.0, 0.0], [1.0, 16.0, 0.25, 0.0]]
    assert along_first == [[0.25, 2.0, 16.0, 0.0], [1.0, 16.0, 0.25, 0.0]]
    assert triton_launcher._axis_tables(spacing, None)[..., 1].isinf().all()


def test_without_triton_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "fastsdm._backends.triton_kernels", raising=False)
    reason = triton_launcher.BACKEND.unavailable(torch.device("cuda"))
    assert reason is not None
    assert "pip install triton" in reason


def test_a_cpu_tensor_needs_the_interpreter() -> None:
    pytest.importorskip("triton")
    reason = triton_launcher.BACKEND.unavailable(torch.device("cpu"))
    assert reason is not None
    assert "TRITON_INTERPRET=1" in reason


def test_no_device_and_an_old_one_are_told_apart(monkeypatch) -> None:
    pytest.importorskip("triton")
    device = torch.device("cuda", 0)
    monkeypatch.setattr(triton_launcher, "_no_compiler", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no CUDA" in str(triton_launcher.BACKEND.unavailable(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "7.5" in str(triton_launcher.BACKEND.unavailable(device))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert triton_launcher.BACKEND.unavailable(device) is None
    # ROCm numbers its chips otherwise.
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert triton_launcher.BACKEND.unavailable(device) is None


def test_a_c_compiler_is_asked_for(monkeypatch) -> None:
    pytest.importorskip("triton")
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    assert "install gcc or clang" in str(triton_launcher.BACKEND.unavailable(device))
    monkeypatch.setenv("CC", "mycc")
    assert triton_launcher.BACKEND.unavailable(device) is None
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", lambda name: "there" if name == "clang" else None)
    assert triton_launcher.BACKEND.unavailable(device) is None


def test_interpreted_kernels_stay_on_the_cpu(monkeypatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(triton_launcher, "_interpreted", lambda kernels: True)
    assert triton_launcher.BACKEND.unavailable(torch.device("cpu")) is None
    assert "unset it" in str(triton_launcher.BACKEND.unavailable(torch.device("cuda", 0)))
