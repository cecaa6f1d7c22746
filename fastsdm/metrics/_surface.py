"""Distances between the surfaces of two masks.

The native backend measures them at the surfaces; any other one through a distance map of either surface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from fastsdm._backends import native_surface, registry
from fastsdm._sdm import signed_distance
from fastsdm.metrics._inputs import Inputs
from fastsdm.metrics._surface_area import surface_area

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Directed:
    """Distances from the elements of one surface to the other surface.

    Attributes:
        distances: ``[N]`` float32; infinite where the other mask is empty.
        areas: ``[N]`` float32: what each element counts; None where all count alike.
    """

    distances: Array
    areas: Array | None


@dataclass(frozen=True)
class SurfaceDistances:
    """Both directions for one class of one sample.

    Attributes:
        ways: from the prediction's surface to the reference's; and the other way round, where it was asked
            for.
        counts: elements of the prediction's and of the reference's surface.
    """

    ways: tuple[Directed, ...]
    counts: tuple[int, int]

    @property
    def both_empty(self) -> bool:
        """Whether neither mask has a voxel."""
        return self.counts == (0, 0)

    @property
    def one_empty(self) -> bool:
        """Whether exactly one of the masks has no voxel."""
        return (self.counts[0] == 0) != (self.counts[1] == 0)


def surfaces_of_sample(
    inputs: Inputs, sample: int, *, use_subvoxels: bool, symmetric: bool, backend: str
) -> Iterator[tuple[int, SurfaceDistances]]:
    """Yield the column and the surface distances of every class that counts.

    Args:
        inputs: prediction and reference.
        sample: its index in the batch.
        use_subvoxels: see :func:`fastsdm.metrics.compute_surface_dice`.
        symmetric: whether to measure from the reference's surface, too.
        backend: of the distances.
    """
    chosen = registry.select(backend, inputs.device)
    spacing = inputs.spacing[sample]
    if chosen.name == "native":
        yield from _by_native(inputs, sample, use_subvoxels=use_subvoxels, symmetric=symmetric)
        return
    for column, prediction, reference in inputs.masks(sample):
        yield (
            column,
            _by_maps(
                prediction,
                reference,
                spacing,
                use_subvoxels=use_subvoxels,
                symmetric=symmetric,
                backend=backend,
            ),
        )


def _by_native(
    inputs: Inputs, sample: int, *, use_subvoxels: bool, symmetric: bool
) -> Iterator[tuple[int, SurfaceDistances]]:
    spacing = inputs.spacing[sample]
    prediction, reference, classes = inputs.volumes(sample)
    measured = native_surface.surface_distances(
        prediction, reference, classes, spacing, use_subvoxels=use_subvoxels, symmetric=symmetric
    )
    area = surface_area(spacing).numpy() if use_subvoxels else None
    for (column, _), pair in zip(inputs.counted, measured, strict=True):
        ways = tuple(
            Directed(each.distances, None if area is None else area.take(each.codes))
            for each in (pair if symmetric else pair[:1])
        )
        yield column, SurfaceDistances(ways, (pair[0].count, pair[1].count))


def _by_maps(
    prediction: torch.Tensor,
    reference: torch.Tensor,
    spacing: Sequence[float],
    *,
    use_subvoxels: bool,
    symmetric: bool,
    backend: str,
) -> SurfaceDistances:
    masks = _cropped(torch.stack([prediction, reference]))
    if use_subvoxels:
        codes = _neighbour_codes(masks)
        edges = (codes != 0) & (codes != 2**2 ** len(spacing) - 1)
        areas = surface_area(spacing).to(codes.device)[codes.long()]
    else:
        edges = masks & ~_eroded(masks)
        areas = None
    wanted = [(0, 1), (1, 0)] if symmetric else [(0, 1)]
    maps = signed_distance(
        edges[[other for _, other in wanted]],
        spatial_dims=len(spacing),
        spacing=spacing,
        convention="plain",
        backend=backend,
    )

    def directed(source: int, map_: torch.Tensor) -> Directed:
        chosen = edges[source].flatten().nonzero().squeeze(1)
        # An element that lies on the other surface is inside of its mask of edges, hence negative.
        distances = map_.flatten().index_select(0, chosen).clamp_(min=0)
        own = None if areas is None else areas[source].flatten().index_select(0, chosen).cpu().numpy()
        return Directed(distances.cpu().numpy(), own)

    ways = tuple(directed(source, map_) for (source, _), map_ in zip(wanted, maps, strict=True))
    counts = edges.flatten(1).sum(dim=1).tolist()
    return SurfaceDistances(ways, (counts[0], counts[1]))


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
