from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from fastsdm.schedules import Constant, Increase, Rebalance, Schedule


def course(schedule: Schedule, steps: int) -> list[tuple[float, float]]:
    weights = []
    for _ in range(steps):
        weights.append((schedule.weights.region, schedule.weights.boundary))
        schedule.step()
    return weights


def test_constant() -> None:
    assert course(Constant(0.3), 5) == [(1.0, 0.3)] * 5


def test_rebalance_is_the_published_schedule() -> None:
    alpha, published = 0.01, []
    for _ in range(150):
        published.append((1 - alpha, alpha))
        alpha = min(alpha + 0.01, 0.99)
    assert course(Rebalance(), 150) == [pytest.approx(pair) for pair in published]


def test_increase_adds_up_to_its_end() -> None:
    expected = [(1.0, min(0.5 + 0.25 * n, 1.5)) for n in range(10)]
    assert course(Increase(start=0.5, end=1.5, steps=4), 10) == [pytest.approx(pair) for pair in expected]


@pytest.mark.parametrize("kind", [Increase, Rebalance])
def test_cosine_is_slow_at_both_ends(kind: type) -> None:
    schedule = kind(start=0.2, end=0.8, steps=10, shape="cosine")
    expected = [0.2 + 0.6 * (1 - math.cos(math.pi * n / 10)) / 2 for n in range(11)] + [0.8] * 3
    assert [pair[1] for pair in course(schedule, 14)] == pytest.approx(expected)


@pytest.mark.parametrize("make", [Constant, Increase, Rebalance])
def test_state_resumes_where_it_was(make: type) -> None:
    schedule = make()
    course(schedule, 12)
    resumed = make()
    resumed.load_state_dict(schedule.state_dict())
    for twin in (resumed, pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert twin.weights == schedule.weights
        assert torch.equal(twin.weights_tensor, schedule.weights_tensor)
    assert course(resumed, 20) == course(schedule, 20)


@pytest.mark.parametrize("schedule", [Constant(0.3), Increase(), Rebalance(shape="cosine")])
def test_the_tensor_follows_the_weights(schedule: Schedule) -> None:
    for _ in range(3):
        assert schedule.weights_tensor.dtype == torch.float64
        assert schedule.weights_tensor.tolist() == list(schedule.weights)
        schedule.step()


def test_weights_have_names() -> None:
    weights = Rebalance(start=0.25, end=0.5, steps=1).weights
    assert weights.region == 0.75
    assert weights.boundary == 0.25


def test_repr_builds_the_schedule_again() -> None:
    for schedule in (Constant(0.3), Increase(0.1, 2.0, 7), Rebalance(shape="cosine")):
        assert repr(eval(repr(schedule))) == repr(schedule)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-0.1), "alpha: must be at least 0 and finite, got -0.1"),
        (lambda: Increase(start=float("nan")), "start: must be at least 0 and finite, got nan"),
        (lambda: Increase(end=float("inf")), "end: must be at least 0 and finite, got inf"),
        (lambda: Rebalance(end=1.5), "end: must be at most 1, got 1.5"),
        (lambda: Rebalance(start=2), "start: must be at most 1, got 2"),
        (lambda: Rebalance(steps=0), "steps: must be an integer of at least 1, got 0"),
        (lambda: Rebalance(shape="step"), "shape: must be one of 'linear', 'cosine'; got 'step'"),
        (
            lambda: Rebalance().load_state_dict({"alpha": 1}),
            r"state: must be a dict of 'steps_taken' .* got {'alpha': 1}",
        ),
        (lambda: Rebalance().load_state_dict(3), "state: must be a dict of 'steps_taken' .* got 3"),
        *(
            (
                lambda steps=steps: Rebalance().load_state_dict({"steps_taken": steps}),
                f"state: 'steps_taken' must be an integer of at least 0, got {steps!r}",
            )
            for steps in (-3, 2.5, True, "4")
        ),
    ],
)
def test_refuses(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
