"""The losses with the spacing of MONAI's tensors, and deep supervision with MONAI's weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.losses import DeepSupervisionLoss
from torch.nn.modules.module import register_module_module_registration_hook

from fastsdm import losses
from fastsdm._types import SpacingLike
from fastsdm._warn import warn_caller
from fastsdm.losses._deep_supervision import scaled_spacing
from fastsdm.losses._target import Target

#: The weight modes of MONAI's DeepSupervisionLoss.
_WEIGHTS: dict[str, Callable[[int], float]] = {
    "exp": lambda level: max(0.5**level, 0.0625),
    "two": lambda level: 0.5 if level else 1.0,
    "same": lambda level: 1.0,
}


def spacing_of(image: Any, spatial_dims: int = 3) -> torch.Tensor:
    """Return the voxel size along each axis, from the affine of a MetaTensor.

    Args:
        image: a MetaTensor with an affine ``[n, n]``, or a batch with ``[B, n, n]``.
        spatial_dims: number of spatial axes.

    Returns:
        float64 ``[spatial_dims]``, or ``[B, spatial_dims]`` for a batch; on the CPU.

    Raises:
        ValueError: ``image`` is not a MetaTensor.

    Warns:
        UserWarning: once, if axes are not at right angles; distances are measured as if they were.
    """
    if not isinstance(image, MetaTensor):
        raise ValueError(
            f"spacing: 'affine' needs a MetaTensor, got {type(image).__name__}; give the spacing in numbers, "
            "or keep metadata (monai.data.set_track_meta)"
        )
    columns = image.affine.to("cpu", torch.float64)[..., :-1, :spatial_dims]
    sizes: torch.Tensor = columns.norm(dim=-2)
    axes = columns / sizes.unsqueeze(-2)
    angles = (axes.mT @ axes - torch.eye(spatial_dims, dtype=torch.float64)).abs().max()
    if angles > 1e-3:
        warn_caller(
            f"affine: its axes are not at right angles (cosine up to {angles.item():.2f}), and distances are "
            "measured as if they were; RandAffined leaves such an affine where voxels are not cubes: "
            "resample to cubes before it"
        )
    return sizes


class _SpacingFromAffine(losses._base.DistanceMapLoss):
    """Compute the loss of the same name in :mod:`fastsdm.losses`, with the spacing of a MetaTensor if asked.

    Args:
        *args: positional arguments of the loss in :mod:`fastsdm.losses`, which are MONAI's.
        spacing: ``"affine"`` reads it for each sample from the target, or else the input, one of which must
            be a MetaTensor; or numbers as in :mod:`fastsdm.losses`. By default voxels are cubes of size 1,
            as in MONAI, and a target with other voxels causes one warning. Inside MONAI's
            ``DeepSupervisionLoss``, alone or within another module, a given spacing is that of the whole
            target, and each scale gets its own.
        **kwargs: keyword arguments of the loss in :mod:`fastsdm.losses`.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names argument, rule and value.
    """

    #: Shape of the whole target while a DeepSupervisionLoss of MONAI around this loss runs.
    _whole: torch.Size | None = None

    def _checked_spacing(self, spacing: SpacingLike | None) -> SpacingLike | None:
        return spacing if _is_affine(spacing) else super()._checked_spacing(spacing)

    def batch_spacing(
        self,
        given: SpacingLike | None,
        target: torch.Tensor,
        spatial_dims: int,
        input: torch.Tensor | None = None,
        distance_map: object = None,
    ) -> SpacingLike:
        """Return the voxel size of a batch; ``"affine"`` reads it from the target or the input."""
        if input is not None and (given is None or _is_affine(given)):
            given = self.spacing_for(input, target, given, whole=self._whole)
        elif _is_affine(self.spacing if given is None else given):
            given = spacing_of(target, spatial_dims)
        return super().batch_spacing(given, target, spatial_dims, input, distance_map)

    def _activated(self, input: torch.Tensor, truth: Target) -> torch.Tensor:
        if isinstance(input, MetaTensor):
            input = input.as_tensor()  # a MetaTensor copies metadata at every operation
        return super()._activated(input, truth)

    def spacing_for(
        self,
        input: torch.Tensor,
        target: torch.Tensor,
        spacing: SpacingLike | None = None,
        *,
        whole: torch.Size | None = None,
    ) -> SpacingLike | None:
        """Return the voxel size of a prediction, or None if voxels count as cubes of size 1.

        Args:
            input: the prediction, ``[B, C, *S]``.
            target: its target.
            spacing: instead of the loss's own.
            whole: shape of the volume that has this spacing, if it is not the prediction's.
        """
        ndim = input.ndim - 2
        source = target if isinstance(target, MetaTensor) else input
        spacing = self.spacing if spacing is None else spacing
        if spacing is None:
            self._warn_of_unequal_voxels(source, ndim)
            return None
        if _is_affine(spacing):
            spacing = spacing_of(source, ndim) if len(input) else 1.0  # an empty slice keeps all its affines
        if whole is None or whole[-ndim:] == input.shape[2:]:
            return spacing
        return scaled_spacing(spacing, len(input), whole[-ndim:], input.shape[2:])

    def _warn_of_unequal_voxels(self, source: torch.Tensor, ndim: int) -> None:
        if not isinstance(source, MetaTensor):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sizes = spacing_of(source, ndim)
        if bool((sizes.amax(dim=-1) > 1.001 * sizes.amin(dim=-1)).any()):
            warn_caller(
                f"spacing: voxels of {sizes.reshape(-1, ndim)[0].tolist()} are taken as cubes of size 1, "
                "as MONAI does; pass spacing='affine' to measure in the affine's units, or spacing=1 to "
                "silence this"
            )


def _is_affine(spacing: object) -> bool:
    if isinstance(spacing, str) and spacing != "affine":
        raise ValueError(f"spacing: must be 'affine' or numbers, got {spacing!r}")
    return isinstance(spacing, str)


# MONAI's DeepSupervisionLoss hands a loss the target resized to each output with the affine it had before:
# nothing in the arguments says by how much. So the wrapper tells our losses in it what shape its target has.
def _watch(module: torch.nn.Module, name: str, child: torch.nn.Module | None) -> None:
    if isinstance(module, DeepSupervisionLoss) and name == "loss" and child is not None:
        module.register_forward_pre_hook(_tell_shape, with_kwargs=True)
        module.register_forward_hook(_forget_shape, always_call=True)


def _tell_shape(wrapper: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    target = kwargs["target"] if "target" in kwargs else args[-1]
    for loss in wrapper.modules():
        if isinstance(loss, _SpacingFromAffine):
            loss._whole = getattr(target, "shape", None)


def _forget_shape(wrapper: torch.nn.Module, args: object, result: object) -> None:
    for loss in wrapper.modules():
        if isinstance(loss, _SpacingFromAffine):
            loss._whole = None


register_module_module_registration_hook(_watch)


class BoundaryLoss(_SpacingFromAffine, losses.BoundaryLoss):
    __doc__ = _SpacingFromAffine.__doc__


class HausdorffDTLoss(_SpacingFromAffine, losses.HausdorffDTLoss):
    __doc__ = _SpacingFromAffine.__doc__


class LogHausdorffDTLoss(_SpacingFromAffine, losses.LogHausdorffDTLoss):
    __doc__ = _SpacingFromAffine.__doc__


class GeneralizedSurfaceLoss(_SpacingFromAffine, losses.GeneralizedSurfaceLoss):
    __doc__ = _SpacingFromAffine.__doc__


class DeepSupervision(losses.DeepSupervision):
    """:class:`fastsdm.losses.DeepSupervision` with MONAI's weights by name and its networks' outputs.

    Args:
        loss: any loss of :mod:`fastsdm.integrations.monai` or :mod:`fastsdm.losses`, alone or in a
            :class:`fastsdm.losses.RegionBoundaryLoss`.
        weights: ``"exp"`` (1, 1/2, 1/4, ..., at least 1/16), ``"two"`` (1, then 1/2) or ``"same"``, not
            divided by their sum, as in MONAI; or as in :class:`fastsdm.losses.DeepSupervision`.

    Raises:
        TypeError, ValueError: as in :class:`fastsdm.losses.DeepSupervision`.
    """

    def __init__(self, loss: torch.nn.Module, weights: str | Sequence[float] | None = "exp") -> None:
        if isinstance(weights, str) and weights not in _WEIGHTS:
            raise ValueError(f"weights: must be one of {', '.join(_WEIGHTS)} or numbers, got {weights!r}")
        super().__init__(loss, None if isinstance(weights, str) else weights)
        self.mode = weights if isinstance(weights, str) else None

    def forward(
        self, input: Any, target: Any, *, spacing: SpacingLike | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Compute the weighted sum over the outputs.

        Args:
            input: predictions, finest first; stacked ``[B, n, C, *S]`` as DynUNet returns them; or one.
            target: as in :class:`fastsdm.losses.DeepSupervision`.
            spacing: of the finest output; ``"affine"`` or numbers.
            **kwargs: as in :class:`fastsdm.losses.DeepSupervision`.
        """
        if isinstance(input, torch.Tensor):
            first = target[0] if isinstance(target, (list, tuple)) else target
            input = list(input.unbind(dim=1)) if input.ndim == first.ndim + 1 else [input]
        with_map = getattr(self.loss, "boundary", self.loss)  # of a RegionBoundaryLoss
        if (spacing is None or isinstance(spacing, str)) and isinstance(with_map, _SpacingFromAffine):
            first = target[0] if isinstance(target, (list, tuple)) else target
            spacing = with_map.spacing_for(input[0], first, spacing, whole=first.shape)
        return super().forward(input, target, spacing=spacing, **kwargs)

    def _weights(self, levels: int) -> list[float]:
        if self.mode is None:
            return super()._weights(levels)
        return [_WEIGHTS[self.mode](level) for level in range(levels)]
