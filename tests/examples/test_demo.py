"""The demo: its parts on small volumes, and once as a user would run it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from matplotlib.image import imread
from typer.testing import CliRunner, Result

import fastsdm
from examples.demo import __main__ as demo_module
from examples.demo import training as training_module
from examples.demo.training import Costs, Step, Training, published_maps
from examples.networks import dice_loss
from fastsdm import testing
from fastsdm.data import LabelledVolume


@pytest.fixture
def command() -> Callable[..., Result]:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(demo_module.demo)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return run


@pytest.fixture
def volume() -> LabelledVolume:
    labels = testing.blobs((24, 28, 20), sigma=3) + testing.blobs((24, 28, 20), sigma=3, fraction=0.05)
    image = labels / np.float32(2)
    return LabelledVolume(
        image=image,
        labels=labels,
        spacing=(1.0, 1.0, 1.0),
        name="small",
        label_names=("none", "one tissue", "other tissue"),
        citation="made",
    )


@pytest.fixture
def small_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "PATCH", (16, 16, 16))


def test_training_learns_and_weighs_the_boundary_more_and_more(
    volume: LabelledVolume, small_patches: None
) -> None:
    training = Training(volume, 15, torch.device("cpu"))

    def score() -> float:
        with torch.no_grad():
            return dice_loss(training.network(training.image), training.labels).item()

    before = score()
    seen = [(step, training.loss.schedule.weights.boundary) for step in training.run(15)]
    weights = [weight for _, weight in seen]
    assert score() < before - 0.1
    assert weights == sorted(weights)
    assert weights[-1] == pytest.approx(0.1)
    assert all(min(step.whole, step.map_fastsdm, step.map_scipy) > 0 for step, _ in seen)


def test_both_maps_of_a_step_are_the_same(volume: LabelledVolume, small_patches: None) -> None:
    training = Training(volume, 1, torch.device("cpu"))
    labels = training.labels
    ours = training.boundary.target_map(labels, training.classes)
    torch.testing.assert_close(published_maps(labels[:, 0]), ours)


def test_costs_are_medians_without_the_first_step() -> None:
    steps = [Step(0, 0, *times) for times in [(100, 50, 50), (11, 1, 30), (12, 2, 30), (13, 3, 30)]]
    costs = Costs.of(steps)
    assert (costs.rest, costs.map_fastsdm, costs.map_scipy) == (10, 2, 30)
    assert costs.share_fastsdm == pytest.approx(2 / 12)
    assert costs.share_scipy == pytest.approx(30 / 40)


def test_a_wrong_map_stops_the_demo(command, volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "mni_icbm152", lambda: volume)
    right = fastsdm.signed_distance
    monkeypatch.setattr(fastsdm, "signed_distance", lambda *a, **k: right(*a, **k) + 1e-4)
    done = command("--out", tmp_path)
    assert done.exit_code == 1
    assert "the two maps differ by 0.0001" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_data_package_is_one_line(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = command("--out", tmp_path)
    assert done.exit_code == 1
    assert "pip install '.[demo]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.integration
@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path) -> None:
    arguments = [
        sys.executable,
        "-m",
        "examples.demo",
        "--out",
        str(tmp_path / "new" / "out"),
        "--steps",
        "2",
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Map of 3 classes, whole volume" in done.stdout
    assert "share of the map" in done.stdout
    report = json.loads((tmp_path / "new" / "out" / "demo.json").read_text())
    assert report["volume"]["equal"] is True
    assert report["volume"]["shape"] == [197, 233, 189]
    assert len(report["training"]["dice_loss"]) == report["training"]["steps"] == 2
    assert 0 < report["training"]["map_share_fastsdm"] < 1
    assert imread(tmp_path / "new" / "out" / "demo.png").shape[0] > 1000
