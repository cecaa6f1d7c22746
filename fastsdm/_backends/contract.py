"""What a backend is: the protocol that each one satisfies, and what finishes a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import torch

#: Voxel size along each axis: one row for all samples, or one per sample.
SpacingRows: TypeAlias = "tuple[tuple[float, ...], ...]"


def spacing_rows(spacing: torch.Tensor) -> SpacingRows:
    """The rows of ``[B, ndim]`` as numbers; a single one where all samples have the same."""
    rows = tuple(map(tuple, spacing.tolist()))
    return rows[:1] if len(set(rows)) == 1 else rows


class Backend(Protocol):
    """One way to compute plain signed maps; it holds no policy and never falls back."""

    @property
    def name(self) -> str:
        """The name users select it by."""

    @property
    def exact(self) -> bool:
        """Whether distances are exact up to float32 rounding."""

    @property
    def device_types(self) -> tuple[str, ...] | None:
        """Types of the devices it is made for, most usual first; None for every device that torch has."""

    def unavailable(self, device: torch.device) -> str | None:
        """None where the backend can run on ``device``, else the reason and the fix."""

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Sequence[int],
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """The plain map of every class of every sample.

        Args:
            labels: ``[B, *S]``, integer or bool, contiguous, with 2 or 3 spatial axes.
            classes: K label values.
            spacing: ``[B, ndim]`` float64 on the CPU, positive and finite.
            max_distance: distances beyond it need not be exact: such a voxel must read a finite
                value of the right sign whose magnitude is at least ``max_distance``.

        Returns:
            ``[B, K, *S]`` float32 on the labels' device: ``+d_out`` outside, ``-d_in`` inside, ``+inf``
            where the class is absent from the sample, ``-inf`` where it fills it.
        """


@dataclass(frozen=True)
class Finish:
    """How a plain map becomes the one that was asked for.

    Attributes:
        shifts: what is taken off the distances inside; one number for all samples, or one per sample.
        both_sides: whether the shift is taken off the distances outside, too.
        missing: the magnitude that stands for an infinite distance; as many numbers as ``shifts``.
        limit: the result is cut to ``[-limit, limit]``; may be infinite.
    """

    shifts: tuple[float, ...]
    both_sides: bool
    missing: tuple[float, ...]
    limit: float


class FusedBackend(Backend, Protocol):
    """A backend that can shift, clamp and crop inside its own last pass."""

    def finished_region(
        self,
        labels: torch.Tensor,
        classes: Sequence[int] | None,
        spacing: SpacingRows,
        max_distance: float | None,
        finish: Finish,
        start: Sequence[int],
        size: Sequence[int],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """Exactly ``signed_distance`` of the whole volume, finished, cut to a region.

        Args:
            labels: as in ``signed_distance``.
            classes: as there; None for one map, of all labels but 0.
            spacing: one row for all samples, or one per sample.
            max_distance: as there.
            finish: shift, empty classes and clamp.
            start: the region's first voxel.
            size: its shape; the region lies inside the volume.
            dtype: of the result: a floating point one.

        Returns:
            ``[B, K, *size]`` of ``dtype``, contiguous; distances are computed in float32 and rounded once.
        """


def finishing(backend: Backend) -> FusedBackend | None:
    """The backend itself if it finishes maps, else None."""
    # Asking isinstance of a runtime-checkable protocol takes 45 us: it inspects every member.
    return cast("FusedBackend", backend) if hasattr(backend, "finished_region") else None
