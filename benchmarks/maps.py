"""Signed distance maps of whole cases: every contender checked, then all of them timed in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from benchmarks.cases import MapCase, mask_case
from benchmarks.contenders import Contender, PeerContender, Prepared
from benchmarks.gate import Reference, sampled_reference
from benchmarks.peers import OneHotRecipePeer, ScipyPeer
from benchmarks.timing import Budget, Timing, clock_for, interleaved
from fastsdm.testing import APPROXIMATE, Agreement, Array, blobs

#: scipy's rate where none was seen yet in the run, in map voxels per second, on the low side.
_ASSUMED_RATE = 1.5e6


@dataclass(frozen=True)
class MapRow:
    """One contender on one case.

    Attributes:
        case: name of the case.
        title: the case as tables show it.
        contender: its name.
        ours: whether it is a backend of fastsdm.
        exact: whether it is held to rounding; jump flooding is not.
        map_voxels: voxels of the result.
        floor_bytes: of the labels and of the map, which every contender has to move.
        timing: None where it was not timed; `note` says why.
        checked: on how many voxels it was compared with the truth.
        agreement: how well; None where it did not run.
        note: why there is no timing.
    """

    case: str
    title: str
    contender: str
    ours: bool
    exact: bool
    map_voxels: int
    floor_bytes: int
    timing: Timing | None = None
    checked: str = ""
    agreement: Agreement | None = None
    note: str = ""

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


@dataclass
class Settings:
    """How a run measures.

    Attributes:
        device: where our backends and the peers work.
        threads: of every contender that has threads.
        budget: of every contender on every case.
        reference_s: scipy checks every voxel while that is foreseen to take no longer than this; beyond it,
            a sample of the voxels is checked.
        rates: map voxels per second seen in this run, by contender.
    """

    device: torch.device
    threads: int
    budget: Budget
    reference_s: float
    rates: dict[str, float] = field(default_factory=dict)

    def foreseen_s(self, contender: str, map_voxels: int) -> float:
        """Seconds that `contender` will need, by the last case it ran; 0 where nothing is known."""
        return map_voxels / self.rates[contender] if contender in self.rates else 0.0


def measured(
    case: MapCase, contenders: Sequence[Contender], settings: Settings, labels: Array | None = None
) -> list[MapRow]:
    """Check and time every contender on a case.

    A contender that disagrees with the truth is not timed. One whose call is foreseen to exceed the
    budget's limit is left out.

    Args:
        case: what to time.
        contenders: who; `warm_up` has called each of them.
        settings: how; learns the rates seen.
        labels: `case.make()`, where the caller has it already.
    """
    labels = case.make() if labels is None else labels
    reference = reference_for(case, labels, settings)
    clock = clock_for(settings.device)
    rows: dict[str, MapRow] = {}
    ready: dict[str, Prepared] = {}
    first_s: dict[str, float] = {}
    for contender in contenders:
        row = MapRow(
            case.name,
            case.title,
            contender.name,
            contender.ours,
            contender.tolerance is not APPROXIMATE,
            case.map_voxels,
            case.floor_bytes,
        )
        note = left_out(contender, case, reference) or _too_slow(contender, case, settings)
        if note:
            rows[row.contender] = replace(row, note=note)
            continue
        prepared = contender.prepared(case, labels, settings.threads)
        if contender.name == ScipyPeer.name and reference.points is None:  # it ran just now
            first_s[row.contender] = settings.foreseen_s(row.contender, case.map_voxels)
            agreement = Agreement(max_abs=0.0, max_rel=0.0, share_off=0.0, passed=True)
        else:
            first_s[row.contender], result = clock.timed(prepared.run, 0)
            settings.rates[row.contender] = case.map_voxels / first_s[row.contender]
            agreement = reference.agreement(
                prepared.plain(result), contender.tolerance, contender.half, contender.max_distance
            )
            del result
        if agreement.passed:
            ready[row.contender] = prepared
        note = "" if agreement.passed else "disagrees with scipy"
        rows[row.contender] = replace(row, checked=str(reference), agreement=agreement, note=note)
    runs = {name: prepared.run for name, prepared in ready.items()}
    timings = interleaved(runs, first_s, settings.budget, clock)
    for name, timing in timings.items():
        settings.rates[name] = case.map_voxels / timing.median_s
    return [replace(row, timing=timings.get(name)) for name, row in rows.items()]


def left_out(contender: Contender, case: MapCase, reference: Reference) -> str:
    """Why a case is no question for a contender; empty where it is one."""
    if case.classes is None and contender.name == OneHotRecipePeer.name:
        return "is a recipe for label maps; on a mask it is scipy"
    if not contender.knows_absence and np.isinf(reference.values).any():
        return "has no answer for an absent class"
    return ""


def _too_slow(contender: Contender, case: MapCase, settings: Settings) -> str:
    foreseen, limit = settings.foreseen_s(contender.name, case.map_voxels), settings.budget.longest_call_s
    return f"would take {foreseen:.0f} s, the limit is {limit:.0f} s" if foreseen > limit else ""


def warm_up(contenders: Sequence[Contender], settings: Settings) -> None:
    """Call every contender once on a small case, so that imports and compilers are not timed."""
    case = mask_case("warm-up", "", (24, 24, 24), lambda: blobs((24, 24, 24), sigma=3))
    labels = case.make()
    for contender in contenders:
        contender.prepared(case, labels, settings.threads).run(0)


def reference_for(case: MapCase, labels: Array, settings: Settings) -> Reference:
    """The truth on every voxel where scipy can give it in the time allowed, else on a sample."""
    rate = settings.rates.get(ScipyPeer.name, _ASSUMED_RATE)
    if case.map_voxels / rate > settings.reference_s:
        return sampled_reference(case, labels)
    prepared = PeerContender(ScipyPeer(), torch.device("cpu")).prepared(case, labels, settings.threads)
    start = time.perf_counter()
    result = prepared.run(0)
    settings.rates[ScipyPeer.name] = case.map_voxels / (time.perf_counter() - start)
    return Reference(prepared.plain(result), None, case.spacing)
