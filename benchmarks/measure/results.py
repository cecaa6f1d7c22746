"""What a run leaves behind: one JSON file per machine, read and written without loss."""

from __future__ import annotations

import json
import os
import types
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure.environment import ROOT, Environment
from benchmarks.measure.losses import LossRow
from benchmarks.measure.maps import MapRow
from benchmarks.measure.memory import MemoryRow
from benchmarks.measure.scaling import ScalingRow
from benchmarks.measure.timing import Bandwidth
from benchmarks.measure.training_step import StepRow

FORMAT = 2
DIRECTORY = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Results:
    """Everything one run measured; a part that was not asked for is empty.

    Attributes:
        format: of the file; `load` reads no other.
        environment: machine, versions, commit.
        command: what made it.
        bandwidth: of memory, for the floor.
        maps: signed distance maps, every contender on every case.
        memory: peaks of one call.
        losses: ours beside MONAI's.
        steps: the training step.
        scaling: points of the curves.
        minutes: how long each part took.
        absent: peers, parts and cases that were left out, and why.
        failures: what is wrong or broke off, one line each; empty when all is well.
        skipped: what was left out for lack of time.
        note: what a reader has to know beside it; added later, by hand.
    """

    format: int
    environment: Environment
    command: str
    bandwidth: Bandwidth
    maps: list[MapRow] = field(default_factory=list)
    memory: list[MemoryRow] = field(default_factory=list)
    losses: list[LossRow] = field(default_factory=list)
    steps: list[StepRow] = field(default_factory=list)
    scaling: list[ScalingRow] = field(default_factory=list)
    minutes: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    note: str = ""


def save(results: Results, path: Path) -> None:
    """Write the JSON; a reader sees the old file or the new one, never a part of it."""
    write_whole(path, json.dumps(asdict(results), indent=1, ensure_ascii=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a text file by renaming a finished one into its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def keep_old(path: Path) -> Path | None:
    """Move a result that is about to be replaced aside, named after its commit; None where there is none."""
    if not path.exists():
        return None
    was = json.loads(path.read_text(encoding="utf-8"))["environment"]
    commit = was["commit"].replace(" ", "-")
    name = f"{path.stem}-{was['date']}-{commit}"
    old, runs = path.with_name(f"{name}.json"), 1
    while old.exists():
        runs += 1
        old = path.with_name(f"{name}-{runs}.json")
    os.replace(path, old)
    return old


def load(path: Path) -> Results:
    """Read the JSON.

    Raises:
        ValueError: it was written by another version of this program.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("format") != FORMAT:
        raise ValueError(f"{path.name}: must have format {FORMAT}, got {data.get('format')!r}")
    results: Results = _restored(Results, data)
    return results


def _restored(kind: Any, data: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    known = [each.name for each in fields(kind) if each.name in data]  # an older file lacks the newest fields
    return kind(**{name: _value(hints[name], data[name]) for name in known})


def _value(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) is types.UnionType:  # X | None
        if value is None:
            return None
        hint = next(each for each in typing.get_args(hint) if each is not types.NoneType)
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        return [_value(item, each) for each in value]
    return _restored(hint, value) if is_dataclass(hint) else value


def best_ours(rows: Sequence[MapRow]) -> MapRow | None:
    """The fastest of our exact backends among these rows of one case."""
    timed = [row for row in rows if row.ours and row.timing is not None and row.exact]
    return min(timed, key=lambda row: row.seconds, default=None)


def best_peer(rows: Sequence[MapRow]) -> MapRow | None:
    """The fastest peer among these rows of one case."""
    timed = [row for row in rows if not row.ours and row.timing is not None]
    return min(timed, key=lambda row: row.seconds, default=None)


def by_case(rows: Sequence[MapRow]) -> dict[str, list[MapRow]]:
    """Rows of each case, in the order they were measured."""
    cases: dict[str, list[MapRow]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row)
    return cases
