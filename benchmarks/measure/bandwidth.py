"""How fast this machine copies memory, and the least time a map can take at that rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.measure.timing import Budget, clock_for, interleaved

_BYTES = 1 << 28


@dataclass(frozen=True)
class Bandwidth:
    """Bytes per second of a large copy, read and written bytes both counted."""

    bytes_per_second: float

    def floor_s(self, floor_bytes: int) -> float:
        """Seconds that reading the labels and writing the map take, were nothing else to do."""
        return floor_bytes / self.bytes_per_second


def measured_bandwidth(device: torch.device) -> Bandwidth:
    """Copy 256 MiB between two tensors whose pages are already there."""
    source = torch.ones(_BYTES // 4, device=device)
    target = torch.empty_like(source).copy_(source)
    timing = interleaved(
        {"copy": lambda _: target.copy_(source)}, {"copy": 0.1}, Budget(2.0, most=15), clock_for(device)
    )["copy"]
    return Bandwidth(2 * _BYTES / timing.median_s)
