"""What the C++ kernel has and no other backend: instruction sets, 16-bit lanes, threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsdm import testing
from fastsdm._backends import _native_ext
from fastsdm._backends.contract import PLAIN
from fastsdm._backends.native import BACKEND

ISAS = _native_ext.isas()
# Around 4, 8, 16 and 32 lanes, blocks of 8 rows and tiles of 64 columns.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]


def native_map(labels, classes=(1,), spacing=(1.0, 1.0, 1.0), max_distance=None, **options) -> np.ndarray:
    labels, rows = torch.as_tensor(labels), tuple(map(tuple, np.atleast_2d(spacing)))
    whole = [0] * (labels.ndim - 1), labels.shape[1:]
    return BACKEND.finished_region(
        labels, classes, rows, max_distance, PLAIN, *whole, torch.float32, **options
    ).numpy()


def reference(labels, classes=(1,), spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    rows = np.broadcast_to(np.asarray(spacing, np.float64), (len(labels), len(spacing)))
    return testing.reference_signed_distance(np.asarray(labels), classes, rows)


def assert_agrees(labels, classes=(1,), spacing=(1.0, 1.0, 1.0), **options) -> None:
    got, truth = native_map(labels, classes, spacing, **options), reference(labels, classes, spacing)
    # At unit spacing squares are exact, so only the root is rounded, and rightly.
    rtol = 0 if set(spacing) == {1.0} else testing.ROUNDING
    np.testing.assert_allclose(got, truth.astype(np.float32), rtol=rtol, atol=0)


def test_the_best_instruction_set_is_first_and_the_baseline_last() -> None:
    assert ISAS[-1] == "baseline"
    order = ["avx512", "avx2", "baseline"]
    assert sorted(ISAS, key=order.index) == ISAS


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_instruction_set(isa, data) -> None:
    # Two axes of these sizes and a short one: all combinations of remainders, still small.
    shape = data.draw(st.permutations([*data.draw(st.tuples(*[st.sampled_from(SIZES)] * 2)), 6]))
    fraction = data.draw(st.sampled_from([0.5, 0.1, 0.005]))
    labels = testing.noise(shape, fraction=fraction, seed=data.draw(st.integers(0, 1000)))[None]
    spacing = data.draw(st.sampled_from([(1.0, 1.0, 1.0), (2.0, 3.0, 1.0), (1.3, 0.7, 2.1), (1.0, 0.7, 1.0)]))
    assert_agrees(labels, (0, 1), spacing, isa=isa, threads=data.draw(st.sampled_from([1, 3])))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("phantom", [testing.checkerboard, testing.one_voxel, testing.blobs])
def test_phantoms_on_every_instruction_set(isa, phantom) -> None:
    labels = phantom((40, 50, 70)).astype(np.uint8)[None]
    assert_agrees(labels, isa=isa)
    assert_agrees(labels, spacing=(2.5, 1.0, 0.4), isa=isa)


def test_instruction_sets_give_the_same_bits() -> None:
    labels = testing.shells((33, 47, 70), classes=3)[None]
    for spacing in ((1.0, 1.0, 1.0), (2.5, 0.9, 0.7)):
        maps = [native_map(labels, (0, 1, 2), spacing, isa=isa) for isa in ISAS]
        for other in maps[1:]:
            assert np.array_equal(maps[0], other)


# 16-bit lanes hold squares below 32767: 181 steps fit, 182 do not.
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [181, 182, 183, 300])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_distances_beyond_16_bit_lanes(isa, size, axis) -> None:
    shape = [3, 3, 20]
    shape[axis] = size
    for labels in (np.zeros((1, *shape), np.uint8), np.ones((1, *shape), np.uint8)):
        labels[0, 0, 0, 0] = 1 - labels[0, 0, 0, 0]
        assert_agrees(labels, isa=isa)
        assert_agrees(labels, spacing=(2.0, 2.0, 1.0), isa=isa)


def test_near_and_far_tiles_side_by_side() -> None:
    # Half the columns end within 16-bit lanes and half beyond: threads go back and forth between them.
    labels = np.zeros((1, 200, 6, 200), np.uint8)
    labels[0, :, 2, ::80] = 1
    labels[0, 5:, :, 100:] = 0
    assert_agrees(labels, threads=1)
    assert_agrees(labels, threads=2)


@pytest.mark.parametrize("threads", [1, 2, 3, 16, 1000])
def test_threads_change_nothing(threads) -> None:
    labels = testing.shells((37, 40, 50), classes=4)[None].repeat(2, axis=0)
    expected = native_map(labels, (0, 1, 2, 3), threads=1)
    assert np.array_equal(native_map(labels, (0, 1, 2, 3), threads=threads), expected)


@pytest.mark.parametrize("started", [0, 1, 5])
def test_no_memory_to_start_a_thread(started) -> None:
    """An exception beside running threads would end the process; the threads there are do all the work."""
    labels = testing.shells((60, 60, 70), classes=4)[None]
    expected = native_map(labels, (0, 1, 2, 3), threads=1)
    _native_ext.fail_thread_after(started)
    try:
        got = native_map(labels, (0, 1, 2, 3), threads=8)
    finally:
        _native_ext.fail_thread_after(-1)
    assert np.array_equal(got, expected)


@pytest.mark.skipif(
    sys.platform != "linux" or "ASAN_OPTIONS" in os.environ,
    reason="other systems do not limit the address space, and AddressSanitizer needs terabytes of it",
)
def test_no_address_space_for_threads() -> None:
    """In a process of its own, with room for the map but for no thread's stack."""
    script = """
import resource, numpy as np
from fastsdm import testing
from fastsdm._backends import _native_ext
labels = testing.shells((1, 60, 60, 70), classes=4).astype(np.uint8)
maps = np.zeros((1, 1, 60, 60, 70), np.float32)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 20), used + (4 << 20)))
_native_ext.signed_distance(
    labels, [(1, 0)], np.ones((1, 3)), np.inf, maps, shifts=(0.0,), both_sides=False, missing=(np.inf,),
    limit=np.inf, first=(0, 0, 0), threads=8,
)
print(int((maps != 0).all()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("limit", [0.3, 1.0, 2.5, 7.0, 1e30, 1e300])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.9, 0.7)])
def test_search_stops_at_max_distance(isa, limit, spacing) -> None:
    labels = testing.noise((20, 21, 40), fraction=0.002, seed=3)[None]
    got, truth = native_map(labels, (1,), spacing, limit, isa=isa), reference(labels, (1,), spacing)
    assert np.isfinite(got).all()
    top = min(limit, float(np.finfo(np.float32).max))
    np.testing.assert_allclose(got.clip(-top, top), truth.clip(-top, top), rtol=testing.ROUNDING)
    if limit < 10:
        assert np.abs(got).max() <= np.float32(limit), "nothing was cut"


@pytest.mark.parametrize("limit", [None, 2.0])
def test_empty_classes_are_infinite_whatever_the_limit(limit) -> None:
    labels = torch.full((1, 5, 6, 70), 3, dtype=torch.uint8)
    maps = native_map(labels, (3, 1, 300, -1), max_distance=limit)
    assert (maps[:, 0] == -np.inf).all()
    assert (maps[:, 1:] == np.inf).all()


def test_class_values_do_not_wrap_around() -> None:
    labels = torch.from_numpy(testing.noise((6, 7, 8)))[None].to(torch.int8) * 44  # 300 modulo 256
    assert (native_map(labels, (300,)) == np.inf).all()


def test_any_byte_but_zero_is_true() -> None:
    mask = torch.from_numpy(testing.noise((6, 7, 20)))[None]
    odd_bytes = (mask.to(torch.uint8) * 2).view(torch.bool)
    assert np.array_equal(native_map(odd_bytes, (0, 1)), native_map(mask, (0, 1)))


def test_unit_of_spacing_is_neither_lost_nor_overflows() -> None:
    labels = testing.noise((8, 9, 20), fraction=0.05)[None]
    for unit in (1e-25, 1e25):
        np.testing.assert_allclose(
            native_map(labels, spacing=(unit,) * 3), native_map(labels) * np.float32(unit), rtol=1e-6
        )


def test_a_map_that_cannot_fit_raises_memory_error() -> None:
    with pytest.raises(MemoryError):
        native_map(torch.zeros(1, 256, 256, 256, dtype=torch.uint8), [1] * 10**6)


def test_unknown_instruction_set() -> None:
    with pytest.raises(ValueError, match=r"isa: must be one of isas\(\); got 'mmx'"):
        native_map(np.zeros((1, 2, 2, 2), np.uint8), isa="mmx")


def test_extension_refuses_shapes_that_disagree() -> None:
    labels, spacing = np.zeros((1, 2, 3, 4), np.uint8), np.ones((1, 3))
    for shape in ((1, 1, 2, 3, 5), (2, 1, 2, 3, 4), (1, 2, 2, 3, 4)):
        with pytest.raises(ValueError, match="per sample: shapes must agree"):
            _native_ext.signed_distance(
                labels,
                [(1, 0)],
                spacing,
                np.inf,
                np.empty(shape, np.float32),
                shifts=(0.0,),
                both_sides=False,
                missing=(np.inf,),
                limit=np.inf,
                first=(0, 0, 0),
                threads=1,
            )


def test_unavailable_says_what_to_do(monkeypatch) -> None:
    assert BACKEND.unavailable(torch.device("cpu")) is None
    assert "move it with .cpu()" in BACKEND.unavailable(torch.device("meta"))
    monkeypatch.setitem(sys.modules, "fastsdm._backends._native_ext", None)
    assert "install one" in BACKEND.unavailable(torch.device("cpu"))
