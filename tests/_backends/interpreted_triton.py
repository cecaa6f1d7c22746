"""The Triton kernels under Triton's interpreter; `test_triton.py` runs this file with TRITON_INTERPRET=1.

Not collected by itself: the variable counts when the kernels are first imported, and the same process
compiles them for real elsewhere.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import math
import mmap

import numpy as np
import pytest
import torch

from fastsdm import _conventions, testing
from fastsdm._backends import triton_launcher, triton_passes
from fastsdm._backends.contract import Finish

UNIT = (1.0, 1.0, 1.0)
#: Of a search at unit spacing without limit, that neither shifts nor fills.
PLAIN_NUMBERS = (1.0, math.inf, 1.0, 0.0, 0.0, math.inf)
# Tiles as on hardware; the shapes below leave a part of each unfilled.
GPU_TILES = {"nvidia": triton_passes.NVIDIA, "amd": triton_passes.AMD}


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
        ((131, 3), (1.0, 1.0)),  # three segments
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


SHAPE = {2: (7, 20), 3: (4, 5, 12)}
REGION = {2: ((3, 5), (4, 13)), 3: ((1, 2, 3), (2, 3, 8))}
SPACING = {2: ((0.7, 1.3), (1.0, 1.0)), 3: ((0.7, 1.3, 2.0), (1.0, 1.0, 1.0))}
#: Scattered values, one of them absent.
SCATTERED = (2, 9)


def batch_of_labels(ndim: int) -> np.ndarray:
    """A sample with three labels, one that label 0 fills."""
    labels = testing.shells(SHAPE[ndim], classes=3, thickness=2.0)
    return np.stack([labels, np.zeros_like(labels)])


def finished(labels, classes, spacing, limit, how: Finish, region, dtype=torch.float32) -> torch.Tensor:
    start, size = region or ([0] * (labels.ndim - 1), labels.shape[1:])
    maps = triton_launcher.BACKEND.finished_region(
        torch.as_tensor(labels), classes, spacing, limit, how, start, size, dtype
    )
    assert maps.dtype == dtype
    assert maps.is_contiguous()
    return maps


def cropped(maps: torch.Tensor, region) -> torch.Tensor:
    start, size = region
    return maps[(..., *(slice(a, a + n) for a, n in zip(start, size, strict=True)))]


@pytest.mark.parametrize("limit", [None, 2.5])
@pytest.mark.parametrize("empty", ["inf", "zero", "max"])
@pytest.mark.parametrize("convention", ["kervadec", "kervadec-literal", "plain", "midline"])
def test_the_last_pass_finishes(convention, empty, limit) -> None:
    """Bit for bit what is made of its plain map, which scipy's bounds to rounding."""
    for ndim, spacing, classes, region in (
        (2, SPACING[2], SCATTERED, REGION[2]),
        (2, SPACING[2][:1], (0, 1, 2), None),
        (3, SPACING[3], SCATTERED, REGION[3]),
        (3, SPACING[3][:1], (0, 1), None),
    ):
        labels = batch_of_labels(ndim)
        how = _conventions.finish(convention, empty, spacing, SHAPE[ndim], limit)
        reach = _conventions.search_limit(convention, spacing, limit)
        got = finished(labels, classes, spacing, reach, how, region)
        plain, truth = maps_of_the_batch(ndim, classes, spacing, reach)
        expected = _conventions.apply_(plain.clone(), how)
        assert torch.equal(got, expected if region is None else cropped(expected, region))
        assert not (torch.signbit(got) & (got == 0)).any(), "a zero reads +0"
        truth = _conventions.apply_(truth.clone(), how)
        truth = truth if region is None else cropped(truth, region)
        torch.testing.assert_close(got, truth, rtol=1e-6, atol=1e-6)


@functools.cache
def maps_of_the_batch(ndim, classes, spacing, reach) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernels' plain maps, and scipy's."""
    labels = batch_of_labels(ndim)
    spacings = np.array([spacing[i % len(spacing)] for i in range(2)])
    truth = testing.reference_signed_distance(labels, classes, spacings).astype(np.float32)
    return torch.from_numpy(plain_map(labels, classes, spacings, reach)), torch.from_numpy(truth)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_the_last_pass_writes_the_result_type(ndim, dtype) -> None:
    labels, spacing = batch_of_labels(ndim), SPACING[ndim]
    how = _conventions.finish("kervadec", "zero", spacing, SHAPE[ndim], None)
    for region in (None, REGION[ndim]):
        got = finished(labels, (1,), spacing, None, how, region, dtype)
        expected = finished(labels, (1,), spacing, None, how, region)
        if dtype == torch.bfloat16:  # the interpreter cuts bits off; test_triton_compile.py asks the compiler
            torch.testing.assert_close(got.float(), expected, rtol=2**-7, atol=0)
        else:
            assert torch.equal(got, expected.to(dtype))


@pytest.mark.parametrize("spacing", [(3.0, 1.3, 0.3), (2.1, 1.9, 0.6), (3.0, 1.1, 0.1)])
def test_the_shift_leaves_no_residue(spacing) -> None:
    """A distance along the last axis went through two ratios: it is not quite the voxel size."""
    labels = np.zeros((1, 3, 4, 6), np.uint8)
    labels[..., ::2] = 1
    how = _conventions.finish("kervadec", "inf", (spacing,), labels.shape[1:], None)
    inside = torch.from_numpy(labels[:, None] > 0)
    plain = torch.from_numpy(plain_map(labels, (1,), np.array([spacing])))
    assert (plain[inside] != -np.float32(spacing[-1])).all(), "nothing to round"
    assert (finished(labels, (1,), (spacing,), None, how, None)[inside] == 0).all()


def test_empty_region_and_one_outside_the_volume() -> None:
    how = _conventions.finish("plain", "inf", (UNIT,), SHAPE[3], None)
    assert finished(batch_of_labels(3), (1,), (UNIT,), None, how, ((1, 2, 3), (2, 0, 3))).shape == (
        2,
        1,
        2,
        0,
        3,
    )
    for region in (((0, 0, 1), (4, 5, 12)), ((-1, 0, 0), (2, 2, 2))):
        with pytest.raises(ValueError, match="region: must lie inside the volume"):
            finished(batch_of_labels(3), (1,), (UNIT,), None, how, region)


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
    start, size = [1] * len(shape), [n - 1 for n in shape]
    launches = triton_passes.passes(
        tuple(batch.shape), batch.dtype, len(classes), GPU_TILES[tiles], tuple(start), tuple(size)
    )
    fields = [
        torch.full(shape_of, torch.nan, dtype=launch.target_dtype)
        for launch, shape_of in zip(launches, field_shapes(samples, len(classes), shape, size), strict=True)
    ]
    source, *targets = [fenced(field, at_end) for field in (batch, *fields)]
    table = fenced(torch.tensor(classes, dtype=torch.int64).view(torch.float32), at_end)
    triton_launcher._launch(launches[0], source, table, targets[0], 1, 0)
    for launch, source, target in zip(launches[1:], targets[:-1], targets[1:], strict=True):
        triton_launcher._launch(launch, source, table, target, *PLAIN_NUMBERS, math.inf, -1)
    truth = testing.reference_signed_distance(batch.numpy(), classes, np.ones((samples, len(shape))))
    region = truth[(..., *(slice(1, None) for _ in shape))]
    assert np.array_equal(targets[-1].numpy(), region.astype(np.float32).ravel())


def field_shapes(samples, classes, shape, size):
    """Of what each pass writes: the whole field, but the last one its region only."""
    whole = (samples, classes, *shape)
    return [whole] * (len(shape) - 1) + [(samples, classes, *size)]


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
    length, limit, far = 400, 5.0, 200.0
    (launch,) = triton_passes.passes((1, length, 2), torch.uint8, 1)[1:]
    segment = 8 * launch.constants["STEP"]
    rows = int(segment + limit + 1)
    field = fenced(torch.full((rows, 2), far, dtype=launch.source_dtype), at_end=True)
    maps = torch.full((segment, 2), torch.nan)
    search(dataclasses.replace(launch, grid=1), field, maps, limit)
    assert maps[0, 0] == far
    assert maps[50, 0] == np.float32(math.hypot(far, 50))


def search(launch: triton_passes.Pass, field: torch.Tensor, maps: torch.Tensor, limit: float) -> None:
    ratio, _, *others = PLAIN_NUMBERS
    triton_launcher._launch(launch, field, field, maps, ratio, limit, *others, math.inf, -1)


@pytest.mark.parametrize(
    ("column", "limit"),
    [
        pytest.param([5.0] * 4, 5.5, id="a source in every row"),
        pytest.param([math.inf] * 10 + [-1.0] + [math.inf] * 39 + [-1.0] + [math.inf] * 13, 5.0, id="two"),
    ],
)
def test_max_distance_ends_no_search_too_early(column, limit) -> None:
    """A single column: beside others a wrong one would look as far as they do."""
    (launch,) = triton_passes.passes((1, len(column), 1), torch.uint8, 1)[1:]
    maps = torch.full((len(column), 1), torch.nan)
    search(launch, torch.tensor(column, dtype=launch.source_dtype)[:, None], maps, limit)
    row, outside = np.arange(len(column)), np.array(column) > 0
    gaps = (row[:, None] - row) ** 2.0
    d_out = np.sqrt((np.where(outside, column, 0.0) ** 2 + gaps).min(axis=1))
    expected = np.where(outside, np.minimum(d_out, limit), -1.0)
    assert np.array_equal(np.minimum(maps[:, 0].numpy(), limit), expected.astype(np.float32))
