"""The table that a run ends with in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks.measure.maps import MapRow
from benchmarks.report.console import plain_table
from benchmarks.report.results import best_ours, by_case


def map_table(rows: Sequence[MapRow]) -> Table:
    """Milliseconds of everyone who was timed, and how many times as long as our best exact backend."""
    names = list(dict.fromkeys(row.contender for row in rows if row.timing is not None))
    title = "Signed distance map, median ms (and times as long as fastsdm's best exact backend)"
    table = plain_table(title, ("case",), (*names, "checked on"))
    for found in by_case(rows).values():
        own = best_ours(found)
        by_name = {row.contender: row for row in found}
        checked = next((row.checked for row in found if row.checked), "")
        table.add_row(found[0].title, *(_cell(by_name.get(name), own) for name in names), checked)
    return table


def _cell(row: MapRow | None, own: MapRow | None) -> str:
    if row is None or row.timing is None:
        return "[red]wrong[/]" if row is not None and row.wrong else "-"
    text = f"{1000 * row.timing.median_s:.1f}"
    if row is own or own is None or own.timing is None:
        return f"[bold]{text}[/]"
    return f"{text} ({row.timing.median_s / own.timing.median_s:.1f}x)"
