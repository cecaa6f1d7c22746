"""Every Python block of the README and the docs runs, file by file, in the order it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from docs.run import run_blocks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDE = ROOT / "docs" / "guide.md"  # has a test of its own


@pytest.mark.parametrize("page", [page for page in PAGES if page != GUIDE], ids=lambda page: page.name)
def test_blocks_run(page: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "import zarr" in page.read_text():
        pytest.importorskip("zarr")  # no release for Python 3.10
    run_blocks(page)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small networks on a machine that has other work train several times faster with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.usefixtures("one_thread")
def test_the_guide_trains_and_draws_its_pictures(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    run_blocks(GUIDE)
    printed = capsys.readouterr().out
    text = GUIDE.read_text()

    assert len(re.findall(r"^epoch \d  loss -?\d\.\d+  boundary weight 0\.\d\d$", printed, re.M)) == 8
    row = re.compile(r"^(case_\d)  +(\d)  (0\.\d\d) +(\d\.\d\d) mm  \d\.\d mm$", re.M)
    held_out, stated = row.findall(printed), row.findall(text)
    assert [line[:2] for line in held_out] == [(f"case_{n}", k) for n in (5, 6) for k in "12"]
    for (*_, dice, distance), (*_, stated_dice, stated_distance) in zip(held_out, stated, strict=True):
        assert float(dice) > 0.7
        assert float(distance) < 2.0  # less than a voxel
        assert float(stated_dice) == pytest.approx(float(dice), abs=0.1)
        assert float(stated_distance) == pytest.approx(float(distance), abs=0.5)
    shown = re.findall(r"\]\(img/([^)]+)\)", text)
    assert sorted(shown) == sorted(path.name for path in Path().glob("*.png"))
    assert sorted(shown) == sorted(path.name for path in (ROOT / "docs" / "img").glob("guide-*.png"))

    commands = re.findall(r"^fastsdm .*", text, re.M)
    assert commands
    for command in commands:
        arguments = [str(Path(sys.executable).parent / "fastsdm"), *shlex.split(command)[1:]]
        done = subprocess.run(arguments, check=False, capture_output=True, text=True, env={**os.environ})
        assert done.returncode == 0, done.stderr
    assert len(list(Path("data/maps").glob("case_*.npy"))) == 7


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
