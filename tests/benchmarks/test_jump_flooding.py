"""The exact scheme that jump flooding is compared with, and the count of both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.studies import jump_flooding, separable
from fastsdm import testing

CASES = {case.name: case for case in testing.hard_cases(20)}
DOCUMENT = Path(__file__).parents[2] / "docs" / "backends.md"


@pytest.mark.parametrize("name", CASES)
def test_separable_scheme_is_exact(name) -> None:
    case = CASES[name]
    maps = separable.signed_distance(
        torch.from_numpy(case.labels), case.classes, torch.from_numpy(case.spacing), None
    )
    reference = testing.reference_signed_distance(case.labels, case.classes, case.spacing)
    found = testing.agreement(maps.numpy(), reference, case.spacing, testing.EXACT)
    assert found.passed, found


def test_operations_and_bytes_are_counted_and_views_are_not() -> None:
    with jump_flooding._Traffic() as traffic:
        doubled = torch.ones(10) * 2  # writes 40; reads 40, writes 40
        doubled.view(2, 5).t().add_(1)  # reads and writes 40 in place, counted once
    assert traffic.operations == 3
    assert traffic.bytes == 160


def test_documented_costs_are_the_counted_ones() -> None:
    row = " | ".join(("| 96³", *jump_flooding.cost_cells(96))) + " |\n"
    assert row in DOCUMENT.read_text(encoding="utf-8")
