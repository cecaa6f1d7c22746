"""Schedules of the weights of a region loss and a boundary loss."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

from fastsdm import _validate
from fastsdm._errors import shown

__all__ = ["Constant", "Increase", "Rebalance", "Schedule", "Shape", "Weights"]

Shape: TypeAlias = Literal["linear", "cosine"]


class Weights(NamedTuple):
    """Factors of the region loss and the boundary loss in their sum."""

    region: float
    boundary: float


class Schedule:
    """Base of the schedules: counts the steps, which usually are epochs.

    Attributes:
        steps_taken: number of calls of :meth:`step`.
        weight_tensors: ``weights`` as two float64 scalars on the CPU, for compiled losses. Numbers would be
            constants of the compiled code, so every step would compile again. One tensor of length 2 would
            tie its length to a batch of 2, so another batch size would compile again.
    """

    def __init__(self) -> None:
        self.steps_taken = 0
        region, boundary = (torch.tensor(w, dtype=torch.float64, device="cpu") for w in self.weights)
        self.weight_tensors = (region, boundary)

    @property
    def weights_tensor(self) -> torch.Tensor:
        """``weight_tensors`` as one tensor, ``[2]``."""
        return torch.stack(self.weight_tensors)

    @property
    def weights(self) -> Weights:
        """The current weights, ``(region, boundary)``."""
        raise NotImplementedError

    def step(self) -> None:
        """Advance by one step; call it at the end of every epoch."""
        self._go_to(self.steps_taken + 1)

    def set_epoch(self, epoch: int) -> None:
        """Set the weights to those of an epoch, counted from 0; for checkpoints without the loss's state.

        Raises:
            TypeError: not an integer.
            ValueError: a negative one.
        """
        epoch = _validate.integer("epoch", epoch)
        if epoch < 0:
            raise ValueError(f"epoch: must be at least 0, got {epoch}")
        self._go_to(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the position for a checkpoint; the settings are not part of it."""
        return {"steps_taken": self.steps_taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the position that :meth:`state_dict` saved.

        Raises:
            ValueError: ``state`` is not the state of a schedule.
        """
        if not isinstance(state, dict) or set(state) != {"steps_taken"}:
            raise ValueError(f"state: must be a dict of 'steps_taken' and nothing else, got {shown(state)}")
        steps_taken = state["steps_taken"]
        if not _validate.is_integer(steps_taken) or steps_taken < 0:
            raise ValueError(f"state: 'steps_taken' must be an integer of at least 0, got {steps_taken!r}")
        self._go_to(int(steps_taken))

    def _go_to(self, steps_taken: int) -> None:
        self.steps_taken = steps_taken
        for tensor, weight in zip(self.weight_tensors, self.weights, strict=True):
            tensor.fill_(weight)

    def __repr__(self) -> str:
        settings = ", ".join(
            f"{k}={v!r}" for k, v in vars(self).items() if k not in ("steps_taken", "weight_tensors")
        )
        return f"{type(self).__name__}({settings})"


class Constant(Schedule):
    """``region + alpha * boundary`` with a constant ``alpha``.

    Args:
        alpha: weight of the boundary loss.

    Raises:
        ValueError: ``alpha`` is negative or not finite.
    """

    def __init__(self, alpha: float = 0.01) -> None:
        self.alpha = _checked_weight("alpha", alpha)
        super().__init__()

    @property
    def weights(self) -> Weights:
        """The current weights, ``(region, boundary)``."""
        return Weights(1.0, self.alpha)


class _Ramp(Schedule):
    """A weight that goes from ``start`` to ``end`` in ``steps`` steps, then stays."""

    def __init__(
        self, start: float = 0.01, end: float = 1.0, steps: int = 99, shape: Shape = "linear"
    ) -> None:
        self.start, self.end = _checked_weight("start", start), _checked_weight("end", end)
        steps = _validate.integer("steps", steps)
        if steps < 1:
            raise ValueError(f"steps: must be an integer of at least 1, got {steps!r}")
        _validate.choice("shape", shape, ("linear", "cosine"))
        self.steps = steps
        self.shape = shape
        super().__init__()

    @property
    def alpha(self) -> float:
        """The current weight of the boundary loss."""
        passed = min(self.steps_taken / self.steps, 1.0)
        if self.shape == "cosine":
            passed = (1 - math.cos(math.pi * passed)) / 2
        return self.start + (self.end - self.start) * passed


class Increase(_Ramp):
    """``region + alpha * boundary`` with a growing ``alpha``.

    Args:
        start: first ``alpha``.
        end: last ``alpha``, kept from then on.
        steps: number of steps from ``start`` to ``end``.
        shape: ``"linear"``, or ``"cosine"``: slow at both ends.

    Raises:
        ValueError: an argument out of its range; the message names argument, rule and value.
    """

    @property
    def weights(self) -> Weights:
        """The current weights, ``(region, boundary)``."""
        return Weights(1.0, self.alpha)


class Rebalance(_Ramp):
    """``(1 - alpha) * region + alpha * boundary`` with a growing ``alpha``.

    The defaults follow the text of Kervadec et al. (doi:10.1016/j.media.2020.101851): 0.01 more an epoch,
    from 0.01 to 0.99. Their code differs: it starts at weights (1, 0.01), keeps the region weight at 0.1 or
    above and does not limit the boundary weight, which is 1.21 at epoch 120.

    Args:
        start: first ``alpha``.
        end: last ``alpha``, kept from then on; 0.99 keeps 0.01 of the region loss.
        steps: number of steps from ``start`` to ``end``.
        shape: ``"linear"``, or ``"cosine"``: slow at both ends.

    Raises:
        ValueError: an argument out of its range; the message names argument, rule and value.
    """

    def __init__(
        self, start: float = 0.01, end: float = 0.99, steps: int = 98, shape: Shape = "linear"
    ) -> None:
        for name, value in (("start", start), ("end", end)):
            if _checked_weight(name, value) > 1:
                raise ValueError(f"{name}: must be at most 1, got {value!r}")
        super().__init__(start, end, steps, shape)

    @property
    def weights(self) -> Weights:
        """The current weights, ``(region, boundary)``."""
        return Weights(1 - self.alpha, self.alpha)


def _checked_weight(name: str, value: object) -> float:
    weight = _validate.number(name, value)
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name}: must be at least 0 and finite, got {value!r}")
    return weight
