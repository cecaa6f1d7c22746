"""The settings of a distance map, passed on together and stored with the map."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

import torch

from fastsdm import _validate
from fastsdm._types import Convention, EmptyPolicy, SpacingLike

if TYPE_CHECKING:
    from typing_extensions import Self

#: One row for all samples, or one per sample.
Rows: TypeAlias = "tuple[tuple[float, ...], ...]"
#: Relative difference up to which two lengths are equal: one may have been rounded to float32.
_SAME_LENGTH = 1e-6


class MapOptions(TypedDict, total=False):
    """Keywords of :func:`fastsdm.signed_distance`, for functions that pass them through."""

    classes: int | Sequence[int] | None
    spatial_dims: int
    spacing: SpacingLike
    convention: Convention
    empty: EmptyPolicy
    max_distance: float | None
    ignore_index: int | None
    black_border: bool
    dtype: object
    backend: str


@dataclass(frozen=True)
class MapSettings:
    """The settings that make a map; arguments of :func:`fastsdm.signed_distance` where not described.

    Attributes:
        classes: label values; None for a mask.
        spacing: voxel size, one row for all samples or one per sample; None if each call gives its own.
        empty: policy for empty classes; None for a patch's map, whose distances come from the whole volume.
        ignore_mask: whether a mask of further ignored voxels was used.
    """

    classes: tuple[int, ...] | None
    spacing: Rows | None
    convention: str
    empty: str | None
    max_distance: float | None
    ignore_index: int | None = None
    ignore_mask: bool = False
    black_border: bool = False

    @classmethod
    def of(cls, options: MapOptions) -> Self:
        """Check keywords of :func:`fastsdm.signed_distance` and return their settings."""
        classes, spacing = options.get("classes"), options.get("spacing", 1.0)
        values = None if classes is None else tuple(_validate.class_values(classes, torch.int64))
        limit = options.get("max_distance")
        _validate.max_distance(limit)
        return cls(
            values,
            spacing_rows(spacing),
            options.get("convention", "kervadec"),
            options.get("empty", "inf"),
            None if limit is None else float(limit),
            options.get("ignore_index"),
            black_border=options.get("black_border", False),
        )

    @classmethod
    def checked(cls, options: MapOptions) -> Self:
        """The same for settings that are given before there are labels: every value is checked.

        Raises:
            TypeError, ValueError: the message names argument, rule and value.
        """
        convention, empty = options.get("convention", "kervadec"), options.get("empty", "inf")
        check_settings(options.get("classes"), convention, empty, options.get("max_distance"))
        held = cls.of(options)
        _validate.spacing_values(torch.tensor(held.spacing, dtype=torch.float64, device="cpu"))
        if held.ignore_index is None:
            return held
        return replace(held, ignore_index=_validate.integer("ignore_index", held.ignore_index))

    def options(self) -> MapOptions:
        """Return the keywords of :func:`fastsdm.signed_distance` for these settings."""
        assert self.empty is not None
        return {
            "classes": self.classes,
            "spacing": self.spacing_like(),
            "convention": cast("Convention", self.convention),
            "empty": cast("EmptyPolicy", self.empty),
            "max_distance": self.max_distance,
            "ignore_index": self.ignore_index,
            "black_border": self.black_border,
        }

    def spacing_like(self) -> SpacingLike:
        """Return the voxel size as an argument: a number, one per axis, or one row per sample."""
        return _shown(self.spacing)

    def with_spacing(self, spacing: SpacingLike) -> Self:
        """Return these settings with another voxel size."""
        return replace(self, spacing=spacing_rows(spacing))

    def difference(self, wanted: MapSettings) -> str | None:
        """Name the first setting that differs from ``wanted`` and changes values, with both; None if none.

        Classes are not compared: the loss checks the map's shape.
        """
        pairs: list[tuple[str, Any, Any]] = [
            (name, getattr(self, name), getattr(wanted, name))
            for name in ("convention", "max_distance", "ignore_index", "ignore_mask", "black_border")
        ]
        if not _same_rows(self.spacing, wanted.spacing):
            pairs.append(("spacing", _shown(self.spacing), _shown(wanted.spacing)))
        if not self._same_empty(wanted):
            pairs.append(("empty", self.empty, wanted.empty))
        differing = (pair for pair in pairs if not same(pair[1], pair[2]))
        return next((f"{name}={mine!r}, not {name}={other!r}" for name, mine, other in differing), None)

    def _same_empty(self, wanted: MapSettings) -> bool:
        if self.empty is None or self.empty == wanted.empty:
            return True
        if self.max_distance is not None:  # after the clamp "inf" and "max" are equal
            return {self.empty, wanted.empty} == {"inf", "max"}
        # Under its policy "zero" a loss replaces the infinities of a given map by 0.
        return self.empty == "inf" and wanted.empty == "zero"


def check_settings(classes: object, convention: str, empty: str, max_distance: object) -> None:
    """Raise for invalid settings of a map, before there are labels.

    Raises:
        TypeError, ValueError: the message names argument, rule and value.
    """
    if classes is not None:
        _validate.class_values(classes, torch.int64)
    _validate.convention(convention)
    _validate.empty_policy(empty)
    _validate.max_distance(max_distance)


def check_options(function: Callable[..., object], given: Mapping[str, object], options: type) -> None:
    """Raise TypeError if ``function`` was given a keyword that the TypedDict ``options`` does not have."""
    known = options.__optional_keys__ | options.__required_keys__  # type: ignore[attr-defined]
    for name in given:
        if name not in known:
            parameters = inspect.signature(function).parameters.values()
            own = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
            raise TypeError(
                f"{name}: is no argument of {function.__name__}; it takes {', '.join([*own, *sorted(known)])}"
            )


def spacing_rows(spacing: SpacingLike) -> Rows:
    """Return the voxel size as rows: ``((1.0,),)`` for one number, else one row, or one per sample."""
    if isinstance(spacing, float):  # fast path: prefetch calls this every time
        return ((float(spacing),),)
    tensor = _validate.spacing_tensor(spacing)
    if tensor.ndim and tensor.shape[-1] == 0:
        raise ValueError(f"spacing: must hold one number per spatial axis, got shape {tuple(tensor.shape)}")
    return tuple(map(tuple, tensor.reshape(-1, tensor.shape[-1] if tensor.ndim else 1).tolist()))


def same(one: object, other: object) -> bool:
    """Whether two values of a setting make the same map: lengths may differ by float32 rounding."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_SAME_LENGTH)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def _same_rows(one: Rows | None, other: Rows | None) -> bool:
    if one is None or other is None or one == other:
        return True
    count = max(len(one), len(other))
    if {len(one), len(other)} - {1, count}:
        return False
    for a, b in zip(one * (count // len(one)), other * (count // len(other)), strict=True):
        length = max(len(a), len(b))
        if {len(a), len(b)} - {1, length}:
            return False
        pairs = zip(a * (length // len(a)), b * (length // len(b)), strict=True)
        if not all(same(x, y) for x, y in pairs):
            return False
    return True


def _shown(rows: Rows | None) -> Any:
    if rows is None or len(rows) > 1:
        return rows
    return rows[0] if len(rows[0]) > 1 else rows[0][0]
