"""The triton backend: its launches, when it is unavailable, the kernels in the interpreter."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastsdm
from fastsdm import _conventions, _operator, _sdm
from fastsdm._backends import registry, triton_arguments, triton_launcher, triton_passes
from fastsdm._backends.triton_launcher import TritonBackend

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        # Every size along every axis and random volumes take minutes here; the other file has the edges.
        ("test_contract.py", "-k", "triton-cpu and not every_size and not random_volumes"),
        ("interpreted_triton.py",),
        ("interpreted_triton_nearest.py",),
    ],
    ids=["contract", "tiles", "nearest"],
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
    launches = triton_passes.passes((batch, *spatial), torch.uint8, classes)
    assert len(launches) == len(spatial)
    voxels = batch * classes * math.prod(spatial)
    assert [launch.target_items for launch in launches] == [voxels] * len(spatial)
    assert sum(launch.bytes for launch in launches) <= voxels * (17 if len(spatial) == 3 else 9)


def test_the_grid_covers_every_voxel() -> None:
    for tiles in (triton_passes.NVIDIA, triton_passes.AMD):
        scan, second, first = triton_passes.passes((2, 9, 300, 33), torch.uint8, 3, tiles)
        assert scan.grid == 2 * math.ceil(9 * 300 / tiles.rows)
        assert second.grid == 2 * 3 * math.ceil(300 / (8 * tiles.step)) * math.ceil(9 * 33 / tiles.columns)
        assert first.grid == 2 * 3 * math.ceil(300 * 33 / tiles.columns)
        assert first.constants["FINAL"]
        assert not second.constants["FINAL"]


def test_only_rows_that_half_precision_counts_are_stored_in_it() -> None:
    for width, dtype in ((2048, torch.float16), (2049, torch.float32)):
        assert triton_passes.passes((1, 2, 2, width), torch.uint8, 1)[0].target_dtype == dtype
    assert float(torch.tensor(2047.0, dtype=torch.float16)) == 2047.0


def test_numbers_hold_each_sample_in_voxels_of_the_axis_at_work() -> None:
    spacing = ((4.0, 2.0, 1.0), (0.5, 0.5, 0.5))
    how = _conventions.finish("midline", "max", spacing, (3, 4, 12), None)
    second = triton_arguments.search_numbers(1, spacing, 8.0, how)
    first = triton_arguments.search_numbers(0, spacing, 8.0, how)
    finish = [(0.5, 0.5, math.hypot(12, 8, 12)), (0.25, 0.25, 6.5)]
    assert second == [(0.25, 4.0, 4.0, *finish[0]), (1.0, 16.0, 0.25, *finish[1])]
    assert first == [(0.25, 2.0, 16.0, *finish[0]), (1.0, 16.0, 0.25, *finish[1])]
    assert triton_arguments.search_numbers(1, spacing, None, how)[0][1] == math.inf
    (shared,) = triton_arguments.search_numbers(
        0, spacing[:1], None, _conventions.finish("kervadec", "inf", spacing[:1], (3, 4, 12), None)
    )
    assert shared == (0.25, math.inf, 16.0, 1.0, 0.0, math.inf)


def test_a_region_leaves_out_what_it_does_not_need() -> None:
    _scan, second, first = triton_passes.passes(
        (2, 40, 50, 60), torch.uint8, 1, start=(1, 2, 3), size=(4, 5, 6)
    )
    assert second.target_items == 2 * 40 * 5 * 6
    assert first.target_items == 2 * 4 * 5 * 6


@pytest.mark.parametrize(
    ("values", "is_run"),
    [
        ((0, 1, 2), True), ((-3, -2), True), ((7,), True), ((1, 0), False), ((0, 2), False),
        ((2**31 - 1,), True), ((2**31 - 1, 2**31), False), ((-(2**31) - 1,), False),
    ],
)  # fmt: skip
def test_class_values_that_are_a_run_of_32_bit_integers(values, is_run) -> None:
    assert triton_arguments.is_run(values) is is_run


class Operations(TorchDispatchMode):
    """Names of the torch operations under way."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("unpoisoned_memory")
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("classes", [(None,), (0, 1, 2), (5, 2)])
def test_nothing_but_the_kernels(monkeypatch, ndim, dtype, per_sample, classes) -> None:
    """A call allocates memory and launches a kernel an axis; scattered values and spacings make one table."""
    launched, tables = [], []
    monkeypatch.setattr(triton_launcher, "_launch", lambda launch, *arguments: launched.append(launch.kernel))
    on_device = torch.zeros(1)  # the one copy, which needs a device
    monkeypatch.setattr(
        triton_launcher, "_on_device", lambda table, device: tables.append(table) or on_device
    )
    shape = (12, 11, 10)[:ndim]
    rows = ((1.0, 2.0, 3.0)[:ndim], (1.0, 1.0, 1.0)[:ndim])[: 1 + per_sample]
    how = _conventions.finish("kervadec", "zero", rows, shape, 5.0)
    labels = torch.zeros(2, *shape, dtype=torch.int64)
    with Operations() as operations:
        TritonBackend().finished_region(labels, classes, rows, 6.0, how, [0] * ndim, shape, dtype)
    assert launched == ["_scan_row_kernel"] + ["_search_axis_kernel"] * (ndim - 1)
    assert set(operations.names) == {"empty.memory_format"}
    assert len(tables) == (per_sample or classes == (5, 2))


@pytest.mark.usefixtures("unpoisoned_memory")
@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
)
@pytest.mark.parametrize("settings", [{}, {"empty": "zero", "dtype": torch.float16}, {"classes": [1, 2]}])
def test_nothing_but_the_kernels_from_the_public_function_on(monkeypatch, dtype, settings) -> None:
    launched = []
    monkeypatch.setattr(triton_launcher, "_launch", lambda launch, *arguments: launched.append(launch.kernel))
    monkeypatch.setattr(TritonBackend, "unavailable", lambda self, device: None)
    monkeypatch.setattr(registry, "found", {})
    monkeypatch.setattr(_sdm, "signed_distance_operator", _operator._signed_distance)
    if dtype == torch.bool:
        settings = settings | {"classes": None}
    labels = torch.zeros(2, 6, 7, 8, dtype=dtype)
    with Operations() as operations:
        fastsdm.signed_distance(labels, backend="triton", **settings)
    assert launched == ["_scan_row_kernel"] + ["_search_axis_kernel"] * 2
    views = {"view.default", "view.dtype", "detach.default"}
    assert set(operations.names) - views == {"empty.memory_format"}


class StandInDriver:
    """In place of a GPU's driver: compiles for sm_90, and notes what its launcher is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.utils = self

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget  # noqa: PLC0415

        return GPUTarget("cuda", 90, 32)

    def launcher_cls(self, src, metadata):
        return lambda *arguments: self.calls.append(arguments)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 1 << 17}

    def load_binary(self, name, kernel, shared, device):
        return object(), name, 80, 0, 1024


def test_a_compiled_kernel_is_launched_as_triton_launches_it(monkeypatch) -> None:
    """The launcher gets the same arguments the first time, through Triton, and afterwards."""
    triton = pytest.importorskip("triton")
    stand_in = StandInDriver()
    kernels = triton_launcher._kernels()
    for kernel in (kernels._scan_row_kernel, kernels._search_axis_kernel):  # keep nothing of the stand-in's
        monkeypatch.setattr(kernel, "device_caches", defaultdict(kernel.create_binder), raising=False)
    monkeypatch.setattr(triton_launcher, "_compiled", {})
    monkeypatch.setattr(triton_launcher, "_tiles", lambda device: triton_passes.NVIDIA)
    monkeypatch.setattr(triton.runtime.driver, "_active", stand_in)
    labels = torch.zeros(2, 9, 10, 11, dtype=torch.uint8)
    spacing = ((1.0, 2.0, 3.0),)
    how = _conventions.finish("kervadec", "zero", spacing, labels.shape[1:], None)
    for _ in range(3):
        TritonBackend().finished_region(
            labels, (1, 2), spacing, None, how, (1, 2, 3), (8, 8, 8), torch.float16
        )
    assert len(triton_launcher._compiled) == 3
    by_triton, *by_handle = [described(stand_in.calls[i : i + 3]) for i in (0, 3, 6)]
    assert len(stand_in.calls) == 9
    assert by_handle == [by_triton] * 2


def described(calls):
    """The launcher's arguments; tensors by type and shape, and Triton's own objects by type."""
    plain = (int, float, str, tuple)
    return [
        [
            (each.dtype, each.shape)
            if isinstance(each, torch.Tensor)
            else each
            if isinstance(each, plain)
            else type(each)
            for each in call
        ]
        for call in calls
    ]


def test_without_triton_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "fastsdm._backends.triton_kernels", raising=False)
    reason = TritonBackend().unavailable(torch.device("cuda"))
    assert reason is not None
    assert "pip install triton" in reason


def test_a_cpu_tensor_needs_the_interpreter() -> None:
    pytest.importorskip("triton")
    reason = TritonBackend().unavailable(torch.device("cpu"))
    assert reason is not None
    assert "TRITON_INTERPRET=1" in reason


def test_no_device_and_an_old_one_are_told_apart(monkeypatch) -> None:
    pytest.importorskip("triton")
    device = torch.device("cuda", 0)
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no CUDA" in str(TritonBackend().unavailable(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "7.5" in str(TritonBackend().unavailable(device))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert TritonBackend().unavailable(device) is None
    # ROCm numbers its chips otherwise.
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert TritonBackend().unavailable(device) is None


def test_a_c_compiler_is_asked_for(monkeypatch) -> None:
    pytest.importorskip("triton")
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    assert "install gcc or clang" in str(TritonBackend().unavailable(device))
    monkeypatch.setenv("CC", "mycc")
    assert TritonBackend().unavailable(device) is None
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", lambda name: "there" if name == "clang" else None)
    assert TritonBackend().unavailable(device) is None


def test_interpreted_kernels_stay_on_the_cpu(monkeypatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(triton_launcher, "_interpreted", lambda kernels: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert TritonBackend().unavailable(torch.device("cpu")) is None
    assert "unset it" in str(TritonBackend().unavailable(torch.device("cuda", 0)))
