"""The reference: two scipy transforms per class, in float64, rounded once."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from fastsdm._backends.contract import Classes, inside, reason_off_the_cpu


class ScipyBackend:
    """``scipy.ndimage.distance_transform_edt``: exact, one thread, seconds a volume."""

    name = "scipy"
    exact = True
    device_types = ("cpu",)

    def unavailable(self, device: torch.device) -> str | None:
        """See the contract: it runs on the CPU."""
        return reason_off_the_cpu(device)

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,  # not used: scipy cannot stop early
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.contract.Backend.signed_distance`."""
        shape = labels.shape[1:]
        maps = np.empty((labels.shape[0], len(classes), *shape), np.float32)
        for sample, sampling, sample_maps in zip(labels, spacing.tolist(), maps, strict=True):
            for value, class_map in zip(classes, sample_maps, strict=True):
                class_map[...] = _plain_map(inside(sample, value).numpy(), sampling)
        return torch.from_numpy(maps)

    def instance_distance(
        self,
        labels: torch.Tensor,
        background: int,
        spacing: torch.Tensor,
        max_distance: float | None,
        black_border: bool,
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.capabilities.InstanceBackend.instance_distance`."""
        maps = np.zeros(labels.shape, np.float32)
        for sample, sampling, sample_map in zip(labels.numpy(), spacing.tolist(), maps, strict=True):
            values, numbers = np.unique(sample, return_inverse=True)
            numbers = numbers.reshape(sample.shape)
            boxes = ndimage.find_objects(numbers + 1)
            for number, (value, box) in enumerate(zip(values.tolist(), boxes, strict=True)):
                if value != background:
                    _fill_instance(numbers, number, box, sampling, black_border, sample_map)
        if max_distance is not None:
            np.minimum(maps, np.float32(max_distance), out=maps)
        return torch.from_numpy(maps)

    def nearest(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.capabilities.NearestBackend.nearest`."""
        shape = labels.shape[1:]
        indices = np.full((labels.shape[0], len(classes), len(shape), *shape), -1, np.int32)
        for sample, sampling, of_sample in zip(labels, spacing.tolist(), indices, strict=True):
            for value, of_class in zip(classes, of_sample, strict=True):
                mask = inside(sample, value).numpy()
                if mask.any() and not mask.all():
                    for phase in (mask, ~mask):
                        _fill_nearest(phase, sampling, max_distance, of_class)
        return torch.from_numpy(indices)


def _fill_nearest(
    phase: np.ndarray, sampling: list[float], max_distance: float | None, target: np.ndarray
) -> None:
    distance, found = ndimage.distance_transform_edt(phase, sampling=sampling, return_indices=True)
    wanted = phase if max_distance is None else phase & (distance.astype(np.float32) <= max_distance)
    target[:, wanted] = found[:, wanted]


def _fill_instance(
    numbers: np.ndarray,
    number: int,
    box: tuple[slice, ...],
    sampling: list[float],
    black_border: bool,
    target: np.ndarray,
) -> None:
    # The nearest voxel outside lies in the instance's box or next to it.
    box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
    own = numbers[box] == number
    mask = np.pad(own, 1) if black_border else own
    if mask.all():
        target[box] = np.inf
        return
    distance = ndimage.distance_transform_edt(mask, sampling=sampling)
    if black_border:
        distance = distance[(slice(1, -1),) * own.ndim]
    target[box][own] = distance[own]


def _plain_map(mask: np.ndarray, sampling: list[float]) -> np.ndarray | float:
    # Without a voxel of the other phase scipy measures to one that does not exist.
    if not mask.any():
        return np.inf
    if mask.all():
        return -np.inf
    d_out = ndimage.distance_transform_edt(~mask, sampling=sampling)
    d_in = ndimage.distance_transform_edt(mask, sampling=sampling)
    return np.asarray(d_out - d_in)


BACKEND = ScipyBackend()
