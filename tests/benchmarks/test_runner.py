"""A run: what it does with whatever breaks, that nothing measured is lost; curves and peaks of memory."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

from benchmarks.measure import memory, runner
from benchmarks.measure.contenders import OurBackend
from benchmarks.measure.maps import measured, warm_up
from benchmarks.measure.memory import can_measure, loss_peak, peak_memory
from benchmarks.measure.peers import PEERS, peer_contenders
from benchmarks.measure.results import Results
from benchmarks.measure.runner import PARTS, Plan, results_of
from benchmarks.measure.scaling import AXES, WrongMapError, measured_point, scaling_points
from benchmarks.measure.timing import Bandwidth
from benchmarks.report.terminal import console
from tests.benchmarks.contenders import off_by_a_hundredth, raising

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_bandwidth(monkeypatch):
    monkeypatch.setattr(runner, "measured_bandwidth", lambda device: Bandwidth(1e10))


@pytest.fixture
def plan(anisotropic, monkeypatch):
    monkeypatch.setattr(runner, "CASES", {"tiny": anisotropic, "again": anisotropic})
    return Plan(CPU, 1, ("tiny", "again"), ["native"], ("maps",), quick=True)


def test_wrong_map_of_ours_is_a_failure_of_the_run(plan, monkeypatch, settings):
    wrong = off_by_a_hundredth(OurBackend("native", CPU))
    monkeypatch.setattr(runner, "our_contenders", lambda *_: [wrong])
    monkeypatch.setattr(runner, "peer_contenders", lambda *_: ([], {}))
    found = results_of(dataclasses.replace(plan, cases=("tiny",)), "a command", console)
    (failure,) = found.failures
    assert failure.startswith("maps: tiny blobs: fastsdm native: disagrees with scipy, by up to 0.")
    point = next(scaling_points(wrong, [], settings, quick=True))
    with pytest.raises(WrongMapError, match="fastsdm native: disagrees with scipy"):
        measured_point(point)


def test_raising_contender_is_told_and_the_others_are_timed(anisotropic, settings):
    contenders = [OurBackend("native", CPU), raising(PEERS["edt"](CPU)), raising(OurBackend("scipy", CPU))]
    right, peer, ours = measured(anisotropic, contenders, settings)
    assert right.timing is not None
    assert not right.failed
    assert peer.timing is None
    assert peer.note == "MemoryError: no room [for this]"
    assert peer.crashed
    assert not peer.failed
    assert ours.failed


def test_contender_that_fails_in_the_warm_up_takes_no_part(plan, monkeypatch):
    ours, broken = OurBackend("native", CPU), raising(PEERS["edt"](CPU))
    monkeypatch.setattr(runner, "our_contenders", lambda *_: [ours, raising(OurBackend("scipy", CPU))])
    monkeypatch.setattr(runner, "peer_contenders", lambda *_: ([broken], {"DIPlib": "not here"}))
    found = results_of(plan, "a command", console)
    assert {row.contender for row in found.maps} == {"fastsdm native"}
    assert found.absent == {"DIPlib": "not here", "edt": "MemoryError: no room [for this]"}
    assert found.failures == ["fastsdm scipy: MemoryError: no room [for this]"]


def test_warm_up_learns_the_rates(settings):
    assert warm_up([OurBackend("native", CPU)], settings) == {}
    assert settings.rates["fastsdm native"] > 0


def test_broken_item_loses_nothing_but_itself(plan, monkeypatch):
    calls = []

    def measured_or_not(case, *arguments):
        calls.append(case)
        if len(calls) == 1:
            raise RuntimeError("broke")
        return measured(case, *arguments)

    monkeypatch.setattr(runner, "measured", measured_or_not)
    kept = []
    found = results_of(plan, "a command", console, lambda results: kept.append(len(results.maps)))
    assert found.failures == ["maps: tiny blobs: RuntimeError: broke"]
    assert kept == [0, len(found.maps)]
    assert len(found.maps) > 1


def test_what_is_late_is_skipped_and_named(plan):
    found = results_of(dataclasses.replace(plan, minutes=0.0), "a command", console)
    assert found.maps == []
    assert found.skipped == ["maps: tiny blobs", "maps: tiny blobs"]


@pytest.mark.parametrize("quick", [True, False])
def test_every_part_has_items_and_a_list_to_fill(quick):
    plan = Plan(CPU, 1, ("blobs-128", "mni"), ["native"], PARTS, quick=quick)
    everyone = [OurBackend(name, CPU) for name in ("native", "jump-flooding")]
    everyone.append(PEERS["scipy"](CPU))
    for part in PARTS:
        items = list(runner._ITEMS[part](plan, everyone, plan.settings))
        titles = [title for title, _ in items]
        assert len(set(titles)) == len(titles) > 0
        assert not any("jump-flooding" in title for title in titles)
        assert part in {field.name for field in dataclasses.fields(Results)}


@pytest.mark.parametrize("quick", [True, False])
def test_every_curve_has_at_least_two_points(quick, settings):
    settings.threads = 2
    points = list(scaling_points(OurBackend("native", CPU), [], settings, quick=quick))
    for curve in AXES:
        places = [point.x for point in points if point.curve == curve]
        assert len(places) == len(set(places)) >= 2
    assert all(point.case.max_distance == point.x for point in points if point.curve == "max_distance")
    assert [point.settings.threads for point in points if point.curve == "threads"] == [1, 2]


def test_point_is_checked_and_timed(settings, anisotropic):
    points = scaling_points(OurBackend("native", CPU), peer_contenders(CPU)[0], settings, quick=True)
    limited = next(point for point in points if point.curve == "max_distance")
    timed = measured_point(
        dataclasses.replace(limited, case=dataclasses.replace(anisotropic, max_distance=limited.x))
    )
    assert [row.contender for row in timed] == ["fastsdm native"]
    assert timed[0].ns_per_voxel == pytest.approx(1e9 * timed[0].timing.median_s / anisotropic.map_voxels)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux only")
def test_peak_is_at_least_the_result():
    assert can_measure(CPU)
    row = peak_memory("blobs-128", "scipy", CPU, threads=1)
    assert row.output_bytes == 4 * 128**3
    # Two transforms in float64 lie side by side at least once, twice the size of the float32 map each.
    assert row.peak_over_output >= 4


def _killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not can_measure(CPU), reason="Linux only")
def test_memory_of_a_loss_holds_at_least_map_and_gradient():
    row = loss_peak("BoundaryLoss", "fastsdm", 64, CPU, threads=1)
    assert row.case == "BoundaryLoss, 2 x 3 classes x 64³"
    assert row.output_bytes == 4 * 2 * 3 * 64**3
    assert 2 <= row.peak_over_output < 8


def test_memory_process_that_is_killed_is_an_error_of_its_item(monkeypatch):
    monkeypatch.setattr(memory, "_map_peak", _killed)
    with pytest.raises(BrokenProcessPool):
        peak_memory("blobs-128", "scipy", CPU, threads=1)


def test_what_cannot_be_measured_here_is_named_and_left_out(plan, monkeypatch):
    monkeypatch.setattr(runner, "can_measure", lambda device: False)
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    monkeypatch.setitem(runner._NEEDS, "again", ("a_brain",))
    wanted = dataclasses.replace(plan, parts=("maps", "memory", "losses"))
    found = results_of(wanted, "a command", console)
    assert {row.case for row in found.maps} == {"tiny"}
    assert [*found.failures, *found.memory, *found.losses] == []
    assert {name: found.absent[name] for name in ("again", "losses", "memory")} == {
        "again": "package a_brain is not installed",
        "losses": "package monai is not installed",
        "memory": "the peak of a process can be reset on Linux only",
    }
    assert "steps" not in found.absent
