"""Plans keep what they promise: blocks fit, are made of whole chunks, and write no chunk twice."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsdm.integrations import _plan
from fastsdm.integrations._plan import CONCURRENT_CHUNKS, Room

sizes = st.tuples(*[st.integers(1, 300)] * 3)


def held(voxels_bytes: int, room: Room, workers: int) -> int:
    """Bytes of all workers, chunks that are read or written included."""
    return workers * (voxels_bytes + 2 * CONCURRENT_CHUNKS * room.chunk)


@given(sizes, st.integers(1, 64), st.integers(0, 20), st.integers(10**5, 10**8), st.integers(1, 4))
def test_blocks_with_a_halo(shape, edge, margin, total, workers) -> None:
    chunk, halo, room = tuple(min(edge, n) for n in shape), (margin,) * 3, Room(total, 0, 1000, workers)
    try:
        plan = _plan.overlapping(shape, chunk, halo, room, 10, 5)
    except ValueError:
        least = 10 * math.prod(min(c + 2 * margin, n) for c, n in zip(chunk, shape, strict=True))
        assert held(least + 5 * math.prod(chunk), room, 1) > total
        return
    assert 1 <= plan.workers <= workers
    around = math.prod(min(b + 2 * margin, n) for b, n in zip(plan.block, shape, strict=True))
    assert held(10 * around + 5 * math.prod(plan.block), room, plan.workers) <= total
    assert plan.overhead == around / math.prod(plan.block)
    for b, c, n in zip(plan.block, chunk, shape, strict=True):
        assert b == n or b % c == 0


@given(sizes, st.integers(1, 32), st.integers(10**5, 10**7), st.integers(1, 4))
def test_passes(shape, edge, total, workers) -> None:
    chunk, room = tuple(min(edge, n) for n in shape), Room(total, 0, 100, workers)

    def groups(voxels: int) -> tuple[tuple[int, ...], ...]:
        return ((2, 1), (0,)) if shape[1] * shape[2] <= voxels else ((2,), (1,), (0,))

    try:
        plan = _plan.passes(shape, chunk, groups, room, 10, 15)
    except ValueError:
        return
    assert 1 <= plan.workers <= workers
    for number, (axes, block) in enumerate(zip(plan.axes, plan.blocks, strict=True)):
        is_last = number == len(plan.axes) - 1
        assert held((15 if is_last else 10) * math.prod(block), room, plan.workers) <= total
        assert all(block[axis] == shape[axis] for axis in axes)
    for b, c, n in zip(plan.blocks[-1], chunk, shape, strict=True):
        assert b == n or b % c == 0
    # A block of a pass begins and ends where chunks do, so that no two workers write the same chunk.
    for block, between in zip(plan.blocks, plan.between, strict=False):
        for b, c, n in zip(block, between, shape, strict=True):
            assert b == n or b % c == 0


def test_a_volume_of_many_chunks_gets_a_plan_and_blocks_for_all_workers() -> None:
    plan = _plan.overlapping((1000,) * 3, (100,) * 3, (10,) * 3, Room(10**11, 0, 10**6, 4), 10, 5)
    assert plan.workers == 4
    assert math.prod(-(-1000 // b) for b in plan.block) >= 8
    assert math.prod(plan.block) > 100**3
    small = _plan.overlapping((200,) * 3, (50,) * 3, (10,) * 3, Room(10**11, 0, 10**6, 4), 10, 5)
    assert math.prod(-(-200 // b) for b in small.block) == 8


def test_parts_cover_a_volume_once() -> None:
    parts = _plan.parts((5, 4), (2, 3))
    assert len(parts) == 6
    assert sum((a.stop - a.start) * (b.stop - b.start) for a, b in parts) == 20
    assert max(a.stop for a, _ in parts) == 5


def with_a_halo(room: Room) -> object:
    return _plan.overlapping((300,) * 3, (100,) * 3, (5,) * 3, room, 50, 50)


def in_passes(room: Room) -> object:
    return _plan.passes((300,) * 3, (100,) * 3, lambda voxels: ((2,), (1,), (0,)), room, 50, 70)


@pytest.mark.parametrize("planned", [with_a_halo, in_passes])
def test_the_memory_that_is_named_suffices(planned) -> None:
    room = Room(60 << 20, 50 << 20, 600_000, 2)
    with pytest.raises(ValueError, match=r"memory: must hold .*\(50 MiB\).*; got 60 MiB") as error:
        planned(room)
    found = re.search(r"which (\d+)MiB suffices", str(error.value))
    assert found
    enough = int(found[1]) << 20
    planned(replace(room, memory=enough))
    with pytest.raises(ValueError, match="memory: "):
        planned(replace(room, memory=int(0.85 * enough)))
