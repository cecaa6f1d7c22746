"""Nearest voxels by the triton backend on hardware."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import testing
from fastsdm._backends.triton_launcher import BACKEND
from tests._backends.test_triton_gpu import churn, kernels_of
from tests.test_nearest import SPACINGS, assert_nearest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"),
]


def found(labels: np.ndarray, classes, spacings, limit=None, device: str = "cuda") -> np.ndarray:
    rows = torch.as_tensor(spacings, dtype=torch.float64)
    return BACKEND.nearest(torch.from_numpy(labels).to(device), classes, rows, limit).cpu().numpy()


@pytest.mark.parametrize("case", list(testing.hard_cases()), ids=lambda case: case.name)
def test_hard_case(case) -> None:
    indices = found(case.labels, case.classes, case.spacing)
    for b, k in np.ndindex(indices.shape[:2]):
        assert_nearest(indices[b, k], (case.labels[b] == case.classes[k]).astype(np.uint8), case.spacing[b])


def test_random_volumes() -> None:
    rng = np.random.default_rng(0)
    for seed in range(300):
        ndim = int(rng.integers(2, 4))
        shape = rng.choice([1, 2, 3, 5, 8, 9, 17, 33, 65, 70], ndim)
        mask = testing.noise(shape, fraction=rng.choice([0.0, 0.002, 0.05, 0.5, 0.98, 1.0]), seed=seed)
        spacing = SPACINGS[rng.integers(len(SPACINGS))][:ndim]
        limit = [None, 0.3, 1.0, 2.6, 9.0, 1e6][rng.integers(6)]
        assert_nearest(found(mask[None], (1,), [spacing], limit)[0, 0], mask, spacing, limit)


@pytest.mark.parametrize("shape", [(512, 700), (130, 140, 150), (2, 2**15, 2), (2, 2, 2**15)])
def test_large_volumes(shape) -> None:
    for mask in (testing.blobs(shape), testing.noise(shape, fraction=0.001), 1 - testing.one_voxel(shape)):
        indices = found(mask[None], (1,), [[1.0] * len(shape)])[0, 0]
        assert_nearest(indices, mask, [1.0] * len(shape))
        again = found(mask[None], (1,), [[1.0] * len(shape)])[0, 0]
        assert np.array_equal(indices, again)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("classes", [None, 4])
def test_as_many_kernels_as_axes_and_nothing_else(unpoisoned_memory, spatial_dims, classes) -> None:
    labels = torch.from_numpy(testing.shells((2, 33, 40, 41), classes=4)).cuda()
    labels = labels if spatial_dims == 3 else labels[:, 0].contiguous()
    ran = kernels_of(lambda: fastsdm.nearest(labels, classes=classes, spatial_dims=spatial_dims))
    assert ran == ["_nearest_axis_kernel"] * (spatial_dims - 1) + ["_scan_row_kernel"]


def test_auto_is_triton_and_labels_follow() -> None:
    labels = np.zeros((2, 40, 41, 42), np.int16)
    labels[:, ::13, ::11, ::7] = np.arange(4 * 4 * 6).reshape(4, 4, 6) + 1
    filled = fastsdm.nearest_label(torch.from_numpy(labels).cuda(), max_distance=5.0).cpu().numpy()
    indices = (
        fastsdm.nearest(torch.from_numpy(labels).cuda(), max_distance=5.0, backend="triton").cpu().numpy()
    )
    for sample, got, where in zip(labels, filled, indices, strict=True):
        expected = np.where((sample == 0) & (where[0] >= 0), sample[tuple(where)], sample)
        assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    "settings",
    [{"classes": 3}, {"classes": [2, 0], "spacing": torch.tensor([[1.0, 2.0, 3.0], [0.5, 1.0, 1.5]])}],
)
def test_a_captured_graph_follows_its_labels(settings) -> None:
    shells = testing.shells((20, 21, 22), classes=3)
    labels = torch.from_numpy(np.stack([shells, shells])).cuda()
    fastsdm.nearest(labels, backend="triton", **settings)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        indices = fastsdm.nearest(labels, backend="triton", **settings)
    for k in range(5):
        churn()
        labels.copy_(torch.from_numpy(np.stack([shells, np.roll(shells, k, 0)])))
        graph.replay()
        assert torch.equal(indices, fastsdm.nearest(labels, backend="triton", **settings))


def test_in_the_current_stream() -> None:
    mask = testing.blobs((64, 65, 66), sigma=5)
    found(mask[None], (1,), [(1.0, 1.0, 1.0)])
    staged = torch.zeros(1, *mask.shape, dtype=torch.uint8, device="cuda")
    source = torch.from_numpy(mask).cuda()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # were the kernels elsewhere, they would read the zeros
        staged.copy_(source)
        indices = BACKEND.nearest(staged, (1,), torch.ones(1, 3, dtype=torch.float64), None)
    stream.synchronize()
    assert_nearest(indices[0, 0].cpu().numpy(), mask, (1.0, 1.0, 1.0))


def test_on_a_device_that_is_not_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two devices")
    mask = testing.blobs((30, 31, 32), sigma=3)
    assert_nearest(found(mask[None], (1,), [(1.0,) * 3], device="cuda:1")[0, 0], mask, (1.0, 1.0, 1.0))


@pytest.mark.slow
def test_more_indices_than_32_bits_address() -> None:
    shape = (1100, 1024, 1024)
    if torch.cuda.mem_get_info()[0] < 24 * math.prod(shape):
        pytest.skip("needs 28 GB of free device memory")
    labels = torch.zeros((1, *shape), dtype=torch.uint8, device="cuda")
    labels[0, 1090, 1000, 1010] = 1
    indices = BACKEND.nearest(labels, [None], torch.ones(1, 3, dtype=torch.float64), None)[0, 0]
    for voxel in ((0, 0, 0), (1099, 1023, 1023), (1099, 0, 1023), (550, 512, 512)):
        assert indices[(slice(None), *voxel)].tolist() == [1090, 1000, 1010]
    assert indices[:, 1090, 1000, 1010].tolist() == [1089, 1000, 1010]
