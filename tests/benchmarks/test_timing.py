"""Turns, repeats and summaries of the timings."""

from __future__ import annotations

import gc

import pytest

from benchmarks.measure.timing import Budget, HostClock, Timing, interleaved


class _FakeClock:
    """Every call of a contender takes as many seconds as its result says."""

    def timed(self, run, round_):
        result = run(round_)
        return result, result


def test_timing_holds_median_and_percentiles():
    assert Timing.of([5.0, 1.0, 2.0, 3.0, 4.0, 6.0]) == Timing(3.5, 2.0, 5.0, 6)


@pytest.mark.parametrize(("first_s", "repeats"), [(0.1, 7), (1.0, 3), (2.0, 1), (50.0, 0)])
def test_repeats_fill_the_budget(first_s, repeats):
    assert Budget(3.0, most=7).repeats(first_s) == repeats


def test_contenders_take_turns():
    calls = []
    runs = {name: lambda round_, name=name: calls.append((round_, name)) or 1.0 for name in "abc"}
    timings = interleaved(runs, {"a": 1.0, "b": 1.0, "c": 3.0}, Budget(3.0), _FakeClock())
    assert {name: timing.repeats for name, timing in timings.items()} == {"a": 3, "b": 3, "c": 1}
    assert [round_ for round_, _ in calls] == [0, 0, 0, 1, 1, 2, 2]
    assert {name for _, name in calls[:3]} == {"a", "b", "c"}


def test_first_call_counts_where_there_is_no_time_for_another():
    calls = []
    runs = {name: lambda round_, name=name: calls.append(name) or 1.0 for name in "ab"}
    timings = interleaved(runs, {"a": 1.0, "b": 4.0}, Budget(3.0), _FakeClock())
    assert calls == ["a"] * 3
    assert timings["b"] == Timing(4.0, 4.0, 4.0, 1)


def test_order_changes_between_rounds():
    calls = []
    runs = {name: lambda _, name=name: calls.append(name) or 1.0 for name in "abcd"}
    interleaved(runs, dict.fromkeys(runs, 1.0), Budget(9.0), _FakeClock())
    rounds = {tuple(calls[start : start + 4]) for start in range(0, len(calls), 4)}
    assert len(rounds) > 1


def test_garbage_collection_is_off_while_timing_and_on_again():
    states = []
    interleaved({"a": lambda _: states.append(gc.isenabled())}, {"a": 1.0}, Budget(1.0), HostClock())
    assert states == [False]
    assert gc.isenabled()


def test_host_clock_hands_over_the_result():
    seconds, result = HostClock().timed(lambda round_: round_ + 1, 4)
    assert seconds >= 0
    assert result == 5
