"""Maps of chunked volumes equal those made in memory, for chunks of any shape, and need less memory."""

from __future__ import annotations

import math
import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastsdm
from fastsdm import testing
from fastsdm.integrations import _passes
from fastsdm.integrations import dask as chunked_maps
from fastsdm.integrations.dask import signed_distance


@st.composite
def chunked(draw):
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(1, 20)) for _ in range(ndim))
    chunks = tuple(draw(st.integers(1, n)) for n in shape)
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shares = draw(st.sampled_from([(0.97, 0.02, 0.01), (0.4, 0.3, 0.3), (1.0, 0.0, 0.0)]))
    dtype = draw(st.sampled_from([np.uint8, np.int32]))
    values = [0 if dtype == np.uint8 else draw(st.sampled_from([0, -1])), 1, 2]  # -1 is outside of a mask
    labels = rng.choice(values, size=shape, p=shares).astype(dtype)
    return labels, chunks, draw(st.sampled_from([1.0, (3.0, 0.8, 0.7)[:ndim], (2.0, 1.0, 1.0)[:ndim]]))


@settings(deadline=None, max_examples=60)
@given(
    chunked(),
    st.sampled_from([None, 0.9, 4.0, 50.0]),
    st.sampled_from([None, 2]),
    st.sampled_from([None, 2, [2, 0]]),
    st.sampled_from(["kervadec", "plain", "midline"]),
)
def test_chunked_maps_are_those_made_in_memory(case, limit, ignore_index, classes, convention) -> None:
    labels, chunks, spacing = case
    options = {
        "classes": classes,
        "spacing": spacing,
        "convention": convention,
        "max_distance": limit,
        "ignore_index": ignore_index,
    }
    lazy = signed_distance(da.from_array(labels, chunks), **options)
    expected = fastsdm.signed_distance(labels, spatial_dims=labels.ndim, **options)
    assert lazy.shape == expected.shape
    got = lazy.compute(scheduler="synchronous")
    assert got.dtype == np.float32
    if isinstance(spacing, float) and limit is None:
        assert np.array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=2.4e-7)


@pytest.mark.parametrize("ignore_index", [None, 2])
def test_volumes_of_many_slabs_and_columns(monkeypatch: pytest.MonkeyPatch, ignore_index: int | None) -> None:
    """Blocks far smaller than a plane: every axis is passed alone, and every block worked on in pieces."""
    labels = testing.shells((23, 18, 27), classes=3, thickness=3).astype(np.uint8)
    expected = fastsdm.signed_distance(labels, classes=3, ignore_index=ignore_index, spacing=(2.0, 1.0, 0.5))
    for largest_slab in (1, _passes.LARGEST_SLAB):
        monkeypatch.setattr(_passes, "LARGEST_SLAB", largest_slab)
        monkeypatch.setattr(_passes, "_PIECE", 60)
        monkeypatch.setattr(chunked_maps, "_BLOCK", 200)
        lazy = signed_distance(
            da.from_array(labels, (7, 5, 6)), classes=3, ignore_index=ignore_index, spacing=(2.0, 1.0, 0.5)
        )
        np.testing.assert_allclose(lazy.compute(scheduler="synchronous"), expected, rtol=2.4e-7)


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=2, max_size=3),
    st.integers(1, 400),
    st.data(),
)
def test_blocks_are_whole_along_their_axes_and_small_along_the_others(sizes, voxels: int, data) -> None:
    chunks = tuple(map(tuple, sizes))
    axes = data.draw(st.sets(st.integers(0, len(chunks) - 1), min_size=1, max_size=len(chunks) - 1))
    new = _passes.cut(chunks, tuple(axes), voxels)
    assert [sum(part) for part in new] == [sum(part) for part in chunks]
    for axis, (old, got) in enumerate(zip(chunks, new, strict=True)):
        if axis in axes:
            assert len(got) == 1
        else:
            assert set(np.cumsum(old)) <= set(np.cumsum(got))
            assert min(got) > 0
    largest = math.prod(map(max, new))
    assert largest <= voxels or all(max(new[axis]) == 1 for axis in range(len(new)) if axis not in axes)


def test_half_precision() -> None:
    labels = testing.blobs((12, 13, 14), sigma=2)
    for limit in (None, 3.0):
        got = signed_distance(da.from_array(labels, 5), classes=2, max_distance=limit, dtype="float16")
        assert got.dtype == got.compute().dtype == np.float16
        expected = fastsdm.signed_distance(labels, classes=2, max_distance=limit, dtype="float16")
        assert np.array_equal(got.compute(), expected)


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    def refuse(block):
        raise AssertionError("computed")

    lazy = da.from_array(np.zeros((8, 8, 8), np.uint8), 4).map_blocks(
        refuse, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    for limit in (None, 2.0):
        maps = signed_distance(lazy, classes=2, max_distance=limit)
        assert maps.chunks == ((1, 1), (4, 4), (4, 4), (4, 4))


_MEMORY = """
import sys
from pathlib import Path

import dask, dask.array as da
from fastsdm.integrations.dask import signed_distance

folder, limit = sys.argv[1], float(sys.argv[2]) or None
maps = signed_distance(da.from_zarr(folder + "/labels.zarr"), classes=6, max_distance=limit)
with dask.config.set(scheduler="threads", num_workers=2):
    maps.to_zarr(folder + "/maps.zarr")
# ru_maxrss would count the process that started this one.
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts resident memory as Linux does")
@pytest.mark.parametrize("limit", [0, 12])
def test_memory_stays_below_the_map(tmp_path, limit: int) -> None:
    """The whole process, libraries and all, needs less than the map of all classes."""
    zarr = pytest.importorskip("zarr")
    labels = testing.shells((320, 320, 320), classes=6, thickness=9).astype(np.uint8)
    stored = zarr.create_array(tmp_path / "labels.zarr", shape=labels.shape, chunks=(96,) * 3, dtype="u1")
    stored[:] = labels
    run = [sys.executable, "-c", _MEMORY, str(tmp_path), str(limit)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    maps = zarr.open_array(tmp_path / "maps.zarr", mode="r")
    assert maps.dtype == np.float32
    assert int(done.stdout) < maps.nbytes
    for value in range(6):
        expected = fastsdm.signed_distance(labels, classes=[value], max_distance=limit or None)[0]
        for start in range(0, 320, 96):
            part = slice(start, start + 96)
            assert np.array_equal(maps[value, part], expected[part]), (value, start)


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        (np.zeros((4, 4)), {}, TypeError, "labels: must be a dask array, got ndarray"),
        (da.zeros((4,)), {}, ValueError, r"labels: must have 2 or 3 axes, got shape \(4,\)"),
        (da.zeros((4, 4)), {}, TypeError, "labels: must hold booleans or integers, got dtype float64"),
        (
            da.zeros((4, 4), dtype=int),
            {"spacing": (1, 2, 3)},
            ValueError,
            "spacing: must be a number or 2 numbers",
        ),
        (
            da.zeros((4, 4), dtype=int),
            {"spacing": 0},
            ValueError,
            "spacing: must be positive and finite, got 0",
        ),
        (da.zeros((4, 4), dtype=int), {"max_distance": -1}, ValueError, "max_distance: must be positive"),
        (da.zeros((4, 4), dtype=int), {"dtype": "int8"}, ValueError, "dtype: must be one of"),
        (da.zeros((4, 4), dtype=int), {"ignore_index": True}, TypeError, "ignore_index: must be an integer"),
        (da.zeros((4, 4), dtype=int), {"classes": 0}, ValueError, "classes: must be at least 1"),
    ],
)
def test_refusals(labels, options, error, message) -> None:
    with pytest.raises(error, match=message):
        signed_distance(labels, **{"classes": 2, **options})
