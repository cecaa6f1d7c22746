"""The README's table and figure, made from a result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure.losses import MONAI
from benchmarks.measure.maps import MapRow
from benchmarks.measure.results import Results, best_ours, by_case
from benchmarks.report.markdown import loss_pairs, milliseconds, table, times
from benchmarks.report.plots import overview

#: By device type of the run: the cases of the table, and those of the figure.
_CASES = {
    "cpu": ("mni", "blobs-256", "ct-64x512x512", "voxel-256"),
    "gpu": ("blobs-128", "batch-2-classes-4-128x128x128", "blobs-256", "ct-64x512x512", "blobs-512", "mni"),
}
_DRAWN = {"cpu": ("mni", "blobs-256"), "gpu": ("batch-2-classes-4-128x128x128", "blobs-256")}
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


def replaced(readme: str, results: Results, block: str) -> str:
    """The README with `block` between the two marks for results of that kind of device.

    Raises:
        ValueError: a mark is missing.
    """
    begin, end = marks(results)
    head, found, rest = readme.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not (found and found_end):
        raise ValueError(f"README.md: must hold {begin} and, after it, {end}")
    return f"{head}{begin}\n{block}\n{end}{tail}"


def marks(results: Results) -> tuple[str, str]:
    """The marks before and after the table of results for this kind of device."""
    name = f"benchmark-{_kind(results)}"
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def block(results: Results, json_path: Path, root: Path) -> str:
    """Table, figure and where they come from; draws the figure beside the JSON."""
    cases = _CASES[_kind(results)]
    maps = [rows for name, rows in by_case(results.maps).items() if name in cases and best_ours(rows)]
    rows = [*map(_map_row, maps), *_loss_rows(results), *_step_rows(results)]
    shown = [name for name in _COLUMNS if any(name in others for _, _, others in rows)]
    cells = [(what, f"**{own}**", *(others.get(name, "") for name in shown)) for what, own, others in rows]
    heads = _COLUMNS if _kind(results) == "cpu" else _COLUMNS | {"scipy": "scipy (CPU)"}
    parts = [table(("", "fastsdm", *(heads[name] for name in shown)), cells)]
    figure = json_path.with_name(f"{json_path.stem}-readme.png")
    if overview(results, figure, _DRAWN[_kind(results)]):
        title = "Throughput, and the training step" if results.steps else "Throughput"
        parts.append(f"![{title}]({_link(figure, root)})")
    here, report = results.environment, _link(json_path.with_suffix(".md"), root)
    names = {own.contender.removeprefix("fastsdm ") for own in map(best_ours, maps) if own}
    backends = " or ".join(f"`{name}`" for name in sorted(names))
    parts.append(
        f"Medians on {here.where}, commit {here.commit}, backend {backends}, after every result was checked. "
        f"`2.0x` took twice as long as fastsdm in the same run. [Command and all figures]({report})."
        + (f" {results.note}" if results.note else "")
    )
    return "\n\n".join(parts)


def _kind(results: Results) -> str:
    return "cpu" if results.environment.device == "none" else "gpu"


def _map_row(rows: Sequence[MapRow]) -> _Row:
    own = best_ours(rows)
    assert own is not None
    others = {row.contender: times(row.seconds / own.seconds) for row in rows if row.timing}
    return f"map of {own.title}", milliseconds(own.seconds), others


def _loss_rows(results: Results) -> list[_Row]:
    return [
        (
            f"{own.task} with its gradient, {own.title}",
            milliseconds(own.timing.median_s),
            {MONAI: times(theirs.timing.median_s / own.timing.median_s)},
        )
        for own, theirs in loss_pairs(results.losses)
        if theirs is not None and own.task != "map"
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
