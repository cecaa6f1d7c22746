"""Every backend and every peer on every case; a wrong map of ours fails, a slow one does not.

A peer that is wrong is skipped, as it is nothing to time.

`python -m pytest benchmarks/suite --benchmark-json=out.json`
"""

from __future__ import annotations

from functools import cache
from itertools import count
from typing import Any

import pytest
import torch

from benchmarks.measure.cases import CASES
from benchmarks.measure.contenders import Contender, our_contenders
from benchmarks.measure.gate import Reference
from benchmarks.measure.maps import Settings, reference_for, trial, warm_up
from benchmarks.measure.peers import peer_contenders
from benchmarks.measure.timing import Budget, clock_for
from fastsdm.testing import Array


@cache
def _settings(device: str, threads: int, full: bool) -> Settings:
    budget = Budget(3.0, most=5, longest_call_s=25.0 if full else 6.0)
    return Settings(torch.device(device), threads, budget, reference_s=10.0)


@cache
def _labels_and_reference(name: str, threads: int) -> tuple[Array, Reference]:
    labels = CASES[name].make()
    return labels, reference_for(CASES[name], labels, _settings("cpu", threads, full=False))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    device = torch.device(metafunc.config.getoption("device"))
    contenders = [*our_contenders(device), *peer_contenders(device)[0]]
    names = [name for name in CASES if CASES[name].quick or metafunc.config.getoption("full")]
    metafunc.parametrize("contender", contenders, ids=[each.name.replace(" ", "-") for each in contenders])
    metafunc.parametrize("name", names)


def test_map(benchmark: Any, request: pytest.FixtureRequest, name: str, contender: Contender) -> None:
    device, threads, full = (request.config.getoption(option) for option in ("device", "threads", "full"))
    settings, case = _settings(device, threads, full), CASES[name]
    if contender.name not in settings.rates and (failures := warm_up([contender], settings)):
        pytest.fail(failures[contender.name])
    labels, reference = _labels_and_reference(name, threads)
    tried = trial(contender, case, labels, reference, settings, clock_for(settings.device))
    timed, agreement = tried.run, tried.row.agreement
    if timed is None or agreement is None:
        (pytest.fail if tried.row.failed else pytest.skip)(f"{contender.name} {tried.row.note}")

    rounds = count()

    def run() -> None:
        timed(next(rounds))
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark.group = case.title
    benchmark.extra_info["map_voxels"] = case.map_voxels
    benchmark.extra_info["checked"] = tried.row.checked
    benchmark.extra_info["largest relative error"] = agreement.max_rel
    benchmark.pedantic(run, rounds=max(1, settings.budget.repeats(tried.first_s)))
