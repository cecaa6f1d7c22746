"""Two results side by side: ratios of the medians, and what became slower."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from benchmarks.measure.results import Results
from benchmarks.measure.timing import Timing
from benchmarks.report.terminal import plain_table

#: A median counts as slower beyond this ratio, and only if the middle halves of both runs are apart.
SLOWER = 1.1


@dataclass(frozen=True)
class Change:
    """One timing in both results."""

    what: str
    before: Timing
    after: Timing

    @property
    def ratio(self) -> float:
        """How many times as long it takes now."""
        return self.after.median_s / self.before.median_s

    @property
    def regressed(self) -> bool:
        """Slower by more than the threshold and by more than both runs scatter."""
        return self.ratio > SLOWER and self.after.p20_s > self.before.p80_s


def changes(before: Results, after: Results) -> list[Change]:
    """Every timing that both results hold, the largest ratio first."""
    old, new = _timings(before), _timings(after)
    found = [Change(what, old[what], new[what]) for what in old if what in new]
    return sorted(found, key=lambda change: -change.ratio)


def change_table(before: Results, after: Results, *, everything: bool = False) -> tuple[Table, list[Change]]:
    """A table of the changes of our own timings (or of all), and the regressions among them."""
    found = [change for change in changes(before, after) if everything or "fastsdm" in change.what]
    title = f"{_name(before)}  ->  {_name(after)}"
    table = plain_table(title, ("what",), ("before, ms", "after, ms", "ratio", ""))
    for change in found:
        mark = "[bold red]slower[/]" if change.regressed else ""
        times = (f"{1000 * change.before.median_s:.2f}", f"{1000 * change.after.median_s:.2f}")
        table.add_row(change.what, *times, f"{change.ratio:.2f}", mark)
    return table, [change for change in found if change.regressed]


def _timings(results: Results) -> dict[str, Timing]:
    found = {f"{row.title}: {row.contender}": row.timing for row in results.maps if row.timing is not None}
    found |= {f"loss, {row.task}, {row.title}: {row.contender}": row.timing for row in results.losses}
    found |= {f"step, {row.network}: {row.variant}": row.step for row in results.steps}
    found |= {
        f"{row.curve} {row.x_label}, {row.map_voxels} voxels: {row.contender}": row.timing
        for row in results.scaling
    }
    return found


def _name(results: Results) -> str:
    return f"{results.environment.machine} ({results.environment.commit}, {results.environment.date})"
