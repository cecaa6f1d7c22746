"""The frameworks' own warnings are theirs to mend; ours are errors, as everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            for rule in (r"ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"):
                item.add_marker(pytest.mark.filterwarnings(rule), append=False)
