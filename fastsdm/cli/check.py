"""``fastsdm check``: every backend that can run here against scipy, over hard cases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

import fastsdm
from fastsdm._backends import registry
from fastsdm.cli.options import usable_device
from fastsdm.cli.terminal import FAILED, USAGE, console, fail, one_line_errors, progress_bar

if TYPE_CHECKING:
    from fastsdm import testing

#: Edge of the volumes in voxels: a check in seconds, and the one with long distances.
_SIZE, _FULL_SIZE = 20, 40
_MEASURES = ("max_abs", "max_rel", "share_off")


@dataclass
class _Verdict:
    """What the cases so far say of one backend on one device."""

    backend: str
    device: torch.device
    tolerance: testing.Tolerance
    results: dict[str, testing.Agreement] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def standard(self) -> str:
        from fastsdm import testing  # noqa: PLC0415

        return "exact" if self.tolerance == testing.EXACT else "approx."

    @property
    def passed(self) -> bool:
        return (
            bool(self.results) and not self.errors and all(result.passed for result in self.results.values())
        )

    def worst(self, measure: str) -> float:
        return max((getattr(result, measure) for result in self.results.values()), default=float("nan"))


def check(
    backend: Annotated[str | None, typer.Option(help="Check only this one; it must be available.")] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=10, help=f"Roughly the edge of the volumes, in voxels; else {_SIZE}, or {_FULL_SIZE}."
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help=f"Check on volumes of {_FULL_SIZE} voxels; takes minutes.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Check on this device only, for example cuda.")] = None,
    cases: Annotated[bool, typer.Option("--cases", help="Show every case, not only the worst.")] = False,
) -> None:
    """Compare every available backend with scipy; the exit code is 1 when one fails.

    The plain map of each hard case is computed by a call that names the backend, while every other backend is
    barred from answering, and compared with scipy's in float64.
    """
    from fastsdm import testing  # noqa: PLC0415  # scipy, which the other commands do not need

    verdicts = _to_check(backend, device)
    inputs = list(testing.hard_cases(size or (_FULL_SIZE if full else _SIZE)))
    with progress_bar() as progress:
        task = progress.add_task("checking", total=len(inputs) * len(verdicts))
        for case in inputs:
            reference = testing.reference_signed_distance(case.labels, case.classes, case.spacing)
            for verdict in verdicts:
                progress.update(task, description=f"{verdict.backend} on {verdict.device}: {case.name}")
                _compare(verdict, case, reference)
                progress.advance(task)
    if cases:
        for verdict in verdicts:
            console.print(_case_table(verdict))
    console.print(_summary_table(verdicts, len(inputs)))
    for verdict in verdicts:
        _print_failures(verdict)
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(FAILED)


def _to_check(backend: str | None, device: str | None) -> list[_Verdict]:
    from fastsdm import testing  # noqa: PLC0415  # scipy, which the other commands do not need

    only_device = None if device is None else usable_device(device)
    statuses = fastsdm.backends()
    if backend is not None:
        with one_line_errors(ValueError):
            registry.get(backend)
        if device is None and not statuses[backend].available:
            fail(f"backend '{backend}' is unavailable: {statuses[backend].reason}", USAGE)
    verdicts = []
    for name in statuses if backend is None else [backend]:
        found = registry.get(name)
        devices = (
            [torch.device(type_) for type_ in statuses[name].devices]
            if only_device is None
            else [only_device]
        )
        for candidate in devices:
            reason = found.unavailable(candidate)
            if reason is None:
                tolerance = testing.EXACT if found.exact else testing.APPROXIMATE
                verdicts.append(_Verdict(name, candidate, tolerance))
            elif backend is not None:
                fail(f"backend '{backend}' is unavailable on {candidate}: {reason}", USAGE)
    if not verdicts:
        fail("no backend can run here", USAGE)
    return verdicts


def _compare(verdict: _Verdict, case: testing.Case, reference: testing.Array) -> None:
    from fastsdm import testing  # noqa: PLC0415  # scipy, which the other commands do not need
    from fastsdm.cli.sole_backend import OtherBackendError, sole_backend  # noqa: PLC0415

    labels = torch.from_numpy(case.labels).to(verdict.device)
    try:
        with sole_backend(verdict.backend):
            maps = fastsdm.signed_distance(
                labels,
                classes=case.classes,
                spatial_dims=case.ndim,
                spacing=case.spacing,
                convention="plain",
                backend=verdict.backend,
            )
    except (OtherBackendError, RuntimeError) as error:  # RuntimeError: how torch, CUDA and C++ report failure
        verdict.errors[case.name] = str(error)
        return
    got = maps.cpu().numpy()
    verdict.results[case.name] = testing.agreement(got, reference, case.spacing, verdict.tolerance)


def _summary_table(verdicts: list[_Verdict], cases: int) -> Table:
    table = _table("backend", "device", "cases", "held to")
    for verdict in verdicts:
        worst = [verdict.worst(measure) for measure in _MEASURES]
        texts = (verdict.backend, str(verdict.device), str(cases), verdict.standard)
        table.add_row(*texts, *_cells(worst, passed=verdict.passed))
    return table


def _case_table(verdict: _Verdict) -> Table:
    table = _table(f"{verdict.backend} on {verdict.device}")
    for name, result in verdict.results.items():
        values = [getattr(result, measure) for measure in _MEASURES]
        table.add_row(name, *_cells(values, passed=result.passed))
    return table


def _table(*texts: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in ("max abs", "max rel", "share off"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    return table


def _cells(values: list[float], *, passed: bool) -> list[str]:
    verdict = "[bold green]PASS[/]" if passed else "[bold red]FAIL[/]"
    return [*(f"{value:.2g}" for value in values), verdict]


def _print_failures(verdict: _Verdict) -> None:
    who = f"{verdict.backend} on {verdict.device}"
    for name, result in verdict.results.items():
        if not result.passed:
            values = [getattr(result, measure) for measure in _MEASURES]
            worst = "max abs {:.3g}, max rel {:.3g}, share off {:.3g}".format(*values)
            console.print(f"{who} is wrong on [bold]{name}[/] ({worst})", soft_wrap=True)
    for name, message in verdict.errors.items():
        console.print(f"{who} failed on [bold]{name}[/]: {escape(message)}", soft_wrap=True)
