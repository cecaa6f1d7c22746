"""Our losses and MONAI's on the same batch, forward and backward; a gradient that differs fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.measure.losses import MONAI, NAMES, OURS, LossBatch, largest_difference


@pytest.fixture(scope="module", params=[32, 48, 96])
def batch(request: pytest.FixtureRequest) -> LossBatch:
    if request.param > 48 and not request.config.getoption("full"):
        pytest.skip("--full only")
    torch.set_num_threads(request.config.getoption("threads"))
    return LossBatch.of_size(request.param, torch.device(request.config.getoption("device")))


@pytest.mark.parametrize("owner", [OURS, MONAI])
@pytest.mark.parametrize("name", ["map", *NAMES])
def test_loss(benchmark: Any, batch: LossBatch, name: str, owner: str) -> None:
    runs = batch.runs(name)
    largest_difference(name, {each: run() for each, run in runs.items()})

    def run() -> None:
        result = runs[owner]()
        if result.is_cuda:
            torch.cuda.synchronize()

    benchmark.group = f"{name}, {batch.title}"
    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
