"""The protocols that backends satisfy, and the arguments they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import torch

from fastsdm._arrays import above_zero

#: The classes of a call: K label values, or ``[None]`` for a mask, inside of which are the labels above 0.
Classes: TypeAlias = "Sequence[int | None]"
#: Voxel size along each axis: one row for all samples, or one per sample.
SpacingRows: TypeAlias = "tuple[tuple[float, ...], ...]"


def inside(labels: torch.Tensor, value: int | None, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return the voxels of one of the :data:`Classes`, as bool."""
    return above_zero(labels, out) if value is None else torch.eq(labels, value, out=out)


def spacing_rows(spacing: torch.Tensor) -> SpacingRows:
    """Return the rows of ``[B, ndim]`` as numbers; one row if all samples have the same."""
    rows = tuple(map(tuple, spacing.tolist()))
    return rows[:1] if len(set(rows)) == 1 else rows


def reason_off_the_cpu(device: torch.device) -> str | None:
    """Return why a backend for the CPU cannot run on ``device``, and the fix; None on the CPU."""
    if device.type == "cpu":
        return None
    return f"it works on CPU tensors only, the target is on {device}; move it with .cpu()"


class Backend(Protocol):
    """Computes plain signed maps, without policy and without falling back."""

    @property
    def name(self) -> str:
        """Name by which users select it."""

    @property
    def exact(self) -> bool:
        """Whether distances are exact up to float32 rounding."""

    @property
    def device_types(self) -> tuple[str, ...] | None:
        """Device types it supports, the most common first; None for all that torch has."""

    def unavailable(self, device: torch.device) -> str | None:
        """Return why the backend cannot run on ``device``, and the fix; None if it can."""

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """Compute the plain map of every class of every sample.

        Args:
            labels: ``[B, *S]``, integer or bool, contiguous, with 2 or 3 spatial axes. They are not changed.
            classes: see :data:`Classes`.
            spacing: ``[B, ndim]`` float64 on the CPU, positive and finite.
            max_distance: distances beyond it need not be exact: such a voxel holds a finite value of the
                right sign whose magnitude is at least ``max_distance``.

        Returns:
            ``[B, K, *S]`` float32 on the labels' device: ``+d_out`` outside, ``-d_in`` inside, ``+inf``
            if the class is absent from the sample, ``-inf`` if it fills the sample.
        """


@dataclass(frozen=True)
class Finish:
    """How a plain map is shifted, filled and clamped.

    Attributes:
        shifts: subtracted from the distances inside; one number for all samples, or one per sample.
        both_sides: whether the shift is subtracted from the distances outside, too.
        missing: magnitude that replaces an infinite distance; as many numbers as ``shifts``.
        limit: the result is clamped to ``[-limit, limit]``; may be infinite.
    """

    shifts: tuple[float, ...]
    both_sides: bool
    missing: tuple[float, ...]
    limit: float


#: Leaves a plain map as it is.
PLAIN = Finish(shifts=(0.0,), both_sides=False, missing=(math.inf,), limit=math.inf)


class FusedBackend(Backend, Protocol):
    """A backend that can shift, clamp and crop inside its own last pass."""

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """See :meth:`Backend.signed_distance`."""
        shape, rows = labels.shape[1:], spacing_rows(spacing)
        whole = [0] * len(shape), shape
        return self.finished_region(labels, classes, rows, max_distance, PLAIN, *whole, torch.float32)

    def finished_region(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: SpacingRows,
        max_distance: float | None,
        finish: Finish,
        start: Sequence[int],
        size: Sequence[int],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """Compute what :meth:`Backend.signed_distance` does, finished and cut to a region.

        Args:
            labels: the same.
            classes: the same.
            spacing: one row for all samples, or one per sample.
            max_distance: the same.
            finish: shift, empty classes and clamp.
            start: the region's first voxel.
            size: the region's shape; the region lies inside the volume.
            dtype: floating point dtype of the result.

        Returns:
            ``[B, K, *size]`` of ``dtype``, contiguous; distances are computed in float32 and rounded once.
        """


def finishing(backend: Backend) -> FusedBackend | None:
    """Return the backend itself if it finishes maps, else None."""
    # Asking isinstance of a runtime-checkable protocol takes 45 us: it inspects every member.
    return cast("FusedBackend", backend) if hasattr(backend, "finished_region") else None
