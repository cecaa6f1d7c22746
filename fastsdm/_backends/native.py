"""The backend for CPUs, in C++ (see ``cpp/kernel.cpp`` for how it works)."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from fastsdm._backends.contract import Classes, Finish, FusedBackend, SpacingRows, reason_off_the_cpu

#: The kernel keeps steps along the later axes in 15 bits.
_LONGEST_SEARCHED = 16383
_EXTENSION = "fastsdm._backends._native_ext"


class NativeBackend(FusedBackend):
    """Computes all classes in one call, with SIMD and threads, without a copy of the labels.

    Beside the arguments of the contracts, the methods below take:

    - ``threads``: how many to use at most; None for ``torch.get_num_threads()``.
    - ``isa``: instruction set, one of ``_native_ext.isas()``; None for the best this CPU has.

    They raise ValueError if the CPU does not have ``isa``, MemoryError if there is no room for the result.
    """

    name = "native"
    exact = True
    device_types = ("cpu",)

    def unavailable(self, device: torch.device) -> str | None:
        """See :meth:`fastsdm._backends.contract.Backend.unavailable`."""
        if device.type != "cpu":
            return reason_off_the_cpu(device)
        try:
            importlib.import_module(_EXTENSION)
        except ModuleNotFoundError:
            return (
                "its C++ extension was not built when fastsdm was installed, for want of a C++ compiler; "
                "install one (on Debian: apt install g++), then install fastsdm again from its source"
            )
        except ImportError as error:
            return f"its C++ extension does not load ({error}); install fastsdm again from its source"
        return None

    @property
    def instruction_set(self) -> str:
        """The best vector instructions that both this CPU and the extension support."""
        return str(importlib.import_module(_EXTENSION).isas()[0])

    def finished_region(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: SpacingRows,
        max_distance: float | None,
        finish: Finish,
        start: Sequence[int],
        size: Sequence[int],
        dtype: torch.dtype,
        *,
        threads: int | None = None,
        isa: str | None = None,
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.contract.FusedBackend.finished_region`."""
        from fastsdm._backends import _native_ext  # noqa: PLC0415 (unavailable() answers where it is missing)

        batch, *shape = labels.shape
        # 2D is a volume of one slice, whatever its thickness.
        flat = [1] * (3 - len(shape))
        sampling = np.ones((batch, 3))
        sampling[:, len(flat) :] = np.array(spacing).reshape(-1, len(shape))
        # numpy asks for huge pages: the first touch of a large result costs a fifth of torch.empty's.
        maps = np.empty((batch, len(classes), *flat, *size), np.float32)
        _native_ext.signed_distance(
            labels.numpy().reshape(batch, *flat, *shape),
            [pattern(value, labels.dtype) for value in classes],
            sampling,
            math.inf if max_distance is None else max_distance,
            maps,
            shifts=_per_sample(finish.shifts, batch),
            both_sides=finish.both_sides,
            missing=_per_sample(finish.missing, batch),
            limit=finish.limit,
            first=cast("tuple[int, int, int]", (*(0 for _ in flat), *start)),
            threads=torch.get_num_threads() if threads is None else threads,
            isa=isa,
        )
        return torch.from_numpy(maps.reshape(batch, len(classes), *size)).to(dtype)

    def instance_distance(
        self,
        labels: torch.Tensor,
        background: int,
        spacing: torch.Tensor,
        max_distance: float | None,
        black_border: bool,
        *,
        threads: int | None = None,
        isa: str | None = None,
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.capabilities.InstanceBackend.instance_distance`."""
        from fastsdm._backends import _native_ext  # noqa: PLC0415 (unavailable() answers where it is missing)

        batch, *shape = labels.shape
        flat = [1] * (3 - len(shape))
        sampling = np.ones((batch, 3))
        sampling[:, len(flat) :] = spacing.numpy()
        maps = np.empty((batch, *flat, *shape), np.float32)
        _native_ext.instance_distance(
            labels.numpy().reshape(batch, *flat, *shape),
            background % 2**64,
            sampling,
            math.inf if max_distance is None else max_distance,
            (black_border and len(shape) == 3, black_border, black_border),
            maps,
            threads=torch.get_num_threads() if threads is None else threads,
            isa=isa,
        )
        return torch.from_numpy(maps.reshape(batch, *shape))

    def nearest(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,
        *,
        threads: int | None = None,
        isa: str | None = None,
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.capabilities.NearestBackend.nearest`.

        Of equally near voxels, the first in memory is taken.

        Raises:
            ValueError: an axis other than the first is longer than 16383 voxels.
        """
        from fastsdm._backends import _native_ext  # noqa: PLC0415 (unavailable() answers where it is missing)

        batch, *shape = labels.shape
        solid, sampling = _searched("target", shape, spacing)
        indices = _at_cache_lines((batch, len(classes), len(shape), *solid))
        _native_ext.nearest(
            labels.numpy().reshape(batch, *solid),
            [pattern(value, labels.dtype) for value in classes],
            sampling,
            math.inf if max_distance is None else max_distance,
            indices,
            threads=torch.get_num_threads() if threads is None else threads,
            isa=isa,
        )
        return torch.from_numpy(indices.reshape(batch, len(classes), len(shape), *shape))

    def nearest_label(
        self,
        labels: torch.Tensor,
        background: int,
        spacing: torch.Tensor,
        max_distance: float | None,
        *,
        threads: int | None = None,
        isa: str | None = None,
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.capabilities.LabelBackend.nearest_label`.

        The voxels are those that :meth:`nearest` finds. Needs 4 bytes for each voxel of one volume.

        Raises:
            ValueError: an axis other than the first is longer than 16383 voxels.
        """
        from fastsdm._backends import _native_ext  # noqa: PLC0415 (unavailable() answers where it is missing)

        batch, *shape = labels.shape
        solid, sampling = _searched("labels", shape, spacing)
        solids = labels.numpy().reshape(batch, *solid)
        filled = np.empty_like(solids)
        _native_ext.nearest_label(
            solids,
            _all_but(background, labels.dtype),
            sampling,
            math.inf if max_distance is None else max_distance,
            np.empty(math.prod(shape), np.int32),
            filled,
            threads=torch.get_num_threads() if threads is None else threads,
            isa=isa,
        )
        return torch.from_numpy(filled.reshape(batch, *shape))


def _searched(
    name: str, shape: Sequence[int], spacing: torch.Tensor
) -> tuple[list[int], np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Return the 3D shape that nearest voxels are searched in, and its spacings.

    Raises:
        ValueError: an axis other than the first is too long.
    """
    if max(shape[1:]) > _LONGEST_SEARCHED:
        raise ValueError(
            f"{name}: backend 'native' finds nearest voxels along axes of {_LONGEST_SEARCHED} voxels at "
            f"most (the first may be longer), got shape {tuple(shape)}; use backend='scipy'"
        )
    # 2D as a volume whose middle axis is one voxel long: the threads share its rows.
    axes = [0, 2] if len(shape) == 2 else [0, 1, 2]
    solid, sampling = [1, 1, 1], np.ones((len(spacing), 3))
    for axis, size in zip(axes, shape, strict=True):
        solid[axis] = size
    sampling[:, axes] = spacing.numpy()
    return solid, sampling


def _at_cache_lines(shape: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """Return an empty int32 array that begins at a cache line, which writes past the cache need."""
    count = math.prod(shape)
    memory = np.empty(count + 15, np.int32)
    skipped = -memory.__array_interface__["data"][0] % 64 // 4
    return memory[skipped : skipped + count].reshape(shape)


def _per_sample(numbers: tuple[float, ...], batch: int) -> tuple[float, ...]:
    return numbers * batch if len(numbers) == 1 else numbers


def pattern(value: int | None, dtype: torch.dtype) -> tuple[int, int] | None:
    """Return which labels belong to one of the :data:`Classes`, as the kernel compares their bits.

    Returns:
        The first label and how many follow it, as unsigned numbers; None if no label can belong to the class.
    """
    if dtype == torch.bool:  # true is any byte but 0
        return {None: (1, 254), 1: (1, 254), 0: (0, 0)}.get(value)
    ends = torch.iinfo(dtype)
    if value is None:
        return 1, int(ends.max) - 1
    return (value % 2**ends.bits, 0) if ends.min <= value <= ends.max else None


def _all_but(value: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return the pattern of all labels but one, which the dtype can hold."""
    first, more = cast("tuple[int, int]", pattern(value, dtype))
    count = 256 if dtype == torch.bool else 2 ** torch.iinfo(dtype).bits
    return (first + more + 1) % count, count - more - 2


BACKEND = NativeBackend()
