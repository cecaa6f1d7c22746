"""The table of the losses: nothing is timed of a wrong loss."""

from __future__ import annotations

import pytest
import torch

from benchmarks.measure.losses import Step, compared
from benchmarks.measure.timing import Budget


def step(value: float, gradient: float) -> Step:
    return lambda _: (value, torch.tensor([1.0, gradient]))


def test_equal_contenders_are_timed() -> None:
    rows = compared("loss", {"one": step(2.0, 1.0), "other": step(2.0, 1.0)}, Budget(0.01, most=1))
    assert [row.split(" | ")[1] for row in rows] == ["one", "other"]


@pytest.mark.parametrize("wrong", [2.001, float("nan"), float("inf")])
def test_another_value_or_gradient_is_refused(wrong: float) -> None:
    budget = Budget(0.01, most=1)
    with pytest.raises(ValueError, match="loss: values differ"):
        compared("loss", {"one": step(2.0, 2.0), "other": step(wrong, 2.0)}, budget)
    with pytest.raises(ValueError, match="loss: gradients differ"):
        compared("loss", {"one": step(2.0, 2.0), "other": step(2.0, wrong)}, budget)
