"""Metrics that collect batches reduce as MONAI's do, and refuse what they cannot reduce."""

from __future__ import annotations

import monai.metrics
import pytest
import torch
import torch.multiprocessing

from fastsdm import metrics

PAIRS = {
    "HausdorffDistanceMetric": {"percentile": 95},
    "SurfaceDistanceMetric": {"symmetric": True},
    "SurfaceDiceMetric": {"class_thresholds": [1.0, 1.0]},
}


def batches(classes: int = 3):
    generator = torch.Generator().manual_seed(5)
    for batch in (2, 1):
        labels = torch.randint(0, classes, (2, batch, 7, 8, 9), generator=generator)
        labels[:, 0][labels[:, 0] == 2] = 0  # a sample without class 2
        yield [torch.nn.functional.one_hot(each, classes).movedim(-1, 1) for each in labels]


@pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class", "ignore:monai.metrics.utils")
@pytest.mark.parametrize(
    "reduction", ["none", "mean", "sum", "mean_batch", "sum_batch", "mean_channel", "sum_channel"]
)
@pytest.mark.parametrize("name", PAIRS)
def test_reductions_are_monais(name: str, reduction: str) -> None:
    ours = getattr(metrics, name)(**PAIRS[name], reduction=reduction)
    theirs = getattr(monai.metrics, name)(**PAIRS[name], reduction=reduction)
    for prediction, reference in batches():
        ours(prediction, reference, spacing=(2.0, 1.0, 1.0))
        theirs(prediction, reference, spacing=(2.0, 1.0, 1.0))
    got = ours.compute()
    torch.testing.assert_close(
        got, theirs.aggregate().reshape(got.shape), equal_nan=True, rtol=1e-5, atol=1e-6
    )


def test_reset_forgets() -> None:
    metric = metrics.DiceMetric()
    metric.update(*next(batches()))
    assert metric.compute("none").shape == (2, 2)
    metric.reset()
    with pytest.raises(ValueError, match="needs at least one batch"):
        metric.compute()


def test_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reduction: must be one of .* got 'median'"):
        metrics.DiceMetric(reduction="median")


def _gathered(rank: int, store: str, results) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    metric = metrics.DiceMetric(reduction="none")
    metric.update(*list(batches())[rank])
    results.put((rank, metric.compute().tolist()))
    torch.distributed.destroy_process_group()


def test_processes_are_gathered(tmp_path) -> None:
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    torch.multiprocessing.spawn(_gathered, (str(tmp_path / "store"), results), nprocs=2)
    alone = metrics.DiceMetric(reduction="none")
    for pair in batches():
        alone.update(*pair)
    seen = dict(results.get() for _ in range(2))
    for rank in range(2):
        torch.testing.assert_close(torch.tensor(seen[rank]), alone.compute(), equal_nan=True)
