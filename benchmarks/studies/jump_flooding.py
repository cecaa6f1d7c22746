"""Errors of jump flooding: the tables of docs/backends.md.

python -m benchmarks.studies.jump_flooding              # errors of the backend
python -m benchmarks.studies.jump_flooding --schedules  # errors of other orders of jumps
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from unittest import mock

import numpy as np
import torch
import typer

from benchmarks.report.markdown import table
from fastsdm import testing
from fastsdm._backends import jump_flooding
from fastsdm.testing import Array

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


def error_table() -> str:
    """The backend's errors."""
    rows = []
    for name, (mask, spacing) in _PHANTOMS.items():
        found = _agreement(mask, spacing)
        rows.append((name, f"{found.share_off:.4%}", f"{found.max_abs:.3f}", f"{found.max_rel:.2%}"))
    head = ("phantom, 96³ and unit spacing unless named", "voxels off", "largest error", "largest relative")
    return table(head, rows)


def schedule_table() -> str:
    """The share of voxels that other orders of jumps get wrong."""
    rows = []
    for name, (mask, spacing) in _PHANTOMS.items():
        shares = []
        for schedule in _SCHEDULES.values():
            with mock.patch.object(jump_flooding, "_jumps", _jumps_of(schedule)):
                shares.append(f"{_agreement(mask, spacing).share_off:.4%}")
        rows.append((name, *shares))
    return table(("phantom", *_SCHEDULES), rows)


def _agreement(mask: Array, spacing: tuple[float, ...]) -> testing.Agreement:
    rows = np.array([spacing])
    maps = jump_flooding.BACKEND.signed_distance(
        torch.from_numpy(mask)[None], (1,), torch.from_numpy(rows), None
    )
    reference = testing.reference_signed_distance(mask[None], (1,), rows)
    return testing.agreement(maps.numpy(), reference, rows, testing.APPROXIMATE)


def _jumps_of(schedule: _Schedule) -> Callable[[int], list[int]]:
    return lambda longest: schedule([1 << power for power in reversed(range((longest - 1).bit_length()))])


def main(schedules: Annotated[bool, typer.Option(help="Of other orders of jumps.")] = False) -> None:
    """Print a table of errors."""
    print(schedule_table() if schedules else error_table())


if __name__ == "__main__":
    typer.run(main)
