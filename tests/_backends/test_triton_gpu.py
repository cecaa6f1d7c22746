"""The triton backend on hardware, beyond what the contract suite asks of every backend there."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.autograd import DeviceType

import fastsdm
from fastsdm import testing
from fastsdm._backends.triton_launcher import BACKEND

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device"),
]


def on_gpu(labels: np.ndarray, device: str = "cuda") -> torch.Tensor:
    labels_on_gpu = torch.from_numpy(labels).to(device)
    spacing = torch.ones(len(labels), labels.ndim - 1, dtype=torch.float64)
    return BACKEND.signed_distance(labels_on_gpu, [1], spacing, None)


def truth_of(labels: np.ndarray) -> np.ndarray:
    unit = np.ones((len(labels), labels.ndim - 1))
    return testing.reference_signed_distance(labels, (1,), unit).astype(np.float32)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # is a prototype, it says
def test_it_never_waits_for_the_device() -> None:
    labels = testing.blobs((40, 41, 42), sigma=4)[None]
    on_gpu(labels)  # compiles, and loading a module does wait
    labels_on_gpu = torch.from_numpy(labels).cuda()
    spacing = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(200_000_000)
        before = torch.cuda.Event()
        before.record()
        BACKEND.signed_distance(labels_on_gpu, [0, 1], spacing, 5.0)
        assert not before.query(), "the call came back only after work queued before it"
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()


def test_it_works_in_the_current_stream() -> None:
    labels = testing.blobs((64, 65, 66), sigma=5)[None]
    on_gpu(labels)
    stream = torch.cuda.Stream()
    staged = torch.zeros(labels.shape, dtype=torch.uint8, device="cuda")
    source = torch.from_numpy(labels).cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # were the kernels elsewhere, they would read the zeros
        staged.copy_(source)
        maps = BACKEND.signed_distance(staged, [1], torch.ones(1, 3, dtype=torch.float64), None)
    stream.synchronize()
    assert np.array_equal(maps.cpu().numpy(), truth_of(labels))


def kernels_of(call: Callable[[], object]) -> list[str]:
    """What ran on the device, by name, copies and fills included."""
    call()  # compiles
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        call()
        torch.cuda.synchronize()
    return sorted(event.name for event in profile.events() if event.device_type == DeviceType.CUDA)


@pytest.mark.parametrize("classes", [None, 4])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"convention": "kervadec", "empty": "zero"},  # the boundary loss'
        {"convention": "plain", "empty": "zero", "max_distance": 9.0},
        {"convention": "midline", "empty": "max", "dtype": torch.float16},
    ],
)
def test_as_many_kernels_as_axes_and_nothing_else(unpoisoned_memory, settings, spatial_dims, classes) -> None:
    labels = torch.from_numpy(testing.shells((2, 33, 40, 41), classes=4)).cuda()
    labels = labels if spatial_dims == 3 else labels[:, 0]

    def call() -> torch.Tensor:
        return fastsdm.signed_distance(
            labels, classes=classes, spatial_dims=spatial_dims, backend="triton", **settings
        )

    assert kernels_of(call) == ["_scan_row_kernel"] + ["_search_axis_kernel"] * (spatial_dims - 1)


def test_scattered_classes_and_spacings_are_one_copy() -> None:
    labels = torch.from_numpy(testing.shells((2, 33, 40, 41), classes=4)).cuda()
    spacing = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    ran = kernels_of(
        lambda: fastsdm.signed_distance(labels, classes=[3, 1], spacing=spacing, backend="triton")
    )
    copies = [name for name in ran if name.startswith("Memcpy")]
    assert len(copies) == 1
    assert len(ran) == 4


#: A call with nothing on the device but kernels, and calls with a table.
SETTINGS = [
    {"classes": 3},
    {"classes": 3, "empty": "zero", "max_distance": 6.0},
    {"classes": 3, "spacing": torch.tensor([[1.0, 2.0, 3.0], [0.5, 1.0, 1.5]])},
    {"classes": [2, 0], "convention": "plain"},
]


def churn() -> None:
    """Take and give back pinned and device memory, filled with what would be noticed."""
    for size in (64, 256, 1024, 1 << 16):
        blocks = [torch.full((size,), -7.0).pin_memory() for _ in range(8)]
        held = [block.to("cuda", non_blocking=True) for block in blocks]
        del blocks, held


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_captured_graph_follows_its_labels(settings) -> None:
    batches = [
        np.stack(
            [testing.shells((20, 21, 22), classes=3), np.roll(testing.shells((20, 21, 22), classes=3), k, 0)]
        )
        for k in range(5)
    ]
    labels = torch.from_numpy(batches[0]).cuda()
    fastsdm.signed_distance(labels, backend="triton", **settings)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        maps = fastsdm.signed_distance(labels, backend="triton", **settings)
    for batch in batches:
        churn()
        labels.copy_(torch.from_numpy(batch))
        graph.replay()
        expected = fastsdm.signed_distance(torch.from_numpy(batch), backend="scipy", **settings)
        torch.testing.assert_close(maps.cpu(), expected, rtol=1e-6, atol=1e-6)


def test_two_threads_on_two_streams_with_their_own_spacings() -> None:
    labels = torch.from_numpy(np.stack([testing.shells((24, 25, 26), classes=3)] * 2))
    spacings = [torch.tensor([[1.0, 2.0, 3.0], [0.5, 1.0, 1.5]]) * factor for factor in (1.0, 3.0)]
    expected = [
        fastsdm.signed_distance(labels, classes=[2, 0], spacing=each, backend="scipy") for each in spacings
    ]
    on_device = labels.cuda()
    torch.cuda.synchronize()

    def work(which: int) -> list[torch.Tensor]:
        with torch.cuda.stream(torch.cuda.Stream()):
            maps = [
                fastsdm.signed_distance(on_device, classes=[2, 0], spacing=spacings[which], backend="triton")
                for _ in range(30)
            ]
            torch.cuda.current_stream().synchronize()
        return maps

    with ThreadPoolExecutor(2) as threads:
        for truth, maps in zip(expected, threads.map(work, (0, 1)), strict=True):
            for each in maps:
                torch.testing.assert_close(each.cpu(), truth, rtol=1e-6, atol=1e-6)


def test_memory_stays_flat_over_random_shapes() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(2, 40, 40, 40, dtype=torch.uint8, device="cuda")

    def call(shape: list[int]) -> None:
        fastsdm.signed_distance(labels[:, : shape[0], : shape[1], : shape[2]].contiguous(), backend="triton")

    call([40, 40, 40])
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(200):
        call(torch.randint(1, 41, (3,), generator=generator).tolist())
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


def test_labels_that_start_anywhere_in_memory() -> None:
    labels = testing.blobs((20, 21, 22), sigma=3)[None]
    for shift in (1, 2, 8, 16):
        buffer = torch.zeros(labels.size + shift, dtype=torch.uint8, device="cuda")
        shifted = buffer[shift:].view(labels.shape)
        shifted.copy_(torch.from_numpy(labels))
        maps = BACKEND.signed_distance(shifted, [1], torch.ones(1, 3, dtype=torch.float64), None)
        assert np.array_equal(maps.cpu().numpy(), truth_of(labels))


@pytest.mark.slow
def test_more_voxels_than_32_bits_address() -> None:
    # One voxel near the end of each of two classes' maps, whose distances are known without an oracle.
    shape = (1100, 1024, 1024)
    if torch.cuda.mem_get_info()[0] < 3 * 8 * math.prod(shape):
        pytest.skip("needs 28 GB of free device memory")
    labels = torch.zeros((1, *shape), dtype=torch.uint8, device="cuda")
    seeds = ((1090, 1000, 1010), (3, 1020, 7))
    for value, seed in enumerate(seeds, start=1):
        labels[(0, *seed)] = value
    maps = BACKEND.signed_distance(labels, [1, 2], torch.ones(1, 3, dtype=torch.float64), None)[0]
    for class_map, seed in zip(maps, seeds, strict=True):
        assert class_map[seed] == -1
        for corner in ((0, 0, 0), (1099, 1023, 1023), (1099, 0, 1023), (550, 512, 512)):
            expected = np.float32(math.dist(corner, seed))
            assert abs(float(class_map[corner]) - expected) <= 2.4e-7 * expected


def test_a_device_that_is_not_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two devices")
    labels = testing.blobs((30, 31, 32), sigma=3)[None]
    maps = on_gpu(labels, "cuda:1")
    assert maps.device == torch.device("cuda", 1)
    assert torch.cuda.current_device() == 0
    assert np.array_equal(maps.cpu().numpy(), truth_of(labels))
