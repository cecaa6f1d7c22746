"""The README's table and figure, made from a result."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.measure.monai_losses import MONAI
from benchmarks.report.markdown import loss_ratios, table, times
from benchmarks.report.plots import overview
from benchmarks.report.results import Results, best_ours, by_case

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
_CASES = ("mni", "blobs-256", "ct-64x512x512", "voxel-256")
_DRAWN = ("mni", "blobs-256")
#: Contenders with a column, where any row has something to say in it, and what heads it.
_COLUMNS = {
    MONAI: "MONAI",
    "one_hot2dist": "published recipe",
    "scipy": "scipy",
    "edt": "edt",
    "SimpleITK": "SimpleITK",
    "DIPlib": "DIPlib",
    "CuPy": "CuPy",
    "cuCIM": "cuCIM",
}
#: What a row says of ours, and of each contender.
_Row = tuple[str, str, dict[str, str]]


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
    """Table, figure and where they come from; draws the figure beside the JSON."""
    rows = [*_map_rows(results), *_loss_rows(results), *_step_rows(results)]
    shown = [name for name in _COLUMNS if any(name in others for _, _, others in rows)]
    cells = [(what, f"**{own}**", *(others.get(name, "") for name in shown)) for what, own, others in rows]
    head = ("", "fastsdm", *(_COLUMNS[name] for name in shown))
    parts = [table(head, cells, numbers=range(1, len(head)))]
    figure = json_path.with_name(f"{json_path.stem}-readme.png")
    if overview(results, figure, _DRAWN):
        parts.append(f"![Throughput, and the training step]({_link(figure, root)})")
    here, report = results.environment, _link(json_path.with_suffix(".md"), root)
    parts.append(
        f"Medians on {here.where}, commit {here.commit}; `2.0x` is twice as long as fastsdm in the same run, "
        f"after every result was checked. Made by `{results.command}`; all it measured: [{report}]({report})."
    )
    return "\n\n".join(parts)


def _map_rows(results: Results) -> list[_Row]:
    rows = []
    for name, found in by_case(results.maps).items():
        own = best_ours(found)
        if name in _CASES and own is not None:
            others = {row.contender: times(row.seconds / own.seconds) for row in found if row.timing}
            rows.append((f"map of {own.title}", f"{1000 * own.seconds:.0f} ms", others))
    return rows


def _loss_rows(results: Results) -> list[_Row]:
    return [
        (
            f"{task} with its gradient, {batch}",
            f"{1000 * own.timing.median_s:.0f} ms",
            {MONAI: times(theirs.timing.median_s / own.timing.median_s)},
        )
        for task, batch, own, theirs in loss_ratios(results.losses)
        if task != "map"
    ]


def _step_rows(results: Results) -> list[_Row]:
    found = {row.variant: row for row in results.steps}
    ours = [row for row in results.steps if row.variant.startswith("fastsdm") and "," not in row.variant]
    own = min(ours, key=lambda row: row.map_s, default=None)
    if own is None:
        return []
    others = {"MONAI": MONAI, "scipy recipe": "one_hot2dist"}
    shares = {name: f"{100 * found[it].share:.0f} %" for it, name in others.items() if it in found}
    return [(f"map's share of a training step, {own.network}", f"{100 * own.share:.1f} %", shares)]


def _link(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
