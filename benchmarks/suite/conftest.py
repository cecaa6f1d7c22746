"""Options of the pytest-benchmark suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastsdm")
    group.addoption("--device", default="cpu", help="where the backends work: cpu or cuda")
    group.addoption("--threads", type=int, default=2, help="of everyone on the CPU")
    group.addoption("--full", action="store_true", help="the large cases, too")
