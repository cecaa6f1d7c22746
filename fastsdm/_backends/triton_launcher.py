"""Our own GPU kernels: exact, one launch per axis for the batch and all classes, straight from the labels."""

from __future__ import annotations

import functools
import importlib
import math
import os
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastsdm._backends.contract import Finish, SpacingRows
from fastsdm._backends.triton_passes import AMD, INTERPRETER, NVIDIA, Pass, Tiles, passes

_OLDEST_CAPABILITY = (8, 0)
_PLAIN = Finish(shifts=(0.0,), both_sides=False, missing=(math.inf,), limit=math.inf)
#: What Triton loads and compares as an integer with the same bits.
_SAME_BITS = {torch.bool: torch.uint8, torch.uint64: torch.int64}
_NOT_IN_TABLE = -1
#: ratio, limit, area, shift inside, shift outside, missing: a search's numbers for one sample.
_Numbers = tuple[float, float, float, float, float, float]


class TritonBackend:
    """Separable signed distance map in Triton: one scan, then one bounded search per further axis."""

    name = "triton"
    exact = True
    device_types = ("cuda",)

    def __init__(self) -> None:
        self._usable: set[torch.device] = set()

    def unavailable(self, device: torch.device) -> str | None:
        """None where Triton can compile for ``device``, or interprets the kernels on the CPU."""
        if device in self._usable:
            return None
        reason = _reason_against(device)
        if reason is None:
            self._usable.add(device)
        return reason

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Sequence[int],
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """See :class:`fastsdm._backends.contract.Backend`."""
        rows = tuple(map(tuple, spacing.tolist()))
        rows = rows[:1] if len(set(rows)) == 1 else rows
        shape = labels.shape[1:]
        return self.finished_region(
            labels, classes, rows, max_distance, _PLAIN, [0] * len(shape), shape, torch.float32
        )

    def finished_region(
        self,
        labels: torch.Tensor,
        classes: Sequence[int] | None,
        spacing: SpacingRows,
        max_distance: float | None,
        finish: Finish,
        start: Sequence[int],
        size: Sequence[int],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """See :class:`fastsdm._backends.contract.FusedBackend`.

        Working memory beside the result: per voxel of the volume and class 4 bytes in 3D, 2 in 2D; 2 more in
        3D where the result is not float32 or smaller than the volume. Twice the 2 where rows are longer than
        2048 voxels. Squared distances are float32: at equal spacing exact up to 4096 voxels.
        """
        device = labels.device
        count = 1 if classes is None else len(classes)
        result = torch.empty((labels.shape[0], count, *size), dtype=dtype, device=device)
        if result.numel() == 0:
            return result
        if labels.dtype in _SAME_BITS:
            labels = labels.view(_SAME_BITS[labels.dtype])
        launches = passes(
            tuple(labels.shape), labels.dtype, count, _tiles(device), tuple(start), tuple(size), dtype
        )
        numbers = [_numbers(launch.axis, spacing, max_distance, finish) for launch in launches[1:]]
        values = [0] if classes is None else classes
        listed = not _is_run(values)
        table = _table(values if listed else (), numbers, labels.dtype, device)

        index = device.index if device.type == "cuda" else None
        if index is None or index == torch.cuda.current_device():
            _run(launches, labels, result, values[0], listed, classes is None, numbers, finish.limit, table)
        else:
            with torch.cuda.device(index):  # Triton launches on the current device, in its stream
                _run(
                    launches, labels, result, values[0], listed, classes is None, numbers, finish.limit, table
                )
        return result


def _run(
    launches: Sequence[Pass],
    labels: torch.Tensor,
    result: torch.Tensor,
    lowest: int,
    listed: bool,
    negated: bool,
    numbers: list[list[_Numbers]],
    limit: float,
    table: torch.Tensor | None,
) -> None:
    """Launch the passes.

    Args:
        launches: of all passes.
        labels: integer.
        result: what the last pass writes.
        lowest: the first class value.
        listed: whether class values are in the table; else they are ``lowest``, ``lowest + 1``, ...
        negated: whether all labels but ``lowest`` are inside.
        numbers: for each search those of all samples, or of each.
        limit: the result is cut to it; may be infinite.
        table: the class values and numbers that are not arguments of the kernels.
    """
    fields = _fields(result, launches)
    scan, *searches = launches
    _launch(
        scan, labels, fields[0] if table is None else table, fields[0], int(listed), 0 if listed else lowest,
        int(negated),
    )  # fmt: skip
    place = 2 * scan.sizes[0] if listed else 0  # a class value takes the place of two numbers
    cut = float(np.float32(limit)) if limit < _LARGEST else math.inf
    for i, (launch, rows) in enumerate(zip(searches, numbers, strict=True)):
        in_table = len(rows) > 1
        source = fields[i]
        _launch(
            launch, source, source if table is None else table, fields[i + 1], *rows[0], cut,
            place if in_table else _NOT_IN_TABLE,
        )  # fmt: skip
        place += len(rows) * len(rows[0]) if in_table else 0


_LARGEST = float(np.finfo(np.float32).max)


def _reason_against(device: torch.device) -> str | None:
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
    if not torch.cuda.is_available():
        return "torch finds no CUDA or ROCm device; check the driver and that torch is a GPU build"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _OLDEST_CAPABILITY:
        found = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return f"compute capability {found}, Triton needs 8.0 or newer; use backend 'cucim' or 'cupy'"
    return _no_compiler()


def _no_compiler() -> str | None:
    # Triton builds the part that talks to the driver on the user's machine.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler and finds none; install gcc or clang, or set CC"
    return None


#: What Triton compiled, by device and by all that a compiled kernel depends on.
_compiled: dict[tuple[object, ...], Any] = {}


def _launch(launch: Pass, *arguments: torch.Tensor | float) -> None:
    """Launch one pass on the current device, in its current stream."""
    # Asking the compiled kernel saves a third of a launch: Triton need not find it by its arguments' types.
    key = (arguments[0].device, launch.variant)  # type: ignore[union-attr]  # the first one is a tensor
    compiled = _compiled.get(key)
    if compiled is not None:
        constants = launch.constants.values() if _takes_constants() else ()
        compiled[(launch.grid, 1, 1)](*arguments, *launch.sizes, *constants)
        return
    kernel = getattr(_kernels(), launch.kernel)
    compiled = kernel[(launch.grid,)](*arguments, *launch.sizes, **launch.constants, **launch.options)
    if compiled is not None:  # the interpreter compiles nothing
        _compiled[key] = compiled


@functools.cache
def _takes_constants() -> bool:
    """Whether a compiled kernel takes its compile-time constants as arguments: it does from Triton 3.3 on."""
    major, minor, *_ = importlib.import_module("triton").__version__.split(".")
    return (int(major), int(minor)) >= (3, 3)


def _fields(result: torch.Tensor, launches: Sequence[Pass]) -> list[torch.Tensor]:
    """Memory that the passes write to, one after the other; the kernels know which type is in it.

    In 3D the scan's field lies in the result where it fits: it has been read when the last pass writes there.
    """
    scan = launches[0]
    length = -(-scan.target_items * scan.target_dtype.itemsize // 4)
    if len(launches) == 2:
        return [torch.empty(length, dtype=torch.float32, device=result.device), result]
    fits = result.dtype == torch.float32 and result.numel() >= length
    field = result if fits else torch.empty(length, dtype=torch.float32, device=result.device)
    return [field, torch.empty(scan.target_items, dtype=torch.float32, device=result.device), result]


def _is_run(values: Sequence[int]) -> bool:
    """Whether class values are ``lo``, ``lo + 1``, ..., each within 32 bits."""
    low, count = values[0], len(values)
    return low >= -(2**31) and low + count <= 2**31 and list(values) == list(range(low, low + count))


def _numbers(axis: int, spacing: SpacingRows, max_distance: float | None, finish: Finish) -> list[_Numbers]:
    """A search's numbers: those of all samples, or of each.

    A search measures in voxels of its own axis: at equal spacing all its numbers are whole, and float32 adds
    them without rounding.
    """
    rows = max(len(spacing), len(finish.shifts), len(finish.missing))
    numbers: list[_Numbers] = []
    for i in range(rows):
        steps = spacing[i % len(spacing)]
        shift = finish.shifts[i % len(finish.shifts)]
        unit = steps[axis]
        ratio = steps[axis + 1] / unit
        numbers.append(
            (
                ratio * ratio,
                math.inf if max_distance is None else max_distance / unit,
                unit * unit,
                shift,
                shift if finish.both_sides else 0.0,
                finish.missing[i % len(finish.missing)],
            )
        )
    return numbers


def _table(
    values: Sequence[int], numbers: list[list[_Numbers]], labels_dtype: torch.dtype, device: torch.device
) -> torch.Tensor | None:
    """Class values (64-bit integers), then the numbers per sample of each search; None where there are none.

    Returns:
        Flat float32, on its way to ``device``.
    """
    rows = [row for search in numbers if len(search) > 1 for row in search]
    if not values and not rows:
        return None
    with np.errstate(over="ignore"):  # a limit beyond float32 is none
        table = np.array(rows, np.float64).astype(np.float32).ravel()
    return _on_device(np.concatenate([_class_values(values, labels_dtype).view(np.float32), table]), device)


def _class_values(values: Sequence[int], labels_dtype: torch.dtype) -> npt.NDArray[np.int64]:
    """The values as the kernel compares them."""
    if labels_dtype.itemsize < 4:  # in 32 bits; what lies beyond equals no label there either
        values = [min(max(value, -(2**31)), 2**31 - 1) for value in values]
    return np.array([value - 2**64 if value >= 2**63 else value for value in values], np.int64)


#: Tables that a captured graph reads again at every replay; there is no telling when the graph is gone.
_captured: list[torch.Tensor] = []


def _on_device(table: npt.NDArray[np.float32], device: torch.device) -> torch.Tensor:
    # From pinned memory the copy is queued on the stream and the host goes on; torch's pinned allocator keeps
    # the block until the copy is done. A blocking copy would wait for everything queued before it.
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
    # The environment decides it when the kernels are first imported, and not afterwards.
    return not isinstance(kernels._search_axis_kernel, kernels.triton.JITFunction)


BACKEND = TritonBackend()
