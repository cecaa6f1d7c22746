"""Protocols of backends that compute more than signed maps, and how one is selected."""

from __future__ import annotations

from typing import Protocol, TypeVar, cast, runtime_checkable

import torch

from fastsdm._backends import registry
from fastsdm._backends.contract import Backend, Classes
from fastsdm._errors import BackendUnavailableError


@runtime_checkable
class InstanceBackend(Backend, Protocol):
    """A backend that measures instances."""

    def instance_distance(
        self,
        labels: torch.Tensor,
        background: int,
        spacing: torch.Tensor,
        max_distance: float | None,
        black_border: bool,
    ) -> torch.Tensor:
        """Compute the distance of each voxel to the nearest one of another label.

        Labels and spacing are those of :meth:`Backend.signed_distance`.

        Args:
            labels: the instances.
            background: label whose voxels get 0.
            spacing: voxel size.
            max_distance: larger distances become ``max_distance``.
            black_border: whether everything beyond the volume has another label.

        Returns:
            ``[B, *S]`` float32; ``inf`` (or ``max_distance``) in a volume with one label only.
        """


@runtime_checkable
class NearestBackend(Backend, Protocol):
    """A backend that finds nearest voxels."""

    def nearest(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """Find the nearest voxel of the other phase for each voxel.

        The arguments are those of :meth:`Backend.signed_distance`, with labels that are not empty. Voxels
        farther away than ``max_distance`` do not count.

        Returns:
            ``[B, K, ndim, *S]`` int32; -1 if there is no such voxel.
        """


@runtime_checkable
class LabelBackend(NearestBackend, Protocol):
    """One that takes the labels of nearest voxels without returning which these are."""

    def nearest_label(
        self, labels: torch.Tensor, background: int, spacing: torch.Tensor, max_distance: float | None
    ) -> torch.Tensor:
        """Return ``labels`` with each background voxel replaced by its nearest voxel of another label.

        Args:
            labels: ``[B, *S]``, integer or bool, contiguous, not empty, with 2 or 3 spatial axes.
            background: the label that is replaced.
            spacing: ``[B, ndim]`` float64 on the CPU, positive and finite.
            max_distance: voxels farther than it are not taken.
        """


CapableT = TypeVar("CapableT", bound=Backend)


def select(kind: type[CapableT], backend: str, device: torch.device, what: str) -> CapableT:
    """Return the backend that will compute ``what`` on ``device``.

    Args:
        kind: protocol that the backend must satisfy.
        backend: ``"auto"``, or the name of a backend.
        device: device of the labels.
        what: what is computed, for the message.

    Raises:
        ValueError: unknown name.
        BackendUnavailableError: the named backend cannot do it, or ``auto`` finds none that can.
    """
    name = registry.current_choice(backend)
    key = (kind, name, device)
    chosen = registry.found.get(key)
    if chosen is None:  # isinstance with a runtime-checkable protocol takes longer than a small map
        chosen = registry.found[key] = _available(kind, name, device, what)
    return cast("CapableT", chosen)


def _available(kind: type[CapableT], name: str, device: torch.device, what: str) -> CapableT:
    if name != "auto":
        chosen = registry.select(name, device)
        if not isinstance(chosen, kind):
            raise BackendUnavailableError(name, f"it does not compute {what}; use one of {_names(kind)}")
        return chosen
    candidates = map(registry.get, registry.auto_order(device))
    first, _ = registry.first_available((each for each in candidates if isinstance(each, kind)), device)
    if first is None:
        raise BackendUnavailableError(
            "auto", f"no backend computes {what} on {device}; move the labels to the CPU with .cpu()"
        )
    return cast("CapableT", first)


def _names(kind: type[Backend]) -> str:
    return ", ".join(name for name in registry.names() if isinstance(registry.get(name), kind))
