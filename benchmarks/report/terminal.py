"""What the benchmarks show in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measure.maps import MapRow
from benchmarks.measure.results import best_ours, by_case

_NARROWEST = 120

console = Console(highlight=False)
if console.width < _NARROWEST and not console.is_terminal:  # a log or a pipe reports no width
    console = Console(highlight=False, width=_NARROWEST)


def plain_table(title: str, texts: tuple[str, ...] = (), numbers: tuple[str, ...] = ()) -> Table:
    """A table without vertical lines: columns of text, then columns of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


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
