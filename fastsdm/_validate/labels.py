"""Checks of targets, their labels and the classes asked for."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import torch

from fastsdm._errors import shown
from fastsdm._validate.values import FLOAT_DTYPES, integer, is_integer

_UNSIGNED_BITS = {torch.uint8: 8, torch.uint16: 16, torch.uint32: 32, torch.uint64: 64}
_SIGNED = (torch.bool, torch.int8, torch.int16, torch.int32, torch.int64)
_LABEL_DTYPES = {*_SIGNED, *_UNSIGNED_BITS, *FLOAT_DTYPES}
_LARGEST_COUNT = 2**24
#: Beyond it floats are too far apart for labels.
LARGEST_FLOAT_LABEL = 2**53
#: By which resampled labels may miss whole numbers, and resampled probabilities [0, 1].
ROUNDING = 1e-3


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
