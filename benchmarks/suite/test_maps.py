"""Every backend and every peer on every case; a wrong map fails, a slow one does not.

`python -m pytest benchmarks/suite --benchmark-json=out.json`
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from benchmarks.cases import CASES
from benchmarks.contenders import Contender, our_contenders, peer_contenders
from benchmarks.gate import Reference
from benchmarks.maps import Settings, left_out, reference_for
from benchmarks.timing import Budget
from fastsdm.testing import Array


@cache
def _labels_and_reference(name: str, threads: int) -> tuple[Array, Reference]:
    labels = CASES[name].make()
    settings = Settings(torch.device("cpu"), threads, Budget(1.0), reference_s=10.0)
    return labels, reference_for(CASES[name], labels, settings)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    device = torch.device(metafunc.config.getoption("device"))
    contenders = [*our_contenders(device), *peer_contenders(device)[0]]
    names = [name for name in CASES if CASES[name].quick or metafunc.config.getoption("full")]
    metafunc.parametrize("contender", contenders, ids=[each.name.replace(" ", "-") for each in contenders])
    metafunc.parametrize("name", names)


def test_map(benchmark: Any, request: pytest.FixtureRequest, name: str, contender: Contender) -> None:
    threads = request.config.getoption("threads")
    case = CASES[name]
    labels, reference = _labels_and_reference(name, threads)
    if reason := left_out(contender, case, reference):
        pytest.skip(f"{contender.name} {reason}")
    prepared = contender.prepared(case, labels, threads)
    agreement = reference.agreement(prepared.plain(prepared.run(0)), contender.tolerance, contender.half)
    assert agreement.passed, agreement

    def run() -> None:
        prepared.run(0)
        if request.config.getoption("device") == "cuda":
            torch.cuda.synchronize()

    benchmark.group = case.title
    benchmark.extra_info["map_voxels"] = case.map_voxels
    benchmark.extra_info["checked"] = str(reference)
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
