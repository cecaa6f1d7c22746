"""Who is timed: what every contender has, and our backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

import fastsdm
from benchmarks.measure.cases import MapCase
from benchmarks.measure.gate import Half
from benchmarks.measure.timing import Run
from fastsdm import testing
from fastsdm.testing import Array, Tolerance

#: The error of a few float32 roundings in a row. Our backends are held to two.
ROUNDED = Tolerance(relative=2e-6, voxels=0.0, share_off=1.0)
_MOST_BUFFERS = 64


@dataclass(frozen=True)
class Prepared:
    """A contender with its input in place: `run(round)`, and `plain(result)` as `[B, K, *S]` in our signs."""

    run: Run
    plain: Callable[[Any], Array]


class Contender:
    """One way to make the maps of a case.

    Attributes:
        name: unique among the contenders.
        device: of the run.
        ours: whether it is a backend of fastsdm; one that is wrong fails the whole run.
        exact: whether its errors are those of rounding.
        tolerance: largest error of its maps.
        half: the part of its maps that is compared.
        handles_absence: whether an absent class gets an infinite distance; if not, such cases are left out.
        on_host: whether it works on the CPU, also beside contenders on a GPU.
    """

    name: str
    device: torch.device
    ours: bool = False
    exact: bool = True
    tolerance: Tolerance = ROUNDED
    half: Half = "signed"
    handles_absence: bool = False
    on_host: bool = True

    def prepared(self, case: MapCase, labels: Array, threads: int) -> Prepared:
        """Convert the labels `[B, *S]` and put them on the device; not timed."""
        raise NotImplementedError


class OurBackend(Contender):
    """`fastsdm.signed_distance` as a user calls it: tensor in, tensor out, on `device`."""

    ours = True
    handles_absence = True

    def __init__(self, backend: str, device: torch.device) -> None:
        self.backend, self.device = backend, device
        self.name = f"fastsdm {backend}"
        self.exact = fastsdm.backends()[backend].exact
        self.tolerance = testing.EXACT if self.exact else testing.APPROXIMATE
        self.on_host = device.type == "cpu"

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
                max_distance=case.max_distance,
                backend=self.backend,
            )

        def plain(result: torch.Tensor) -> Array:
            return result.reshape(len(labels), len(case.values), *labels.shape[1:]).cpu().numpy()

        return Prepared(run, plain)


def rotating_buffers(size: int, device: torch.device) -> int:
    """Copies of an input of `size` bytes that together do not fit the device's cache.

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
    statuses = fastsdm.backends()
    usable = [name for name, status in statuses.items() if device.type in status.devices]
    usable.sort(key=lambda name: device.type not in statuses[name].automatic_on)
    if names is None:
        return [OurBackend(name, device) for name in usable if name != "scipy"]
    chosen = [usable[0] if name == "auto" else name for name in names]
    for name in chosen:
        if name not in usable:
            reason = statuses[name].reason or f"it does not run on {device.type}"
            raise fastsdm.BackendUnavailableError(name, reason)
    return [OurBackend(name, device) for name in chosen]
