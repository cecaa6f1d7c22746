"""The command line: what a run writes, on which device, and the commands that read results."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import benchmarks.__main__ as command
import fastsdm
from benchmarks.measure import runner
from benchmarks.measure.environment import environment
from benchmarks.measure.maps import measured
from benchmarks.measure.results import FORMAT, Results, load
from benchmarks.measure.timing import Bandwidth

CPU = torch.device("cpu")
NOTHING = Results(FORMAT, environment(CPU, 1), "a command", Bandwidth(1e10))


def invoked(*arguments):
    return CliRunner().invoke(command.app, [str(argument) for argument in arguments])


@pytest.fixture
def arguments(anisotropic, tmp_path, monkeypatch):
    for module in (command, runner):
        monkeypatch.setattr(module, "CASES", {"tiny": anisotropic})
    monkeypatch.setattr(runner, "measured_bandwidth", lambda device: Bandwidth(1e10))
    unrecorded = ["--out", "elsewhere", "--partial", "--out=again"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *unrecorded, "--parts", "maps"])
    options = ["--quick", "--cases", "tiny", "--parts", "maps", "--threads", "1", "--device", "cpu"]
    return [*options, "--backends", "native", "--out", str(tmp_path)]


def test_run_writes_json_report_and_plots(arguments, tmp_path):
    run = invoked(*arguments)
    assert run.exit_code == 0, run.output
    (path,) = tmp_path.glob("*.json")
    assert path.stem.endswith("-quick-selected")
    found = load(path)
    assert {row.contender for row in found.maps if row.timing} >= {"fastsdm native", "scipy", "edt"}
    assert found.command == "python -m benchmarks --parts maps"
    assert set(found.minutes) == {"warm-up", "maps"}
    assert path.with_suffix(".md").exists()
    assert path.with_name(f"{path.stem}-throughput.png").exists()
    assert not [each.name for each in tmp_path.iterdir() if "partial" in each.name or each.name[0] == "."]


def test_replaced_result_stays_under_another_name(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "results_of", lambda *_: NOTHING)
    for _ in range(2):
        assert invoked(*arguments).exit_code == 0
    old, new = sorted(tmp_path.glob("*.json"), key=lambda path: -len(path.name))
    assert old.name.startswith(f"{new.stem}-{load(old).environment.date}-")


def test_wrong_backend_ends_in_an_exit_code(arguments, monkeypatch):
    found = dataclasses.replace(NOTHING, failures=["maps: tiny: fastsdm native: disagrees with scipy"])
    monkeypatch.setattr(command, "results_of", lambda *_: found)
    run = invoked(*arguments)
    assert run.exit_code == 1
    assert "FAILED maps: tiny: fastsdm native: disagrees" in run.output


def test_interrupted_run_leaves_what_it_has(arguments, tmp_path, monkeypatch, anisotropic):
    def items(plan, everyone, settings):
        yield "first", lambda: measured(anisotropic, everyone, settings)
        yield "second", lambda: (_ for _ in ()).throw(KeyboardInterrupt)

    monkeypatch.setitem(runner._ITEMS, "maps", items)
    assert invoked(*arguments).exit_code != 0
    (path,) = tmp_path.iterdir()
    assert path.name.endswith(".partial.json")
    assert load(path).maps


@pytest.mark.parametrize("option", ["--cases", "--parts", "--backends"])
def test_unknown_names_are_refused(option):
    run = invoked(option, "nonsense")
    assert run.exit_code == 2
    assert "nonsense" in run.output


def test_results_directory_is_the_committed_one():
    assert (command.DIRECTORY / "amd-epyc-2-cores.json").is_file()


@pytest.mark.parametrize("arguments", [["--gpu"], ["--gpu", "--find"], ["--device", "cuda"]])
def test_without_a_gpu_it_says_so_and_fails(monkeypatch, arguments):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = invoked(*arguments)
    assert run.exit_code == 1
    assert "finds no CUDA or ROCm device" in run.output


@pytest.fixture
def named_gpu(monkeypatch):
    """A GPU that only has a name; nothing is run on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H100 80GB (made up)")


@pytest.fixture
def statuses(monkeypatch):
    """Let `fastsdm.backends` report these; a reason makes a backend unavailable."""

    def report(**reasons):
        found = {
            name: fastsdm.BackendStatus(name, True, () if reason else ("cuda",), reason)
            for name, reason in reasons.items()
        }
        monkeypatch.setattr(fastsdm, "backends", lambda: found)

    return report


@pytest.mark.usefixtures("named_gpu")
def test_find_names_device_and_backends_and_measures_nothing(monkeypatch, statuses):
    monkeypatch.setattr(command, "results_of", lambda *_: pytest.fail("it measures"))
    statuses(cucim=None, cupy=None, triton=None, scipy="a GPU is not for it")
    run = invoked("--gpu", "--find")
    assert run.output.splitlines() == [
        "NVIDIA H100 80GB (made up), and 2 device(s) in all",
        "cucim: on cuda",
        "cupy: on cuda",
        "triton: on cuda",
        "scipy: unavailable: a GPU is not for it",
    ]


@pytest.mark.usefixtures("named_gpu")
def test_a_gpu_run_refuses_to_leave_a_backend_out_unasked(monkeypatch, statuses, tmp_path):
    statuses(cucim="pip install it", cupy="that too", triton=None)
    for arguments in (["--gpu", "--find"], ["--gpu"]):
        run = invoked(*arguments)
        assert run.exit_code == 1
        assert "cucim: unavailable: pip install it" in run.output
        assert "cucim, cupy: would be neither tested nor timed" in run.output
        assert "PARTIAL=1" in run.output
    assert invoked("--gpu", "--find", "--partial").exit_code == 0


@pytest.mark.usefixtures("named_gpu")
def test_results_are_named_after_the_device(monkeypatch, tmp_path):
    plans = []

    def nothing_measured(plan, made_by, console, keep):
        plans.append(plan)
        here = dataclasses.replace(NOTHING.environment, machine=torch.cuda.get_device_name())
        return dataclasses.replace(NOTHING, environment=here)

    monkeypatch.setattr(command, "results_of", nothing_measured)
    assert invoked("--gpu", "--partial", "--out", tmp_path).exit_code == 0
    assert plans[0].device == torch.device("cuda")
    stem = "nvidia-h100-80gb-made-up"
    assert load(tmp_path / f"{stem}.json").environment.machine == "NVIDIA H100 80GB (made up)"
    assert "NVIDIA H100 80GB (made up)" in (tmp_path / f"{stem}.md").read_text(encoding="utf-8")


def test_make_gpu_leaves_no_gpu_test_out():
    root = Path(__file__).parents[2]
    (ignored,) = re.findall(r"^WITHOUT_GPU := (.+)$", (root / "Makefile").read_text(), re.MULTILINE)
    for name in ignored.split():
        path = root / "tests" / name
        files = [path] if path.is_file() else list(path.glob("**/*.py"))
        assert files, name
        for file in files:
            if file != Path(__file__):
                assert not re.search(r"mark\.gpu|under_test", file.read_text()), file
