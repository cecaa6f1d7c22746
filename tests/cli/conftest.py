"""How the command is called in tests: in this process, at a width of 100 columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from fastsdm import testing
from fastsdm.cli import terminal
from fastsdm.cli.app import app

Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """``command("map", "in.npy", ...)``; an unexpected exception in it is raised here."""
    monkeypatch.setattr(terminal.console, "_width", 100)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return run


@pytest.fixture
def labels() -> np.ndarray:
    return (testing.shells((14, 17, 12), classes=3, thickness=3.0)).astype(np.uint8)


@pytest.fixture
def npy(tmp_path: Path, labels: np.ndarray) -> Path:
    path = tmp_path / "labels.npy"
    np.save(path, labels)
    return path
