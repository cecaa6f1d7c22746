"""The examples compute what they claim: every loss of a short run is compared with scipy's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

from examples.nifti import report
from fastsdm.losses import RegionBoundaryLoss
from fastsdm.schedules import Weights
from tests.integrations.reference import boundary_by_scipy
from tests.integrations.volumes import SPACING, write_nifti_folder


class Call(NamedTuple):
    input: torch.Tensor
    target: torch.Tensor
    maps: torch.Tensor | None
    weights: Weights
    region: float
    total: float


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nifti_folder(tmp_path_factory.mktemp("nifti"), 3)


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Call], list[Any]]]:
    """Runs an example's ``main``; the calls of its loss, and what it reports."""
    forward = RegionBoundaryLoss.forward

    def of(name: str, *arguments: str) -> tuple[list[Call], list[Any]]:
        calls: list[Call] = []
        reports: list[Any] = []

        def recorded(loss: Any, input: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
            total = forward(loss, input, target, **options)
            maps = options.get("distance_map")
            calls.append(
                Call(
                    torch.as_tensor(input.detach()),
                    torch.as_tensor(target),
                    maps.result() if hasattr(maps, "result") else maps,
                    loss.schedule.weights,
                    loss.region(input, target).item(),
                    total.item(),
                )
            )
            return total

        module: ModuleType = import_module(f"examples.{name}")
        monkeypatch.setattr(RegionBoundaryLoss, "forward", recorded)
        monkeypatch.setattr(module, "report", lambda *given: reports.append(given))
        settings = [str(folder), "--classes", "3", "--patch", "16", "--epochs", "2", *arguments]
        monkeypatch.setattr(sys, "argv", [name, *settings])
        module.main()
        return calls, reports

    return of


def boundary_of(call: Call) -> float:
    return (call.total - call.weights.region * call.region) / call.weights.boundary


def assert_validates_in_millimetres(reports: list[Any]) -> None:
    [(name, prediction, truth, spacing, classes)] = reports
    assert (name, classes) == ("case_2.nii.gz", 3)
    assert prediction.shape == truth.shape
    assert list(spacing) == pytest.approx(SPACING)


@pytest.mark.parametrize("name", ["monai_train", "lightning_train"])
def test_distances_are_those_of_the_affine(name: str, run: Callable[..., Any], tmp_path: Path) -> None:
    lightning = ("--patches", "4", "--out", str(tmp_path)) if name == "lightning_train" else ()
    calls, reports = run(name, *lightning)
    assert [call.weights.boundary for call in (calls[0], calls[-1])] == [0.01, 0.5]
    for call in calls:
        assert (call.maps is not None) is (name == "lightning_train")  # it starts them before the network
        rows = [SPACING] * len(call.input)
        expected = boundary_by_scipy(call.input, call.target, rows, normalized=True)
        assert boundary_of(call) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    # In voxels the values would be others.
    in_voxels = [boundary_by_scipy(c.input, c.target, [[1.0] * 3] * 4, normalized=True) for c in calls]
    assert max(abs(v - boundary_of(call)) for v, call in zip(in_voxels, calls, strict=True)) > 5e-4
    assert_validates_in_millimetres(reports)


def test_torchios_maps_are_those_of_the_volume_in_millimetres(run: Callable[..., Any]) -> None:
    calls, reports = run("torchio_train", "--workers", "0")
    assert [call.weights.boundary for call in (calls[0], calls[-1])] == [0.01, 0.5]
    for call in calls:
        assert call.maps is not None
        assert call.maps[call.maps > 0].min().item() == pytest.approx(min(SPACING))
        classes = torch.arange(3).reshape(1, -1, 1, 1, 1)
        assert torch.equal(call.maps <= 0, call.target == classes)
        scale = call.maps.abs().amax(dim=(1, 2, 3, 4), keepdim=True)
        expected = (call.input.softmax(dim=1) * call.maps / scale).mean().item()
        assert boundary_of(call) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert_validates_in_millimetres(reports)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_lightning_resumes_with_the_next_weight(run: Callable[..., Any], tmp_path: Path) -> None:
    settings = ("--patches", "2", "--out", str(tmp_path))
    run("lightning_train", *settings)
    calls, _ = run("lightning_train", *settings, "--epochs", "4", "--resume", str(tmp_path / "last.ckpt"))
    assert [call.weights.boundary for call in calls] == pytest.approx([0.01 + 0.49 * 2 / 3, 0.5])


def test_report_measures_in_millimetres(capsys: pytest.CaptureFixture[str]) -> None:
    masks, surfaces = [], []
    for end in (7, 9):
        mask = torch.zeros(12, 12, 12, dtype=torch.uint8)
        mask[3:end, 3:7, 3:7] = 1
        core = torch.zeros_like(mask)
        core[4 : end - 1, 4:6, 4:6] = 1
        masks.append(mask)
        surfaces.append((mask - core).nonzero() * torch.tensor(SPACING))
    report("case", masks[0], masks[1], SPACING, 2)
    distances = torch.cdist(*surfaces)
    mean = torch.cat([distances.amin(dim=0), distances.amin(dim=1)]).mean().item()
    assert capsys.readouterr().out == f"case  class 1  Dice 0.800  surface distance {mean:.2f} mm\n"
