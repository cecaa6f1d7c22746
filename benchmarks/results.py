"""What a run leaves behind: one JSON file per machine, read and written without loss."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from benchmarks.bandwidth import Bandwidth
from benchmarks.environment import Environment
from benchmarks.errors import ErrorHistogram
from benchmarks.maps import MapRow
from benchmarks.memory import MemoryRow
from benchmarks.monai_losses import LossRow
from benchmarks.scaling import ScalingRow
from benchmarks.training_step import StepRow

FORMAT = 1
DIRECTORY = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Results:
    """Everything one run measured; a part that was not asked for is empty."""

    format: int
    environment: Environment
    command: str
    minutes: float
    bandwidth: Bandwidth
    maps: list[MapRow]
    memory: list[MemoryRow]
    losses: list[LossRow]
    steps: list[StepRow]
    scaling: list[ScalingRow]
    errors: list[ErrorHistogram]

    @property
    def wrong(self) -> list[MapRow]:
        """Rows that ran and disagreed with the truth."""
        return [row for row in self.maps if row.wrong]


def save(results: Results, path: Path) -> None:
    """Write the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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
    return kind(**{each.name: _value(hints[each.name], data[each.name]) for each in fields(kind)})


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
