"""From a run to JSON, Markdown, plots, comparison and README."""

from __future__ import annotations

import dataclasses
import json
import os
import re

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks.measure.environment import environment
from benchmarks.measure.losses import LossRow
from benchmarks.measure.maps import MapRow
from benchmarks.measure.memory import MemoryRow
from benchmarks.measure.results import FORMAT, Results, best_ours, best_peer, keep_old, load, save
from benchmarks.measure.scaling import ScalingRow
from benchmarks.measure.timing import Bandwidth, Timing
from benchmarks.measure.training_step import StepRow
from benchmarks.report import readme
from benchmarks.report.compare import change_table, changes
from benchmarks.report.markdown import markdown
from benchmarks.report.plots import PLOTS
from fastsdm.testing import Agreement

CPU = torch.device("cpu")


def _timing(seconds: float) -> Timing:
    return Timing(seconds, 0.9 * seconds, 1.1 * seconds, 5)


def _row(case: str, contender: str, seconds: float | None, *, exact: bool = True) -> MapRow:
    ours = contender.startswith("fastsdm")
    timing = None if seconds is None else _timing(seconds)
    right = Agreement(max_abs=1e-6, max_rel=1e-7, share_off=0.0, passed=True)
    head = (case, f"title of {case}", contender, ours, exact, 2.4e-7, 8000, 40000)
    return MapRow(*head, timing, "every voxel", right)


@pytest.fixture
def results() -> Results:
    maps = [
        _row("blobs-256", "fastsdm native", 0.010),
        _row("blobs-256", "fastsdm torch", 0.004, exact=False),
        _row("blobs-256", "scipy", 1.0),
        _row("blobs-256", "SimpleITK", 0.123),
        dataclasses.replace(_row("blobs-256", "edt", None), note="would take 9 s, the limit is 1 s"),
    ]
    steps = [
        StepRow("none", "a U-Net", _timing(1.0), 0.0, 0.0),
        StepRow("MONAI", "a U-Net", _timing(1.5), 0.45, 0.5),
        StepRow("fastsdm native", "a U-Net", _timing(1.02), 0.01, 0.02),
    ]
    return Results(
        format=FORMAT,
        environment=environment(CPU, 2),
        command="python -m benchmarks --made-up",
        bandwidth=Bandwidth(20e9),
        minutes={"maps": 0.5, "steps": 0.25},
        absent={"DIPlib": "package diplib is not installed"},
        maps=maps,
        memory=[MemoryRow("blobs-256", "fastsdm native", 32000, 36000, "host")],
        losses=[
            LossRow("BoundaryLoss", "a batch", "fastsdm", _timing(0.02), 1e-7),
            LossRow("BoundaryLoss", "a batch", "MONAI", _timing(0.5), 1e-7),
            LossRow("SDMRegressionLoss", "a batch", "fastsdm", _timing(0.03), None),
        ],
        steps=steps,
        scaling=[
            ScalingRow("size", 64.0, "fastsdm native", True, 8000, _timing(0.01)),
            ScalingRow("size", 128.0, "fastsdm native", True, 64000, _timing(0.06)),
            ScalingRow("max_distance", None, "fastsdm native", True, 8000, _timing(0.01)),
        ],
    )


def test_json_keeps_everything(results, tmp_path):
    save(results, tmp_path / "a.json")
    assert load(tmp_path / "a.json") == results
    strict = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert strict["maps"][0]["contender"] == "fastsdm native"


def test_json_of_another_format_is_refused(results, tmp_path):
    save(dataclasses.replace(results, format=FORMAT + 1), tmp_path / "a.json")
    with pytest.raises(ValueError, match=rf"a.json: must have format {FORMAT}, got {FORMAT + 1}"):
        load(tmp_path / "a.json")


def test_environment_names_no_host_and_no_path(results):
    text = json.dumps(dataclasses.asdict(results.environment))
    assert not re.search(r"(/\w+){2}", text)
    node = __import__("platform").node()
    assert not node or node not in text
    assert re.fullmatch(r"[a-z0-9-]+", results.environment.slug)


def test_best_are_the_fastest_exact_ones(results):
    assert best_ours(results.maps).contender == "fastsdm native"
    assert best_peer(results.maps).contender == "SimpleITK"
    assert best_ours([]) is None


def test_report_shows_ratios_floor_and_reasons(results):
    text = markdown(results, ["a.png"])
    line = next(line for line in text.splitlines() if "**fastsdm native**" in line)
    # 8000 voxels in 10 ms; scipy takes 100 and SimpleITK 12.3 times as long; 40000 bytes take 2 us
    assert "| 10.0 (9.0 to 11.0) | 0.8 | 100.00 | 12.30 | 5000.0 | every voxel | 1e-07 | 2e-07 |" in line
    assert "in 0.8 minutes (maps 0.5, steps 0.2)" in text
    assert "Took no part: DIPlib (package diplib is not installed)." in text
    assert "Failed" not in text
    assert "| 0.12 | 500000.0 | every voxel |  |  |" in text  # scipy is not held to itself
    assert "would take 9 s, the limit is 1 s" in text
    assert "(approximate)" in text
    assert "![a.png](a.png)" in text
    assert "| BoundaryLoss | a batch | 20.0 (18.0 to 22.0) | 500.0 (450.0 to 550.0) | 25.0 |" in text
    assert "| SDMRegressionLoss | a batch | 30.0 (27.0 to 33.0) |  |  |  |" in text
    assert "| MONAI | 1500 | 450.0 | 30.00 % | +500 |" in text
    assert "| unlimited | 1250.00 |" in text
    assert results.environment.commit in text


@pytest.mark.parametrize("name", sorted(PLOTS))
def test_plots_are_drawn_and_small(name, results, tmp_path):
    path = tmp_path / "plot.png"
    assert PLOTS[name](results, path)
    assert path.stat().st_size < 200_000
    assert len(Image.open(path).convert("L").getcolors()) > 10


@pytest.mark.parametrize("name", sorted(PLOTS))
def test_nothing_is_drawn_of_nothing(name, results, tmp_path):
    nothing = dataclasses.replace(results, maps=[], scaling=[], steps=[])
    assert not PLOTS[name](nothing, tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()


def _slower(results: Results, factor: float) -> Results:
    first = results.maps[0]
    return dataclasses.replace(
        results, maps=[dataclasses.replace(first, timing=_timing(factor * first.seconds)), *results.maps[1:]]
    )


def test_comparison_prints_ratios_and_flags_regressions(results):
    after = _slower(results, 1.5)
    largest = changes(results, after)[0]
    assert largest.what == "title of blobs-256: fastsdm native"
    assert largest.ratio == pytest.approx(1.5)
    assert [each.what for each in change_table(results, after)[1]] == [largest.what]
    assert not change_table(after, results)[1]


def test_a_ratio_within_the_scatter_is_no_regression(results):
    assert not change_table(results, _slower(results, 1.2))[1]


def test_compare_command_tells_by_its_exit_code(results, tmp_path):
    save(results, tmp_path / "a.json")
    save(_slower(results, 2.0), tmp_path / "b.json")
    paths = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert CliRunner().invoke(command.app, ["compare", *paths]).exit_code == 1
    assert CliRunner().invoke(command.app, ["compare", *paths[::-1]]).exit_code == 0


def test_readme_block_replaces_what_was_there(results, tmp_path):
    path = tmp_path / "results" / "machine.json"
    path.parent.mkdir()
    results.maps.append(_row("noise-128", "fastsdm native", 0.01))
    block = readme.block(results, path, tmp_path)
    assert "noise" not in block
    assert "|  | fastsdm | MONAI | scipy | SimpleITK |\n" in block
    assert "| map of title of blobs-256 | **10 ms** |  | 100x | 12x |\n" in block
    assert "| BoundaryLoss with its gradient, a batch | **20 ms** | 25x |  |  |\n" in block
    assert "| map's share of a training step, a U-Net | **1.0 %** | 30 % |  |  |\n" in block
    assert results.environment.commit in block
    assert (tmp_path / re.search(r"!\[.*\]\((.*)\)", block).group(1)).exists()
    assert "backend `native`" in block
    begin, end = readme.marks(results)
    text = f"before\n{begin}\nold\n{end}\nafter\n"
    assert readme.replaced(text, results, "new") == f"before\n{begin}\nnew\n{end}\nafter\n"
    with pytest.raises(ValueError, match=r"README\.md: must hold"):
        readme.replaced("no marks", results, "new")


def test_readme_command_fills_the_marks_of_a_file(results, tmp_path):
    save(results, tmp_path / "machine.json")
    text = tmp_path / "README.md"
    begin, end = readme.marks(results)
    text.write_text(f"before\n{begin}\n{end}\nafter\n")
    for _ in range(2):
        run = CliRunner().invoke(command.app, ["readme", str(tmp_path / "machine.json"), str(text)])
        assert run.exit_code == 0, run.output
        assert text.read_text().startswith(f"before\n{begin}\n|  | fastsdm |")
        assert text.read_text().endswith(f"[Command and all figures](machine.md).\n{end}\nafter\n")


def test_replaced_result_is_kept_under_its_commit(results, tmp_path):
    path = tmp_path / "machine.json"
    assert keep_old(path) is None
    save(results, path)
    old = keep_old(path)
    assert not path.exists()
    assert old.name.startswith(f"machine-{results.environment.date}-")
    assert load(old) == results
    for made_by in ("second", "third"):  # of the same day and commit
        save(dataclasses.replace(results, command=made_by), path)
        assert load(keep_old(path)).command == made_by
    assert load(old) == results


def test_broken_off_save_leaves_the_old_file(results, tmp_path, monkeypatch):
    path = tmp_path / "machine.json"
    save(results, path)

    def power_cut(*_):
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", power_cut)
    with pytest.raises(OSError, match="power cut"):
        save(dataclasses.replace(results, command="another"), path)
    assert load(path) == results


def test_report_begins_with_what_went_wrong(results):
    bad = dataclasses.replace(
        results, failures=["maps: tiny: broke"], skipped=["scaling: size 384", "scaling: size 512"]
    )
    text = markdown(bad, [])
    assert "**Failed**: maps: tiny: broke." in text
    assert "Not begun, the time was up: scaling (size 384, size 512)." in text
    assert text.index("**Failed**") < text.index("- processor")
