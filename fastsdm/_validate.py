"""Checks at the public boundary: every message names the argument, the rule and the value received."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch

from fastsdm._errors import shown
from fastsdm._types import Convention, EmptyPolicy, SpacingLike

_FLOAT_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_UNSIGNED_BITS = {torch.uint8: 8, torch.uint16: 16, torch.uint32: 32, torch.uint64: 64}
_SIGNED = (torch.bool, torch.int8, torch.int16, torch.int32, torch.int64)
_LABEL_DTYPES = {*_SIGNED, *_UNSIGNED_BITS, *_FLOAT_DTYPES}

# Squares of spacings and of their ratios stay well within float32.
_SPACING_RANGE = (1e-12, 1e12)
_SPACING_RATIO = 1e9
_LARGEST_LIMIT = 1e18
_LARGEST_COUNT = 2**24
#: Beyond it floats are too far apart for labels.
LARGEST_FLOAT_LABEL = 2**53
#: By which resampled labels may miss whole numbers, and resampled probabilities [0, 1].
ROUNDING = 1e-3

_CONVENTIONS = get_args(Convention)
_EMPTY_POLICIES = get_args(EmptyPolicy)


def choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: must be one of {', '.join(map(repr, allowed))}; got {shown(value)}")


def convention(value: str) -> None:
    """Raise ValueError unless it is a known convention."""
    choice("convention", value, _CONVENTIONS)


def empty_policy(value: str) -> None:
    """Raise ValueError unless it is a known policy for empty classes."""
    choice("empty", value, _EMPTY_POLICIES)


def backend_name(value: object) -> None:
    """Raise TypeError unless it is a string; whether a backend has that name is the registry's to say."""
    if not isinstance(value, str):
        raise TypeError(f"backend: must be 'auto' or the name of a backend, got {shown(value)}")


def is_integer(value: object) -> bool:
    """Whether it is an integer of Python or numpy, or an array or CPU tensor that is one; bools are not."""
    if type(value) is int:
        return True
    if isinstance(value, torch.Tensor):
        whole = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
        return whole and value.ndim == 0 and value.device.type == "cpu"
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iu"
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def integer(name: str, value: Any) -> int:
    """The int that ``value`` stands for.

    Raises:
        TypeError: not an integer in the sense of :func:`is_integer`.
    """
    if not is_integer(value):
        raise TypeError(f"{name}: must be an integer, got {shown(value)}")
    return operator.index(value)


def flag(name: str, value: object) -> bool:
    """The bool that ``value``, of Python or numpy, stands for.

    Raises:
        TypeError: anything else, numbers included.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: must be True or False, got {shown(value)}")
    return bool(value)


def number(name: str, value: object) -> float:
    """The float that ``value`` stands for: a number, or an array or CPU tensor that is one; bools are not.

    Raises:
        TypeError: anything else.
    """
    if isinstance(value, (torch.Tensor, np.ndarray)):
        is_bool = value.dtype in (torch.bool, np.bool_)
        is_cpu = not isinstance(value, torch.Tensor) or value.device.type == "cpu"
        if value.ndim == 0 and is_cpu and not is_bool:
            value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: must be a number, got {shown(value)}")
    return float(value)


def spatial_dims(value: Any) -> int:
    """The number of spatial axes.

    Raises:
        TypeError: not an integer.
        ValueError: neither 2 nor 3.
    """
    count = integer("spatial_dims", value)
    if count not in (2, 3):
        raise ValueError(f"spatial_dims: must be 2 or 3, got {value!r}")
    return count


def integers(name: str, value: object) -> np.ndarray[Any, Any]:
    """The integers that a sequence, nested or not, an array or a CPU tensor holds.

    Raises:
        TypeError: something else among them, such as a bool.
        ValueError: rows of unequal length.
    """
    try:
        held = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: must hold rows of equal length, got {shown(value)}") from error
    if held.dtype.kind not in "iu" or _holds_bool(value):
        raise TypeError(f"{name}: must hold integers, got {shown(value)}")
    return held


def _holds_bool(value: object) -> bool:
    """Whether a bool, which numpy reads as 0 or 1 beside integers, stands in a nested sequence."""
    if isinstance(value, (list, tuple)):
        return any(map(_holds_bool, value))
    return isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", None) in (torch.bool, np.bool_)


def max_distance(value: Any) -> None:
    """Raise unless it is None or a positive number whose square fits float32."""
    if value is None:
        return
    if not is_number(value):
        raise TypeError(f"max_distance: must be None or a number, got {type(value).__name__}")
    if not 0 < value < math.inf:
        raise ValueError(f"max_distance: must be positive and finite, got {value!r}")
    if value > _LARGEST_LIMIT:
        raise ValueError(f"max_distance: must be at most {_LARGEST_LIMIT:g}, got {value!r}")


def float_dtype(value: object) -> torch.dtype:
    """The torch dtype that ``value`` (a torch or numpy dtype, its name, or None for float32) stands for."""
    if value is None:
        return torch.float32
    dtype = value
    if not isinstance(value, torch.dtype):
        try:
            name = "bfloat16" if value == "bfloat16" else np.dtype(value).name  # type: ignore[call-overload]  # checked here
        except (TypeError, ValueError):
            name = ""
        dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or dtype not in _FLOAT_DTYPES:
        raise ValueError(f"dtype: must be float32, float64, float16 or bfloat16, got {shown(value)}")
    return dtype


def target_layout(target: torch.Tensor, ndim: int, name: str = "target") -> None:
    """Raise unless the tensor has at least ``ndim`` axes and a dtype that can hold labels."""
    if target.ndim < ndim:
        raise ValueError(
            f"{name}: must have at least {ndim} axes for spatial_dims={ndim}, got shape {tuple(target.shape)}"
        )
    if target.dtype not in _LABEL_DTYPES:
        raise TypeError(f"{name}: must hold booleans, integers or floats, got dtype {target.dtype}")


def float_labels(target: torch.Tensor, *, whole: bool, name: str = "target") -> None:
    """Raise ValueError for values that are no labels.

    Nothing is checked where it would stall an accelerator, nor while a graph is traced or mapped over.
    """
    if not target.is_floating_point() or not may_be_read(target):
        return
    if target.isnan().any():
        raise ValueError(f"{name}: must not contain NaN")
    if not whole or target.numel() == 0:
        return
    largest = target.abs().max().item()
    if largest > LARGEST_FLOAT_LABEL:
        raise ValueError(
            f"{name}: float label maps must hold whole numbers up to {LARGEST_FLOAT_LABEL}, got {largest!r}"
        )
    if not torch.equal(target, target.round()):
        off = (target - target.round()).abs() > ROUNDING
        if bool(off.any()):
            fraction = target[off][0].item()
            raise ValueError(f"{name}: float label maps must hold whole numbers, got {fraction!r}")


def integer_labels(target: torch.Tensor, *, whole: bool, name: str = "target") -> torch.Tensor:
    """Read labels or a mask as integers or booleans: one rule wherever distances are measured.

    Args:
        target: any shape.
        whole: whether these are labels: floats are rounded. Else they are a mask: floats are inside above
            0.5. Integers, inside above 0, are returned as they are.
        name: for the message.

    Raises:
        ValueError: as :func:`float_labels`.
    """
    float_labels(target, whole=whole, name=name)
    if target.is_floating_point():
        return target.round().long() if whole else target > 0.5
    return target


def may_be_read(values: torch.Tensor) -> bool:
    """Return whether the values can be read without stalling a device or breaking a graph or a vmap."""
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    while torch._C._functorch.is_functorch_wrapped_tensor(values):  # per sample gradients wrap a batch
        if torch._C._functorch.is_batchedtensor(values):
            return False
        values = torch._C._functorch.get_unwrapped(values)
    return True


def class_values(classes: object, dtype: torch.dtype) -> list[int]:
    """The label values that ``classes`` (how many, or which) asks for.

    Raises:
        TypeError: neither an integer nor a sequence of integers.
        ValueError: fewer than one class, a value twice, one that ``dtype`` cannot hold, or a tensor on an
            accelerator.
    """
    if isinstance(classes, torch.Tensor) and classes.device.type != "cpu":
        raise ValueError(
            f"classes: must be on the CPU (reading them from {classes.device} would stall that device); "
            "pass classes.tolist()"
        )
    if is_integer(classes):
        count = integer("classes", classes)
        if not 1 <= count <= _LARGEST_COUNT:
            rule = "must be at least 1" if count < 1 else f"a count must be at most {_LARGEST_COUNT}"
            raise ValueError(f"classes: {rule}, got {shown(count)}")
        values = list(range(count))
    else:
        values = _listed_values(classes)
    low, high = label_range(dtype)
    high = min(high, 2**63 - 1)  # torch passes integers of 64 bits with a sign
    outside = [value for value in values if not low <= value <= high]
    if outside:
        raise ValueError(
            f"classes: every value must fit the target's dtype {dtype} ({low} to {high}), got {outside[0]}"
        )
    return values


def _listed_values(classes: object) -> list[int]:
    listed = isinstance(classes, (Sequence, np.ndarray, torch.Tensor)) and not isinstance(classes, str)
    if not listed or getattr(classes, "ndim", 1) != 1:
        raise TypeError(
            f"classes: must be None, a count or a sequence of label values, got {type(classes).__name__}"
        )
    values = []
    for value in classes:  # type: ignore[attr-defined]  # checked above
        if not is_integer(value):
            raise TypeError(f"classes: must hold integers, got {value!r}")
        values.append(operator.index(value))
    if not values:
        raise ValueError("classes: must name at least one label value, got an empty sequence")
    if len(set(values)) != len(values):
        raise ValueError(f"classes: must not name a label value twice, got {values}")
    return values


def spacing_row(value: SpacingLike, ndim: int) -> list[float] | None:
    """Spacing that is one number or ``ndim`` of them, checked; None for what :func:`spacing_rows` reads.

    Raises:
        ValueError: a value out of range.
    """
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iuf":
        value = value.tolist()
    if is_number(value):
        row = [float(value)] * ndim  # type: ignore[arg-type]  # a number, as was just seen
    elif isinstance(value, (tuple, list)) and len(value) == ndim and all(map(is_number, value)):
        row = [float(number) for number in value]
    else:
        return None
    _spacing_numbers(row)
    return row


def label_value(name: str, value: object, dtype: torch.dtype) -> int:
    """The label that ``value`` stands for.

    Raises:
        TypeError: not an integer.
        ValueError: ``dtype`` cannot hold it.
    """
    label = integer(name, value)
    low, high = label_range(dtype)
    if not low <= label <= high:
        raise ValueError(f"{name}: must fit the labels' dtype {dtype} ({low} to {high}), got {label}")
    return label


def spacing_rows(value: SpacingLike, leading: Sequence[int], ndim: int) -> torch.Tensor:
    """Spacing of every sample, ``[prod(leading), ndim]`` float64 on the CPU.

    Only shape and type are checked: the values of a tensor may be unknown while a graph is traced.

    Raises:
        TypeError: not numbers.
        ValueError: a shape that is neither scalar, ``[ndim]``, nor ``[*first leading axes, ndim]``;
            or a tensor on an accelerator.
    """
    rows = spacing_tensor(value)
    leading = tuple(leading)
    if rows.ndim == 0:
        rows = rows.expand(ndim)
    per_sample = tuple(rows.shape[:-1])
    if rows.shape[-1] != ndim or per_sample != leading[: len(per_sample)]:
        raise ValueError(
            f"spacing: must be a number, {ndim} numbers (one per spatial axis), or one such row per sample "
            f"with leading axes {leading}; got shape {tuple(rows.shape)}"
        )
    rows = rows.reshape(*per_sample, *(1 for _ in leading[len(per_sample) :]), ndim)
    return rows.expand(*leading, ndim).reshape(-1, ndim) if leading else rows.reshape(1, ndim)


def spacing_values(spacing: torch.Tensor) -> None:
    """Raise ValueError unless every value is positive, and its square and those of ratios fit float32.

    Args:
        spacing: ``[B, ndim]`` on the CPU.
    """
    for row in spacing.tolist():
        _spacing_numbers(row)


def spacing_tensor(value: SpacingLike) -> torch.Tensor:
    """The numbers as float64 on the CPU; their shape and range are not looked at.

    Raises:
        TypeError: not numbers, or rows that differ in length.
        ValueError: a tensor on an accelerator.
    """
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            raise ValueError(
                f"spacing: must be on the CPU (reading it from {value.device} would stall that device); "
                "pass spacing.cpu()"
            )
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"spacing: must hold numbers, got dtype {value.dtype}")
        return value.detach().to(torch.float64)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "iuf":
            raise TypeError(f"spacing: must hold numbers, got dtype {value.dtype}")
        return torch.from_numpy(np.array(value, dtype=np.float64))
    if isinstance(value, (bool, str)):
        raise TypeError(f"spacing: must be a number or numbers, got {shown(value)}")
    try:
        if isinstance(value, Sequence) and not all(map(is_number, value)):
            return torch.stack([spacing_tensor(row) for row in value])
        return torch.tensor(value, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"spacing: must be a number or rows of equal length, got {shown(value)}") from error


def _spacing_numbers(row: Sequence[float]) -> None:
    low, high = _SPACING_RANGE
    for value in row:
        if not low <= value <= high:
            if not 0 < value < math.inf:
                raise ValueError(f"spacing: must be positive and finite, got {value!r}")
            raise ValueError(f"spacing: must lie between {low:g} and {high:g}, got {value!r}")
    if max(row) > _SPACING_RATIO * min(row):
        raise ValueError(f"spacing: axes may differ by a factor of {_SPACING_RATIO:g} at most, got {row}")


def is_number(value: object) -> bool:
    """Whether it is a real number of Python or numpy; bools are not."""
    if type(value) in {float, int}:
        return True
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def label_range(dtype: torch.dtype) -> tuple[int, int]:
    """The smallest and the largest label that a dtype can hold; floats hold those of int64."""
    if dtype == torch.bool:
        return 0, 1
    if dtype.is_floating_point:  # converted to int64 before it reaches a backend
        dtype = torch.int64
    if dtype in _UNSIGNED_BITS:
        return 0, 2 ** _UNSIGNED_BITS[dtype] - 1
    info = torch.iinfo(dtype)
    return int(info.min), int(info.max)
