"""Checks of numbers, flags and names."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch

from fastsdm._errors import shown
from fastsdm._types import Convention, EmptyPolicy

FLOAT_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_LARGEST_LIMIT = 1e18
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


def is_number(value: object) -> bool:
    """Whether it is a real number of Python or numpy; bools are not."""
    if type(value) in {float, int}:
        return True
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


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
    if not isinstance(dtype, torch.dtype) or dtype not in FLOAT_DTYPES:
        raise ValueError(f"dtype: must be float32, float64, float16 or bfloat16, got {shown(value)}")
    return dtype
