"""What every command prints with: consoles, one-line errors, progress bars."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fastsdm._errors import BackendUnavailableError
from fastsdm._files import UnusablePathError

#: Exit codes: the work or a check failed; the command was called wrongly.
FAILED, USAGE = 1, 2

#: Arguments of the library that are options of the commands.
_LIBRARY_ARGUMENTS = (
    "backend",
    "chunks",
    "classes",
    "convention",
    "dtype",
    "empty",
    "ignore_index",
    "max_distance",
    "memory",
    "out",
    "scheduler",
    "spacing",
    "suffix",
)

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)


def fail(message: object, code: int = FAILED) -> NoReturn:
    """Print one line to standard error and leave with ``code``."""
    line = " ".join(str(message).split())
    error_console.print(f"[bold red]error:[/] {escape(line)}", soft_wrap=True)
    raise typer.Exit(code)


def note(source: Path, notes: Iterable[str]) -> None:
    """Print one line for each note on a file."""
    for text in notes:
        console.print(f"note: {escape(str(source))}: {escape(text)}", soft_wrap=True)


@contextmanager
def one_line_errors(*expected: type[Exception]) -> Iterator[None]:
    """Turn the expected exceptions of the block into one line and an exit code.

    The code is that of wrong usage for a path or a backend that cannot be used, and for a message that begins
    with the name of an option.
    """
    try:
        yield
    except expected as error:
        message = str(error)
        option = _option_named(message)
        if option is not None:
            fail(option + message[message.index(":") :], USAGE)
        fail(message, USAGE if isinstance(error, (UnusablePathError, BackendUnavailableError)) else FAILED)
    except MemoryError as error:
        fail(f"out of memory ({error})" if str(error) else "out of memory")


def progress_bar() -> Progress:
    """A bar with a description, a count and the elapsed time; it disappears when the work is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _option_named(message: str) -> str | None:
    """The option, as it is written, of the argument that the message begins with."""
    found = re.match(r"(\w+):", message)
    if found is None or found[1] not in _LIBRARY_ARGUMENTS:
        return None
    return "--format" if found[1] == "suffix" else f"--{found[1].replace('_', '-')}"
