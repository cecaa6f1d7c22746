"""Conversion of numpy and cupy arrays from and to torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

ArrayT = TypeVar("ArrayT")


class _Writable:
    """Shows a read-only numpy buffer as writable, which torch requires; nothing writes to it."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self.owner = array


def as_tensor(array: object, name: str) -> tuple[torch.Tensor, Callable[[torch.Tensor], Any]]:
    """Return the array as a torch tensor, without a copy if possible, and a function that converts back.

    Raises:
        TypeError: neither a torch tensor, nor a numpy array, nor a cupy array.
    """
    if isinstance(array, torch.Tensor):
        if array.is_nested or array.layout is not torch.strided:
            raise TypeError(f"{name}: must be a dense tensor, got layout {array.layout}; pass a dense copy")
        plain = array.detach()
        if type(plain) is not torch.Tensor:  # a subclass, such as an image with its affine
            plain = plain.as_subclass(torch.Tensor)
        return plain, partial(_with_metadata, array) if hasattr(array, "copy_meta_from") else _unchanged
    if isinstance(array, np.ndarray):
        return tensor_from_numpy(array, name), _to_numpy
    if type(array).__module__.partition(".")[0] == "cupy":
        import cupy  # noqa: PLC0415  # already loaded by whoever made the array

        return torch.utils.dlpack.from_dlpack(array), cupy.from_dlpack
    raise TypeError(
        f"{name}: must be a torch tensor, a numpy array or a cupy array, got {type(array).__name__}"
    )


def tensor_from_numpy(array: np.ndarray[Any, Any], name: str) -> torch.Tensor:
    """Return a tensor that shares the array's memory; a copy if torch cannot address it.

    Raises:
        TypeError: a dtype that torch does not have.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: must not be a masked array, whose mask would be lost; pass array.filled(label), and "
            "that label as ignore_index"
        )
    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"{name}: must hold booleans, integers or floats, got dtype {array.dtype}")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()  # ascontiguousarray would leave a flipped axis of size 1
    if not array.flags.writeable:
        array = np.asarray(_Writable(array))
    return torch.from_numpy(array)


def above_zero(labels: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return the inside of a mask of integers or booleans, as bool."""
    if out is None and labels.dtype == torch.bool:
        return labels
    compared = torch.gt if labels.dtype.is_signed else torch.ne  # torch orders few unsigned types
    return compared(labels, 0, out=out)


def _with_metadata(source: Any, tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as a MetaTensor of MONAI, with the metadata of ``source``."""
    labelled: torch.Tensor = tensor.as_subclass(type(source)).copy_meta_from(source)
    return labelled


def _unchanged(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    if tensor.dtype == torch.bfloat16:
        raise ValueError("dtype: numpy has no bfloat16; ask for float32, float64 or float16")
    return tensor.numpy()
