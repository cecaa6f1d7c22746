"""The separable transform in plain torch operations: exact, on any torch device.

The last axis takes running maxima. Along each other axis every voxel is compared with its whole column, in
blocks of broadcast sums (Saito and Toriwaki 1994, doi:10.1016/0031-3203(94)90133-3). The work grows with the
length of the columns. No step depends on values, so the host never waits for an accelerator.

One field serves both phases. It holds each voxel's squared distance to the nearest voxel of another label.
Along a further axis, the candidates of a voxel p are ``field[q] + (p - q)^2`` for every q of its column. This
is right for a q of the same label. For a q of another label the candidate should be ``(p - q)^2``. The larger
one does no harm, because running maxima along that axis find the nearest such q.

Volumes that are computed together are stacked along a last axis, so that small volumes make long rows, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastsdm._backends.contract import Classes, inside

#: Most sums in a block: on the CPU they stay in the cache, on an accelerator they fill it.
_CPU_BLOCK, _DEVICE_BLOCK = 1 << 19, 1 << 26
#: Voxels of the volumes that are computed together. A larger volume is computed alone.
_CPU_TOGETHER, _DEVICE_TOGETHER = 1 << 18, 1 << 26
#: Axes up to this length are scanned in 16 bits.
_LONGEST_IN_16_BITS = 1 << 13


@dataclass(frozen=True)
class _Steps:
    """Voxel sizes and search range of the volumes that are computed together.

    Attributes:
        unit: voxel size along the last axis; a number, or one per volume, ``[M]``.
        weights: per axis, a squared step in squared units; a number, or one per volume, ``[M]``.
        reaches: per axis, how many voxels to search.
    """

    unit: float | torch.Tensor
    weights: tuple[float | torch.Tensor, ...]
    reaches: tuple[int, ...]


class TorchBackend:
    """Computes as many volumes at once as fit the cache or the device."""

    name = "torch"
    exact = True
    device_types = None

    def unavailable(self, device: torch.device) -> str | None:
        """See the contract: it runs on every device."""
        return None

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.contract.Backend.signed_distance`.

        Working memory beside the result: 31 bytes a voxel of the volumes that are computed together, and
        blocks of sums.
        """
        shape = (labels.shape[0], len(classes), *labels.shape[1:])
        maps = torch.empty(shape, dtype=torch.float32, device=labels.device)
        if maps.numel() == 0:
            return maps
        flat, rows = maps.view(-1, labels[0].numel()), spacing.tolist()
        for part, samples, values in _parts(labels, classes):
            masks = _beside(_masks(labels, samples, values))
            steps = _steps([rows[sample] for sample in samples], masks, max_distance)
            distance = _distance(_squared(masks, steps), steps)
            if max_distance is not None:
                distance = _finite(distance, masks, max_distance)
            sign = masks.to(torch.float32).mul_(-2).add_(1)
            flat[part].copy_(distance.mul_(sign).view(-1, len(samples)).t())
        return maps

    def instance_distance(
        self,
        labels: torch.Tensor,
        background: int,
        spacing: torch.Tensor,
        max_distance: float | None,
        black_border: bool,
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.capabilities.InstanceBackend.instance_distance`."""
        maps = torch.empty(labels.shape, dtype=torch.float32, device=labels.device)
        flat, rows = maps.view(len(labels), -1), spacing.tolist()
        for part, samples, _ in _parts(labels, [background]):
            some = _beside(labels[part])
            steps = _steps([rows[sample] for sample in samples], some, max_distance)
            distance = _distance(_squared(some, steps, black_border), steps)
            if max_distance is not None:
                distance.clamp_(max=max_distance)
            distance.masked_fill_(some == background, 0)
            flat[part].copy_(distance.view(-1, len(samples)).t())
        return maps

    def nearest(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.capabilities.NearestBackend.nearest`.

        Of equally near voxels, the one in the same line along the first axis is taken, else the one whose
        slice has the lowest index. Within the slice the same holds for the next axis. Of two voxels in a line
        along the last axis the lower index is taken.
        """
        ndim = labels.ndim - 1
        shape = (labels.shape[0], len(classes), ndim, *labels.shape[1:])
        indices = torch.empty(shape, dtype=torch.int32, device=labels.device)
        flat, rows = indices.view(-1, ndim, labels[0].numel()), spacing.tolist()
        limit = torch.finfo(torch.float32).max if max_distance is None else max_distance
        for part, samples, values in _parts(labels, classes):
            masks = _beside(_masks(labels, samples, values))
            steps = _steps([rows[sample] for sample in samples], masks, max_distance)
            place = torch.empty(masks.shape, dtype=torch.int64, device=masks.device)
            beyond = _distance(_squared(masks, steps, place=place), steps) > limit
            for axis in reversed(range(ndim)):
                size = masks.shape[axis]
                found = (place % size).masked_fill_(beyond, -1)
                flat[part, axis].copy_(found.view(-1, len(samples)).t())
                place = place.div_(size, rounding_mode="floor")
        return indices


def _parts(labels: torch.Tensor, classes: Classes) -> Iterator[tuple[slice, list[int], list[int | None]]]:
    """Yield groups of volumes to compute together: their slice of all, sample and class of each."""
    on_cpu = labels.device.type == "cpu"
    count, volume = labels.shape[0] * len(classes), math.prod(labels.shape[1:])
    together = max(1, (_CPU_TOGETHER if on_cpu else _DEVICE_TOGETHER) // max(1, volume))
    for first in range(0, count, together):
        numbers = range(first, min(first + together, count))
        pairs = [divmod(number, len(classes)) for number in numbers]
        yield (
            slice(first, numbers.stop),
            [sample for sample, _ in pairs],
            [classes[k] for _, k in pairs],
        )


def _masks(labels: torch.Tensor, samples: Sequence[int], values: Classes) -> torch.Tensor:
    """Return the volumes to compute together, ``[M, *S]`` bool."""
    if len(set(values)) == 1:
        return inside(labels[samples[0] : samples[-1] + 1], values[0])
    masks = torch.empty((len(samples), *labels.shape[1:]), dtype=torch.bool, device=labels.device)
    for mask, sample, value in zip(masks, samples, values, strict=True):
        inside(labels[sample], value, out=mask)
    return masks


def _beside(volumes: torch.Tensor) -> torch.Tensor:
    """``[M, *S]`` to ``[*S, M]``, contiguous."""
    if len(volumes) == 1:
        return volumes[0].unsqueeze(-1)
    return volumes.flatten(1).t().contiguous().view(*volumes.shape[1:], len(volumes))


def _steps(rows: Sequence[Sequence[float]], volumes: torch.Tensor, max_distance: float | None) -> _Steps:
    limit = math.inf if max_distance is None else max_distance
    columns = list(zip(*rows, strict=True))
    return _Steps(
        unit=_number(columns[-1], volumes),
        weights=tuple(
            _number([(step / unit) ** 2 for step, unit in zip(column, columns[-1], strict=True)], volumes)
            for column in columns
        ),
        reaches=tuple(
            int(min(size, limit // min(column) + 1))
            for size, column in zip(volumes.shape, columns, strict=False)
        ),
    )


def _number(values: Sequence[float], volumes: torch.Tensor) -> float | torch.Tensor:
    """Return the number that all volumes share, or ``[M]`` float32."""
    if len(set(values)) == 1:
        return values[0]
    numbers = torch.empty(len(values), dtype=torch.float32, device=volumes.device)
    for place, value in zip(numbers, values, strict=True):
        place.fill_(value)  # a tensor made of the list would be copied from the host, which waits
    return numbers


def _squared(
    labels: torch.Tensor, steps: _Steps, border: bool = False, place: torch.Tensor | None = None
) -> torch.Tensor:
    """Squared distance of every voxel to the nearest one of another label, in squared units.

    Args:
        labels: ``[*S, M]``, contiguous.
        steps: voxel sizes and search range.
        border: whether everything beyond the volumes has another label.
        place: int64 ``[*S, M]``, filled with the flat index of the nearest voxel within its volume.

    Returns:
        ``[*S, M]`` float32; infinite in volumes with one label only.
    """
    last, volume = labels.ndim - 2, labels.shape[:-1]
    field, way = _along_line(labels, last, steps.reaches[-1], border)
    own = labels  # each voxel's number, where places are asked for
    if place is not None:
        own = torch.arange(math.prod(volume), dtype=torch.int64, device=labels.device).view(*volume, 1)
        torch.add(own, way(), out=place)
    for axis in reversed(range(last)):
        weight, reach = steps.weights[axis], steps.reaches[axis]
        line, way = _along_line(labels, axis, reach, border)
        line.mul_(weight)
        if place is None:
            field = _column_minimum(field, axis, weight, reach)
        else:
            chosen = torch.empty_like(place)
            field = _column_minimum(field, axis, weight, reach, chosen)
            stride = math.prod(volume[axis + 1 :])
            torch.where(line <= field, own + way() * stride, place.gather(axis, chosen), out=place)
        torch.minimum(field, line, out=field)
    return field


def _distance(squared: torch.Tensor, steps: _Steps) -> torch.Tensor:
    if squared.device.type == "cpu":
        np.sqrt(squared.numpy(), out=squared.numpy())  # MKL's, which torch takes, may be off by a unit
    else:
        squared.sqrt_()
    return squared.mul_(steps.unit)


def _finite(distance: torch.Tensor, masks: torch.Tensor, limit: float) -> torch.Tensor:
    """Make distances beyond the search finite, and larger than the limit, in volumes with both phases."""
    masks = masks.view(-1, masks.shape[-1])
    mixed = masks.any(0).logical_and_(masks.logical_not().any(0))
    return torch.minimum(distance, torch.where(mixed, 2 * limit, math.inf).to(torch.float32))


def _along_line(
    labels: torch.Tensor, axis: int, reach: int, border: bool
) -> tuple[torch.Tensor, Callable[[], torch.Tensor]]:
    """Squared distance to the nearest other label along an axis, in voxels, and the way there.

    Args:
        labels: ``[*S, M]``.
        axis: of these.
        reach: how many voxels to search, at least.
        border: whether everything beyond the volumes has another label.

    Returns:
        float32 of the labels' shape, infinite in lines with one label only; and a function that computes the
        signed number of voxels to that label, int64, to the lower side if both sides are equally near.
    """
    size = labels.shape[axis]
    dtype, far = (torch.int16, 1 << 14) if size <= _LONGEST_IN_16_BITS else (torch.int32, 1 << 29)
    low, high = (-1, size) if border else (-far, size + far - 1)
    place = torch.arange(size, dtype=dtype, device=labels.device)
    place = place.view(-1, *(1 for _ in labels.shape[axis + 1 :]))
    # As numbers: on a CPU `where` and `masked_fill` take several times as long.
    change = (labels.narrow(axis, 1, size - 1) != labels.narrow(axis, 0, size - 1)).to(dtype)
    end = torch.full_like(labels.narrow(axis, 0, 1), low, dtype=dtype)
    before = torch.cat((end, (change * (place[:-1] - low)).add_(low)), axis)
    after = torch.cat(((change * (place[1:] - high)).add_(high), end.fill_(high)), axis)
    window = 1
    while window < min(size, reach):
        before, after = _doubled(before, after, axis, window)
        window *= 2
    left, right = place - before, after - place
    nearest = torch.minimum(left, right)
    squared = nearest.to(torch.float32).square_().masked_fill_(nearest >= far, math.inf)
    return squared, lambda: torch.where(left <= right, -left, right).to(torch.int64)


def _doubled(
    before: torch.Tensor, after: torch.Tensor, axis: int, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maxima over the ``2 * window`` voxels up to each one, minima over as many from each one on."""
    rest = before.shape[axis] - window
    wider = torch.maximum(before.narrow(axis, window, rest), before.narrow(axis, 0, rest))
    before = torch.cat((before.narrow(axis, 0, window), wider), axis)
    wider = torch.minimum(after.narrow(axis, 0, rest), after.narrow(axis, window, rest))
    return before, torch.cat((wider, after.narrow(axis, rest, window)), axis)


def _column_minimum(
    field: torch.Tensor,
    axis: int,
    weight: float | torch.Tensor,
    reach: int,
    chosen: torch.Tensor | None = None,
) -> torch.Tensor:
    """``min over q of field[q] + weight * (p - q)^2`` along an axis, of the q within reach.

    Args:
        field: ``[*S, M]`` float32, contiguous.
        axis: of these.
        weight: of squared steps; a number, or one per volume, ``[M]``.
        reach: how many voxels to search, at least.
        chosen: int64 of the field's shape, filled with the lowest q of the minimum.
    """
    size, inner = field.shape[axis], math.prod(field.shape[axis + 1 :])
    columns = field.view(-1, size, inner)
    weights = weight.repeat(inner // len(weight)) if isinstance(weight, torch.Tensor) else None
    place = torch.arange(size, dtype=torch.float32, device=field.device)
    result = torch.empty_like(columns)
    numbers = None if chosen is None else chosen.view_as(columns)
    rows, planes, width = _block(size, reach, len(columns), inner, field.device.type == "cpu")
    for row in range(0, size, rows):
        low, high = max(0, row - reach), min(size, row + rows + reach)
        gap = (place[row : row + rows, None] - place[low:high]).square_()[..., None]
        for left in range(0, inner, width):
            across = slice(left, left + width)
            cost = gap * (weight if weights is None else weights[across])
            for first in range(0, len(columns), planes):
                some = slice(first, first + planes)
                sums = columns[some, None, low:high, across] + cost
                target = (some, slice(row, row + rows), across)
                if numbers is None:
                    torch.amin(sums, 2, out=result[target])
                else:
                    found = sums.min(2)
                    result[target] = found.values
                    numbers[target] = found.indices.add_(low)
    return result.view_as(field)


def _block(size: int, reach: int, planes: int, inner: int, on_cpu: bool) -> tuple[int, int, int]:
    """Return how many rows, planes and columns a block of sums has."""
    block = _CPU_BLOCK if on_cpu else _DEVICE_BLOCK
    few = min(size, reach + 1)  # more rows would include sources out of reach of some rows
    span = min(size, 2 * reach + few)
    width = min(inner, max(1, block // span))
    rows = min(few, max(1, block // (span * width)))
    return rows, min(planes, max(1, block // (rows * span * width))), width


BACKEND = TorchBackend()
