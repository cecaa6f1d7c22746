"""The README's table and figure, made from a result."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.monai_losses import LossRow
from benchmarks.plots import overview
from benchmarks.report import headline, loss_ratios
from benchmarks.results import Results
from benchmarks.training_step import StepRow

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
CASES = ("mni", "blobs-256", "ct-64x512x512", "voxel-256")
PEERS = ("scipy", "edt", "SimpleITK", "DIPlib")
_OURS_IN_A_STEP = ("fastsdm native", "fastsdm triton", "fastsdm cucim", "fastsdm cupy")


def replaced(readme: str, block: str) -> str:
    """The README with `block` between the two marks.

    Raises:
        ValueError: a mark is missing.
    """
    head, found, rest = readme.partition(BEGIN)
    _, found_end, tail = rest.partition(END)
    if not (found and found_end):
        raise ValueError(f"README.md: must hold {BEGIN} and, after it, {END}")
    return f"{head}{BEGIN}\n{block}\n{END}{tail}"


def block(results: Results, json_path: Path, root: Path) -> str:
    """Table, sentences and figure; draws the figure beside the JSON."""
    figure = json_path.with_name(f"{json_path.stem}-readme.png")
    overview(results, figure, ("mni", "blobs-256"))
    here = results.environment
    report = json_path.with_suffix(".md")
    sentences = [
        f"Medians on {here.machine} ({here.simd}, {here.threads} threads), commit {here.commit}; "
        "`2.0x` means twice as long as fastsdm in the same run, after every result was checked against "
        f"scipy. Command: `{results.command}`; everything it measured: "
        f"[{_link(report, root)}]({_link(report, root)})."
    ]
    sentences += _loss_sentences(results.losses) + _step_sentences(results.steps)
    parts = [headline(results, CASES, PEERS), " ".join(sentences), f"![Throughput]({_link(figure, root)})"]
    return "\n\n".join(parts)


def _loss_sentences(rows: list[LossRow]) -> list[str]:
    pairs = [
        f"{task} {theirs.timing.median_s / own.timing.median_s:.0f}x"
        for task, _, own, theirs in loss_ratios(rows)
        if task != "map"
    ]
    return (
        [f"Losses of MONAI beside ours, forward and backward, {rows[0].title}: {', '.join(pairs)}."]
        if pairs
        else []
    )


def _step_sentences(rows: list[StepRow]) -> list[str]:
    found = {row.variant: row for row in rows}
    own = next((found[name] for name in _OURS_IN_A_STEP if name in found), None)
    if own is None or "MONAI" not in found:
        return []
    return [
        f"Share of a training step ({own.network}) spent on the map: {100 * own.share:.1f} % with fastsdm, "
        f"{100 * found['MONAI'].share:.0f} % with MONAI."
    ]


def _link(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
