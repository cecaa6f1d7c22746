"""A result as Markdown, made from the JSON, never typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.measure.environment import Environment
from benchmarks.measure.losses import MONAI, OURS, LossRow
from benchmarks.measure.maps import MapRow
from benchmarks.measure.memory import MemoryRow
from benchmarks.measure.results import Results, best_peer, by_case
from benchmarks.measure.scaling import AXES, ScalingRow
from benchmarks.measure.timing import Bandwidth, Timing
from benchmarks.measure.training_step import StepRow


def markdown(results: Results, plots: Iterable[str]) -> str:
    """The whole report; `plots` are file names beside it."""
    parts = [f"# {results.environment.machine}", *_bad_news(results)]
    if results.note:
        parts.append(f"Note: {results.note}")
    parts += [_environment(results.environment), _how(results)]
    parts += [f"![{name}]({name})" for name in plots]
    if results.maps:
        parts.append("## Signed distance maps")
        parts += [_case(rows, results.bandwidth) for rows in by_case(results.maps).values()]
    if results.memory:
        parts += ["## Memory of one call, result included", _memory(results.memory)]
    if results.losses:
        parts += ["## Losses, forward and backward", _losses(results.losses)]
    if results.steps:
        parts += [f"## Training step: {results.steps[0].network}", _steps(results.steps)]
    if results.scaling:
        parts += ["## Scaling, nanoseconds per voxel of the map", *_curves(results.scaling)]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] | None = None) -> str:
    """A Markdown table; the columns in `numbers`, by default all but the first, are set flush right."""
    flush_right = set(range(1, len(head)) if numbers is None else numbers)
    rule = ["---:" if place in flush_right else "---" for place in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def loss_pairs(rows: Sequence[LossRow]) -> list[tuple[LossRow, LossRow | None]]:
    """Ours and MONAI's of every task; None where MONAI has no such loss."""
    theirs = {row.task: row for row in rows if row.contender == MONAI}
    return [(row, theirs.get(row.task)) for row in rows if row.contender == OURS]


def _bad_news(results: Results) -> list[str]:
    parts = [f"**Failed**: {failure}." for failure in results.failures]
    if results.skipped:
        parts.append(f"Not begun, the time was up: {skipped_by_part(results)}.")
    if results.absent:
        took_no_part = ", ".join(f"{name} ({reason})" for name, reason in results.absent.items())
        parts.append(f"Took no part: {took_no_part}.")
    return parts


def skipped_by_part(results: Results) -> str:
    """What was left out for lack of time, in one line."""
    titles: dict[str, list[str]] = {}
    for what in results.skipped:
        part, _, title = what.partition(": ")
        titles.setdefault(part, []).append(title)
    return "; ".join(f"{part} ({', '.join(found)})" for part, found in titles.items())


def _environment(here: Environment) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in here.packages.items())
    lines = [
        f"- processor: {here.processor}, {here.cores} cores, {here.memory_gib} GiB, {here.simd}",
        f"- device: {here.device}" + (f", {here.device_driver}" if here.device != "none" else ""),
        f"- threads: {here.threads}; {here.system}; Python {here.python}",
        f"- packages: {packages}",
        f"- commit {here.commit}, {here.date}",
    ]
    return "\n".join(lines)


def _how(results: Results) -> str:
    rate = results.bandwidth.bytes_per_second / 1e9
    parts = ", ".join(f"{part} {minutes:.1f}" for part, minutes in results.minutes.items())
    return (
        f"Made by `{results.command}` in {sum(results.minutes.values()):.1f} minutes ({parts}). Times are "
        "medians, in brackets the 20th and 80th percentile. Every contender was compared with scipy before "
        "it was timed (checked: on how many voxels; error: the largest, and allowed: what it may be, both as "
        "a share of the distance), and all were timed in turns. The floor is the time to read the labels and "
        f"write the map at {rate:.1f} GB/s, the rate of a copy in memory measured in the same run."
    )


def _case(rows: Sequence[MapRow], bandwidth: Bandwidth) -> str:
    scipy = next((row for row in rows if row.contender == "scipy"), None)
    peer = best_peer(rows)
    ratios = ("times scipy's speed", "times the best peer's", "times the floor")
    head = ("contender", "ms", "Mvoxel/s", *ratios, "checked", "error", "allowed")
    cells = []
    for row in rows:
        shown = [row.note, *[""] * 4]
        if row.timing is not None:
            others = (
                f"{each.seconds / row.seconds:.2f}" if each and each.timing else "" for each in (scipy, peer)
            )
            floor = f"{row.seconds / bandwidth.floor_s(row.floor_bytes):.1f}"
            shown = [spread(row.timing), f"{row.voxels_per_second / 1e6:.1f}", *others, floor]
        cells.append((_name(row), *shown, row.checked, *_errors(row)))
    return f"### {rows[0].title}\n\n" + table(head, cells, numbers=(1, 2, 3, 4, 5, 7, 8))


def _errors(row: MapRow) -> tuple[str, str]:
    """Seen and allowed; scipy is not held to itself."""
    if row.agreement is None or (row.contender == "scipy" and row.checked == "every voxel"):
        return "", ""
    return f"{row.agreement.max_rel:.1g}", f"{row.allowed:.1g}"


def spread(timing: Timing) -> str:
    """Median with percentiles, in milliseconds; the repeats where they are few."""
    low, middle, high = (1000 * value for value in (timing.p20_s, timing.median_s, timing.p80_s))
    digits = 2 if middle < 10 else 1 if middle < 1000 else 0
    if timing.repeats == 1:
        return f"{middle:.{digits}f} (once)"
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _memory(rows: Sequence[MemoryRow]) -> str:
    head = ("case", "contender", "peak growth", "in sizes of the map", "memory")
    cells = [
        (
            row.case,
            row.contender,
            f"{row.peak_bytes / 2**20:.0f} MiB",
            f"{row.peak_over_output:.2f}",
            row.where,
        )
        for row in rows
    ]
    return table(head, cells, numbers=(2, 3))


def _losses(rows: Sequence[LossRow]) -> str:
    head = ("task", "batch", "fastsdm, ms", "MONAI, ms", "ratio", "largest difference")
    cells = []
    for own, theirs in loss_pairs(rows):
        compared = ["", "", ""]
        if theirs is not None:
            ratio = f"{theirs.timing.median_s / own.timing.median_s:.1f}"
            compared = [spread(theirs.timing), ratio, f"{own.max_abs:.1g}"]
        cells.append((own.task, own.title, spread(own.timing), *compared))
    return table(head, cells, numbers=(2, 3, 4, 5))


def _steps(rows: Sequence[StepRow]) -> str:
    head = ("boundary loss by", "step, ms", "map, ms", "share of the step", "over the step without, ms")
    cells = [
        (
            row.variant,
            f"{1000 * row.step.median_s:.0f}",
            f"{1000 * row.map_s:.1f}",
            f"{100 * row.share:.2f} %",
            f"{1000 * row.extra_s:+.0f}",
        )
        for row in rows
    ]
    return table(head, cells)


def _curves(rows: Sequence[ScalingRow]) -> list[str]:
    parts = []
    for curve in dict.fromkeys(row.curve for row in rows):
        own = [row for row in rows if row.curve == curve]
        names = list(dict.fromkeys(row.contender for row in own))
        points = {(row.x_label, row.contender): f"{row.ns_per_voxel:.2f}" for row in own}
        cells = [
            (x, *(points.get((x, name), "") for name in names))
            for x in dict.fromkeys(row.x_label for row in own)
        ]
        parts.append(table((AXES[curve], *names), cells, numbers=range(len(names) + 1)))
    return parts


def _name(row: MapRow) -> str:
    name = f"**{row.contender}**" if row.ours else row.contender
    return name if row.exact else f"{name} (approximate)"


def times(ratio: float) -> str:
    """A factor in two digits, or whole."""
    return f"{ratio:.0f}x" if ratio >= 9.5 else f"{ratio:.1f}x"


def milliseconds(seconds: float) -> str:
    """A time in whole milliseconds, with two decimals if it is short."""
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.2f} ms"
