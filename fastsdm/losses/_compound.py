"""A region loss plus a boundary loss under a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from fastsdm._prefetch import Prefetched
from fastsdm._types import SpacingLike
from fastsdm.losses._options import ForwardOptions
from fastsdm.schedules import Constant, Schedule

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RegionBoundaryLoss(torch.nn.Module):
    """Add a region loss and a boundary loss, with the weights of a schedule.

    The boundary loss alone has trivial solutions for absent classes, so Kervadec et al.
    (doi:10.1016/j.media.2020.101851) train with a region loss beside it and shift the weight to
    the boundary over the epochs. Call ``loss.schedule.step()`` at the end of every epoch and read
    ``loss.schedule.weights`` for the log. ``state_dict`` holds the schedule's position as a tensor. A
    checkpoint without it can be loaded and does not change the position; ``loss.schedule.set_epoch(n)`` does.

    Args:
        region: called as ``region(input, target)``: a Dice or cross-entropy loss, say.
        boundary: any loss of :mod:`fastsdm.losses`.
        schedule: of :mod:`fastsdm.schedules`; None is ``Constant()``.

    Raises:
        TypeError: ``region`` is not callable, ``boundary`` is not a module, or ``schedule`` is not one of
            :mod:`fastsdm.schedules`.
    """

    def __init__(
        self,
        region: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        boundary: torch.nn.Module,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        if not callable(region):
            raise TypeError(f"region: must be callable, got {type(region).__name__}")
        if not isinstance(boundary, torch.nn.Module):
            raise TypeError(f"boundary: must be a torch module, got {type(boundary).__name__}")
        schedule = Constant() if schedule is None else schedule
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule: must be one of fastsdm.schedules, got {type(schedule).__name__}")
        self.region = region
        self.boundary = boundary
        self.schedule = schedule

    @property
    def spacing(self) -> SpacingLike | None:
        """The boundary loss's spacing, when ``forward`` is given none."""
        return self.boundary.spacing

    def prefetch(self, target: torch.Tensor, channels: int, **options: Any) -> Prefetched[torch.Tensor]:
        """Start the boundary loss's map; see :meth:`fastsdm.losses.BoundaryLoss.prefetch`."""
        start: Callable[..., Prefetched[torch.Tensor]] = self.boundary.prefetch  # type: ignore[assignment]
        return start(target, channels, **options)

    def extra_repr(self) -> str:
        """Return the schedule, and the region loss if it is not a module; torch lists modules itself."""
        region = "" if isinstance(self.region, torch.nn.Module) else f"region={self.region!r}, "
        return f"{region}schedule={self.schedule!r}"

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        steps = torch.tensor(self.schedule.steps_taken, dtype=torch.int64, device="cpu")
        destination[f"{prefix}schedule_steps"] = steps

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        steps = state_dict.pop(f"{prefix}schedule_steps", None)
        former = state_dict.pop(f"{prefix}_extra_state", None)  # of version 0.1: a dictionary
        if steps is not None:
            self.schedule.set_epoch(int(steps))
        elif former is not None:
            self.schedule.load_state_dict(former)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def forward(
        self,
        input: torch.Tensor,
        target: torch.Tensor,
        **options: Unpack[ForwardOptions],
    ) -> torch.Tensor:
        """Compute the weighted sum.

        Args:
            input: the prediction, as both losses take it.
            target: the target, as both losses take it.
            **options: ``spacing``, ``distance_map``, ``ignore_mask`` and ``class_weights`` of
                :meth:`fastsdm.losses.BoundaryLoss.forward`, for the boundary loss only. Set up the region
                loss separately to leave out voxels or classes.

        Returns:
            The weighted sum of what the two losses return.
        """
        region = self.region(input, target)
        # A boundary loss of another package need not have all of them.
        given = {name: value for name, value in options.items() if value is not None}
        boundary: torch.Tensor = self.boundary(input, target, **given)
        region_weight, boundary_weight = (w.to(boundary.dtype) for w in self.schedule.weight_tensors)
        return region_weight * region + boundary_weight * boundary
