"""What every command prints with: consoles, one-line errors, progress bars; and options they share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn, TypeAlias

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fastsdm._errors import BackendUnavailableError
from fastsdm._files import UnusablePathError

#: Exit codes: the work or a check failed; the command was called wrongly.
FAILED, USAGE = 1, 2

#: Arguments of the library that are options of the commands, under the same names.
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
    "spacing",
)

SpacingOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Voxel size that counts instead of the file's: '1.5' or '3,1,1'.")
]
NanOption: TypeAlias = Annotated[
    int | None, typer.Option(help="Label for voxels that hold NaN, for example 0; else NaN is an error.")
]
NegativeOption: TypeAlias = Annotated[
    bool,
    typer.Option("--negative-inside", help="Negative labels are inside of a mask; else they are outside."),
]

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


def numbers_option(name: str, text: str) -> tuple[float, ...]:
    """The numbers that a comma-separated option holds."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        fail(f"{name}: must be one number, or one per axis separated by commas; got {text!r}", USAGE)


def classes_option(text: str) -> int | list[int]:
    """Read ``--classes``: a count, or label values."""
    try:
        values = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values:
        fail(
            f"--classes: must be a count, or label values separated by commas ('1,' for one); got {text!r}",
            USAGE,
        )
    return values if "," in text else values[0]


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


def _option_named(message: str) -> str | None:
    """The option whose argument of the same name the message begins with, as it is written."""
    found = re.match(r"(\w+):", message)
    return f"--{found[1].replace('_', '-')}" if found and found[1] in _LIBRARY_ARGUMENTS else None
