"""Our own GPU kernels: exact, one launch per axis for the whole batch and all classes, straight from the labels."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

#: float16 holds every integer up to here, hence every distance along a row of that many voxels.
_LONGEST_HALF_ROW = 2048
_COARSE_ROWS = 8
_OLDEST_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Tiles:
    """What one program, always a single warp, works on: rows of the scan, columns of the search."""

    rows: int
    columns: int


NVIDIA = Tiles(rows=8, columns=32)
AMD = Tiles(rows=16, columns=64)
#: The interpreter's cost is per operation, whatever its size.
INTERPRETER = Tiles(rows=512, columns=512)


@dataclass(frozen=True)
class Pass:
    """One kernel launch, and the two fields it reads and writes.

    Attributes:
        kernel: name of the kernel in ``_triton_kernels``.
        grid: number of programs.
        sizes: run-time integers, in the kernel's order.
        constants: compile-time constants.
        source_dtype: of what it reads: labels or the field so far.
        target_dtype: of the field it writes.
        source_items: elements of what it reads.
        target_items: elements of the field it writes.
    """

    kernel: str
    grid: int
    sizes: tuple[int, ...]
    constants: dict[str, int] = field(hash=False)
    source_dtype: torch.dtype
    target_dtype: torch.dtype
    source_items: int
    target_items: int

    @property
    def bytes(self) -> int:
        """Device memory that the pass must read and write at least; re-reads are left to the caches."""
        return self.source_items * self.source_dtype.itemsize + self.target_items * self.target_dtype.itemsize


def passes(
    shape: Sequence[int], labels_dtype: torch.dtype, classes: int, tiles: Tiles = NVIDIA
) -> list[Pass]:
    """The launches for labels of that shape.

    Args:
        shape: ``[B, *S]``, no size zero.
        labels_dtype: integer or bool.
        classes: K, at least 1.
        tiles: what a program works on.

    Returns:
        One pass per spatial axis, last axis first.
    """
    batch, *spatial = shape
    voxels = math.prod(spatial)
    items = batch * classes * voxels
    launches = [_scan_pass(batch, voxels, spatial[-1], labels_dtype, classes, tiles)]
    for axis in reversed(range(len(spatial) - 1)):
        length, stride = spatial[axis], math.prod(spatial[axis + 1 :])
        columns = voxels // length
        step = _rows_per_coarse_row(length)
        launches.append(
            Pass(
                kernel="_search_axis_kernel",
                grid=batch * classes * _blocks(length, _COARSE_ROWS * step) * _blocks(columns, tiles.columns),
                sizes=(classes, length, stride, columns),
                constants={
                    "COUNTS": len(launches) == 1,
                    "FINAL": axis == 0,
                    "STEP": step,
                    "LANES": tiles.columns,
                },
                source_dtype=launches[-1].target_dtype,
                target_dtype=torch.float32,
                source_items=items,
                target_items=items,
            )
        )
    return launches


def _scan_pass(
    batch: int, voxels: int, width: int, labels_dtype: torch.dtype, classes: int, tiles: Tiles
) -> Pass:
    rows = voxels // width
    return Pass(
        kernel="_scan_row_kernel",
        grid=batch * _blocks(rows, tiles.rows),
        sizes=(classes, rows, width),
        constants={"ROWS": tiles.rows},
        source_dtype=labels_dtype,
        target_dtype=torch.float16 if width <= _LONGEST_HALF_ROW else torch.float32,
        source_items=batch * voxels,
        target_items=batch * classes * voxels,
    )


def _rows_per_coarse_row(length: int) -> int:
    # By count of instructions (docs/triton.md): long axes gain from fewer end rows, short ones from shorter ranges.
    return 16 if length > 128 else 8


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
            return f"Triton cannot be imported ({error}); pip install triton (it comes with torch for CUDA and ROCm)"
        if _interpreted(kernels):
            return None if device.type == "cpu" else "TRITON_INTERPRET=1 is set; unset it to run on the GPU"
        if device.type != "cuda":
            return (
                f"it compiles for CUDA and ROCm devices, the target is on {device}; move it there, or set "
                "TRITON_INTERPRET=1 before the first use to interpret the kernels on the CPU (slow: for tests)"
            )
        if not torch.cuda.is_available():
            return "torch finds no CUDA or ROCm device; check the driver and that torch is a GPU build"
        if torch.version.hip is None and torch.cuda.get_device_capability(device) < _OLDEST_CAPABILITY:
            found = ".".join(map(str, torch.cuda.get_device_capability(device)))
            return f"compute capability {found}, Triton needs 8.0 or newer; use backend 'cupy' or 'cucim'"
        return None

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Sequence[int],
        spacing: torch.Tensor,
        max_distance: float | None,
    ) -> torch.Tensor:
        """See :class:`fastsdm._types.Backend`.

        Working memory beside the result: 4 bytes a voxel and class in 3D, 2 in 2D (4 where a row has more
        than 2048 voxels). The squared distance is a float32: at equal spacing exact up to 4096 voxels.
        """
        device = labels.device
        result = torch.empty((labels.shape[0], len(classes), *labels.shape[1:]), device=device)
        if result.numel() == 0:
            return result
        labels = _readable(labels)
        launches = passes(labels.shape, labels.dtype, len(classes), _tiles(device))
        fields = _fields(result, launches)
        values = _on_device(torch.tensor(classes, dtype=_value_dtype(labels.dtype, classes)), device)
        table = _on_device(_axis_table(spacing, max_distance), device)

        kernels = _kernels()
        with torch.cuda.device_of(labels):  # Triton launches on the current device and its current stream
            _launch(kernels, launches[0], labels, values, fields[0])
            for launch, source, target, axis in zip(launches[1:], fields, fields[1:], table, strict=False):
                _launch(kernels, launch, source, axis, target)
        return result


def _launch(kernels: Any, launch: Pass, *tensors: torch.Tensor) -> None:
    kernel = getattr(kernels, launch.kernel)
    options = {"num_warps": 1, "enable_fp_fusion": True}  # the default of the latter varies
    kernel[(launch.grid,)](*tensors, *launch.sizes, **launch.constants, **options)


def _fields(result: torch.Tensor, launches: list[Pass]) -> list[torch.Tensor]:
    """Where each pass writes: the last to the result, the one before to scratch, in 3D the first to the result too.

    The scan's field is at most as wide as the result, and gone before the last pass writes there.
    """
    scratch = torch.empty(result.shape, dtype=launches[-2].target_dtype, device=result.device)
    return [result.view(launches[0].target_dtype), scratch, result][-len(launches) :]


def _axis_table(spacing: torch.Tensor, max_distance: float | None) -> torch.Tensor:
    """``[search passes, B, 4]``: what a voxel of the axis before measures, the limit, the area, and padding.

    Lengths are in voxels of the axis at work, so that equal spacing means whole numbers, which float32 adds without
    rounding. The padding keeps every axis' table on the 16 bytes that Triton compiles for.
    """
    units = spacing.flip(1)  # in the order of the passes: last axis first
    before, unit = units[:, :-1], units[:, 1:]
    limit = torch.full_like(unit, math.inf) if max_distance is None else max_distance / unit
    table = torch.stack([(before / unit) ** 2, limit, unit**2, torch.zeros_like(unit)], dim=-1)
    return table.transpose(0, 1).to(torch.float32).contiguous()


def _on_device(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    # From pinned memory the copy is queued on the stream, and the host does not wait for it; from pageable memory
    # torch would wait. torch's pinned allocator keeps the block until the copy is done.
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)


def _readable(labels: torch.Tensor) -> torch.Tensor:
    # Same bits under a type that Triton loads and compares as an integer.
    same_bits = {torch.bool: torch.uint8, torch.uint64: torch.int64}
    return labels.view(same_bits.get(labels.dtype, labels.dtype))


def _value_dtype(labels_dtype: torch.dtype, classes: Sequence[int]) -> torch.dtype:
    """Type in which labels and class values are compared: it holds both without wrapping round."""
    narrow = labels_dtype.itemsize < 4 or labels_dtype == torch.int32
    return torch.int32 if narrow and all(-(2**31) <= value < 2**31 for value in classes) else torch.int64


def _tiles(device: torch.device) -> Tiles:
    if device.type == "cpu":
        return INTERPRETER
    return NVIDIA if torch.version.hip is None else AMD


def _kernels() -> Any:
    return importlib.import_module("fastsdm.backends._triton_kernels")


def _interpreted(kernels: Any) -> bool:
    # Decided by the environment at the kernels' first import, and not changed by it afterwards.
    return not isinstance(kernels._search_axis_kernel, kernels.triton.JITFunction)


BACKEND = TritonBackend()
