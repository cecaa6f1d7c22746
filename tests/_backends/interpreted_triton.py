"""The Triton kernels under Triton's interpreter; `test_triton.py` runs this file with TRITON_INTERPRET=1.

Not collected by itself: the variable counts when the kernels are first imported, and the same process
compiles them for real elsewhere.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import mmap

import numpy as np
import pytest
import torch

from fastsdm import testing
from fastsdm._backends import triton_launcher

UNIT = (1.0, 1.0, 1.0)
# Tiles as on hardware; the shapes below leave a part of each unfilled.
GPU_TILES = {"nvidia": triton_launcher.NVIDIA, "amd": triton_launcher.AMD}


def plain_map(
    labels: np.ndarray, classes: tuple[int, ...], spacing: np.ndarray, max_distance: float | None = None
) -> np.ndarray:
    return triton_launcher.BACKEND.signed_distance(
        torch.from_numpy(labels), classes, torch.from_numpy(spacing), max_distance
    ).numpy()


@pytest.mark.parametrize("tiles", GPU_TILES)
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((5, 67), (1.0, 1.0)),  # three words and three column tiles, the last of each part full
        ((66, 35), (2.5, 0.4)),  # two segments, the second of two rows
        ((131, 3), (1.0, 1.0)),  # longer coarse steps
        ((3, 4, 5), UNIT),
        ((2, 65, 3), (0.7, 1.3, 2.0)),  # two segments along the second axis
        ((65, 2, 3), (2.0, 1.0, 1.0)),  # and along the first
    ],
)
def test_tiles_of_the_gpu(monkeypatch, tiles, shape, spacing) -> None:
    monkeypatch.setattr(triton_launcher, "_tiles", lambda device: GPU_TILES[tiles])
    labels = testing.noise(shape, fraction=0.04)[None]
    spacings = np.array([spacing])
    truth = testing.reference_signed_distance(labels, (1,), spacings)
    result = testing.agreement(plain_map(labels, (1,), spacings), truth, spacings, testing.EXACT)
    assert result.passed, result


@pytest.mark.parametrize("tiles", GPU_TILES)
def test_no_voxel_of_either_phase_is_far(monkeypatch, tiles) -> None:
    monkeypatch.setattr(triton_launcher, "_tiles", lambda device: GPU_TILES[tiles])
    labels = testing.checkerboard((5, 35))[None].astype(np.uint8)
    truth = np.where(labels > 0, -1, 1)[:, None]
    assert np.array_equal(plain_map(labels, (1,), np.ones((1, 2))), truth)


@pytest.mark.parametrize(
    ("shape", "spacing", "limit"),
    [((120, 40), (0.4, 2.5), None), ((120, 40), (0.4, 2.5), 20.0), ((120, 2, 40), (0.4, 2.5, 2.5), None)],
)
def test_nearest_voxel_in_another_segment(shape, spacing, limit) -> None:
    """It is closer than the one in the row, or the only one, but far from the end of the segment."""
    mask = np.zeros(shape, np.uint8)
    mask[..., 0] = 1
    mask[104, ..., 30] = 1
    alone = np.zeros(shape, np.uint8)
    alone[104, ..., 30] = 1
    labels = np.stack([mask, mask[::-1], alone])
    spacings = np.array([spacing, np.ones(len(shape)), np.ones(len(shape))])
    truth = testing.reference_signed_distance(labels, (1,), spacings)
    maps = plain_map(labels, (1,), spacings, limit)
    assert np.isfinite(maps).all()
    if limit is not None:
        maps, truth = np.clip(maps, -limit, limit), np.clip(truth, -limit, limit)
    result = testing.agreement(maps, truth, spacings, testing.EXACT)
    assert result.passed, result


def test_rows_too_long_for_half_precision() -> None:
    labels = testing.one_voxel((2, 2300))[None]
    labels[0, :, 0] = 0
    maps = plain_map(labels, (1,), np.ones((1, 2)))
    truth = testing.reference_signed_distance(labels, (1,), np.ones((1, 2)))
    assert np.array_equal(maps, truth.astype(np.float32))


def test_wide_class_values() -> None:
    labels = np.where(testing.noise((4, 5, 6)), 2**40, 2**40 + 2**33)[None]
    maps = plain_map(labels, (2**40, 0), np.ones((1, 3)))
    truth = testing.reference_signed_distance(labels, (2**40, 0), np.ones((1, 3)))
    assert np.array_equal(maps, truth.astype(np.float32))
    # A value beyond the labels' own type is absent, it does not wrap round to one that is there.
    narrow = np.ones((1, 4, 5, 6), np.uint8)
    assert (plain_map(narrow, (257, 2**32 + 1), np.ones((1, 3))) == np.inf).all()


@pytest.mark.parametrize("at_end", [False, True], ids=["at the start", "at the end"])
@pytest.mark.parametrize(
    ("shape", "tiles"),
    [((35, 33), "nvidia"), ((66, 3), "nvidia"), ((3, 5, 7), "nvidia"), ((3, 5, 7), "amd")],
)
def test_every_pass_stays_within_its_fields(shape, tiles, at_end) -> None:
    """What a pass reads and writes lies at a fence: a step across ends the process."""
    samples, classes = 2, (1, 2)
    labels = testing.shells(shape, classes=3, thickness=2.0).astype(np.uint8)
    batch = torch.from_numpy(np.stack([labels, np.roll(labels, 1, axis=-1)]))
    launches = triton_launcher.passes(batch.shape, batch.dtype, len(classes), GPU_TILES[tiles])
    tables = triton_launcher._axis_tables(torch.ones(samples, len(shape), dtype=torch.float64), None)
    extras = [torch.tensor(classes, dtype=torch.int32), *tables]

    source = fenced(batch, at_end)
    for launch, extra in zip(launches, extras, strict=True):
        target = fenced(torch.full((launch.target_items,), torch.nan, dtype=launch.target_dtype), at_end)
        triton_launcher._launch(launch, source, extra, target)
        source = target
    truth = testing.reference_signed_distance(batch.numpy(), classes, np.ones((samples, len(shape))))
    assert np.array_equal(source.numpy(), truth.astype(np.float32).ravel())


def fenced(tensor: torch.Tensor, at_end: bool) -> torch.Tensor:
    """A flat copy that starts right behind a page that nobody may touch, or ends right before one."""
    page, size = mmap.PAGESIZE, tensor.nbytes
    room = math.ceil(size / page) * page
    memory = mmap.mmap(-1, page + room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for fence in (start, start + page + room):
        no_access = 0
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(fence), page, no_access) == 0
    offset = page + (room - size if at_end else 0)
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
    return copy.copy_(tensor.flatten())


def test_max_distance_ends_the_search() -> None:
    """Where no row of a segment has a voxel within the limit, one more row is read and none is compared."""
    length, limit, far = 400, 5, 200.0
    (launch,) = triton_launcher.passes((1, length, 2), torch.uint8, 1)[1:]
    (table,) = triton_launcher._axis_tables(torch.ones(1, 2, dtype=torch.float64), limit)
    segment = 8 * launch.constants["STEP"]
    rows = segment + limit + 1
    field = fenced(torch.full((rows, 2), far, dtype=launch.source_dtype), at_end=True)
    maps = torch.full((segment, 2), torch.nan)
    triton_launcher._launch(dataclasses.replace(launch, grid=1), field, table, maps)
    assert maps[0, 0] == far
    assert maps[100, 0] == np.float32(math.hypot(far, 100))


@pytest.mark.parametrize(
    ("column", "limit"),
    [
        pytest.param([5.0] * 4, 5.5, id="a source in every row"),
        pytest.param([math.inf] * 10 + [-1.0] + [math.inf] * 39 + [-1.0] + [math.inf] * 13, 5.0, id="two"),
    ],
)
def test_max_distance_ends_no_search_too_early(column, limit) -> None:
    """A single column: beside others a wrong one would look as far as they do."""
    (launch,) = triton_launcher.passes((1, len(column), 1), torch.uint8, 1)[1:]
    (table,) = triton_launcher._axis_tables(torch.ones(1, 2, dtype=torch.float64), limit)
    maps = torch.full((len(column), 1), torch.nan)
    triton_launcher._launch(launch, torch.tensor(column, dtype=launch.source_dtype)[:, None], table, maps)
    row, outside = np.arange(len(column)), np.array(column) > 0
    gaps = (row[:, None] - row) ** 2.0
    d_out = np.sqrt((np.where(outside, column, 0.0) ** 2 + gaps).min(axis=1))
    expected = np.where(outside, np.minimum(d_out, limit), -1.0)
    assert np.array_equal(np.minimum(maps[:, 0].numpy(), limit), expected.astype(np.float32))
