"""Losses made of losses: region plus boundary under a schedule, and deep supervision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastsdm import _validate
from fastsdm._arrays import as_tensor
from fastsdm._prefetch import Prefetched
from fastsdm._types import SpacingLike
from fastsdm.losses._map_settings import PendingMap, spacing_of
from fastsdm.schedules import Constant, Schedule


class RegionBoundaryLoss(torch.nn.Module):
    """A region loss plus a boundary loss, weighed by a schedule.

    The boundary loss alone has trivial solutions for absent classes, so Kervadec et al.
    (doi:10.1016/j.media.2020.101851) train with a region loss beside it and shift the weight to
    the boundary over the epochs. Call ``loss.schedule.step()`` at the end of every epoch and read
    ``loss.schedule.weights`` for the log. ``state_dict`` holds the schedule's position as a tensor; a
    checkpoint without it loads and leaves the position alone, which ``loss.schedule.set_epoch(n)`` sets.

    Args:
        region: called as ``region(input, target)``: a Dice or cross-entropy loss, say.
        boundary: any loss of :mod:`fastsdm.losses`.
        schedule: of :mod:`fastsdm.schedules`; None is ``Constant()``.

    Raises:
        TypeError: the region loss is not callable or the schedule is none.
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
        """The schedule, and the region loss where it is no module (a module is listed by itself)."""
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
        *,
        spacing: SpacingLike | None = None,
        distance_map: torch.Tensor | PendingMap | None = None,
        ignore_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The weighted sum; the keyword arguments go to the boundary loss.

        Args:
            input: the prediction, as both losses take it.
            target: the target, as both losses take it.
            spacing: as in :meth:`fastsdm.losses.BoundaryLoss.forward`.
            distance_map: as in :meth:`fastsdm.losses.BoundaryLoss.forward`.
            ignore_mask: as in :meth:`fastsdm.losses.BoundaryLoss.forward`; the region loss must know by
                itself which voxels to ignore.

        Returns:
            What the two losses return, weighed and added.
        """
        region = self.region(input, target)
        boundary: torch.Tensor = self.boundary(
            input, target, spacing=spacing, distance_map=distance_map, ignore_mask=ignore_mask
        )
        region_weight, boundary_weight = self.schedule.weights_tensor.to(boundary.dtype).unbind()
        return region_weight * region + boundary_weight * boundary


class DeepSupervision(torch.nn.Module):
    """A loss over the outputs of a network at several scales, with the spacing scaled to each.

    An output of half the size has voxels of twice the size; without that its distances, and so its share of
    the loss, would be off by the same factor.

    Args:
        loss: any loss of :mod:`fastsdm.losses`.
        weights: one per output, finest first; None halves them from output to output, with sum 1. Outputs of
            weight 0 are left out.

    Raises:
        TypeError: the loss takes no spacing.
        ValueError: a weight that is negative or not finite, or none that is positive.
    """

    def __init__(self, loss: torch.nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not hasattr(loss, "spacing"):
            raise TypeError(f"loss: must have a spacing, as fastsdm's have, got {type(loss).__name__}")
        if weights is not None and not (all(0 <= w < math.inf for w in weights) and any(weights)):
            raise ValueError(
                f"weights: must be at least 0 and finite, and one of them positive, got {list(weights)}"
            )
        self.loss = loss
        self.weights = None if weights is None else [float(w) for w in weights]

    def extra_repr(self) -> str:
        """The weights."""
        return f"weights={self.weights}"

    def forward(
        self,
        input: Sequence[torch.Tensor] | torch.Tensor,
        target: torch.Tensor | Sequence[torch.Tensor],
        *,
        spacing: SpacingLike | None = None,
        distance_map: Sequence[torch.Tensor | PendingMap] | None = None,
        ignore_mask: torch.Tensor | Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The weighted sum over the outputs.

        Args:
            input: predictions ``[B, C, *S_i]``, finest first; or stacked, ``[B, n, C, *S]``, as MONAI's
                DynUNet returns them; or one, ``[B, C, *S]``, as in validation, whose loss is returned.
                An input of five axes is one in 3D if the target fits that, else a stack in 2D.
            target: one target per output; or the finest one's, which is resampled to the nearest voxel.
            spacing: of the finest output, instead of the loss's own.
            distance_map: one per output, or None.
            ignore_mask: like ``target``, or None.

        Returns:
            The sum of the outputs' losses times their weights.

        Raises:
            TypeError: ``input`` or ``distance_map`` is no sequence.
            ValueError: no output; numbers of outputs, targets, maps or weights that differ.
        """
        if isinstance(input, torch.Tensor):
            if not _is_stack(input, target):
                single = distance_map[0] if isinstance(distance_map, (list, tuple)) else distance_map
                value: torch.Tensor = self.loss(
                    input, target, spacing=spacing, distance_map=single, ignore_mask=ignore_mask
                )
                return value
            input = input.unbind(dim=1)
        _check_outputs(input)
        levels = len(input)
        weights = self._weights(levels)
        targets = _per_level("target", target, input)
        masks = [None] * levels if ignore_mask is None else _per_level("ignore_mask", ignore_mask, input)
        if not isinstance(distance_map, Sequence | None):
            raise TypeError(f"distance_map: must be a sequence, got {type(distance_map).__name__}")
        maps = [None] * levels if distance_map is None else list(distance_map)
        if len(maps) != levels:
            raise ValueError(f"distance_map: must be one per output ({levels}), got {len(maps)}")
        finest = input[0].shape[2:]
        spacing = self.loss.spacing if spacing is None else spacing
        if spacing is None:
            spacing = spacing_of(maps[0])
        steps = _validate.spacing_rows(spacing, input[0].shape[:1], len(finest))
        terms = [
            weight
            * self.loss(
                prediction,
                truth,
                spacing=_scaled(steps, finest, prediction.shape[2:]),
                distance_map=known,
                ignore_mask=mask,
            )
            for weight, prediction, truth, known, mask in zip(
                weights, input, targets, maps, masks, strict=True
            )
            if weight
        ]
        return torch.stack(terms).sum(dim=0)

    def _weights(self, levels: int) -> list[float]:
        if self.weights is None:
            total = sum(0.5**level for level in range(levels))
            return [0.5**level / total for level in range(levels)]
        if len(self.weights) != levels:
            raise ValueError(f"input: must hold one output per weight ({len(self.weights)}), got {levels}")
        return self.weights


def _is_stack(input: torch.Tensor, target: object) -> bool:
    """Whether a tensor is the outputs of several levels, ``[B, n, C, *S]``."""
    if input.ndim != 5:
        return input.ndim == 6
    shape = tuple(getattr(target, "shape", ()))
    fits_one = shape == (input.shape[0], *input.shape[2:]) or (
        len(shape) == 5 and shape[2:] == tuple(input.shape[2:])
    )
    return not fits_one and shape[-2:] == tuple(input.shape[3:])


def _check_outputs(input: object) -> None:
    if not isinstance(input, Sequence):
        raise TypeError(f"input: must be a sequence of predictions, got {type(input).__name__}")
    if not input:
        raise ValueError(f"input: must hold at least one prediction, got {input!r}")
    for output in input:
        if not isinstance(output, torch.Tensor):
            raise TypeError(f"input: must hold tensors, got {type(output).__name__}")
        if output.ndim not in (4, 5) or output.ndim != input[0].ndim:
            raise ValueError(
                "input: must hold predictions [B, C, H, W] or [B, C, D, H, W], all with as many axes, "
                f"got shapes {[tuple(prediction.shape) for prediction in input]}"
            )


def _per_level(name: str, given: object, input: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if not isinstance(given, Sequence):
        finest, _ = as_tensor(given, name)
        if finest.ndim < input[0].ndim - 1:
            raise ValueError(
                f"{name}: must have batch size and spatial shape of the finest prediction "
                f"{tuple(input[0].shape)}, got {tuple(finest.shape)}"
            )
        return [_nearest(finest, output.shape[2:]) for output in input]
    if len(given) != len(input):
        raise ValueError(f"{name}: must be one per output ({len(input)}), got {len(given)}")
    return list(given)


def _nearest(target: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Nearest-neighbour resampling of the last axes, for any dtype."""
    for axis, size in enumerate(shape, start=target.ndim - len(shape)):
        if target.shape[axis] != size:
            centres = (torch.arange(size, device=target.device) + 0.5) * (target.shape[axis] / size)
            target = target.index_select(axis, centres.long())
    return target


def _scaled(spacing: torch.Tensor, finest: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    factors = torch.tensor(
        [fine / size for fine, size in zip(finest, shape, strict=True)],
        dtype=torch.float64,
        device="cpu",
    )
    return spacing * factors
