"""Random patches under flips, rotation, scaling and elastic deformation, on the device of the volumes.

A distance map made beforehand cannot follow such a deformation: resampled, it no longer holds distances. The
map of the augmented labels has to be computed again, by :func:`fastsdm.signed_distance`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F

from fastsdm import _validate
from fastsdm._types import SpacingLike
from fastsdm.data import _augment_checks as checks
from fastsdm.data._orientation import as_signed

# Root mean square of a uniform cubic B-spline with coefficients of variance 1, along one axis.
_SPLINE_RMS = math.sqrt(151 / 315)


def random_affine_elastic(
    image: torch.Tensor,
    labels: torch.Tensor,
    *,
    size: Sequence[int] | None = None,
    halo: int | Sequence[int] = 0,
    spacing: SpacingLike = 1.0,
    flip: float | Sequence[float] = 0.5,
    rotation: float = 30.0,
    scaling: tuple[float, float] = (0.8, 1.25),
    elastic: float = 2.0,
    elastic_grid: float = 16.0,
    image_fill: float | Literal["min"] = 0.0,
    label_fill: int = 0,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a randomly deformed patch of each image and its labels, resampled once.

    All steps are composed into one position per voxel; the image is read there linearly, the labels at the
    nearest voxel. Positions outside of the volume read ``image_fill`` and ``label_fill``. Lengths are in the
    units of ``spacing``, and the patch has the spacing of the volume. The elastic part is a free-form
    deformation by cubic B-splines
    (Rueckert et al., IEEE Transactions on Medical Imaging 18, 1999, doi:10.1109/42.796284).

    Args:
        image: ``[B, C, *S]``, floating point, 2 or 3 spatial axes; half precision is sampled in float32.
        labels: ``[B, *S]`` or ``[B, 1, *S]``, of any dtype that holds labels, on the image's device.
        size: of the patch along each spatial axis; None for the whole volume. The patch's centre is drawn so
            that the undeformed patch lies in the volume, and is the volume's centre along an axis that is
            shorter than the patch.
        halo: voxels by which the labels, not the image, extend past the patch on both sides of each axis; one
            number for all or one per axis. :func:`fastsdm.data.patch_halo` says how many the map of the
            patch needs.
        spacing: voxel size: a number, one per spatial axis, or one such row per sample.
        flip: probability of mirroring each axis, one for all or one per axis.
        rotation: largest angle about each axis, in degrees; uniform in both directions.
        scaling: smallest and largest magnification, uniform in the logarithm.
        elastic: root mean square displacement along each axis; 0 for none. Up to a sixth of
            ``elastic_grid`` the deformation practically never folds.
        elastic_grid: distance between the control points, at least the smallest voxel size; along an axis
            whose voxels are larger they are one voxel apart.
        image_fill: value of the image outside of the volume: a number (-1024 is air in a CT in Hounsfield
            units), or "min" for the smallest value of each sample and channel.
        label_fill: label outside of the volume: usually the background, or a loss's ``ignore_index``, with
            which voxels that were never imaged are neither inside nor outside of any class.
        generator: on the CPU; the same seed gives the same deformations on every device.

    Returns:
        Image ``[B, C, *size]`` and labels ``[B, *S]`` or ``[B, 1, *S]`` with ``S = size + 2 * halo``, dtypes
        as given.

    Raises:
        TypeError: an image that is not floating point, or an argument of a wrong type.
        ValueError: shapes that do not fit together, or an argument out of its range.
    """
    checks.volumes(image, labels)
    ndim, shape = image.ndim - 2, tuple(image.shape[2:])
    size = shape if size is None else checks.patch_size(size, ndim)
    margins = checks.halo(halo, ndim)
    rows = _validate.spacing_rows(spacing, image.shape[:1], ndim)
    _validate.spacing_values(rows)
    probabilities = checks.flip(flip, ndim)
    rotation, scaling = checks.rotation(rotation), checks.scaling(scaling)
    elastic, elastic_grid = checks.elastic(elastic, elastic_grid, rows)
    image_fill = checks.image_fill(image_fill)
    label_fill = _validate.label_value("label_fill", label_fill, labels.dtype)

    matrices = _random_matrices(len(rows), probabilities, rotation, scaling, generator)
    matrices = matrices * rows[:, None, :] / rows[:, :, None]  # from voxel offsets to voxel offsets
    centres = _random_centres(len(rows), shape, size, generator)
    device = image.device
    block = [n + 2 * margin for n, margin in zip(size, margins, strict=True)]
    with torch.autocast(device.type, enabled=False):  # positions are products, and need their float32
        positions = _offsets(block, device) @ _to(matrices, device).mT.reshape(
            len(rows), *(1,) * (ndim - 1), ndim, ndim
        )
        positions += _to(centres, device).reshape(len(rows), *(1,) * ndim, ndim)
        if elastic > 0:
            positions += _random_displacements(block, rows, elastic, elastic_grid, generator, device)
    patch = (slice(None), *(slice(margin, margin + n) for n, margin in zip(size, margins, strict=True)))
    return _linear(image, positions[patch], image_fill), _nearest(labels, positions, label_fill)


def _random_matrices(
    count: int,
    flip: Sequence[float],
    rotation: float,
    scaling: tuple[float, float],
    generator: torch.Generator | None,
) -> torch.Tensor:
    """``[count, ndim, ndim]``: from offsets in the patch to offsets in the volume, both in lengths."""
    ndim = len(flip)
    low, high = (math.log(bound) for bound in scaling)
    magnification = torch.exp(low + (high - low) * _uniform((count, 1, 1), generator))
    mirrored = _uniform((count, ndim), generator) < torch.tensor(flip, dtype=torch.float64, device="cpu")
    matrices = torch.diag_embed(1.0 - 2.0 * mirrored.double()) / magnification
    planes = [(a, b) for a in range(ndim) for b in range(a + 1, ndim)]
    for a, b in planes:
        angle = math.radians(rotation) * (2 * _uniform((count,), generator) - 1)
        turn = torch.eye(ndim, dtype=torch.float64, device="cpu").repeat(count, 1, 1)
        turn[:, a, a] = turn[:, b, b] = torch.cos(angle)
        turn[:, a, b], turn[:, b, a] = -torch.sin(angle), torch.sin(angle)
        matrices = turn @ matrices
    return matrices


def _random_centres(
    count: int, shape: Sequence[int], size: Sequence[int], generator: torch.Generator | None
) -> torch.Tensor:
    room = torch.tensor([max(whole - part, 0) for whole, part in zip(shape, size, strict=True)], device="cpu")
    middle = (torch.tensor(shape, dtype=torch.float64, device="cpu") - 1) / 2
    return middle + room * (_uniform((count, len(shape)), generator) - 0.5)


def _random_displacements(
    size: Sequence[int],
    spacing: torch.Tensor,
    rms: float,
    grid: float,
    generator: torch.Generator | None,
    device: torch.device,
) -> torch.Tensor:
    """``[B, *size, ndim]`` in voxels: each component a tensor-product B-spline with random coefficients."""
    ndim = len(size)
    fields = []
    for row in spacing.tolist():
        bases = [_spline_basis(n, max(grid / step, 1.0)) for n, step in zip(size, row, strict=True)]
        control = (ndim, *(basis.shape[1] for basis in bases))
        field = torch.randn(control, dtype=torch.float64, generator=generator, device="cpu") * (
            rms / _SPLINE_RMS**ndim
        )
        field = _to(
            field / torch.tensor(row, dtype=torch.float64, device="cpu").reshape(-1, *(1,) * ndim), device
        )
        for axis, basis in enumerate(bases, start=1):
            field = (field.movedim(axis, -1) @ _to(basis, device).mT).movedim(-1, axis)
        fields.append(field.movedim(0, -1))
    return torch.stack(fields)


def _spline_basis(size: int, grid: float) -> torch.Tensor:
    """``[size, control points]``: the weights of the uniform cubic B-spline at every voxel."""
    place = torch.arange(size, dtype=torch.float64, device="cpu") / grid
    distance = (place[:, None] + 1 - torch.arange(int(place[-1]) + 4, device="cpu")).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far)


def _offsets(size: Sequence[int], device: torch.device) -> torch.Tensor:
    axes = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def _linear(image: torch.Tensor, positions: torch.Tensor, fill: float | Literal["min"]) -> torch.Tensor:
    # Half precision cannot tell the voxels of a long axis apart, so it is no type for positions.
    dtype = torch.promote_types(image.dtype, torch.float32)
    axes = tuple(range(2, image.ndim))
    sizes = torch.tensor(image.shape[2:], dtype=dtype, device=image.device)
    grid = ((2 * positions.to(dtype) + 1) / sizes - 1).flip(-1)
    values = image.to(dtype)
    outside = values.amin(axes, keepdim=True) if fill == "min" else fill
    # torch pads with zeros only: the value outside becomes the zero, and is added again.
    sampled = F.grid_sample(
        values - outside, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return (sampled + outside).to(image.dtype)


def _nearest(labels: torch.Tensor, positions: torch.Tensor, fill: int) -> torch.Tensor:
    # Gathered, not grid-sampled: labels keep their dtype and any value, and no float copy is made.
    shape, size = labels.shape[-(positions.ndim - 2) :], positions.shape[1:-1]
    inside = torch.ones(positions.shape[:-1], dtype=torch.bool, device=labels.device)
    index = torch.zeros(positions.shape[:-1], dtype=torch.int64, device=labels.device)
    for axis, length in enumerate(shape):
        place = positions[..., axis].round().long()
        inside &= (place >= 0) & (place < length)
        index = index * length + place.clamp(0, length - 1)
    bits = as_signed(labels)
    values = bits.reshape(len(labels), -1).gather(1, index.flatten(1))
    outside = torch.full((), fill, dtype=labels.dtype, device=labels.device).view(bits.dtype)
    values = torch.where(inside.flatten(1), values, outside)
    return values.view(labels.dtype).reshape(*labels.shape[: -len(shape)], *size)


def _uniform(shape: tuple[int, ...], generator: torch.Generator | None) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generator, device="cpu")


def _to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.to(device=device, dtype=torch.float32, non_blocking=True)
