"""Signed distance maps of whole cases: every contender checked, then all of them timed in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from benchmarks.measure.cases import MapCase, mask_case
from benchmarks.measure.contenders import Contender
from benchmarks.measure.gate import Reference, sampled_reference
from benchmarks.measure.peers import OneHotRecipePeer, ScipyPeer
from benchmarks.measure.timing import Budget, Clock, Run, Timing, clock_for, interleaved
from fastsdm.testing import Agreement, Array, blobs

#: scipy's rate where none was seen yet in the run, in map voxels per second, on the low side.
_ASSUMED_RATE = 1.5e6
#: Small enough for torch to work on it with one thread: many threads on a busy machine would take minutes.
_WARM_UP = (32, 32, 32)
#: The fastest call predicts the first case; a slow one could leave out a fast contender.
_WARM_UP_CALLS = 5
_PERFECT = Agreement(max_abs=0.0, max_rel=0.0, share_off=0.0, passed=True)


@dataclass(frozen=True)
class MapRow:
    """One contender on one case.

    Attributes:
        case: name of the case.
        title: the case as tables show it.
        contender: its name.
        ours: whether it is a backend of fastsdm.
        exact: whether it is held to rounding; jump flooding is not.
        allowed: largest error it may have, as a share of the distance.
        map_voxels: voxels of the result.
        floor_bytes: of the labels and of the map, which every contender has to move.
        timing: None where it was not timed; `note` says why.
        checked: on how many voxels it was compared with the truth.
        agreement: how well; None where it did not run.
        note: why there is no timing.
        crashed: whether it raised.
    """

    case: str
    title: str
    contender: str
    ours: bool
    exact: bool
    allowed: float
    map_voxels: int
    floor_bytes: int
    timing: Timing | None = None
    checked: str = ""
    agreement: Agreement | None = None
    note: str = ""
    crashed: bool = False

    @property
    def seconds(self) -> float:
        """Median; nan where it was not timed."""
        return math.nan if self.timing is None else self.timing.median_s

    @property
    def voxels_per_second(self) -> float:
        """Throughput in map voxels per second; nan where it was not timed."""
        return self.map_voxels / self.seconds

    @property
    def wrong(self) -> bool:
        """Whether it ran and disagreed with the truth."""
        return self.agreement is not None and not self.agreement.passed

    @property
    def failed(self) -> bool:
        """Whether a backend of ours is wrong or raised; a peer may be, and is not timed."""
        return self.ours and (self.wrong or self.crashed)


@dataclass
class Settings:
    """How a run measures.

    Attributes:
        device: where our backends and the peers work.
        threads: of every contender that has threads.
        budget: of every contender on every case.
        reference_s: scipy checks every voxel while that is expected to take no longer than this; beyond it,
            a sample of the voxels is checked.
        rates: map voxels per second seen in this run, by contender.
    """

    device: torch.device
    threads: int
    budget: Budget
    reference_s: float
    rates: dict[str, float] = field(default_factory=dict)

    def expected_s(self, contender: str, map_voxels: int) -> float:
        """Seconds that `contender` will need, by the last case it ran; 0 where nothing is known."""
        return map_voxels / self.rates[contender] if contender in self.rates else 0.0


@dataclass(frozen=True)
class Trial:
    """The first, checked call of a contender; `run` is None where there is nothing to time."""

    row: MapRow
    run: Run | None = None
    first_s: float = 0.0


def measured(
    case: MapCase, contenders: Sequence[Contender], settings: Settings, labels: Array | None = None
) -> list[MapRow]:
    """Check and time every contender on a case.

    A contender that disagrees with the truth, or that raises, is not timed, and its row says so. One whose
    call is expected to exceed the budget's limit is left out.

    Args:
        case: what to time.
        contenders: who; `warm_up` has called each of them.
        settings: how; learns the rates seen.
        labels: `case.make()`, where the caller has it already.
    """
    labels = case.make() if labels is None else labels
    reference = reference_for(case, labels, settings)
    clock = clock_for(settings.device)
    trials = {each.name: trial(each, case, labels, reference, settings, clock) for each in contenders}
    runs = {name: tried.run for name, tried in trials.items() if tried.run is not None}
    first_s = {name: tried.first_s for name, tried in trials.items()}
    timings = interleaved(runs, first_s, settings.budget, clock)
    for name, timing in timings.items():
        settings.rates[name] = case.map_voxels / timing.median_s
    return [replace(tried.row, timing=timings.get(name)) for name, tried in trials.items()]


def trial(
    contender: Contender,
    case: MapCase,
    labels: Array,
    reference: Reference,
    settings: Settings,
    clock: Clock,
) -> Trial:
    row = MapRow(
        case=case.name,
        title=case.title,
        contender=contender.name,
        ours=contender.ours,
        exact=contender.exact,
        allowed=contender.tolerance.relative,
        map_voxels=case.map_voxels,
        floor_bytes=case.floor_bytes,
        checked=str(reference),
    )
    is_reference = contender.name == ScipyPeer.name and reference.scipy_s is not None
    note = _left_out(contender, case, reference) or (
        "" if is_reference else _too_slow(contender, case, settings)
    )
    if note:
        return Trial(replace(row, note=note, checked=""))
    try:
        prepared = contender.prepared(case, labels, settings.threads)
        if is_reference and reference.scipy_s is not None:  # it has just run
            return Trial(replace(row, agreement=_PERFECT), prepared.run, reference.scipy_s)
        if not contender.on_host:
            prepared.run(0)  # a kernel may have to be compiled for this shape
        first_s, result = clock.timed(prepared.run, 0)
        maps = prepared.plain(result)
    except Exception as error:  # recorded in the row; the other contenders are still timed
        return Trial(replace(row, note=one_line(error), crashed=True, checked=""))
    settings.rates[contender.name] = case.map_voxels / first_s
    agreement = reference.agreement(maps, contender.tolerance, contender.half)
    if not agreement.passed:
        note = f"disagrees with scipy, by up to {agreement.max_abs:.3g}"
        return Trial(replace(row, agreement=agreement, note=note))
    return Trial(replace(row, agreement=agreement), prepared.run, first_s)


def one_line(error: Exception) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _left_out(contender: Contender, case: MapCase, reference: Reference) -> str:
    """Why a contender does not apply to a case; empty if it does."""
    if case.classes is None and contender.name == OneHotRecipePeer.name:
        return "is a recipe for label maps; on a mask it is scipy"
    if not contender.handles_absence and np.isinf(reference.values).any():
        return "has no answer for an absent class"
    return ""


def _too_slow(contender: Contender, case: MapCase, settings: Settings) -> str:
    """Why a contender is not even called on a case; empty where it is."""
    expected, limit = settings.expected_s(contender.name, case.map_voxels), settings.budget.longest_call_s
    return f"would take {expected:.0f} s, the limit is {limit:.0f} s" if expected > limit else ""


def warm_up(contenders: Sequence[Contender], settings: Settings) -> dict[str, str]:
    """Call every contender on a small case, so that imports and compilers are not timed and a rate is known.

    Returns:
        What went wrong, by contender; empty where all work.
    """
    case = mask_case("warm-up", "", _WARM_UP, lambda: blobs(_WARM_UP))
    labels = case.make()
    found = {contender.name: _rate_or_failure(contender, case, labels, settings) for contender in contenders}
    settings.rates.update({name: rate for name, rate in found.items() if isinstance(rate, float)})
    return {name: failure for name, failure in found.items() if isinstance(failure, str)}


def _rate_or_failure(contender: Contender, case: MapCase, labels: Array, settings: Settings) -> float | str:
    try:
        prepared = contender.prepared(case, labels, settings.threads)
        prepared.run(0)
        clock = clock_for(settings.device)
        seconds = min(clock.timed(prepared.run, round_)[0] for round_ in range(_WARM_UP_CALLS))
    except Exception as error:  # as in a trial
        return one_line(error)
    return case.map_voxels / seconds


def reference_for(case: MapCase, labels: Array, settings: Settings) -> Reference:
    """The truth on every voxel where scipy can give it in the time allowed, else on a sample."""
    rate = min(settings.rates.get(ScipyPeer.name, _ASSUMED_RATE), _ASSUMED_RATE)
    if case.map_voxels / rate > settings.reference_s:
        return sampled_reference(case, labels)
    prepared = ScipyPeer(torch.device("cpu")).prepared(case, labels, settings.threads)
    start = time.perf_counter()
    result = prepared.run(0)
    seconds = time.perf_counter() - start
    truth = prepared.plain(result)
    if np.isfinite(truth).all():  # an absent class costs nothing, so its rate predicts nothing
        settings.rates[ScipyPeer.name] = case.map_voxels / seconds
    return Reference(truth, None, case, seconds)
