"""The commands under their names."""

from __future__ import annotations

from typing import Annotated

import typer

import fastsdm
from fastsdm.cli.check import check
from fastsdm.cli.compare import compare
from fastsdm.cli.info import info
from fastsdm.cli.map import map_labels
from fastsdm.cli.precompute import precompute
from fastsdm.cli.terminal import console
from fastsdm.cli.view import view

app = typer.Typer(
    name="fastsdm",
    help="Exact signed distance maps of label volumes, and what computes them on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("info")(info)
app.command("check")(check)
app.command("map")(map_labels)
app.command("precompute")(precompute)
app.command("compare")(compare)
app.command("view")(view)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"fastsdm {fastsdm.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Exact signed distance maps of label volumes, and what computes them on this machine."""
