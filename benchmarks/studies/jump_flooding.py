"""What jump flooding gets wrong, and what it costs beside an exact scheme of the same torch operations.

python -m benchmarks.studies.jump_flooding             # errors of the `torch` backend
python -m benchmarks.studies.jump_flooding schedules   # errors of other orders of jumps
python -m benchmarks.studies.jump_flooding cost        # operations and bytes beside `separable`
python -m benchmarks.studies.jump_flooding time        # seconds on this CPU beside it
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.measure.timing import Budget, HostClock, interleaved
from benchmarks.studies import separable
from fastsdm import testing
from fastsdm._backends import jump_flooding
from fastsdm.testing import Array

_FLOODED = jump_flooding.BACKEND.signed_distance
_UNIT, _CT = (1.0, 1.0, 1.0), (3.0, 0.8, 0.7)
_CUBE = (96, 96, 96)
_PHANTOMS: dict[str, tuple[Array, tuple[float, ...]]] = {
    "blobs": (testing.blobs(_CUBE), _UNIT),
    "blobs, 3 x 0.8 x 0.7": (testing.blobs(_CUBE, seed=1), _CT),
    "small blobs": (testing.blobs(_CUBE, fraction=0.02, sigma=3), _UNIT),
    "one voxel": (testing.one_voxel(_CUBE), _UNIT),
    "0.1 % of voxels": (testing.noise(_CUBE, fraction=0.001), _UNIT),
    "0.01 % of voxels, 3 x 0.8 x 0.7": (testing.noise(_CUBE, fraction=0.0001), _CT),
    "vessels": (testing.vessels(_CUBE), _UNIT),
    "vessels, 3 x 0.8 x 0.7": (testing.vessels(_CUBE, seed=1), _CT),
    "shells": (testing.shells(_CUBE, classes=2, thickness=5), _UNIT),
    "64 x 160 x 96, 3 x 0.8 x 0.7": (testing.blobs((64, 160, 96)), _CT),
}
_Schedule = Callable[[list[int]], list[int]]
_SCHEDULES: dict[str, _Schedule] = {
    "JFA": lambda halving: halving,
    "1+JFA": lambda halving: [1, *halving],
    "JFA+2": lambda halving: [*halving, 2, 1],
    "2+1+JFA+2": lambda halving: [2, 1, *halving, 2, 1],
    "1+JFA+2": lambda halving: [1, *halving, 2, 1],
    "JFA twice": lambda halving: halving + halving,
}


def print_errors() -> None:
    """Table of the backend's errors."""
    _row("phantom, 96³ and unit spacing unless named", "voxels off", "largest error", "largest relative")
    _row("---", "---:", "---:", "---:")
    for name, (mask, spacing) in _PHANTOMS.items():
        found = _agreement(mask, spacing)
        _row(name, f"{found.share_off:.4%}", f"{found.max_abs:.3f}", f"{found.max_rel:.2%}")


def print_schedules() -> None:
    """Table of the share of voxels that other orders of jumps get wrong."""
    _row("phantom", *_SCHEDULES)
    _row("---", *("---:" for _ in _SCHEDULES))
    for name, (mask, spacing) in _PHANTOMS.items():
        shares = []
        for schedule in _SCHEDULES.values():
            with mock.patch.object(jump_flooding, "_jumps", _jumps_of(schedule)):
                shares.append(f"{_agreement(mask, spacing).share_off:.4%}")
        _row(name, *shares)


_SCHEMES: dict[str, Callable[..., torch.Tensor]] = {
    "jump flooding": _FLOODED,
    "separable": separable.signed_distance,
}


def print_costs() -> None:
    """Table of operations and bytes per map, flooding beside the exact scheme, in blocks as on a GPU."""
    _row("one map", *(f"{name}: operations | bytes per voxel" for name in _SCHEMES))
    _row("---", *("---: | ---:" for _ in _SCHEMES))
    for size in (64, 96, 128, 256):
        _row(f"{size}³", *cost_cells(size))


def cost_cells(size: int) -> Iterator[str]:
    """What each scheme does to a cube of that side: operations, bytes per voxel."""
    for scheme in _SCHEMES.values():
        without_values = torch.empty((1, size, size, size), dtype=torch.uint8, device="meta")
        with _Traffic() as traffic:
            _call(scheme, without_values)
        yield f"{traffic.operations} | {traffic.bytes / size**3:,.0f}"


def print_times() -> None:
    """Table of seconds per map on the CPU, in turns."""
    _row("map of blobs", *_SCHEMES, "error of the separable one")
    _row("---", *("---:" for _ in _SCHEMES), "---:")
    for size in (64, 96):
        labels = torch.from_numpy(testing.blobs((size,) * 3))[None]
        reference = testing.reference_signed_distance(labels.numpy(), (1,), np.ones((1, 3)))
        maps = _call(separable.signed_distance, labels)
        found = testing.agreement(maps.numpy(), reference, np.ones((1, 3)), testing.EXACT)
        timings = interleaved(
            {name: _timed(scheme, labels) for name, scheme in _SCHEMES.items()},
            dict.fromkeys(_SCHEMES, 1.0),
            Budget(seconds=5, most=5),
            HostClock(),
        )
        medians = (f"{timings[name].median_s:.2f} s" for name in _SCHEMES)
        _row(f"{size}³", *medians, f"{found.max_rel:.1e}")


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its base class is untyped
    """Counts operations, and the bytes of the tensors they read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not _is_view(func):
            touched = list(_tensors((args, kwargs)))
            known = {id(tensor) for tensor in touched}
            made = [tensor for tensor in _tensors(result) if id(tensor) not in known]
            self.operations += 1
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in chain(touched, made))
        return result


def _is_view(func: Any) -> bool:
    shared = (argument.alias_info for argument in func._schema.arguments if argument.alias_info)
    return any(not alias.is_write for alias in shared)


def _tensors(tree: object) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def _agreement(mask: Array, spacing: tuple[float, ...]) -> testing.Agreement:
    rows = np.array([spacing])
    maps = _FLOODED(torch.from_numpy(mask)[None], (1,), torch.from_numpy(rows), None)
    reference = testing.reference_signed_distance(mask[None], (1,), rows)
    return testing.agreement(maps.numpy(), reference, rows, testing.APPROXIMATE)


def _jumps_of(schedule: _Schedule) -> Callable[[int], list[int]]:
    return lambda longest: schedule([1 << power for power in reversed(range((longest - 1).bit_length()))])


def _call(scheme: Callable[..., torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    return scheme(labels, (1,), torch.ones(1, 3, dtype=torch.float64), None)


def _timed(scheme: Callable[..., torch.Tensor], labels: torch.Tensor) -> Callable[[int], torch.Tensor]:
    return lambda _: _call(scheme, labels)


def _row(*cells: str) -> None:
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    _TABLES = {"errors": print_errors, "schedules": print_schedules, "cost": print_costs, "time": print_times}
    _TABLES[sys.argv[1] if len(sys.argv) > 1 else "errors"]()
