"""What `make gpu` and `make gpu-minutes` run, with a stand-in for the interpreter."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.measure.cases import CASES

ROOT = Path(__file__).parents[2]


def made(tmp_path: Path, target: str, *variables: str, failing: str = "nothing") -> tuple[list[str], int]:
    """The commands that a target runs, and its exit code; those that contain ``failing`` fail."""
    log, python = tmp_path / "log", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >> {log}\ncase "$*" in *{failing}*) exit 3 ;; esac\n')
    python.chmod(0o755)
    command = ["make", target, "HERE=1", f"PYTHON={python}", *variables]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return log.read_text().splitlines(), done.returncode


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def test_five_minutes_run_everything_in_turn(tmp_path: Path) -> None:
    ran, code = made(tmp_path, "gpu-minutes")
    assert code == 0
    wanted = [
        "--find",
        "pytest -m gpu and not slow",
        "benchmarks.host",
        "losses,steps",
        "studies.registers",
    ]
    assert len(ran) == len(wanted)
    for command, part in zip(ran, wanted, strict=True):
        assert part in command
    assert " -n 8 " in ran[1]
    (tmp_path / "log").unlink()
    ran, _ = made(tmp_path, "gpu-minutes", "WORKERS=0")
    assert " -n " not in ran[1]


@pytest.mark.parametrize("failing", ["pytest", "benchmarks.host", "--quick", "studies.registers"])
def test_what_fails_keeps_nothing_from_running(tmp_path: Path, failing: str) -> None:
    ran, code = made(tmp_path, "gpu-minutes", failing=failing)
    assert code != 0
    assert len(ran) == 5


def test_without_a_gpu_nothing_else_runs(tmp_path: Path) -> None:
    for target in ("gpu", "gpu-minutes"):
        folder = tmp_path / target
        folder.mkdir()
        ran, code = made(folder, target, failing="--find")
        assert code != 0
        assert len(ran) == 1


def test_make_gpu_runs_tests_and_benchmark(tmp_path: Path) -> None:
    ran, code = made(tmp_path, "gpu", "QUICK=1", "PARTIAL=1", "WORKERS=3", failing="pytest")
    assert code != 0
    find, tests, benchmark = ran
    assert find == "-m benchmarks --gpu --find --partial"
    assert tests.startswith("-m pytest -m gpu -n 3 ")
    assert benchmark == "-m benchmarks --gpu --partial --quick"


def test_the_cases_of_five_minutes_exist() -> None:
    (names,) = re.findall(r"^GPU_CASES := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(names.split(",")) <= set(CASES)
