"""`python -m benchmarks`: measure, write JSON, Markdown and plots; compare results; fill the README."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import readme as readme_block
from benchmarks.cases import CASES
from benchmarks.compare import change_table
from benchmarks.console import console
from benchmarks.cpu import map_table
from benchmarks.plots import PLOTS
from benchmarks.report import markdown
from benchmarks.results import DIRECTORY, Results, load, save
from benchmarks.runner import PARTS, Plan, results_of

_README = Path(__file__).resolve().parent.parent / "README.md"
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; cuda where there is one.")] = None,
    backends: Annotated[str | None, typer.Option(help="Only these of ours, separated by commas.")] = None,
    cases: Annotated[str | None, typer.Option(help="Only these maps, separated by commas.")] = None,
    parts: Annotated[str, typer.Option(help="What to measure, separated by commas.")] = ",".join(PARTS),
    threads: Annotated[int, typer.Option(min=1, help="Of everyone on the CPU.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="Small volumes, small budgets.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for JSON, Markdown and plots.")] = DIRECTORY,
) -> None:
    """Measure, check and write the results; the exit code is 1 when a backend of ours is wrong."""
    if context.invoked_subcommand is not None:
        return
    plan = Plan(
        device=torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")),
        threads=threads,
        cases=_chosen(
            "--cases", cases, tuple(name for name in CASES if CASES[name].quick or not quick), tuple(CASES)
        ),
        backends=None if backends is None else backends.split(","),
        parts=_chosen("--parts", parts, PARTS, PARTS),
        quick=quick,
    )
    results = results_of(plan, shlex.join(["python", "-m", "benchmarks", *_measuring_arguments()]))
    path = out / f"{results.environment.slug}{'-quick' if quick else ''}.json"
    save(results, path)
    _write_report(results, path)
    _show(results, path)
    if any(row.ours for row in results.wrong):
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
def report(result: Path) -> None:
    """Write Markdown and plots of a result anew."""
    _write_report(load(result), result)


@app.command()
def readme(result: Path) -> None:
    """Put table and figure of a result into README.md."""
    block = readme_block.block(load(result), result.resolve(), _README.parent)
    _README.write_text(readme_block.replaced(_README.read_text(encoding="utf-8"), block), encoding="utf-8")


def _chosen(
    option: str, text: str | None, default: tuple[str, ...], allowed: tuple[str, ...]
) -> tuple[str, ...]:
    names = default if text is None else tuple(text.split(","))
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise typer.BadParameter(f"{option}: must be among {', '.join(allowed)}; got {unknown[0]!r}")
    return names


def _measuring_arguments() -> list[str]:
    """The command line without `--out`, which changes nothing that is measured."""
    kept, arguments = [], iter(sys.argv[1:])
    for argument in arguments:
        if argument == "--out":
            next(arguments)
        elif not argument.startswith("--out="):
            kept.append(argument)
    return kept


def _write_report(results: Results, path: Path) -> None:
    drawn = []
    for name, draw in PLOTS.items():
        figure = path.with_name(f"{path.stem}-{name}.png")
        if draw(results, figure):
            drawn.append(figure.name)
    path.with_suffix(".md").write_text(markdown(results, drawn), encoding="utf-8")


def _show(results: Results, path: Path) -> None:
    ours = next((row.contender for row in results.maps if row.ours), None)
    if ours is not None:
        names = list(dict.fromkeys(row.contender for row in results.maps))
        console.print(map_table(results.maps, names, ours))
    for row in results.wrong:
        console.print(f"[bold red]WRONG[/] {row.contender} on {row.title}: {row.agreement}")
    console.print(f"{results.minutes:.1f} minutes; wrote {path}, .md and plots")


if __name__ == "__main__":
    app()
