"""Deep supervision: a loss over the outputs of a network at several scales."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from fastsdm import _validate
from fastsdm._arrays import as_tensor
from fastsdm._errors import shown
from fastsdm._types import SpacingLike
from fastsdm.losses._maps import spacing_of
from fastsdm.losses._options import ClassWeights, PendingMap


class DeepSupervision(torch.nn.Module):
    """Sum a loss over the outputs of a network at several scales, with the spacing scaled to each.

    An output of half the size has voxels of twice the size. With the spacing of the finest output its
    distances, and so its share of the loss, would be half of what they should be.

    Args:
        loss: any loss of :mod:`fastsdm.losses`.
        weights: one per output, finest first; None halves them from output to output, with sum 1. Outputs of
            weight 0 are left out.
        spatial_dims: 2 or 3: number of spatial axes of an ``input`` that is a single tensor. None: the shapes
            decide; where they allow both, ``forward`` raises.

    Raises:
        TypeError: the loss takes no spacing; weights that are not numbers.
        ValueError: a weight that is negative or not finite, or none that is positive.
    """

    def __init__(
        self,
        loss: torch.nn.Module,
        weights: Sequence[float] | None = None,
        *,
        spatial_dims: int | None = None,
    ) -> None:
        super().__init__()
        if not hasattr(loss, "spacing"):
            raise TypeError(f"loss: must have a spacing, as fastsdm's have, got {type(loss).__name__}")
        self.loss = loss
        self.weights = None if weights is None else _checked_weights(weights)
        self.spatial_dims = None if spatial_dims is None else _validate.spatial_dims(spatial_dims)

    def extra_repr(self) -> str:
        """The weights, and the number of spatial axes where it is set."""
        dims = "" if self.spatial_dims is None else f", spatial_dims={self.spatial_dims}"
        return f"weights={self.weights}{dims}"

    def forward(
        self,
        input: Sequence[torch.Tensor] | torch.Tensor,
        target: torch.Tensor | Sequence[torch.Tensor],
        *,
        spacing: SpacingLike | None = None,
        distance_map: Sequence[torch.Tensor | PendingMap] | None = None,
        ignore_mask: torch.Tensor | Sequence[torch.Tensor] | None = None,
        class_weights: ClassWeights | None = None,
    ) -> torch.Tensor:
        """Compute the weighted sum over the outputs.

        Args:
            input: predictions ``[B, C, *S_i]``, finest first; or stacked, ``[B, n, C, *S]``, as MONAI's
                DynUNet returns them; or one, ``[B, C, *S]``, as in validation, whose loss is returned.
                Five axes are one prediction in 3D or a stack in 2D. The target's shape decides which, except
                for an input ``[B, n, X, H, W]`` with a target ``[B, X, H, W]``: there ``spatial_dims``, the
                number of ``weights``, the spacing or ``to_onehot_y`` has to decide.
            target: one target per output; or the finest one's, which is resampled to the nearest voxel.
            spacing: of the finest output, instead of the loss's own.
            distance_map: one per output, or None.
            ignore_mask: like ``target``, or None.
            class_weights: of this batch, at every scale, as in :meth:`fastsdm.losses.BoundaryLoss.forward`.

        Returns:
            The sum of the outputs' losses times their weights.

        Raises:
            TypeError: ``input`` or ``distance_map`` is not a sequence.
            ValueError: no output; different numbers of outputs, targets, maps or weights; five axes that may
                be 3D or a stack in 2D.
        """
        known = {} if class_weights is None else {"class_weights": class_weights}
        if isinstance(input, torch.Tensor):
            if not self._is_stack(input, target, spacing):
                single = distance_map[0] if isinstance(distance_map, (list, tuple)) else distance_map
                value: torch.Tensor = self.loss(
                    input, target, spacing=spacing, distance_map=single, ignore_mask=ignore_mask, **known
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
        terms = [
            weight
            * self.loss(
                prediction,
                truth,
                spacing=scaled_spacing(spacing, len(prediction), finest, prediction.shape[2:]),
                distance_map=handed,
                ignore_mask=mask,
                **known,
            )
            for weight, prediction, truth, handed, mask in zip(
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

    def _is_stack(self, input: torch.Tensor, target: object, spacing: SpacingLike | None) -> bool:
        """Whether a tensor is the outputs of several levels, ``[B, n, C, *S]``."""
        dims = self.spatial_dims
        if input.ndim != 5 or dims is not None:
            return input.ndim == (6 if dims is None else dims + 3)
        shape = tuple(getattr(target, "shape", ()))
        fits_3d = shape == (input.shape[0], *input.shape[2:]) or (
            len(shape) == 5 and shape[2:] == tuple(input.shape[2:])
        )
        fits_2d = len(shape) < 5 and shape[-2:] == tuple(input.shape[3:])
        if fits_3d and fits_2d:
            return self._is_stack_in_2d(input, shape, spacing)
        return fits_2d

    def _is_stack_in_2d(
        self, input: torch.Tensor, shape: tuple[int, ...], spacing: SpacingLike | None
    ) -> bool:
        """Decide by the spacing, the weights or ``to_onehot_y`` where the shapes fit both."""
        spacing = self.loss.spacing if spacing is None else spacing
        if spacing is not None:
            axes = _validate.spacing_tensor(spacing)
            if axes.ndim and axes.shape[-1] in (2, 3):
                return axes.shape[-1] == 2
        if self.weights is not None and len(self.weights) != input.shape[1]:
            return False
        if getattr(self.loss, "to_onehot_y", False) and input.shape[2] > 1:
            return False  # a label map in 2D has no such axis
        raise ValueError(
            f"input: {tuple(input.shape)} with a target {shape} may be one prediction in 3D with labels, or "
            f"{input.shape[1]} outputs in 2D with {input.shape[2]} channels; say which by "
            "DeepSupervision(..., spatial_dims=3) or spatial_dims=2"
        )


def _checked_weights(weights: Sequence[float] | str) -> list[float]:
    if isinstance(weights, str) or not isinstance(weights, Iterable):
        raise TypeError(f"weights: must be None or a sequence of numbers, got {shown(weights)}")
    values = [_validate.number("weights", weight) for weight in weights]
    if not (all(0 <= value < math.inf for value in values) and any(values)):
        raise ValueError(
            f"weights: must be at least 0 and finite, and one of them positive, got {list(weights)}"
        )
    return values


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
    """Resample the last axes to the nearest voxel, for any dtype."""
    for axis, size in enumerate(shape, start=target.ndim - len(shape)):
        if target.shape[axis] != size:
            centres = (torch.arange(size, device=target.device) + 0.5) * (target.shape[axis] / size)
            target = target.index_select(axis, centres.long())
    return target


def scaled_spacing(
    spacing: SpacingLike, samples: int, finest: Sequence[int], shape: Sequence[int]
) -> torch.Tensor:
    """Scale the voxel size of shape ``finest`` to ``shape``: half the size has voxels of twice the size."""
    factors = [fine / size for fine, size in zip(finest, shape, strict=True)]
    rows = _validate.spacing_rows(spacing, (samples,), len(finest))
    return rows * torch.tensor(factors, dtype=torch.float64, device="cpu")
