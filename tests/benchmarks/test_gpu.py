"""`python -m benchmarks.gpu` on a machine without a GPU, and with one of a made-up name."""

from __future__ import annotations

import sys

import pytest
import torch

import benchmarks.__main__ as command
import fastsdm
from benchmarks import gpu
from benchmarks.measure.bandwidth import Bandwidth
from benchmarks.measure.environment import environment
from benchmarks.report.results import FORMAT, Results, load


@pytest.fixture
def named_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H100 80GB (made up)")


def status(name: str, reason: str | None = None) -> fastsdm.BackendStatus:
    return fastsdm.BackendStatus(name, True, () if reason else ("cuda",), reason)


@pytest.mark.parametrize("arguments", [[], ["--find"]])
def test_without_a_gpu_it_says_so_and_fails(monkeypatch, arguments) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu", *arguments])
    with pytest.raises(SystemExit, match=r"no GPU: torch .* finds no CUDA or ROCm device"):
        gpu.main()


def test_find_names_device_and_backends_and_measures_nothing(named_gpu, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--find"])
    monkeypatch.setattr(gpu, "app", lambda: pytest.fail("it measures"))
    statuses = [status("cucim"), status("scipy", "a GPU is not for it"), status("triton")]
    monkeypatch.setattr(fastsdm, "backends", lambda: {each.name: each for each in statuses})
    gpu.main()
    assert capsys.readouterr().out.splitlines() == [
        "NVIDIA H100 80GB (made up), and 2 device(s) in all",
        "cucim: on cuda",
        "scipy: unavailable: a GPU is not for it",
        "triton: on cuda",
    ]


def test_find_fails_where_a_backend_would_be_left_out(named_gpu, monkeypatch, capsys) -> None:
    statuses = [status("cucim", "pip install it"), status("cupy", "that too"), status("triton")]
    monkeypatch.setattr(fastsdm, "backends", lambda: {each.name: each for each in statuses})
    monkeypatch.setattr(sys, "argv", ["gpu", "--find"])
    with pytest.raises(SystemExit, match=r"^cucim, cupy: would be neither tested nor timed; .* PARTIAL=1"):
        gpu.main()
    assert "cucim: unavailable: pip install it" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["gpu", "--find", "--partial"])
    gpu.main()


def test_results_are_named_after_the_device(named_gpu, monkeypatch, tmp_path) -> None:
    plans = []

    def nothing_measured(plan, made_by, keep):
        plans.append(plan)
        return Results(FORMAT, environment(plan.device, 1), made_by, Bandwidth(1e12))

    monkeypatch.setattr(command, "results_of", nothing_measured)
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 0
    assert plans[0].device == torch.device("cuda")
    stem = "nvidia-h100-80gb-made-up"
    assert load(tmp_path / f"{stem}.json").environment.device == "NVIDIA H100 80GB (made up)"
    assert "NVIDIA H100 80GB (made up)" in (tmp_path / f"{stem}.md").read_text(encoding="utf-8")
