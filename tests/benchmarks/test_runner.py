"""A run: what it writes, what it does with whatever breaks, and that nothing measured is lost."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks.measure import memory, runner
from benchmarks.measure.bandwidth import Bandwidth
from benchmarks.measure.contenders import OurBackend, PeerContender, Prepared
from benchmarks.measure.environment import environment
from benchmarks.measure.maps import measured, warm_up
from benchmarks.measure.peers import PEERS
from benchmarks.measure.runner import PARTS, Plan, results_of
from benchmarks.measure.scaling import WrongMapError, measured_point, scaling_points
from benchmarks.report.results import FORMAT, Results, load

CPU = torch.device("cpu")
NOTHING = Results(FORMAT, environment(CPU, 1), "a command", Bandwidth(1e10))


class _Broken(PeerContender):
    def prepared(self, case, labels, threads):
        raise MemoryError("no room [for this]")


class _BrokenOurs(OurBackend):
    def prepared(self, case, labels, threads):
        raise MemoryError("no room [for this]")


@pytest.fixture(autouse=True)
def _no_bandwidth(monkeypatch):
    monkeypatch.setattr(runner, "measured_bandwidth", lambda device: Bandwidth(1e10))


@pytest.fixture
def plan(anisotropic, monkeypatch):
    monkeypatch.setattr(runner, "CASES", {"tiny": anisotropic, "again": anisotropic})
    return Plan(CPU, 1, ("tiny", "again"), ["native"], ("maps",), quick=True)


@pytest.fixture
def arguments(anisotropic, tmp_path, monkeypatch):
    for module in (command, runner):
        monkeypatch.setattr(module, "CASES", {"tiny": anisotropic})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--parts", "maps", "--out", "elsewhere"])
    options = ["--quick", "--cases", "tiny", "--parts", "maps", "--threads", "1", "--device", "cpu"]
    return [*options, "--backends", "native", "--out", str(tmp_path)]


def test_run_command_writes_json_report_and_plots(arguments, tmp_path):
    run = CliRunner().invoke(command.app, arguments)
    assert run.exit_code == 0, run.output
    (path,) = tmp_path.glob("*.json")
    assert path.stem.endswith("-quick-selected")
    found = load(path)
    assert {row.contender for row in found.maps if row.timing} >= {"fastsdm native", "scipy", "edt"}
    assert found.command == "python -m benchmarks --parts maps"
    assert set(found.minutes) == {"warm-up", "maps"}
    assert path.with_suffix(".md").exists()
    assert Path(f"{path.with_suffix('')}-throughput.png").exists()
    assert not [each.name for each in tmp_path.iterdir() if "partial" in each.name or each.name[0] == "."]


def test_replaced_result_stays_under_another_name(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "results_of", lambda *_: NOTHING)
    for _ in range(2):
        assert CliRunner().invoke(command.app, arguments).exit_code == 0
    old, new = sorted(tmp_path.glob("*.json"), key=lambda path: -len(path.name))
    assert old.name.startswith(f"{new.stem}-{load(old).environment.date}-")


def test_wrong_backend_ends_in_an_exit_code(arguments, monkeypatch):
    found = dataclasses.replace(NOTHING, failures=["maps: tiny: fastsdm native: disagrees with scipy"])
    monkeypatch.setattr(command, "results_of", lambda *_: found)
    run = CliRunner().invoke(command.app, arguments)
    assert run.exit_code == 1
    assert "FAILED maps: tiny: fastsdm native: disagrees" in run.output


class _OffByAHundredth(OurBackend):
    def prepared(self, case, labels, threads):
        right = super().prepared(case, labels, threads)
        return Prepared(lambda round_: right.run(round_) * 1.01, right.plain)


def test_wrong_map_of_ours_is_a_failure_of_the_run(plan, monkeypatch, settings):
    wrong = _OffByAHundredth("native", CPU)
    monkeypatch.setattr(runner, "our_contenders", lambda *_: [wrong])
    monkeypatch.setattr(runner, "peer_contenders", lambda *_: ([], {}))
    found = results_of(dataclasses.replace(plan, cases=("tiny",)), "a command")
    (failure,) = found.failures
    assert failure.startswith("maps: tiny blobs: fastsdm native: disagrees with scipy, by up to 0.")
    point = next(scaling_points(wrong, [], settings, quick=True))
    with pytest.raises(WrongMapError, match="fastsdm native: disagrees with scipy"):
        measured_point(point)


def test_raising_contender_is_told_and_the_others_are_timed(anisotropic, settings):
    contenders = [OurBackend("native", CPU), _Broken(PEERS["edt"], CPU), _BrokenOurs("scipy", CPU)]
    right, peer, ours = measured(anisotropic, contenders, settings)
    assert right.timing is not None
    assert not right.failed
    assert peer.timing is None
    assert peer.note == "MemoryError: no room [for this]"
    assert peer.crashed
    assert not peer.failed
    assert ours.failed


def test_contender_that_fails_in_the_warm_up_takes_no_part(plan, monkeypatch):
    ours, broken = OurBackend("native", CPU), _Broken(PEERS["edt"], CPU)
    monkeypatch.setattr(runner, "our_contenders", lambda *_: [ours, _BrokenOurs("scipy", CPU)])
    monkeypatch.setattr(runner, "peer_contenders", lambda *_: ([broken], {"DIPlib": "not here"}))
    found = results_of(plan, "a command")
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
    found = results_of(plan, "a command", lambda results: kept.append(len(results.maps)))
    assert found.failures == ["maps: tiny blobs: RuntimeError: broke"]
    assert kept == [0, len(found.maps)]
    assert len(found.maps) > 1


def test_interrupted_run_leaves_what_it_has(arguments, tmp_path, monkeypatch, anisotropic):
    def items(plan, everyone, settings):
        yield "first", lambda: measured(anisotropic, everyone, settings)
        yield "second", lambda: (_ for _ in ()).throw(KeyboardInterrupt)

    monkeypatch.setitem(runner._ITEMS, "maps", items)
    assert CliRunner().invoke(command.app, arguments).exit_code != 0
    (path,) = tmp_path.iterdir()
    assert path.name.endswith(".partial.json")
    assert load(path).maps


def test_what_is_late_is_skipped_and_named(plan):
    found = results_of(dataclasses.replace(plan, minutes=0.0), "a command")
    assert found.maps == []
    assert found.skipped == ["maps: tiny blobs", "maps: tiny blobs"]


@pytest.mark.parametrize("quick", [True, False])
def test_every_part_has_items_and_a_list_to_fill(quick):
    plan = Plan(CPU, 1, ("blobs-128", "mni"), ["native"], PARTS, quick=quick)
    everyone = [OurBackend(name, CPU) for name in ("native", "torch")]
    everyone.append(PeerContender(PEERS["scipy"], CPU))
    for part in PARTS:
        items = list(runner._ITEMS[part](plan, everyone, plan.settings))
        titles = [title for title, _ in items]
        assert len(set(titles)) == len(titles) > 0
        assert not any("torch" in title for title in titles)
        assert part in {field.name for field in dataclasses.fields(Results)}


@pytest.mark.parametrize("option", ["--cases", "--parts"])
def test_unknown_names_are_refused(option):
    run = CliRunner().invoke(command.app, [option, "nonsense"])
    assert run.exit_code == 2
    assert "nonsense" in run.output


def test_failing_memory_process_is_told_in_one_line(monkeypatch):
    failed = subprocess.CompletedProcess([], -9, "", "Traceback\nMemoryError: no room\n")
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(RuntimeError, match="exit code -9, MemoryError: no room"):
        memory.peak_memory("blobs-128", "scipy", CPU, threads=1)
