"""The backend for GPUs, in Triton: one launch per axis for the whole batch and all classes."""

from __future__ import annotations

import functools
import importlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastsdm._backends.contract import PLAIN, Classes, Finish, FusedBackend, SpacingRows, spacing_rows
from fastsdm._backends.triton_arguments import Numbers, is_run, search_numbers, table_of
from fastsdm._backends.triton_passes import AMD, INTERPRETER, NVIDIA, Pass, Tiles, nearest_passes, passes

_OLDEST_CAPABILITY = (8, 0)
_NOT_IN_TABLE = -1


class TritonBackend(FusedBackend):
    """Computes maps by a scan along the last axis and a bounded search along each other axis."""

    name = "triton"
    exact = True
    device_types = ("cuda",)

    def __init__(self) -> None:
        self._usable: set[torch.device] = set()

    def unavailable(self, device: torch.device) -> str | None:
        """See the contract: it runs where Triton can compile, and on the CPU if it interprets the kernels."""
        if device in self._usable:
            return None
        reason = _reason_against(device)
        if reason is None:
            self._usable.add(device)
        return reason

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
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.contract.FusedBackend.finished_region`.

        Working memory beside the result, per voxel of the volume and class: 4 bytes in 3D, and 2 more if the
        result is not float32 or smaller than the volume; 2 bytes in 2D. Rows longer than 2048 voxels take 4
        bytes instead of 2. Squared distances are float32: at equal spacing exact up to 4096 voxels.
        """
        result = torch.empty((labels.shape[0], len(classes), *size), dtype=dtype, device=labels.device)
        if result.numel() == 0:
            return result
        labels, values = _loadable(labels), _values(classes)
        count = len(values) or None
        launches = passes(
            tuple(labels.shape), labels.dtype, count, _tiles(labels.device), tuple(start), tuple(size), dtype
        )
        call = _prepared(launches, labels, values, spacing, max_distance, finish)
        _run_on_its_device(_run, call, result)
        return result

    def nearest(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.capabilities.NearestBackend.nearest`.

        Of equally near voxels the first in memory is taken, if all sums of squares are exact in float32, as
        they are at equal spacing up to a diagonal of 4096 voxels. Working memory beside the result, per voxel
        and class: 8 bytes in 3D; 2 in 2D, or 4 if rows are longer than 2048 voxels.
        """
        batch, *shape = labels.shape
        result = torch.empty(
            (batch, len(classes), len(shape), *shape), dtype=torch.int32, device=labels.device
        )
        labels, values = _loadable(labels), _values(classes)
        count = len(values) or None
        launches = nearest_passes(tuple(labels.shape), labels.dtype, count, _tiles(labels.device))
        finish = replace(PLAIN, limit=math.inf if max_distance is None else max_distance)
        call = _prepared(launches, labels, values, spacing_rows(spacing), max_distance, finish)
        _run_on_its_device(_run_nearest, call, result)
        return result


def _loadable(labels: torch.Tensor) -> torch.Tensor:
    return labels.view(torch.uint8) if labels.dtype == torch.bool else labels


def _values(classes: Classes) -> list[int]:
    """Return the label values; none for a mask."""
    return [value for value in classes if value is not None]


@dataclass(frozen=True)
class _Call:
    """Arguments of a call's launches, without the memory that they write to.

    Attributes:
        launches: the passes.
        labels: of a dtype that Triton loads.
        listed: whether class values are in the table; else they are ``lowest``, ``lowest + 1``, ...
        lowest: the first class value, if they are not in the table; 0 for a mask.
        numbers: per search one row for all samples, or one per sample.
        cut: largest distance, in float32; may be infinite.
        table: class values and numbers that are not passed as arguments of the kernels.
    """

    launches: Sequence[Pass]
    labels: torch.Tensor
    listed: bool
    lowest: int
    numbers: list[list[Numbers]]
    cut: float
    table: torch.Tensor | None

    def scan(self, field: torch.Tensor) -> None:
        """Launch the first pass, into ``field``."""
        _launch(
            self.launches[0], self.labels, field if self.table is None else self.table, field,
            int(self.listed), self.lowest,
        )  # fmt: skip

    def searches(self) -> Iterator[tuple[Pass, Numbers, int]]:
        """Yield each search, the numbers of the first sample, and the place of all samples' in the table."""
        place = 2 * self.launches[0].sizes[0] if self.listed else 0  # a class value takes 64 bits
        for launch, rows in zip(self.launches[1:], self.numbers, strict=True):
            in_table = len(rows) > 1
            yield launch, rows[0], place if in_table else _NOT_IN_TABLE
            place += len(rows) * len(rows[0]) if in_table else 0


def _prepared(
    launches: Sequence[Pass],
    labels: torch.Tensor,
    values: Sequence[int],
    spacing: SpacingRows,
    max_distance: float | None,
    finish: Finish,
) -> _Call:
    listed = not is_run(values)
    numbers = [search_numbers(launch.axis, spacing, max_distance, finish) for launch in launches[1:]]
    on_host = table_of(values if listed else (), numbers, labels.dtype)
    return _Call(
        launches=launches,
        labels=labels,
        lowest=0 if listed or not values else values[0],
        listed=listed,
        numbers=numbers,
        cut=float(np.float32(finish.limit)) if finish.limit < _LARGEST else math.inf,
        table=None if on_host is None else _on_device(on_host, labels.device),
    )


def _run_on_its_device(run: Callable[[_Call, torch.Tensor], None], call: _Call, result: torch.Tensor) -> None:
    index = result.device.index if result.device.type == "cuda" else None
    if index is None or index == torch.cuda.current_device():
        run(call, result)
    else:
        with torch.cuda.device(index):  # Triton launches on the current device, in its stream
            run(call, result)


def _run(call: _Call, result: torch.Tensor) -> None:
    """Launch the passes that compute a map."""
    fields = _fields(result, call.launches)
    call.scan(fields[0])
    for i, (launch, numbers, place) in enumerate(call.searches()):
        source = fields[i]
        table = source if call.table is None else call.table
        _launch(launch, source, table, fields[i + 1], *numbers, call.cut, place)


def _run_nearest(call: _Call, result: torch.Tensor) -> None:
    """Launch the passes that compute indices of nearest voxels."""
    items, device = call.launches[0].target_items, result.device
    if len(call.launches) == 2:
        field = torch.empty(_words(call.launches[0]), dtype=torch.float32, device=device)
        fields, places = [field, result], field  # 2D needs no places
    else:  # the scan's field lies in the result: it has been read before the last pass writes there
        squared = torch.empty(items, dtype=torch.float32, device=device)
        places = torch.empty(items, dtype=torch.float32, device=device)
        fields = [result.view(torch.float32), squared, result]
    call.scan(fields[0])
    for (launch, numbers, place), source, target in zip(call.searches(), fields, fields[1:], strict=False):
        table = source if call.table is None else call.table
        _launch(launch, source, table, places, target, *numbers[:3], call.cut, place)


_LARGEST = float(np.finfo(np.float32).max)


def _reason_against(device: torch.device) -> str | None:
    if device.type == "cuda" and not torch.cuda.is_available():
        return "torch finds no CUDA or ROCm device; check the driver and that torch is a GPU build"
    try:
        kernels = importlib.import_module(_KERNELS)
    except ImportError as error:
        return f"Triton cannot be imported ({error}); pip install triton (GPU builds of torch bring it)"
    if _interpreted(kernels):
        return None if device.type == "cpu" else "TRITON_INTERPRET=1 is set; unset it to run on the GPU"
    if device.type != "cuda":
        return (
            f"it compiles for CUDA and ROCm devices, the target is on {device}; move it there, or set "
            "TRITON_INTERPRET=1 before the first use to interpret the kernels on the CPU (slow)"
        )
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _OLDEST_CAPABILITY:
        found = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return f"compute capability {found}, Triton needs 8.0 or newer; use backend 'cucim' or 'cupy'"
    return _no_compiler()


def _no_compiler() -> str | None:
    # Triton compiles its driver interface on the user's machine.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler and finds none; install gcc or clang, or set CC"
    return None


#: Compiled kernels by device and variant.
_compiled: dict[tuple[object, ...], Any] = {}


def _launch(launch: Pass, *arguments: torch.Tensor | float) -> None:
    """Launch one pass on the current device, in its current stream."""
    # Launching the compiled kernel skips Triton's look-up by argument types, a third of a launch.
    key = (arguments[0].device, launch.variant)  # type: ignore[union-attr]  # the first one is a tensor
    compiled = _compiled.get(key)
    if compiled is not None:
        constants = launch.constants.values() if _takes_constants() else ()
        compiled[(launch.grid, 1, 1)](*arguments, *launch.sizes, *constants)
        return
    kernel = getattr(_kernels(), launch.kernel)
    compiled = kernel[(launch.grid,)](*arguments, *launch.sizes, **launch.constants, **launch.options)
    if compiled is not None:  # it is None under the interpreter
        _compiled[key] = compiled


@functools.cache
def _takes_constants() -> bool:
    """Return whether a compiled kernel takes its compile-time constants as arguments: from Triton 3.3 on."""
    major, minor, *_ = importlib.import_module("triton").__version__.split(".")
    return (int(major), int(minor)) >= (3, 3)


def _words(launch: Pass) -> int:
    """Return how many 32-bit words a pass writes."""
    return -(-launch.target_items * launch.target_dtype.itemsize // 4)


def _fields(result: torch.Tensor, launches: Sequence[Pass]) -> list[torch.Tensor]:
    """Return the memory that each pass writes to; the kernels reinterpret its dtype.

    In 3D the scan's field lies in the result if it fits: it has been read before the last pass writes there.
    """
    scan, length = launches[0], _words(launches[0])
    if len(launches) == 2:
        return [torch.empty(length, dtype=torch.float32, device=result.device), result]
    fits = result.dtype == torch.float32 and result.numel() >= length
    field = result if fits else torch.empty(length, dtype=torch.float32, device=result.device)
    return [field, torch.empty(scan.target_items, dtype=torch.float32, device=result.device), result]


#: Tables of captured graphs. A replay reads them again, and nothing tells when a graph is deleted.
_captured: list[torch.Tensor] = []


def _on_device(table: npt.NDArray[np.float32], device: torch.device) -> torch.Tensor:
    # A blocking copy would wait for everything queued before it. One from pinned memory is asynchronous, and
    # torch's pinned allocator keeps the block until it is done.
    host = torch.from_numpy(table)
    if device.type == "cpu":
        return host
    host = host.pin_memory()
    if torch.cuda.is_current_stream_capturing():
        _captured.append(host)
    return host.to(device, non_blocking=True)


def _tiles(device: torch.device) -> Tiles:
    if device.type == "cpu":
        return INTERPRETER
    return NVIDIA if torch.version.hip is None else AMD


_KERNELS = "fastsdm._backends.triton_kernels"


@functools.cache
def _kernels() -> Any:
    return importlib.import_module(_KERNELS)


def _interpreted(kernels: Any) -> bool:
    # TRITON_INTERPRET takes effect when the kernels are first imported.
    return not isinstance(kernels._search_axis_kernel, kernels.triton.JITFunction)


BACKEND = TritonBackend()
