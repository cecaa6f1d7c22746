"""Registers and spills of every kernel that `triton` can launch: `python -m tests._backends.compiled_triton`.

The kernels are compiled ahead of time, which takes no GPU. Registers per thread limit how many programs a
multiprocessor holds; a spill is a register that lives in memory.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.report.markdown import table
from fastsdm._backends import triton_launcher, triton_passes

_POINTERS = {
    torch.uint8: "*u8",
    torch.int8: "*i8",
    torch.int16: "*i16",
    torch.uint16: "*u16",
    torch.int32: "*i32",
    torch.uint32: "*u32",
    torch.int64: "*i64",
    torch.uint64: "*u64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}
LABELS = tuple(dtype for dtype in _POINTERS if not dtype.is_floating_point)
RESULTS = tuple(dtype for dtype in _POINTERS if dtype.is_floating_point)
#: 3D and 2D, with rows on both sides of the only choice that the launcher makes by size.
_SHAPES = ((1, 40, 40, 32), (1, 40, 40, 4096), (1, 40, 32), (1, 40, 4096))
_FLOATS = ("ratio", "limit", "area", "shift_inside", "shift_outside", "missing", "cut")


@dataclass(frozen=True)
class Target:
    """A chip to compile for."""

    backend: str
    arch: int | str
    lanes: int
    tiles: triton_passes.Tiles


TARGETS = {
    "sm_80": Target("cuda", 80, 32, triton_passes.NVIDIA),
    "sm_90": Target("cuda", 90, 32, triton_passes.NVIDIA),
    "gfx942": Target("hip", "gfx942", 64, triton_passes.AMD),
}


@dataclass(frozen=True)
class Variant:
    """A kernel with everything it is compiled for: types of pointers, constants; values do not matter."""

    kernel: str
    pointers: tuple[str, ...]
    constants: tuple[tuple[str, int], ...]
    options: tuple[tuple[str, int | bool], ...]

    def __str__(self) -> str:
        constants = dict(self.constants)
        field = "fp16" if constants["HALF"] else "fp32"
        if self.kernel == "_scan_row_kernel":
            return f"scan {self.pointers[0][1:]}{' mask' if constants['MASK'] else ''} to {field}"
        if self.kernel == "_nearest_axis_kernel":
            target = "indices" if constants["FINAL"] else "fp32 and places"
            source = field if constants["COUNTS"] else f"{field} squared and places"
            return f"nearest {source} to {target}"
        target = f"a map of {self.pointers[2][1:]}" if constants["FINAL"] else self.pointers[2][1:]
        return f"search {field}{'' if constants['COUNTS'] else ' squared'} to {target}"


@dataclass(frozen=True)
class Usage:
    """Registers per thread (on AMD vector registers) and bytes or registers spilled."""

    registers: int
    spills: int

    def __str__(self) -> str:
        return f"{self.registers} ({self.spills} spilled)" if self.spills else str(self.registers)


def variants(tiles: triton_passes.Tiles) -> Iterator[Variant]:
    """Every variant the launcher can ask for, found by asking it for the launches of many shapes."""
    found = {
        Variant(
            launch.kernel, _pointers(launch), tuple(launch.constants.items()), tuple(launch.options.items())
        )
        for labels in LABELS
        for result in RESULTS
        for shape in _SHAPES
        for classes in (None, 1)
        for launch in (
            *triton_passes.passes(shape, labels, classes, tiles, dtype=result),
            *triton_passes.nearest_passes(shape, labels, classes, tiles),
        )
    }
    yield from sorted(found, key=str)


def _pointers(launch: triton_passes.Pass) -> tuple[str, ...]:
    # Fields and the table are allocated as float32, whatever is in them.
    if launch.kernel == "_scan_row_kernel":
        return _POINTERS[launch.source_dtype], "*fp32", "*fp32"
    inner = ("*fp32",) if launch.kernel == "_search_axis_kernel" else ("*fp32", "*fp32")
    return "*fp32", *inner, _POINTERS[launch.target_dtype]


def usage(variant: Variant, target_name: str) -> Usage:
    """What the assembler says of the variant."""
    made = assembly(variant, target_name)
    return (
        _amd_usage(made["amdgcn"]) if TARGETS[target_name].backend == "hip" else _nvidia_usage(made["cubin"])
    )


@functools.cache
def assembly(variant: Variant, target_name: str) -> dict[str, Any]:
    """The variant compiled for the target: text and machine code by the compiler's names for them."""
    import triton  # noqa: PLC0415  # optional: only this command and its tests compile
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource  # noqa: PLC0415

    target = TARGETS[target_name]
    kernel = getattr(triton_launcher._kernels(), variant.kernel)
    constants = dict(variant.constants)
    sizes = [name for name in kernel.arg_names[len(variant.pointers) :] if name not in constants]
    signature = dict(zip(kernel.arg_names, variant.pointers, strict=False))
    signature |= {name: "fp32" if name in _FLOATS else "i32" for name in sizes}
    signature |= dict.fromkeys(constants, "constexpr")
    compiled = triton.compile(
        ASTSource(kernel, signature, constexprs=constants),
        target=GPUTarget(target.backend, target.arch, target.lanes),
        options=dict(variant.options),
    )
    return dict(compiled.asm)


def _nvidia_usage(cubin: bytes) -> Usage:
    from triton import knobs  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (line,) = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    registers, stack, local = map(int, line)
    return Usage(registers, stack + local)


def _amd_usage(assembly: str) -> Usage:
    def count(name: str) -> int:
        (value,) = re.findall(rf"\.{name}: +(\d+)", assembly)
        return int(value)

    return Usage(count("vgpr_count"), count("vgpr_spill_count") + count("sgpr_spill_count"))


def report() -> str:
    """A Markdown table: registers per thread of every variant, spills in brackets, a dash where unused."""
    used = {
        name: {str(variant): usage(variant, name) for variant in variants(target.tiles)}
        for name, target in TARGETS.items()
    }
    rows = [
        (variant, *(str(used[name].get(variant, "-")) for name in TARGETS))
        for variant in sorted(set().union(*used.values()))
    ]
    return table(("variant", *TARGETS), rows)


if __name__ == "__main__":
    print(report())
