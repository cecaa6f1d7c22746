"""Flips and permutations of axes, which image, labels and distance map follow alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fastsdm import _validate

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def as_signed(labels: torch.Tensor) -> torch.Tensor:
    """The same bits in a dtype that torch flips and gathers, as it does not the wider unsigned integers."""
    return labels.view(_SIGNED.get(labels.dtype, labels.dtype))


@dataclass(frozen=True)
class Orientation:
    """Axes that are flipped, then the order they are put in; both count spatial axes from 0.

    Attributes:
        flipped: axes whose direction is turned.
        order: which axis each axis of the result was.
    """

    flipped: tuple[int, ...]
    order: tuple[int, ...]

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor ``[..., *S]`` turned, contiguous."""
        leading = tensor.ndim - len(self.order)
        turned = as_signed(tensor).flip([leading + axis for axis in self.flipped])
        order = (*range(leading), *(leading + axis for axis in self.order))
        return turned.permute(order).contiguous().view(tensor.dtype)

    def of_row(self, row: Sequence[float]) -> list[float]:
        """One number per axis, such as the voxel size, in the new order."""
        return [row[axis] for axis in self.order]


class RandomOrientation:
    """Random flips and permutations of a patch's axes, for ``PatchDataset(..., augment=...)``.

    Image, labels, distance map and voxel size of a patch are turned together. A distance map stays exact
    under flips and permutations, so no map is computed again, and stored maps can be turned too. The draws of
    a patch depend on the seed of its position.

    Args:
        flip: probability of flipping each axis: one number for all, or one per axis.
        permute: axes that are put in a random order, all orders equally likely. The patch must have the same
            length along all of them.

    Raises:
        TypeError, ValueError: ``flip`` is not a probability, or ``permute`` does not name axes.
    """

    def __init__(self, flip: float | Sequence[float] = 0.5, permute: Sequence[int] = ()) -> None:
        listed: list[Any] = list(flip) if isinstance(flip, Iterable) else [flip]
        self._flip = tuple(_validate.number("flip", probability) for probability in listed)
        if not listed or not all(0 <= probability <= 1 for probability in self._flip):
            raise ValueError(f"flip: must be a probability, or one per axis; got {flip}")
        if not isinstance(permute, Iterable):
            raise TypeError(f"permute: must be a sequence of axes, got {permute!r}")
        self._permute = tuple(_validate.integer("permute", axis) for axis in permute)
        if len(set(self._permute)) != len(self._permute) or any(axis < 0 for axis in self._permute):
            raise ValueError(f"permute: must name different axes, counted from 0; got {tuple(permute)}")

    def __repr__(self) -> str:
        flip = self._flip[0] if len(self._flip) == 1 else self._flip
        return f"RandomOrientation(flip={flip}, permute={self._permute})"

    def check(self, size: Sequence[int]) -> None:
        """Raise ValueError unless patches of that shape can be turned."""
        if len(self._flip) not in (1, len(size)):
            raise ValueError(f"flip: must be a probability or {len(size)} of them, got {self._flip}")
        if any(axis >= len(size) for axis in self._permute):
            raise ValueError(f"permute: must name axes from 0 to {len(size) - 1}, got {self._permute}")
        if len({size[axis] for axis in self._permute}) > 1:
            raise ValueError(
                f"permute: the patch must be equally long along the axes {self._permute}, "
                f"got size {tuple(size)}"
            )

    def drawn(self, ndim: int, generator: torch.Generator) -> Orientation:
        """Draw flips and a permutation for a patch of that many axes."""
        chances = torch.rand(ndim, generator=generator, dtype=torch.float64, device="cpu").tolist()
        flip = self._flip * ndim if len(self._flip) == 1 else self._flip
        flipped = tuple(axis for axis in range(ndim) if chances[axis] < flip[axis])
        order = list(range(ndim))
        if len(self._permute) > 1:
            places = torch.randperm(len(self._permute), generator=generator, device="cpu").tolist()
            for place, chosen in zip(self._permute, places, strict=True):
                order[place] = self._permute[chosen]
        return Orientation(flipped, tuple(order))
