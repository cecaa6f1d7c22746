"""Device memory and launches of a signed map, counted, not timed: a table of docs/triton.md.

python -m benchmarks.studies.traffic

Ours is counted from the launches that the backend itself makes (`triton_passes.passes`): every pass reads
its source once and writes its target once; repeated reads are left to the caches.

cuCIM's is counted the same way from its source (cuCIM 26.10, `core/operations/morphology/_pba_3d.py` and
`cuda/pba_kernels_3d.h`), which follows the parallel banding algorithm (Cao et al. 2010,
doi:10.1145/1730804.1730818). One call measures one unsigned distance in one volume, so a signed map takes two
calls, each after padding to a cube of a multiple of 32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import typer

from benchmarks.report.markdown import table
from fastsdm._backends import triton_passes

SHAPES = ((8, 128, 128, 128), (1, 64, 512, 512), (1, 512, 512, 512))
_PADDING = 32
#: Sites are packed into 32 bits, 10 a coordinate, or into 64 where the cube is larger.
_LONGEST_32_BIT_AXIS = 1024


@dataclass(frozen=True)
class Traffic:
    """What one call costs.

    Attributes:
        launches: kernels and fills put on the stream.
        bytes: device memory read and written, at least.
        voxels: of the result, samples times classes times volume.
    """

    launches: int
    bytes: int
    voxels: int

    @property
    def bytes_per_voxel(self) -> float:
        """Bytes per voxel and class."""
        return self.bytes / self.voxels


@dataclass(frozen=True)
class _Step:
    """Launches of one kind in cuCIM's transform, and what each moves per voxel of the padded cube."""

    launches: int
    sites: int
    mask_bytes: int = 0


#: From the padded mask to the nearest sites, in the order of the source.
_TRANSFORM = (
    _Step(launches=1, sites=1),  # zeros for the sites
    _Step(launches=1, sites=1, mask_bytes=1),  # encode3d: mask in, sites out
    _Step(launches=1, sites=1),  # zeros for the second buffer
    _Step(launches=1, sites=4),  # kernelFloodZ: a sweep down and one up, each in and out
    _Step(launches=2, sites=2),  # kernelMaurerAxis, twice: sites in, stack out
    _Step(launches=2, sites=2),  # kernelColorAxis, twice: stack in, nearest sites out
)


def triton_traffic(shape: Sequence[int], classes: int, labels_dtype: torch.dtype = torch.uint8) -> Traffic:
    """Our kernels on labels ``[B, *S]``."""
    passes = triton_passes.passes(tuple(shape), labels_dtype, classes)
    return Traffic(len(passes), sum(launch.bytes for launch in passes), classes * math.prod(shape))


def cucim_traffic(shape: Sequence[int], classes: int) -> Traffic:
    """Two of cuCIM's transforms per sample and class, and their difference, on labels ``[B, D, H, W]``."""
    batch, *volume = shape
    voxels = math.prod(volume)
    side = _PADDING * math.ceil(max(volume) / _PADDING)
    padded_axes = sum(size != side for size in volume)
    site = 4 if side <= _LONGEST_32_BIT_AXIS else 8

    launches = sum(step.launches for step in _TRANSFORM)
    moved = side**3 * sum(step.launches * step.sites * site + step.mask_bytes for step in _TRANSFORM)
    if padded_axes:  # one copy into the cube, then a fill per axis
        launches += 1 + padded_axes
        moved += voxels + side**3
    launches += 1  # from sites to distances
    moved += voxels * (site + 4)

    launches = 2 * launches + 3  # two masks from the labels, one distance minus the other
    moved = 2 * moved + voxels * (2 + 2 + 12)
    maps = batch * classes
    return Traffic(maps * launches, maps * moved, maps * voxels)


def report() -> str:
    """The table of docs/triton.md."""
    rows = []
    for shape in SHAPES:
        for classes in (1, 4):
            ours, theirs = triton_traffic(shape, classes), cucim_traffic(shape, classes)
            cost = (f"{ours.launches}", f"{ours.bytes_per_voxel:.1f}", f"{theirs.launches}")
            size = " x ".join(map(str, shape))
            rows.append((size, f"{classes}", *cost, f"{theirs.bytes_per_voxel:.0f}"))
    per_class = "bytes per voxel and class"
    return table(("uint8 labels", "classes", "launches", per_class, "cuCIM: launches", "cuCIM: bytes"), rows)


def main() -> None:
    """Print the table."""
    print(report())


if __name__ == "__main__":
    typer.run(main)
