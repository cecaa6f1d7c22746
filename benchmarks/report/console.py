"""Where the benchmarks print, and what their tables look like."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

_NARROWEST = 120

console = Console(highlight=False)
if console.width < _NARROWEST and not console.is_terminal:  # a log or a pipe has no width of its own
    console = Console(highlight=False, width=_NARROWEST)


def plain_table(title: str, texts: tuple[str, ...] = (), numbers: tuple[str, ...] = ()) -> Table:
    """A table without vertical lines: columns of text, then columns of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
