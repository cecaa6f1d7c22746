"""`python -m benchmarks`: measure, write JSON, Markdown and plots; compare results; fill the README."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.markup import escape

import fastsdm
from benchmarks.measure.cases import CASES
from benchmarks.measure.environment import ROOT
from benchmarks.measure.results import DIRECTORY, Results, keep_old, load, save, write_whole
from benchmarks.measure.runner import PARTS, Plan, results_of
from benchmarks.report import readme as readme_block
from benchmarks.report.compare import change_table
from benchmarks.report.markdown import markdown, skipped_by_part
from benchmarks.report.plots import PLOTS
from benchmarks.report.terminal import console, map_table

_CUDA_BACKENDS = ("triton", "cucim", "cupy")
#: Options that do not change what is measured, and whether a value follows.
_UNRECORDED = {"--out": True, "--partial": False}
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; cuda where there is one.")] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="On a GPU, with every CUDA backend.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="With --gpu: some may be missing.")] = False,
    find: Annotated[bool, typer.Option("--find", help="Name device and backends; measure nothing.")] = False,
    backends: Annotated[str | None, typer.Option(help="Only these of ours, separated by commas.")] = None,
    cases: Annotated[str | None, typer.Option(help="Only these maps, separated by commas.")] = None,
    parts: Annotated[str, typer.Option(help="What to measure, separated by commas.")] = ",".join(PARTS),
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every contender.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="Small volumes, small budgets.")] = False,
    minutes: Annotated[float | None, typer.Option(help="Start nothing after this many minutes.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for JSON, Markdown and plots.", show_default="benchmarks/results")
    ] = DIRECTORY,
) -> None:
    """Measure, check and write the results; exit code 1 when a backend of ours is wrong or a part broke.

    A run of some cases, backends or parts writes `<machine>-selected.*`, so that it replaces no whole one.
    What is measured so far is kept in `<machine>.partial.json` until the run ends.
    """
    if context.invoked_subcommand is not None:
        return
    where = _device("cuda" if gpu else device)
    if gpu and not partial:
        _require_cuda_backends()
    if find:
        _name_device_and_backends(where)
        return
    plan = Plan(
        device=where,
        threads=threads,
        cases=_chosen(
            "--cases", cases, tuple(name for name in CASES if CASES[name].quick or not quick), tuple(CASES)
        ),
        backends=None
        if backends is None
        else _chosen("--backends", backends, (), ("auto", *fastsdm.backends())),
        parts=_chosen("--parts", parts, PARTS, PARTS),
        quick=quick,
        minutes=minutes,
    )
    whole = cases is None and backends is None and plan.parts == PARTS
    ending = f"{'-quick' if quick else ''}{'' if whole else '-selected'}"

    def file_of(results: Results) -> Path:
        return out / f"{results.environment.slug}{ending}.json"

    def keep(results: Results) -> None:
        save(results, file_of(results).with_suffix(".partial.json"))

    command = shlex.join(["python", "-m", "benchmarks", *_measuring_arguments()])
    results = results_of(plan, command, console, keep)
    path = file_of(results)
    if (old := keep_old(path)) is not None:
        console.print(f"the earlier result is now {old.name}")
    save(results, path)
    path.with_suffix(".partial.json").unlink(missing_ok=True)
    _write_report(results, path)
    _show(results, path)
    if results.failures:
        raise typer.Exit(1)


@app.command()
def compare(
    before: Path,
    after: Path,
    everything: Annotated[bool, typer.Option("--all", help="Peers as well.")] = False,
) -> None:
    """Ratios of two results; the exit code is 1 when something of ours became slower."""
    changes, regressions = change_table(load(before), load(after), everything=everything)
    console.print(changes)
    if regressions:
        console.print(f"[bold red]{len(regressions)} slower[/]")
        raise typer.Exit(1)


@app.command()
def report(
    result: Path,
    note: Annotated[str | None, typer.Option(help="What readers have to know; kept in the JSON.")] = None,
) -> None:
    """Write Markdown and plots of a result."""
    results = load(result)
    if note is not None:
        results = replace(results, note=note)
        save(results, result)
    _write_report(results, result)


@app.command()
def readme(
    result: Path, into: Annotated[Path, typer.Argument(help="A file with the marks.")] = ROOT / "README.md"
) -> None:
    """Put table and figure of a result between the marks of README.md for such a device."""
    results = load(result)
    block = readme_block.block(results, result.resolve(), into.resolve().parent)
    write_whole(into, readme_block.replaced(into.read_text(encoding="utf-8"), results, block))


def _device(name: str | None) -> torch.device:
    there_is_one = torch.cuda.is_available()
    device = torch.device(name or ("cuda" if there_is_one else "cpu"))
    if device.type == "cuda" and not there_is_one:
        sys.exit(
            f"no GPU: torch {torch.__version__} finds no CUDA or ROCm device, so there is nothing to run on"
        )
    return device


def _require_cuda_backends() -> None:
    statuses = fastsdm.backends()
    lacking = [name for name in _CUDA_BACKENDS if "cuda" not in statuses[name].devices]
    if lacking and torch.version.hip is None:
        for name in lacking:
            console.print(str(statuses[name]), markup=False)
        sys.exit(
            f"{', '.join(lacking)}: would be neither tested nor timed; install what is named above, with "
            f"{sys.executable} -m pip, or continue without: --partial (make gpu PARTIAL=1)"
        )


def _name_device_and_backends(device: torch.device) -> None:
    if device.type == "cuda":
        console.print(f"{torch.cuda.get_device_name()}, and {torch.cuda.device_count()} device(s) in all")
    for status in fastsdm.backends().values():
        console.print(str(status), markup=False)


def _chosen(
    option: str, text: str | None, default: tuple[str, ...], allowed: tuple[str, ...]
) -> tuple[str, ...]:
    if text is None:
        return default
    names = text.split(",")
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise typer.BadParameter(f"{option}: must be among {', '.join(allowed)}; got {unknown[0]!r}")
    return tuple(name for name in allowed if name in names)


def _measuring_arguments() -> list[str]:
    """The command line without the options that change nothing that is measured."""
    kept, arguments = [], iter(sys.argv[1:])
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in _UNRECORDED:
            kept.append(argument)
        elif _UNRECORDED[name] and not value:
            next(arguments)
    return kept


def _write_report(results: Results, path: Path) -> None:
    drawn = []
    for name, draw in PLOTS.items():
        figure = path.with_name(f"{path.stem}-{name}.png")
        if draw(results, figure):
            drawn.append(figure.name)
    write_whole(path.with_suffix(".md"), markdown(results, drawn))


def _show(results: Results, path: Path) -> None:
    if results.maps:
        console.print(map_table(results.maps))
    for row in results.maps:
        if row.wrong or row.crashed:
            console.print(f"[yellow]not timed[/] {row.contender} on {row.title}: {escape(row.note)}")
    if results.skipped:
        console.print(f"[yellow]not begun, the time was up[/] {escape(skipped_by_part(results))}")
    for failure in results.failures:
        console.print(f"[bold red]FAILED[/] {escape(failure)}")
    console.print(f"{sum(results.minutes.values()):.1f} minutes; wrote {path}, .md and plots")


if __name__ == "__main__":
    app()
