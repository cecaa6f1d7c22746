"""What some backends offer beyond signed maps, and the choice of one that does."""

from __future__ import annotations

from typing import Protocol, TypeVar, cast, runtime_checkable

import torch

from fastsdm._backends import registry
from fastsdm._backends.contract import Backend, Classes
from fastsdm._errors import BackendUnavailableError


@runtime_checkable
class InstanceBackend(Backend, Protocol):
    """A backend that computes the distance of each voxel to the nearest one of another label."""

    def instance_distance(
        self,
        labels: torch.Tensor,
        background: int,
        spacing: torch.Tensor,
        max_distance: float | None,
        black_border: bool,
    ) -> torch.Tensor:
        """Return ``[B, *S]`` float32, 0 in the background.

        Args:
            labels: ``[B, *S]``, integer or bool, contiguous, with 2 or 3 spatial axes.
            background: voxels of this label read 0.
            spacing: ``[B, ndim]`` float64 on the CPU, positive and finite.
            max_distance: the result is cut to it.
            black_border: beyond the volume lies another label.
        """


@runtime_checkable
class NearestBackend(Backend, Protocol):
    """A backend that finds which voxel of the other phase is nearest."""

    def nearest(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """Return ``[B, K, ndim, *S]`` int32, -1 where there is none within ``max_distance``.

        Args:
            labels: ``[B, *S]``, integer or bool, contiguous, not empty, with 2 or 3 spatial axes.
            classes: see :data:`Classes`.
            spacing: ``[B, ndim]`` float64 on the CPU, positive and finite.
            max_distance: voxels farther than it are none.
        """


CapableT = TypeVar("CapableT", bound=Backend)


def select(kind: type[CapableT], backend: str, device: torch.device, what: str) -> CapableT:
    """Return the backend that will compute ``what`` on ``device``.

    Args:
        kind: the protocol it must satisfy.
        backend: ``"auto"``, or the name of one.
        device: of the labels.
        what: for the message.

    Raises:
        ValueError: unknown name.
        BackendUnavailableError: the named backend cannot do it, or ``auto`` finds none that can.
    """
    name = registry.current_choice(backend)
    key = (kind, name, device)
    chosen = registry.found.get(key)
    if chosen is None:  # asking isinstance of these protocols takes longer than a small map
        chosen = registry.found[key] = _available(kind, name, device, what)
    return cast("CapableT", chosen)


def _available(kind: type[CapableT], name: str, device: torch.device, what: str) -> CapableT:
    if name != "auto":
        chosen = registry.select(name, device)
        if not isinstance(chosen, kind):
            raise BackendUnavailableError(name, f"it does not compute {what}; use one of {_names(kind)}")
        return chosen
    reasons: list[str] = []
    for candidate in registry.auto_order(device):
        found = registry.get(candidate)
        if not isinstance(found, kind):
            continue
        reason = found.unavailable(device)
        if reason is None:
            if found.name == "scipy":
                registry.warn_slow(reasons)
            return found
        reasons.append(f"{candidate}: {reason}")
    raise BackendUnavailableError(
        "auto", f"no backend computes {what} on {device}; move the labels to the CPU with .cpu()"
    )


def _names(kind: type[Backend]) -> str:
    return ", ".join(name for name in registry.names() if isinstance(registry.get(name), kind))
