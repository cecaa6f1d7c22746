"""The training step: equal losses, and time that is attributed to the map."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.measure import step_variants, training_step
from benchmarks.measure.losses import WrongResultError, largest_difference, measured_losses
from benchmarks.measure.step_variants import BASELINE, Stopwatch, Variant
from benchmarks.measure.timing import Budget
from benchmarks.measure.training_step import WrongLossError, measured_steps, workload

CPU = torch.device("cpu")


@pytest.fixture
def work():
    return workload(CPU, batch=2, size=16, channels=(4, 8))


def test_every_variant_is_timed_and_has_its_map(work):
    rows = {row.variant: row for row in measured_steps(work, CPU, Budget(0.1, most=2))}
    assert {BASELINE, "scipy recipe", "MONAI", "fastsdm native", "fastsdm native, prefetch"} <= set(rows)
    assert rows[BASELINE].map_s == 0
    assert all(0 < row.map_s < row.step.median_s for name, row in rows.items() if name != BASELINE)
    assert rows[BASELINE].extra_s == 0


def test_a_step_that_runs_once_has_its_map_as_well(work):
    rows = measured_steps(work, CPU, Budget(0.0))
    assert all(row.step.repeats == 1 for row in rows)
    assert all(row.map_s > 0 for row in rows if row.variant != BASELINE)


def test_a_variant_with_another_loss_is_refused(work, monkeypatch):
    truth = step_variants.step_variants(CPU, training_step.CLASSES)
    wrong = lambda watch: Variant(watch, lambda logits, labels, begun: logits.mean() + 7)  # noqa: E731
    monkeypatch.setattr(training_step, "step_variants", lambda *_: {**truth, "wrong": wrong})
    with pytest.raises(WrongLossError, match="wrong: boundary loss"):
        measured_steps(work, CPU, Budget(0.1, most=1))


def test_stopwatch_sums_the_calls_of_a_step(monkeypatch):
    now = 0.0

    def work_for(seconds):
        nonlocal now
        now += seconds
        return "done"

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    watch = Stopwatch(CPU)
    timed = watch.around(work_for)
    timed(64.0)  # before the first step: not wanted
    for calls in ((1.0, 2.0), (4.0,), (8.0, 8.0)):
        watch.new_step()
        for seconds in calls:
            assert timed(seconds) == "done"
    assert watch.median_per_step() == 4.0
    watch.clear()
    assert watch.median_per_step() == 0


def test_losses_are_compared_before_they_are_timed():
    rows = measured_losses(12, CPU, Budget(0.05, most=2), ["map", "BoundaryLoss", "SDMRegressionLoss"])
    assert [(row.task, row.contender) for row in rows] == [
        *((task, owner) for task in ("map", "BoundaryLoss") for owner in ("fastsdm", "MONAI")),
        ("SDMRegressionLoss", "fastsdm"),
    ]
    assert rows[-1].max_abs is None
    right = torch.ones(4)
    assert largest_difference("map", {"fastsdm": right, "MONAI": right}) == 0
    for wrong in (right * 1.001, right * float("nan")):
        with pytest.raises(WrongResultError, match="map: differs"):
            largest_difference("map", {"fastsdm": wrong, "MONAI": right})
