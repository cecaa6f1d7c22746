"""The frameworks' own warnings are theirs to mend; ours are errors, as everywhere."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch deprecates what ignite imports
    import ignite.engine  # noqa: F401

HERE = Path(__file__).parent
IGNORED = [
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore:.*CUDA is not available",  # nnU-Net's scaler
    "ignore:The given NumPy array is not writable",  # nnU-Net's loader
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            for rule in IGNORED:
                item.add_marker(pytest.mark.filterwarnings(rule), append=False)
