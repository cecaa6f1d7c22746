"""What every command prints with: consoles, one-line errors, progress bars, devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

#: Exit codes: the work failed or a check did, and the command was asked for something that cannot be.
FAILED, USAGE = 1, 2

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)


def fail(message: object, code: int = FAILED) -> NoReturn:
    """Print one line to standard error and leave with ``code``."""
    line = " ".join(str(message).split())
    error_console.print(f"[bold red]error:[/] {escape(line)}", soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def one_line_errors(*expected: type[Exception], code: int = FAILED) -> Iterator[None]:
    """Turn the expected exceptions of the block into one line and an exit code."""
    try:
        yield
    except expected as error:
        fail(error, code)


def progress_bar() -> Progress:
    """A bar with a description, a count and the time so far, which is gone when the work is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def usable_device(name: str) -> torch.device:
    """The device of that name; an unknown or absent one is an error."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # how torch refuses depends on how it was built
        fail(f"--device: {name} cannot be used here ({str(error).splitlines()[0]})", USAGE)
    if device.type == "meta":
        fail("--device: meta cannot be used here (tensors on it hold no values)", USAGE)
    return device
