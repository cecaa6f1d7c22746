"""Times of several contenders, taken in turns so that a slow phase of the machine affects all of them.

Also the rate at which the machine copies memory, a lower bound for all of them.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
import torch

#: Takes the number of the round, so that a run on a device can rotate its input buffers.
Run: TypeAlias = Callable[[int], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median, 20th and 80th percentile over the repeats."""

    median_s: float
    p20_s: float
    p80_s: float
    repeats: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """The summary of these times."""
        low, middle, high = np.percentile(seconds, (20, 50, 80))
        return cls(float(middle), float(low), float(high), len(seconds))


class Clock(Protocol):
    """Measures one call."""

    def timed(self, run: Run, round_: int) -> tuple[float, object]:
        """Seconds that the call took, and what it returned."""


class HostClock:
    """Wall clock of calls that are done when they return."""

    def timed(self, run: Run, round_: int) -> tuple[float, object]:
        """Seconds that the call took, and what it returned."""
        start = time.perf_counter()
        result = run(round_)
        return time.perf_counter() - start, result


class DeviceClock:
    """CUDA events on torch's current stream: from before the first kernel to after the last.

    What earlier calls left in the second-level cache, results included, is overwritten before each call.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        cache: int = torch.cuda.get_device_properties(device).L2_cache_size
        self._eviction = torch.empty(2 * cache, dtype=torch.uint8, device=device)

    def timed(self, run: Run, round_: int) -> tuple[float, object]:
        """Seconds that the call took, and what it returned."""
        with torch.cuda.device(self._device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            self._eviction.zero_()
            torch.cuda.synchronize()
            start.record()
            result = run(round_)
            end.record()
            end.synchronize()
        return start.elapsed_time(end) / 1000, result


def clock_for(device: torch.device) -> Clock:
    """The clock that sees the work of `device`."""
    return DeviceClock(device) if device.type == "cuda" else HostClock()


@dataclass(frozen=True)
class Budget:
    """How much time one contender may take on one case.

    Attributes:
        seconds: it is repeated until this is used up; a first call that took longer stays the only one.
        most: repeats never exceed this.
        longest_call_s: a contender whose call is expected to take longer is left out.
    """

    seconds: float
    most: int = 15
    longest_call_s: float = math.inf

    def repeats(self, first_s: float) -> int:
        """How often a contender is called again whose first call took `first_s`."""
        return min(self.most, int(self.seconds / max(first_s, 1e-9)))


def interleaved(
    runs: Mapping[str, Run], first_s: Mapping[str, float], budget: Budget, clock: Clock, *, seed: int = 0
) -> dict[str, Timing]:
    """Time contenders that have run once already.

    Each round calls every contender once, in a new random order, until its repeats are used up: slow
    contenders leave after the first rounds. A result is freed before the next call starts. The first call
    counts only for a contender that has no time for another.

    Args:
        runs: contenders by name.
        first_s: seconds of each one's first call.
        budget: of each contender.
        clock: what measures a call.
        seed: of the order.

    Returns:
        The timing of each contender.
    """
    left = {name: budget.repeats(first_s[name]) for name in runs}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    order = random.Random(seed)
    with _no_garbage_collection():
        for round_ in range(max(left.values(), default=0)):
            names = [name for name in runs if left[name] > round_]
            for name in order.sample(names, len(names)):
                taken, result = clock.timed(runs[name], round_)
                del result
                seconds[name].append(taken)
    return {name: Timing.of(taken or [first_s[name]]) for name, taken in seconds.items()}


def in_turns(
    calls: Mapping[str, Callable[[], object]], budget: Budget, clock: Clock | None = None
) -> dict[str, Timing]:
    """Time calls without arguments, whose results the caller has checked; each first runs once more."""
    clock = clock or HostClock()
    runs: dict[str, Run] = {name: partial(_any_round, call) for name, call in calls.items()}
    first_s = {name: clock.timed(run, 0)[0] for name, run in runs.items()}
    return interleaved(runs, first_s, budget, clock)


def _any_round(call: Callable[[], object], _round: int) -> object:
    return call()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second of a large copy, read and written bytes both counted."""

    bytes_per_second: float

    def floor_s(self, floor_bytes: int) -> float:
        """Seconds to read the labels and write the map if nothing else had to be done."""
        return floor_bytes / self.bytes_per_second


def measured_bandwidth(device: torch.device) -> Bandwidth:
    """Copy 256 MiB between two tensors whose pages are already there."""
    size = 1 << 28
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source).copy_(source)
    runs: dict[str, Run] = {"copy": lambda _: target.copy_(source)}
    timing = interleaved(runs, {"copy": 0.1}, Budget(2.0, most=15), clock_for(device))["copy"]
    return Bandwidth(2 * size / timing.median_s)
