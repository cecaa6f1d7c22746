"""Where the distance map of a training step can come from."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch

import fastsdm
from fastsdm import testing
from fastsdm.losses import BoundaryLoss

BASELINE = "none"
_Pair = tuple[torch.cuda.Event, torch.cuda.Event]


class Stopwatch:
    """Time spent in the wrapped functions, summed per step: wall clock, or events on a device's stream."""

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._steps: list[list[float | _Pair]] = []

    def new_step(self) -> None:
        """What is timed from now on belongs to the next step."""
        self._steps.append([])

    def clear(self) -> None:
        """Forget the steps so far."""
        self._steps.clear()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            if not self._on_cuda:
                start_s = time.perf_counter()
                result = function(*arguments, **keywords)
                self._note(time.perf_counter() - start_s)
                return result
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            result = function(*arguments, **keywords)
            end.record()
            self._note((start, end))
            return result

        return timed

    def attach(self, owner: object, method: str) -> None:
        """Time every call of a method of this object."""
        setattr(owner, method, self.around(getattr(owner, method)))

    def median_per_step(self) -> float:
        """Median seconds per step; waits for the device."""
        if self._on_cuda:
            torch.cuda.synchronize()
        return statistics.median([sum(map(_seconds, step)) for step in self._steps] or [0.0])

    def _note(self, taken: float | _Pair) -> None:
        if self._steps:  # calls before the first step are not wanted
            self._steps[-1].append(taken)


def _seconds(taken: float | _Pair) -> float:
    if isinstance(taken, float):
        return taken
    start, end = taken
    return float(start.elapsed_time(end)) / 1000


@dataclass(frozen=True)
class Variant:
    """One source of the map.

    Attributes:
        watch: times the map.
        loss: from logits, labels and what `begin` returned.
        begin: called before the forward pass.
        exact: whether the loss must agree with the others to rounding.
    """

    watch: Stopwatch
    loss: Callable[[torch.Tensor, torch.Tensor, Any], Any]
    begin: Callable[[torch.Tensor], Any] = lambda labels: None
    exact: bool = True


def step_variants(device: torch.device, classes: int) -> dict[str, Callable[[Stopwatch], Variant]]:
    """Every source of the map that works on `device`, by name: the published recipe, MONAI, each of ours."""
    made: dict[str, Callable[[Stopwatch], Variant]] = {
        BASELINE: lambda watch: Variant(watch, lambda logits, labels, begun: 0.0),
        "scipy recipe": partial(_recipe, classes=classes),
        "MONAI": _monai,
    }
    for name, status in fastsdm.backends().items():
        # Jump flooding takes seconds a step on a CPU.
        if device.type in status.devices and (status.exact or device.type != "cpu"):
            made[f"fastsdm {name}"] = partial(_ours, status=status, classes=classes)
            made[f"fastsdm {name}, prefetch"] = partial(_prefetched, status=status, classes=classes)
    return made


def _ours(watch: Stopwatch, status: fastsdm.BackendStatus, classes: int) -> Variant:
    loss = BoundaryLoss(softmax=True, backend=status.name)
    # What the loss does by itself without `distance_map`, in two calls so that the first can be timed.
    timed = watch.around(loss.target_map)
    return Variant(
        watch,
        lambda logits, labels, begun: loss(logits, labels, distance_map=timed(labels, classes)),
        exact=status.exact,
    )


class _TimedResult:
    """A map under way whose wait is timed."""

    def __init__(self, pending: Any, watch: Stopwatch) -> None:
        self.result = watch.around(pending.result)


def _prefetched(watch: Stopwatch, status: fastsdm.BackendStatus, classes: int) -> Variant:
    loss = BoundaryLoss(softmax=True, backend=status.name)
    start = watch.around(loss.prefetch)
    return Variant(
        watch,
        lambda logits, labels, begun: loss(logits, labels, distance_map=begun),
        begin=lambda labels: _TimedResult(start(labels, classes), watch),
        exact=status.exact,
    )


def _monai(watch: Stopwatch) -> Variant:
    loss = import_module("monai.losses").BoundaryLoss(softmax=True, to_onehot_y=True)
    watch.attach(loss, "compute_distance_map")
    return Variant(watch, lambda logits, labels, begun: loss(logits, labels))


def _recipe(watch: Stopwatch, classes: int) -> Variant:
    def maps_of(labels: torch.Tensor) -> torch.Tensor:
        maps = testing.published_maps(labels[:, 0].cpu().numpy(), range(classes))
        return torch.from_numpy(maps).to(labels.device)

    timed = watch.around(maps_of)
    return Variant(watch, lambda logits, labels, begun: (torch.softmax(logits, 1) * timed(labels)).mean())
