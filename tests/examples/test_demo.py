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
from click.testing import Result
from matplotlib.image import imread
from typer.testing import CliRunner

import fastsdm
from examples.demo import __main__ as demo_module
from examples.demo import training as training_module
from examples.demo.recipe import published_map, published_maps
from examples.demo.training import Costs, Step, Training, dice_loss, dice_scores
from examples.demo.unet import UNet3d
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
        "small", image, labels, ("none", "one tissue", "other tissue"), (1.0, 1.0, 1.0), "made"
    )


@pytest.fixture
def small_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "PATCH", (16, 16, 16))


def test_recipe_is_the_map_of_the_default_convention() -> None:
    labels = torch.from_numpy(testing.shells((9, 12, 10), classes=3)).expand(2, -1, -1, -1)
    expected = fastsdm.signed_distance(labels, classes=[2, 0, 9], empty="zero")
    torch.testing.assert_close(published_maps(labels, [2, 0, 9]), expected)


def test_recipe_reads_zero_without_both_phases() -> None:
    assert not published_map(np.ones((3, 3, 3), bool)).any()
    assert not published_map(np.zeros((3, 3, 3), bool)).any()


def test_unet_gives_logits_for_every_voxel_and_uses_every_scale() -> None:
    network = UNet3d(2, 5, widths=(4, 6, 8))
    logits = network(torch.randn(3, 2, 8, 12, 16))
    assert logits.shape == (3, 5, 8, 12, 16)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_dice_of_a_sure_prediction_is_right_and_of_a_wrong_one_is_not() -> None:
    labels = torch.randint(0, 3, (2, 1, 6, 6, 6), generator=torch.Generator().manual_seed(0))
    right = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1) * 50.0
    assert dice_loss(right, labels).item() < 0.01
    assert dice_loss(-right, labels).item() > 0.5
    assert dice_scores(labels, labels, 3) == [1.0, 1.0]
    assert dice_scores(torch.zeros_like(labels), labels, 3) == [0.0, 0.0]


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
    torch.testing.assert_close(published_maps(labels[:, 0], [1, 2]), ours)


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
    assert 'pip install "fastsdm[demo]"' in done.stderr
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
