"""Maps of chunked volumes equal those made in memory, for chunks of any shape, and need less memory."""

from __future__ import annotations

import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastsdm
from fastsdm import testing
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
import resource, sys
import dask, dask.array as da, numpy as np
import fastsdm
from fastsdm.integrations.dask import signed_distance

size, chunk, folder, limit = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]) or None
labels = da.from_array(np.load(folder + "/labels.npy", mmap_mode="r"), chunk)
maps = signed_distance(labels, classes=4, max_distance=limit)
out = np.lib.format.open_memmap(folder + "/maps.npy", "w+", np.float32, maps.shape)
# What the libraries need does not count.
signed_distance(da.zeros((8, 8, 8), chunks=4, dtype=np.uint8), classes=2).compute()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range(len(maps)):
    with dask.config.set(scheduler="threads", num_workers=2):
        da.store(maps[number], out[number], lock=False)
    out.flush()
    # The file's pages are the system's to drop; they must not count as the computation's memory.
    out._mmap.madvise(4)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts resident memory as Linux does")
@pytest.mark.parametrize("limit", [0, 12])
def test_memory_stays_below_the_map(tmp_path, limit: int) -> None:
    labels = testing.shells((160, 160, 160), classes=4, thickness=9).astype(np.uint8)
    np.save(tmp_path / "labels.npy", labels)
    run = [sys.executable, "-c", _MEMORY, "160", "48", str(tmp_path), str(limit)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    maps = np.load(tmp_path / "maps.npy", mmap_mode="r")
    assert int(done.stdout) < maps.nbytes
    expected = fastsdm.signed_distance(labels, classes=4, max_distance=limit or None)
    assert np.array_equal(maps, expected)


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
