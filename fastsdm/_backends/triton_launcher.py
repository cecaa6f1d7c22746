"""Our own GPU kernels: exact, one launch per axis for the batch and all classes, straight from the labels."""

from __future__ import annotations

import importlib
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

#: float16 holds every whole number up to here, hence every distance along a row of that many voxels.
_LONGEST_HALF_ROW = 2048
#: A segment of the search is this many coarse rows, each followed by the rows up to the next one.
_COARSE_ROWS = 8
#: Chosen by count of instructions (docs/triton.md): few end rows for long axes, short ranges for short ones.
_LONGEST_SHORT_AXIS = 128
_SHORT_STEP = 8
_OLDEST_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Tiles:
    """What one program, always a single warp, works on.

    Attributes:
        rows: rows of the scan.
        columns: columns of the search.
        long_step: rows per coarse row of the search where the axis is long.
        short_registers: what a thread of the search may use where the axis is short; None: as the compiler
            likes it.
    """

    rows: int
    columns: int
    long_step: int
    short_registers: int | None = None


# With Triton 3.7 the assembler, left to itself, stops at 80 registers for sm_80 and spills.
NVIDIA = Tiles(rows=4, columns=32, long_step=16, short_registers=96)
AMD = Tiles(rows=8, columns=64, long_step=8)  # 16 would spill the row masks' registers
#: The interpreter takes time per operation, whatever its size.
INTERPRETER = Tiles(rows=2048, columns=2048, long_step=16)


@dataclass(frozen=True)
class Pass:
    """One kernel launch, and the two fields it reads and writes.

    Attributes:
        kernel: name of the kernel in ``_triton_kernels``.
        grid: number of programs.
        sizes: run-time integers, in the kernel's order.
        constants: compile-time constants.
        registers: what a thread may use, where that is bounded.
        source_dtype: of the labels or the field that it reads.
        source_items: their number of elements.
        target_dtype: of the field that it writes.
        target_items: its number of elements.
    """

    kernel: str
    grid: int
    sizes: tuple[int, ...]
    constants: dict[str, int]
    registers: int | None
    source_dtype: torch.dtype
    source_items: int
    target_dtype: torch.dtype
    target_items: int

    @property
    def options(self) -> dict[str, int | bool]:
        """What Triton is to compile with."""
        # Fusion is spelt out because its default is about to change; exactness at equal spacing needs none.
        options: dict[str, int | bool] = {"num_warps": 1, "enable_fp_fusion": True}
        # Triton knows the other name on NVIDIA only.
        return options if self.registers is None else options | {"maxnreg": self.registers}

    @property
    def bytes(self) -> int:
        """Device memory that the pass must move: its source once and its target once."""
        source = self.source_items * self.source_dtype.itemsize
        return source + self.target_items * self.target_dtype.itemsize


def passes(
    shape: Sequence[int], labels_dtype: torch.dtype, classes: int, tiles: Tiles = NVIDIA
) -> list[Pass]:
    """The launches for labels of that shape, one per spatial axis, last axis first.

    Args:
        shape: ``[B, *S]``, no size zero.
        labels_dtype: integer or bool.
        classes: K, at least 1.
        tiles: what a program works on.
    """
    batch, *spatial = shape
    voxels = math.prod(spatial)
    fields = batch * classes
    width, rows = spatial[-1], voxels // spatial[-1]
    launches = [
        Pass(
            kernel="_scan_row_kernel",
            grid=batch * _blocks(rows, tiles.rows),
            sizes=(classes, rows, width),
            constants={"ROWS": tiles.rows},
            registers=None,
            source_dtype=labels_dtype,
            source_items=batch * voxels,
            target_dtype=torch.float16 if width <= _LONGEST_HALF_ROW else torch.float32,
            target_items=fields * voxels,
        )
    ]
    for axis in reversed(range(len(spatial) - 1)):
        length, stride = spatial[axis], math.prod(spatial[axis + 1 :])
        columns = voxels // length
        is_short = length <= _LONGEST_SHORT_AXIS
        step = _SHORT_STEP if is_short else tiles.long_step
        first, final = len(launches) == 1, axis == 0
        launches.append(
            Pass(
                kernel="_search_axis_kernel",
                grid=fields * _blocks(length, _COARSE_ROWS * step) * _blocks(columns, tiles.columns),
                sizes=(classes, length, stride, columns),
                constants={"COUNTS": first, "FINAL": final, "STEP": step, "LANES": tiles.columns},
                registers=tiles.short_registers if is_short else None,
                source_dtype=launches[-1].target_dtype,
                source_items=fields * voxels,
                target_dtype=torch.float32,
                target_items=fields * voxels,
            )
        )
    return launches


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


class TritonBackend:
    """Separable signed distance map in Triton: one scan, then one bounded search per further axis."""

    name = "triton"
    exact = True

    def unavailable(self, device: torch.device) -> str | None:
        """None where Triton can compile for ``device``, or interprets the kernels on the CPU."""
        try:
            kernels = _kernels()
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

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Sequence[int],
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """See :class:`fastsdm._backends.contract.Backend`.

        Working memory beside the result: per voxel and class 4 bytes in 3D, 2 in 2D (4 where rows are longer
        than 2048 voxels). Squared distances are float32: at equal spacing exact up to 4096 voxels.
        """
        device = labels.device
        shape = (labels.shape[0], len(classes), *labels.shape[1:])
        result = torch.empty(shape, dtype=torch.float32, device=device)
        if result.numel() == 0:
            return result
        labels = _readable(labels)
        launches = passes(labels.shape, labels.dtype, len(classes), _tiles(device))
        fields = _fields(result, launches)
        values = _on_device(torch.tensor(classes, dtype=_value_dtype(labels.dtype, classes)), device)
        tables = _on_device(_axis_tables(spacing, max_distance), device)

        with torch.cuda.device(labels.get_device()):  # Triton launches on the current device, in its stream
            _launch(launches[0], labels, values, fields[0])
            for launch, source, table, target in zip(
                launches[1:], fields[:-1], tables, fields[1:], strict=True
            ):
                _launch(launch, source, table, target)
        return result


def _no_compiler() -> str | None:
    # Triton builds the part that talks to the driver on the user's machine.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler and finds none; install gcc or clang, or set CC"
    return None


def _launch(launch: Pass, *tensors: torch.Tensor) -> None:
    kernel = getattr(_kernels(), launch.kernel)
    kernel[(launch.grid,)](*tensors, *launch.sizes, **launch.constants, **launch.options)


def _fields(result: torch.Tensor, launches: list[Pass]) -> list[torch.Tensor]:
    """Where the passes write: the last to the result, the one before to scratch, a third to the result too.

    The scan's field fits into the result's memory, and has been read when the last pass writes there.
    """
    scratch = torch.empty(result.shape, dtype=launches[-2].target_dtype, device=result.device)
    return [result.view(launches[0].target_dtype), scratch, result][-len(launches) :]


def _axis_tables(spacing: torch.Tensor, max_distance: float | None) -> torch.Tensor:
    """``[search passes, B, 4]``: ratio of squared units to the axis before, limit, squared unit, and padding.

    A search measures in voxels of its own axis: at equal spacing all its numbers are whole, and float32 adds
    them without rounding. The padding keeps each table on the 16 bytes that Triton compiles for.
    """
    units = spacing.flip(1)  # in the order of the passes: last axis first
    before, unit = units[:, :-1], units[:, 1:]
    limit = torch.full_like(unit, math.inf) if max_distance is None else max_distance / unit
    table = torch.stack([(before / unit) ** 2, limit, unit**2, torch.zeros_like(unit)], dim=-1)
    return table.transpose(0, 1).to(torch.float32).contiguous()


def _on_device(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    # From pinned memory the copy is queued on the stream and the host goes on; torch's pinned allocator keeps
    # the block until the copy is done. A blocking copy would wait for everything queued before it.
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)


def _readable(labels: torch.Tensor) -> torch.Tensor:
    """The same bits under a type that Triton loads and compares as an integer."""
    same_bits = {torch.bool: torch.uint8, torch.uint64: torch.int64}
    return labels.view(same_bits.get(labels.dtype, labels.dtype))


def _value_dtype(labels_dtype: torch.dtype, classes: Sequence[int]) -> torch.dtype:
    """In which labels and class values are compared: it holds both without wrapping round."""
    narrow = labels_dtype.itemsize < 4 or labels_dtype == torch.int32
    return torch.int32 if narrow and all(-(2**31) <= value < 2**31 for value in classes) else torch.int64


def _tiles(device: torch.device) -> Tiles:
    if device.type == "cpu":
        return INTERPRETER
    return NVIDIA if torch.version.hip is None else AMD


def _kernels() -> Any:
    return importlib.import_module("fastsdm._backends.triton_kernels")


def _interpreted(kernels: Any) -> bool:
    # The environment decides it when the kernels are first imported, and not afterwards.
    return not isinstance(kernels._search_axis_kernel, kernels.triton.JITFunction)


BACKEND = TritonBackend()
