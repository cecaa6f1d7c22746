"""Base of the two backends on CuPy: CuPy uses torch's memory and stream.

The transform (the parallel banding algorithm, Cao et al. 2010, doi:10.1145/1730804.1730818) takes one volume
and measures to its zero voxels, so every class of every sample takes two calls.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fastsdm._backends.contract import Classes, inside

#: The kernels index voxels with 32-bit integers, and pad every volume to a cube of a multiple of 32.
_MOST_PADDED_VOXELS = 2**31 - 1
_PADDING = 32


class CupyBackend:
    """Computes maps by a ``distance_transform_edt`` that takes CuPy arrays."""

    exact = True
    device_types = ("cuda",)

    def __init__(self, name: str, module: str, wheel: str) -> None:
        """Store the backend's name, the module of its transform, and its wheel (``{cuda}``: CUDA's major)."""
        self.name = name
        self._module = module
        self._wheel = wheel

    def unavailable(self, device: torch.device) -> str | None:
        """See the contract: it runs on CUDA devices, if CuPy is installed for torch's CUDA version."""
        return _no_cuda(device) or self._no_package()

    def signed_distance(
        self,
        labels: torch.Tensor,
        classes: Classes,
        spacing: torch.Tensor,
        max_distance: float | None,  # not used: the transform cannot stop early
    ) -> torch.Tensor:
        """See :meth:`fastsdm._backends.contract.Backend.signed_distance`.

        Raises:
            ValueError: the volume is too large for the kernels' 32-bit indices.
        """
        refuse_large(self.name, labels.shape[1:])
        shape = (labels.shape[0], len(classes), *labels.shape[1:])
        maps = torch.empty(shape, dtype=torch.float32, device=labels.device)
        if maps.numel() == 0:
            return maps
        transform = self._transform()
        with torch_memory_and_stream(labels.device) as cupy:
            for sample, steps, sample_maps in zip(labels, spacing.tolist(), maps, strict=True):
                for value, class_map in zip(classes, sample_maps, strict=True):
                    _plain_map(cupy, transform, inside(sample, value), steps, class_map)
        return maps

    def _transform(self) -> Callable[..., Any]:
        transform: Callable[..., Any] = importlib.import_module(self._module).distance_transform_edt
        return transform

    def _no_package(self) -> str | None:
        major = str(torch.version.cuda).partition(".")[0]
        install = f"pip install '{self._wheel.format(cuda=major)}'"
        try:
            cupy = importlib.import_module("cupy")
            self._transform()
        except (ImportError, AttributeError) as error:
            return f"it could not be imported ({_first_line(error)}); {install}"
        cupy_major = str(cupy.cuda.runtime.runtimeGetVersion() // 1000)
        if cupy_major != major:
            return f"CuPy is built for CUDA {cupy_major}, torch for CUDA {major}; {install}"
        return None


def refuse_large(name: str, shape: Sequence[int]) -> None:
    """Raise ValueError for a volume whose padded cube has more voxels than 32-bit indices address."""
    side = _PADDING * math.ceil(max(shape) / _PADDING)
    if side ** len(shape) > _MOST_PADDED_VOXELS:
        raise ValueError(
            f"target: backend '{name}' pads volumes to a cube with 32-bit indices, so no axis "
            f"may be longer than {_longest_axis(len(shape))} in {len(shape)}D; got shape {tuple(shape)}"
        )


@contextmanager
def torch_memory_and_stream(device: torch.device) -> Iterator[Any]:
    """Make CuPy use torch's current stream of ``device`` and torch's caching allocator.

    CuPy's temporaries are then freed in stream order like torch's own, without synchronising, and the two
    libraries do not keep memory from each other.
    """
    cupy = importlib.import_module("cupy")
    stream = torch.cuda.current_stream(device)

    def allocated(size: int, device_index: int) -> int:
        return int(torch.cuda.caching_allocator_alloc(size, device_index, stream))

    def freed(pointer: int, _: int) -> None:
        torch.cuda.caching_allocator_delete(pointer)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    allocator = cupy.cuda.PythonFunctionAllocator(allocated, freed)
    with (
        torch.cuda.device(device),
        cupy.cuda.Device(device.index),
        cupy_stream(cupy, stream),
        cupy.cuda.using_allocator(allocator.malloc),
    ):
        yield cupy


def cupy_stream(cupy: Any, stream: torch.cuda.Stream) -> Any:
    # Older releases of either side lack the protocol; CuPy 14 deprecates the way without it.
    if hasattr(cupy.cuda.Stream, "from_external") and hasattr(stream, "__cuda_stream__"):
        return cupy.cuda.Stream.from_external(stream)
    return cupy.cuda.ExternalStream(stream.cuda_stream)


def _plain_map(
    cupy: Any, transform: Callable[..., Any], mask: torch.Tensor, steps: list[float], out: torch.Tensor
) -> None:
    # Isotropic spacing is applied afterwards: passing `sampling` makes cuCIM synchronise.
    isotropic = len(set(steps)) == 1
    sampling = None if isotropic else tuple(steps)
    outside = ~mask
    d_in = torch.empty_like(out)
    for image, distances in ((outside, out), (mask, d_in)):
        transform(
            cupy.from_dlpack(image.view(torch.uint8)),
            sampling=sampling,
            distances=cupy.from_dlpack(distances),
            float64_distances=False,
        )
    out.sub_(d_in)
    if isotropic:
        out.mul_(steps[0])
    # Without a zero voxel the transform's distances are undefined. A branch on it would wait for the device.
    out.masked_fill_(~mask.any(), math.inf)
    out.masked_fill_(~outside.any(), -math.inf)


def _no_cuda(device: torch.device) -> str | None:
    if device.type != "cuda":
        return f"it works on CUDA tensors only, the target is on {device}; move it with .cuda()"
    if torch.version.hip is not None:
        return "it needs NVIDIA's CUDA, this torch is built for ROCm; backend 'triton' runs there"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; see https://pytorch.org/get-started"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device; nvidia-smi shows whether the driver does"
    return None


def _longest_axis(ndim: int) -> int:
    side = int(_MOST_PADDED_VOXELS ** (1 / ndim))
    return side - side % _PADDING


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
