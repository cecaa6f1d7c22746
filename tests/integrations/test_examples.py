"""The frameworks' examples as a user runs them, on a folder of NIfTI files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastsdm.integrations import nnunet
from tests.integrations.volumes import write_nifti_folder

ROOT = Path(__file__).parents[2]
#: How many lines a training with the framework changes.
CHANGED = {"monai_train": 2, "torchio_train": 2, "lightning_train": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nifti_folder(tmp_path_factory.mktemp("nifti"), 3)


def output_of(name: str, folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", f"examples.{name}", str(folder), "--classes", "3", "--patch", "16"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    settings: dict[str, Any] = {
        "cwd": ROOT,
        "capture_output": True,
        "text": True,
        "timeout": 300,
        "env": environment,
    }
    done = subprocess.run([*command, *arguments], **settings, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "spacing: " not in done.stderr  # a warning that voxels are taken as cubes
    return done.stdout


def assert_reports_the_held_out_volume(output: str) -> None:
    line = r"(case_\d)\.nii\.gz  class (\d)  Dice (?:\d\.\d+|nan)  surface distance (?:[\d.]+|nan|inf) mm"
    lines = re.findall(line, output)
    assert lines == [("case_2", "1"), ("case_2", "2")]


@pytest.mark.parametrize("name", ["monai_train", "torchio_train"])
def test_trains_and_validates(name: str, folder: Path) -> None:
    output = output_of(name, folder, "--epochs", "2")
    assert re.findall(r"epoch (\d)/2  loss -?\d+\.\d+  boundary weight (0\.\d\d)", output) == [
        ("1", "0.01"),
        ("2", "0.50"),
    ]
    assert_reports_the_held_out_volume(output)


def test_lightning_trains_resumes_and_validates(folder: Path, tmp_path: Path) -> None:
    settings = ("--patches", "4", "--out", str(tmp_path))
    first = output_of("lightning_train", folder, *settings, "--epochs", "2")
    assert re.findall(r"epoch (\d)  boundary weight (0\.\d\d)", first) == [("1", "0.01"), ("2", "0.50")]
    assert_reports_the_held_out_volume(first)
    more = output_of(
        "lightning_train", folder, *settings, "--epochs", "5", "--resume", str(tmp_path / "last.ckpt")
    )
    weights = re.findall(r"epoch (\d)  boundary weight (0\.\d\d)", more)
    assert [epoch for epoch, _ in weights] == ["3", "4", "5"]
    assert [weight for _, weight in weights] == ["0.26", "0.38", "0.50"]


@pytest.mark.parametrize(("name", "count"), CHANGED.items())
def test_lines_to_change(name: str, count: int) -> None:
    source = (ROOT / "examples" / f"{name}.py").read_text()
    assert len(re.findall(r"# fastsdm$", source, re.MULTILINE)) == count


@pytest.mark.parametrize(
    ("page", "lines"), [("monai", "Two"), ("nnunet", "One"), ("torchio", "Two"), ("lightning", "Three")]
)
def test_pages_state_the_lines_to_change(page: str, lines: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    assert re.search(rf"\b{lines} lines? [^.]*(change|turn)", text)
    if page != "nnunet":
        assert CHANGED[f"{page}_train"] == {"Two": 2, "Three": 3}[lines]


def test_nnunets_line_is_the_trainers_name() -> None:
    """What the page adds to nnU-Net's own commands is ``-tr`` and a trainer that nnU-Net finds."""
    text = (ROOT / "docs" / "nnunet.md").read_text()
    commands = re.findall(r"^(nnUNetv2_(?:train|predict) .*)", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        [name] = re.findall(r" -tr (\w+)", command)
        assert issubclass(getattr(nnunet, name), nnunet.nnUNetTrainer)


def test_the_lightning_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "lightning.md"
    [block] = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(compile(block, str(page), "exec"), namespace)
    assert namespace["module"].loss.schedule.steps_taken == 2
