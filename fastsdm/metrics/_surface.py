"""Distances between the surfaces of two masks, measured through an exact distance transform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from fastsdm._sdm import signed_distance
from fastsdm.metrics._surface_area import surface_area


@dataclass(frozen=True)
class Directed:
    """Distances from the elements of one surface to the other surface.

    Attributes:
        distances: ``[N]`` float32; infinite where the other mask is empty.
        areas: ``[N]``: what each element counts; None where all count alike.
    """

    distances: torch.Tensor
    areas: torch.Tensor | None


@dataclass(frozen=True)
class SurfaceDistances:
    """Both directions for one class of one sample.

    Attributes:
        to_reference: from the prediction's surface to the reference's.
        to_prediction: the other way round.
    """

    to_reference: Directed
    to_prediction: Directed

    @property
    def both_empty(self) -> bool:
        """Whether neither mask has a voxel."""
        return self.to_reference.distances.numel() + self.to_prediction.distances.numel() == 0

    @property
    def one_empty(self) -> bool:
        """Whether exactly one of the masks has no voxel."""
        counts = self.to_reference.distances.numel(), self.to_prediction.distances.numel()
        return (counts[0] == 0) != (counts[1] == 0)


def surface_distances(
    prediction: torch.Tensor,
    reference: torch.Tensor,
    spacing: Sequence[float],
    *,
    use_subvoxels: bool,
    backend: str,
) -> SurfaceDistances:
    """Measure the surfaces of two masks against each other.

    Args:
        prediction: ``[*S]`` bool.
        reference: ``[*S]`` bool, on the same device.
        spacing: voxel size along each axis.
        use_subvoxels: see :func:`fastsdm.metrics.compute_surface_dice`.
        backend: of the distance transform.
    """
    masks = _cropped(torch.stack([prediction, reference]))
    if use_subvoxels:
        codes = _neighbour_codes(masks)
        edges = (codes != 0) & (codes != 2**2 ** len(spacing) - 1)
        areas = surface_area(spacing).to(codes.device)[codes.long()]
    else:
        edges = masks & ~_eroded(masks)
        areas = None
    maps = signed_distance(
        edges, spatial_dims=len(spacing), spacing=spacing, convention="plain", backend=backend
    )

    def directed(source: int, other: int) -> Directed:
        chosen = edges[source].flatten().nonzero().squeeze(1)
        # An element that lies on the other surface is inside of its mask of edges, hence negative.
        distances = maps[other].flatten().index_select(0, chosen).clamp_(min=0)
        return Directed(distances, None if areas is None else areas[source].flatten().index_select(0, chosen))

    return SurfaceDistances(directed(0, 1), directed(1, 0))


def _cropped(masks: torch.Tensor) -> torch.Tensor:
    """Cut to the box that holds every inside voxel, with a margin of one outside voxel on every side."""
    either = masks.any(dim=0)
    box: list[slice] = []
    for _ in range(either.ndim):
        held = either.flatten(1).any(dim=1).nonzero() if either.ndim > 1 else either.nonzero()
        if len(held) == 0:
            return masks.new_zeros((masks.shape[0], *(1 for _ in masks.shape[1:])))
        box.append(slice(int(held[0]), int(held[-1]) + 1))
        either = either.any(dim=0)  # what is left are the axes behind this one
    cut = masks[(slice(None), *box)]
    padded = cut.new_zeros((cut.shape[0], *(n + 2 for n in cut.shape[1:])))
    padded[(slice(None), *(slice(1, -1) for _ in box))] = cut
    return padded


def _eroded(masks: torch.Tensor) -> torch.Tensor:
    """Voxels whose neighbours along the axes are all inside; the margin of the masks must be outside."""
    eroded = masks.clone()
    for axis in range(1, masks.ndim):
        length = masks.shape[axis]
        eroded.narrow(axis, 1, length - 1).logical_and_(masks.narrow(axis, 0, length - 1))
        eroded.narrow(axis, 0, length - 1).logical_and_(masks.narrow(axis, 1, length - 1))
    return eroded


def _neighbour_codes(masks: torch.Tensor) -> torch.Tensor:
    """``[N, *(S - 1)]`` uint8: the corners of every cell of voxel centres, one bit each, last axis first."""
    shape = [n - 1 for n in masks.shape[1:]]
    codes = torch.zeros((len(masks), *shape), dtype=torch.uint8, device=masks.device)
    voxels = masks.to(torch.uint8)
    for bit, offset in enumerate(_corners(len(shape))):
        part = tuple(slice(a, a + n) for a, n in zip(offset, shape, strict=True))
        codes |= voxels[(slice(None), *part)] << bit
    return codes


def _corners(ndim: int) -> Iterator[tuple[int, ...]]:
    for number in range(2**ndim):
        yield tuple(number >> (ndim - 1 - axis) & 1 for axis in range(ndim))
