"""The command as a program: help, and what is said when an optional package is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastsdm.cli import main


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    start = f"import sys; sys.argv = {['fastsdm', *arguments]!r}; {code}"
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("typer", ("map", "labels.npy", "out.npy")),
        ("rich", ("map", "labels.npy", "out.npy")),
        ("nibabel", ("map", "labels.npy", "out.nii")),
        ("nibabel", ("map", "labels.nii", "out.npy")),
        ("matplotlib", ("view", "labels.npy", "-o", "out.png")),
    ],
)
def test_a_missing_package_is_one_line_with_the_install_command(package: str, arguments, npy: Path) -> None:
    code = f"sys.modules[{package!r}] = None; from fastsdm.cli import main; main()"
    npy.with_name("labels.nii").write_text("not read")
    done = run(code, *(str(npy.with_name(part)) if "." in part else part for part in arguments))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"needs the package {package}" in done.stderr
    assert "pip install '.[cli]'" in done.stderr


def test_another_missing_module_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastsdm.cli.app", None)
    with pytest.raises(ModuleNotFoundError, match=r"fastsdm\.cli\.app"):
        main()


def test_the_module_runs_and_lists_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastsdm.cli", "--help"], capture_output=True, text=True, check=True
    )
    for name in ("info", "check", "map", "view"):
        assert f" {name} " in done.stdout


@pytest.mark.parametrize("name", ["info", "check", "map", "view"])
def test_every_command_explains_itself(command, name: str) -> None:
    done = command(name, "--help")
    assert done.exit_code == 0
    assert "Usage" in done.stdout


def test_an_unknown_option_is_a_usage_error(command) -> None:
    assert command("info", "--nonsense").exit_code == 2


def test_errors_do_not_take_file_names_for_markup(command, tmp_path: Path) -> None:
    path = tmp_path / "[bold]x.npy"
    assert "[bold]x.npy: there is no such file" in command("map", path, tmp_path / "out.npy").stderr
    np.save(path, np.eye(4))
    assert "[red]out.npy" in command("map", path, tmp_path / "[red]out.npy", "--force").stdout
