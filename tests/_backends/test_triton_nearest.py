"""Nearest voxels on the triton backend, without its kernels: its launches, and when `auto` takes it."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
import torch

import fastsdm
from fastsdm._backends import capabilities, registry, triton_launcher, triton_passes
from fastsdm._backends.triton_launcher import TritonBackend
from tests._backends.test_triton import Operations, StandInDriver, described


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("spatial", [(40, 41), (10, 200, 33), (64, 512, 512)])
def test_one_launch_an_axis_over_the_whole_volume(spatial, classes) -> None:
    launches = triton_passes.nearest_passes((2, *spatial), torch.uint8, classes)
    plain = triton_passes.passes((2, *spatial), torch.uint8, classes)
    voxels = 2 * classes * math.prod(spatial)
    assert launches[0] == plain[0], "the scan is the map's"
    assert [launch.grid for launch in launches] == [launch.grid for launch in plain]
    assert launches[-1].target_items == voxels * len(spatial)
    assert launches[-1].target_dtype == torch.int32
    assert sum(launch.bytes for launch in launches) <= voxels * (33 if len(spatial) == 3 else 13)


def test_limits_of_axes() -> None:
    triton_passes.nearest_passes((1, 70000, 2**15, 2**15), torch.uint8, 1)
    triton_passes.nearest_passes((1, 70000, 70000), torch.uint8, 1)
    for shape in ((1, 2**15 + 1, 1), (1, 1, 2**15 + 1)):
        with pytest.raises(
            ValueError, match=r"target: .* at most 32768 voxels along .* got shape \(1, .*scipy"
        ):
            triton_passes.nearest_passes((1, *shape), torch.uint8, 1)


@pytest.mark.usefixtures("unpoisoned_memory")
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("classes", [(None,), (0, 1, 2), (5, 2)])
def test_nothing_but_the_kernels(monkeypatch, ndim, per_sample, classes) -> None:
    """A call allocates memory and launches a kernel an axis; scattered values and spacings make one table."""
    launched, tables, on_device = [], [], torch.zeros(1)
    monkeypatch.setattr(triton_launcher, "_launch", lambda launch, *arguments: launched.append(launch.kernel))
    monkeypatch.setattr(
        triton_launcher, "_on_device", lambda table, device: tables.append(table) or on_device
    )
    labels = torch.zeros(2, *(12, 11, 10)[:ndim], dtype=torch.int64)
    spacing = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0 if per_sample else 3.0]], dtype=torch.float64)
    spacing = spacing[:, -ndim:]
    with Operations() as operations:
        found = TritonBackend().nearest(labels, classes, spacing, 6.0)
    assert found.shape == (2, len(classes), ndim, *labels.shape[1:])
    assert launched == ["_scan_row_kernel"] + ["_nearest_axis_kernel"] * (ndim - 1)
    assert set(operations.names) - {"view.dtype", "detach.default"} == {"empty.memory_format"}, "not a view"
    assert len(tables) == (per_sample or classes == (5, 2))


def test_a_compiled_kernel_is_launched_as_triton_launches_it(monkeypatch) -> None:
    triton = pytest.importorskip("triton")
    stand_in = StandInDriver()
    kernels = triton_launcher._kernels()
    for kernel in (kernels._scan_row_kernel, kernels._nearest_axis_kernel):
        monkeypatch.setattr(kernel, "device_caches", defaultdict(kernel.create_binder), raising=False)
    monkeypatch.setattr(triton_launcher, "_compiled", {})
    monkeypatch.setattr(triton_launcher, "_tiles", lambda device: triton_passes.NVIDIA)
    monkeypatch.setattr(triton.runtime.driver, "_active", stand_in)
    labels = torch.zeros(2, 9, 10, 11, dtype=torch.uint8)
    spacing = torch.tensor([[1.0, 2.0, 3.0]] * 2, dtype=torch.float64)
    for _ in range(2):
        TritonBackend().nearest(labels, (1, 2), spacing, 5.0)
    assert len(triton_launcher._compiled) == 3
    by_triton, by_handle = [described(stand_in.calls[i : i + 3]) for i in (0, 3)]
    assert len(stand_in.calls) == 6
    assert by_handle == by_triton


def test_auto_takes_triton_first_on_cuda(monkeypatch) -> None:
    device = torch.device("cuda", 101)  # what is found on a device is remembered for it
    monkeypatch.delenv("FASTSDM_BACKEND", raising=False)
    for name in registry.AUTO_ORDER["cuda"]:
        monkeypatch.setattr(type(registry.get(name)), "unavailable", lambda self, device: None)
    kind: Any = capabilities.NearestBackend
    assert capabilities.select(kind, "auto", device, "it").name == "triton"
    with pytest.raises(fastsdm.BackendUnavailableError, match=r"use one of triton, .*native, scipy"):
        capabilities.select(kind, "cucim", device, "it")
