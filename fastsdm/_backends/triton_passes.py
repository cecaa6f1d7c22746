"""Launches of the `triton` backend: kernel, number of programs, sizes and constants of each pass."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch

#: float16 holds every whole number up to this one, hence every distance along a row of that many voxels.
_LONGEST_HALF_ROW = 2048
#: Coarse rows of a segment; each is followed by the rows up to the next one.
COARSE_ROWS = 8
_BEYOND_32_BITS = 2**31
#: A voxel's row and column in its plane take 16 bits each, with a sign.
_LONGEST_OF_A_PLANE = 2**15


@dataclass(frozen=True)
class Tiles:
    """Sizes of what one program, always a single warp, works on.

    Attributes:
        rows: rows of the scan.
        columns: columns of the search.
        step: rows per coarse row of the search.
        registers: most registers of a thread of the search; None leaves it to the compiler.
        nearest_step: ``step`` of the search for nearest voxels.
        nearest_registers: ``registers`` of the search for nearest voxels.
    """

    rows: int
    columns: int
    step: int
    registers: int | None = None
    nearest_step: int = 8
    nearest_registers: int | None = None


# Measured (docs/triton.md). Without a limit, Triton 3.7's assembler stops at 80 for sm_80 and spills. For
# nearest voxels nothing was measured: the numbers are the closest ones without a spill.
NVIDIA = Tiles(rows=4, columns=32, step=8, registers=96, nearest_registers=104)
AMD = Tiles(rows=8, columns=64, step=8, nearest_step=4)
#: The interpreter takes time per operation, whatever its size.
INTERPRETER = Tiles(rows=2048, columns=2048, step=16, nearest_step=16)


@dataclass(frozen=True)
class Pass:
    """One kernel launch, and the two fields it reads and writes.

    Attributes:
        kernel: name of the kernel in ``triton_kernels``.
        axis: spatial axis it works along.
        grid: number of programs.
        sizes: run-time integers, in the kernel's order.
        constants: compile-time constants, in the kernel's order.
        registers: most registers of a thread; None leaves it to the compiler.
        source_dtype: dtype of the labels or field that it reads.
        source_items: number of elements that it reads.
        target_dtype: dtype of the field or map that it writes.
        target_items: number of elements that it writes.
    """

    kernel: str
    axis: int
    grid: int
    sizes: tuple[int, ...]
    constants: dict[str, int]
    registers: int | None
    source_dtype: torch.dtype
    source_items: int
    target_dtype: torch.dtype
    target_items: int

    @cached_property
    def options(self) -> dict[str, int | bool]:
        """Compile options for Triton."""
        # Triton 3.10 changes the default of fusion. At equal spacing results are exact with it and without.
        options: dict[str, int | bool] = {"num_warps": 1, "enable_fp_fusion": True}
        # Triton accepts maxnreg on NVIDIA only.
        return options if self.registers is None else options | {"maxnreg": self.registers}

    @cached_property
    def variant(self) -> tuple[object, ...]:
        """Key that is equal for launches of the same compiled kernel."""
        wide = tuple(size >= _BEYOND_32_BITS for size in self.sizes)
        constants = tuple(self.constants.values())
        return self.kernel, self.source_dtype, self.target_dtype, constants, self.registers, wide

    @property
    def bytes(self) -> int:
        """Bytes of device memory that the pass must move: its source once and its target once."""
        source = self.source_items * self.source_dtype.itemsize
        return source + self.target_items * self.target_dtype.itemsize


@lru_cache(maxsize=1024)
def passes(
    shape: tuple[int, ...],
    labels_dtype: torch.dtype,
    classes: int | None,
    tiles: Tiles = NVIDIA,
    start: tuple[int, ...] | None = None,
    size: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Pass, ...]:
    """Return the launches for labels of that shape, one per spatial axis, last axis first.

    Args:
        shape: ``[B, *S]``, no size zero.
        labels_dtype: an integer dtype that Triton loads.
        classes: K, at least 1; None for a mask.
        tiles: sizes of a program.
        start: first voxel of the region; None for the whole volume.
        size: shape of the region, no size zero; None for the whole volume.
        dtype: dtype of the result.

    Raises:
        ValueError: the region reaches beyond the volume.
    """
    batch, *spatial = shape
    first = [0] * len(spatial) if start is None else list(start)
    region = spatial if size is None else list(size)
    for axis, (low, count, whole) in enumerate(zip(first, region, spatial, strict=True)):
        if low < 0 or low + count > whole:
            raise ValueError(
                f"region: must lie inside the volume, whose axis {axis} has {whole} voxels; "
                f"got {count} from voxel {low} on"
            )
    count = 1 if classes is None else classes
    fields = batch * count
    width, rows = spatial[-1], math.prod(spatial[:-1])
    half = width <= _LONGEST_HALF_ROW
    scan = Pass(
        kernel="_scan_row_kernel",
        axis=len(spatial) - 1,
        grid=batch * _blocks(rows, tiles.rows),
        sizes=(count, rows, width),
        constants={
            "MASK": classes is None,
            "WIDE": classes is not None and labels_dtype.itemsize >= 4,
            "HALF": half,
            "ROWS": tiles.rows,
        },
        registers=None,
        source_dtype=labels_dtype,
        source_items=batch * rows * width,
        target_dtype=torch.float16 if half else torch.float32,
        target_items=fields * rows * width,
    )
    searches: list[Pass] = []
    for axis in reversed(range(len(spatial) - 1)):
        length, planes, stride = spatial[axis], math.prod(spatial[:axis]), math.prod(spatial[axis + 1 :])
        # Rows and columns that later passes do not read are left out. Only the last two axes cut columns,
        # which leaves groups of neighbours.
        group = region[-1]
        columns = planes * math.prod(region[axis + 1 :])
        pitch = width if axis + 2 < len(spatial) else length * stride
        offset = sum(low * math.prod(spatial[i + 1 :]) for i, low in enumerate(first) if i > axis)
        is_first, is_final = not searches, axis == 0
        segments = _blocks(region[axis], COARSE_ROWS * tiles.step)
        searches.append(
            Pass(
                kernel="_search_axis_kernel",
                axis=axis,
                grid=fields * segments * _blocks(columns, tiles.columns),
                sizes=(
                    count, length, stride, planes, first[axis], region[axis], columns, group, pitch, offset,
                ),
                constants={
                    "COUNTS": is_first,
                    "HALF": is_first and half,
                    "FINAL": is_final,
                    "STEP": tiles.step,
                    "LANES": tiles.columns,
                },
                registers=tiles.registers,
                source_dtype=scan.target_dtype if is_first else torch.float32,
                source_items=fields * length * columns,
                target_dtype=dtype if is_final else torch.float32,
                target_items=fields * region[axis] * columns,
            )
        )  # fmt: skip
    return scan, *searches


@lru_cache(maxsize=1024)
def nearest_passes(
    shape: tuple[int, ...], labels_dtype: torch.dtype, classes: int | None, tiles: Tiles = NVIDIA
) -> tuple[Pass, ...]:
    """Return the launches that find nearest voxels: those of :func:`passes`, with other searches.

    Raises:
        ValueError: a plane of a volume has more rows or columns than fit into 16 bits each.
    """
    spatial = shape[1:]
    if len(spatial) == 3 and max(spatial[1:]) > _LONGEST_OF_A_PLANE:
        raise ValueError(
            f"target: backend 'triton' finds nearest voxels in volumes of at most {_LONGEST_OF_A_PLANE} "
            f"voxels along the second and third axis, got shape {spatial}; use backend='scipy' on the CPU"
        )
    tiles = replace(tiles, step=tiles.nearest_step, registers=tiles.nearest_registers)
    scan, *searches = passes(shape, labels_dtype, classes, tiles)
    found: list[Pass] = []
    for search in searches:
        count, length, stride, planes, _first, _rows, columns, width, pitch, _offset = search.sizes
        final = bool(search.constants["FINAL"])
        # Each squared distance is stored with the place of its voxel, of the same size.
        found.append(
            replace(
                search,
                kernel="_nearest_axis_kernel",
                sizes=(count, length, stride, planes, columns, width, pitch),
                constants={
                    "COUNTS": search.constants["COUNTS"],
                    "HALF": search.constants["HALF"],
                    "FINAL": final,
                    "STEP": tiles.step,
                    "LANES": tiles.columns,
                },
                source_items=search.source_items * (1 if search.constants["COUNTS"] else 2),
                target_dtype=torch.int32 if final else torch.float32,
                target_items=search.target_items * (len(spatial) if final else 2),
            )
        )
    return scan, *found


def _blocks(size: int, block: int) -> int:
    return -(-size // block)
