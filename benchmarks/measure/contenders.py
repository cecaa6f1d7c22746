"""Who is timed: our backends and the peers, behind one interface."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

import fastsdm
from benchmarks.measure.cases import MapCase
from benchmarks.measure.gate import Half
from benchmarks.measure.peers import PEERS, Peer, unavailable
from benchmarks.measure.timing import Run
from fastsdm import testing
from fastsdm._backends import registry
from fastsdm.testing import Array, Tolerance

_MOST_BUFFERS = 64


@dataclass(frozen=True)
class Prepared:
    """A contender with its input in place: `run(round)`, and `plain(result)` as `[B, K, *S]` in our signs."""

    run: Run
    plain: Callable[[Any], Array]


class Contender(Protocol):
    """One way to make the maps of a case."""

    @property
    def name(self) -> str:
        """Unique among the contenders."""

    @property
    def ours(self) -> bool:
        """Whether it is a backend of fastsdm; one that is wrong fails the whole run."""

    @property
    def tolerance(self) -> Tolerance:
        """What its maps are held to."""

    @property
    def half(self) -> Half:
        """What of its maps is held to that."""

    @property
    def max_distance(self) -> float | None:
        """Beyond which its maps are clamped."""

    @property
    def knows_absence(self) -> bool:
        """Whether it can be asked about a class that is absent, or everywhere."""

    @property
    def on_host(self) -> bool:
        """Whether it works on the CPU, also beside contenders on a device."""

    def prepared(self, case: MapCase, labels: Array, threads: int) -> Prepared:
        """Put the input where the contender wants it; `labels` is `[B, *S]`."""


@dataclass(frozen=True)
class OurBackend:
    """`fastsdm.signed_distance` as a user calls it: tensor in, tensor out, on `device`."""

    backend: str
    device: torch.device
    ours = True
    half: Half = "signed"
    knows_absence = True
    max_distance: float | None = None

    @property
    def name(self) -> str:
        return f"fastsdm {self.backend}"

    @property
    def tolerance(self) -> Tolerance:
        return testing.EXACT if registry.get(self.backend).exact else testing.APPROXIMATE

    @property
    def on_host(self) -> bool:
        return self.device.type == "cpu"

    def prepared(self, case: MapCase, labels: Array, threads: int) -> Prepared:
        torch.set_num_threads(threads)
        source = torch.from_numpy(labels)
        copies = rotating_buffers(source.nbytes, self.device)
        inputs = [source.to(self.device, copy=copies > 1) for _ in range(copies)]

        def run(round_: int) -> torch.Tensor:
            return fastsdm.signed_distance(
                inputs[round_ % copies],
                classes=None if case.classes is None else list(case.classes),
                spacing=case.spacing,
                convention="plain",
                max_distance=self.max_distance,
                backend=self.backend,
            )

        def plain(result: torch.Tensor) -> Array:
            return result.reshape(len(labels), len(case.values), *labels.shape[1:]).cpu().numpy()

        return Prepared(run, plain)


@dataclass(frozen=True)
class PeerContender:
    """A peer, called once per sample."""

    peer: Peer
    device: torch.device
    ours = False
    max_distance = None

    @property
    def name(self) -> str:
        return self.peer.name

    @property
    def half(self) -> Half:
        return self.peer.half

    @property
    def tolerance(self) -> Tolerance:
        return self.peer.tolerance

    @property
    def on_host(self) -> bool:
        return "cpu" in self.peer.device_types

    @property
    def knows_absence(self) -> bool:
        return self.peer.knows_absence

    def prepared(self, case: MapCase, labels: Array, threads: int) -> Prepared:
        copies = 1 if self.on_host else rotating_buffers(labels.nbytes, self.device)
        samples = [[self.peer.prepared(case, sample, threads) for sample in labels] for _ in range(copies)]

        def run(round_: int) -> list[list[Any]]:
            return [sample() for sample in samples[round_ % copies]]

        def plain(result: list[list[Any]]) -> Array:
            return np.stack(
                [
                    np.stack(
                        [
                            self.peer.plain(map_, sample == value)
                            for map_, value in zip(maps, case.values, strict=True)
                        ]
                    )
                    for maps, sample in zip(result, labels, strict=True)
                ]
            )

        return Prepared(run, plain)


def rotating_buffers(size: int, device: torch.device) -> int:
    """How many copies of an input of `size` bytes keep it from being served from the device's cache.

    One on the CPU, where a training step has just made the labels, too.
    """
    if device.type != "cuda":
        return 1
    cache: int = torch.cuda.get_device_properties(device).L2_cache_size
    return max(1, min(_MOST_BUFFERS, math.ceil(4 * cache / max(1, size))))


def our_contenders(device: torch.device, names: Iterable[str] | None = None) -> list[Contender]:
    """The backends that run on `device`, or the named ones; what "auto" takes there comes first.

    Without names, `scipy` is left out: the peer of that name is the same without our packing around it.

    Raises:
        BackendUnavailableError: a named backend cannot run on `device`.
    """
    if names is not None:
        return [OurBackend(registry.select(name, device).name, device) for name in names]
    available = [name for name in fastsdm.backends() if registry.get(name).unavailable(device) is None]
    first = registry.select("auto", device).name
    ordered = [first, *(name for name in available if name not in {first, "scipy"})]
    return [OurBackend(name, device) for name in ordered]


def peer_contenders(
    device: torch.device, names: Sequence[str] | None = None
) -> tuple[list[Contender], dict[str, str]]:
    """The peers that run on `device`, and why the others do not."""
    asked = {name: peer for name, peer in PEERS.items() if names is None or name in names}
    reasons = {name: unavailable(peer, device) for name, peer in asked.items()}
    found: list[Contender] = [
        PeerContender(peer, device) for name, peer in asked.items() if reasons[name] is None
    ]
    return found, {name: reason for name, reason in reasons.items() if reason is not None}
