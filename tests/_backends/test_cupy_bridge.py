"""The cucim and cupy backends without a GPU.

The plumbing runs against a numpy stand-in for CuPy, so nothing here says that a GPU would agree. The calls
are also held against the signatures of the real packages, where these are installed: they import without a
GPU, but nothing of theirs runs.
"""

from __future__ import annotations

import inspect
import math
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.utils._python_dispatch import TorchDispatchMode

from fastsdm import testing
from fastsdm._backends import cupy_bridge, registry

MODULES = {"cucim": "cucim.core.operations.morphology", "cupy": "cupyx.scipy.ndimage"}
CASES = {case.name: case for case in testing.hard_cases(20)}
CPU = torch.device("cpu")


class NumpyStandIn:
    """What the bridge uses of CuPy, on numpy arrays, with a record of how it was used."""

    def __init__(self, runtime_version: int = 12090) -> None:
        self.log: list[str] = []
        self.calls: list[dict] = []
        self.allocator: SimpleNamespace | None = None
        self.cupy = ModuleType("cupy")
        cuda = SimpleNamespace(
            Device=lambda index: self.entered(f"device {index}"),
            Stream=SimpleNamespace(from_external=lambda stream: self.entered(f"stream of {stream}")),
            ExternalStream=lambda pointer: self.entered(f"stream {pointer}"),
            PythonFunctionAllocator=lambda malloc, free: SimpleNamespace(malloc=malloc, free=free),
            using_allocator=self.using_allocator,
            runtime=SimpleNamespace(runtimeGetVersion=lambda: runtime_version),
        )
        vars(self.cupy).update(from_dlpack=np.from_dlpack, cuda=cuda)

    @contextmanager
    def entered(self, what: str):
        self.log.append(f"enter {what}")
        yield
        self.log.append(f"leave {what}")

    def using_allocator(self, malloc):
        self.allocator = malloc
        return self.entered("allocator")

    def distance_transform_edt(self, image, sampling=None, *, distances, float64_distances):
        """Like the real one: into `distances`, meaningless for an image without a zero."""
        self.log.append("transform")
        self.calls.append({"sampling": sampling, "float64": float64_distances, "distances": distances})
        found = ndimage.distance_transform_edt(image, sampling=sampling) if not image.all() else 1234.5
        distances[...] = found


class TorchStream:
    """A stream of torch's as far as the bridge looks at it; the protocol is newer than torch 2.6."""

    cuda_stream = 77

    def __str__(self) -> str:
        return "torch"


class TorchStreamWithProtocol(TorchStream):
    """The same with NVIDIA's stream protocol."""

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.cuda_stream


@pytest.fixture
def stand_in(monkeypatch) -> NumpyStandIn:
    stand_in = NumpyStandIn()
    monkeypatch.setitem(sys.modules, "cupy", stand_in.cupy)
    for name in MODULES.values():
        module: Any = ModuleType(name)
        module.distance_transform_edt = stand_in.distance_transform_edt
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: TorchStreamWithProtocol())
    monkeypatch.setattr(torch.cuda, "device", lambda device: stand_in.entered(f"torch device {device}"))
    return stand_in


def plain_map(name: str, labels: np.ndarray, classes=(1,), spacing=(1.0, 1.0, 1.0)) -> torch.Tensor:
    rows = torch.as_tensor(spacing, dtype=torch.float64).expand(len(labels), -1)
    return registry.get(name).signed_distance(torch.from_numpy(labels), classes, rows, None)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("case", CASES)
def test_stand_in_makes_the_right_map(stand_in, name, case) -> None:
    case = CASES[case]
    maps = registry.get(name).signed_distance(
        torch.from_numpy(case.labels), case.classes, torch.from_numpy(case.spacing), None
    )
    reference = testing.reference_signed_distance(case.labels, case.classes, case.spacing)
    result = testing.agreement(maps.numpy(), reference, case.spacing, testing.EXACT)
    assert maps.dtype == torch.float32
    assert result.passed, result
    assert len(stand_in.calls) == 2 * len(case.labels) * len(case.classes)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64"])
@pytest.mark.usefixtures("stand_in")
def test_stand_in_of_a_mask(dtype) -> None:
    labels = (testing.shells((1, 6, 7, 8), classes=3).astype(np.int8) - 1).astype(dtype)
    assert torch.equal(plain_map("cucim", labels, (None,)), plain_map("cucim", labels > 0))


def test_stand_in_is_asked_for_float32_and_for_no_sampling_when_isotropic(stand_in) -> None:
    labels = testing.noise((3, 6, 7, 8))
    spacings = [(0.7, 0.7, 0.7), (2.0, 0.7, 0.7), (0.7, 0.7, 2.0)]
    registry.get("cucim").signed_distance(
        torch.from_numpy(labels), [1], torch.tensor(spacings, dtype=torch.float64), None
    )
    asked = [call["sampling"] for call in stand_in.calls]
    assert asked == [None, None, spacings[1], spacings[1], spacings[2], spacings[2]]
    assert all(call["float64"] is False for call in stand_in.calls)


def test_stand_in_writes_into_the_result(stand_in) -> None:
    maps = plain_map("cucim", testing.noise((2, 6, 7, 8)), classes=(0, 1)).numpy()
    into_result = [np.shares_memory(maps, call["distances"]) for call in stand_in.calls]
    assert into_result == [True, False] * 4  # the other phase goes to a temporary


def test_stand_in_is_not_asked_about_nothing(stand_in) -> None:
    assert plain_map("cupy", np.zeros((2, 3, 0, 4), np.uint8), classes=(0, 1)).shape == (2, 2, 3, 0, 4)
    assert not stand_in.calls


@pytest.mark.parametrize("newer", [True, False])
def test_stand_in_works_on_the_stream_and_device_of_torch(stand_in, monkeypatch, newer) -> None:
    stream = TorchStreamWithProtocol() if newer else TorchStream()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    plain_map("cupy", testing.noise((1, 4, 5, 6)))
    name = "stream of torch" if newer else "stream 77"
    inside = ["torch device cpu", "device None", name, "allocator"]
    assert stand_in.log == [
        *(f"enter {what}" for what in inside),
        "transform",
        "transform",
        *(f"leave {what}" for what in reversed(inside)),
    ]


def test_stand_in_takes_memory_from_torch_on_its_stream(stand_in, monkeypatch) -> None:
    stream = TorchStreamWithProtocol()
    asked, freed = [], []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "caching_allocator_alloc", lambda *request: asked.append(request) or 4096)
    monkeypatch.setattr(torch.cuda, "caching_allocator_delete", freed.append)
    allocators = []
    stand_in.cupy.cuda.PythonFunctionAllocator = lambda malloc, free: (
        allocators.append((malloc, free)) or SimpleNamespace(malloc=malloc)
    )
    with cupy_bridge.torch_memory_and_stream(CPU):
        malloc, free = allocators[0]
        assert stand_in.allocator is malloc
        assert malloc(1000, 3) == 4096
    free(4096, 3)  # a temporary may outlive the block
    assert asked == [(1000, 3, stream)]
    assert freed == [4096]


class RefuseToHandValuesOver(TorchDispatchMode):
    """On a GPU these operations make the host wait."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_to_copy", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in self.WAITING), func
        return func(*args, **(kwargs or {}))


def test_stand_in_is_fed_without_waiting_for_values(stand_in) -> None:
    labels = np.stack([testing.noise((4, 5, 6)), np.zeros((4, 5, 6), np.uint8)])
    with RefuseToHandValuesOver():
        plain_map("cucim", labels, classes=(0, 1))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("shape", [(1281, 1, 1), (4, 1300, 7), (46337, 2)])
def test_volumes_beyond_32_bit_indices_are_refused(stand_in, name, shape) -> None:
    labels = torch.zeros((), dtype=torch.uint8).expand(1, *shape)
    with pytest.raises(ValueError, match=r"target: backend .* 32-bit indices") as caught:
        registry.get(name).signed_distance(labels, (1,), torch.ones(1, len(shape), dtype=torch.float64), None)
    assert f"longer than {1280 if len(shape) == 3 else 46336}" in str(caught.value)
    assert not stand_in.calls


@pytest.mark.parametrize("shape", [(1280, 1280, 1280), (1, 1, 1), (46336, 1)])
def test_volumes_within_32_bit_indices_are_not(shape) -> None:
    cupy_bridge.refuse_large("cucim", shape)


@pytest.fixture
def cuda_torch(monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize("name", MODULES)
def test_available_when_both_are_built_for_the_same_cuda(stand_in, cuda_torch, monkeypatch, name) -> None:
    backend, device = registry.get(name), torch.device("cuda:0")
    assert backend.unavailable(device) is None
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    reason = backend.unavailable(device)
    assert "CuPy is built for CUDA 12, torch for CUDA 13" in reason
    assert {"cucim": "cucim-cu13", "cupy": "cupy-cuda13x"}[name] in reason


def test_a_package_too_old_to_have_the_transform_is_named(stand_in, cuda_torch, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, MODULES["cupy"], ModuleType("cupyx.scipy.ndimage"))
    reason = registry.get("cupy").unavailable(torch.device("cuda:0"))
    assert "distance_transform_edt" in reason
    assert "pip install 'cupy-cuda12x'" in reason


class TestRealPackages:
    """Signatures of the installed packages; nothing of theirs runs."""

    cupy = property(lambda self: pytest.importorskip("cupy", reason="CuPy is not installed"))

    @pytest.mark.parametrize("name", MODULES)
    def test_transform_takes_our_arguments(self, name) -> None:
        module = pytest.importorskip(MODULES[name], reason=f"{name} is not installed")
        signature = inspect.signature(module.distance_transform_edt)
        signature.bind("image", sampling=None, distances="array", float64_distances=False)

    @pytest.mark.parametrize("name", MODULES)
    @pytest.mark.parametrize("shape", [(4, 7, 33), (32, 32, 32), (64, 512, 512), (1281, 3, 3), (31, 96, 5)])
    def test_padding_is_the_one_we_count_with(self, name, shape) -> None:
        module = pytest.importorskip(f"{MODULES[name]}._pba_3d", reason=f"{name} is not installed")
        padding = module._determine_padding(shape, 32, 1, 1, 2, 32, 4)
        sides = {size + after for size, (_, after) in zip(shape, padding or [(0, 0)] * 3, strict=True)}
        assert sides == {cupy_bridge._PADDING * math.ceil(max(shape) / cupy_bridge._PADDING)}

    def test_bridge_finds_what_it_uses(self, monkeypatch) -> None:
        cupy = self.cupy
        assert callable(cupy.from_dlpack)
        allocator = cupy.cuda.PythonFunctionAllocator(lambda size, device: 0, lambda pointer, device: None)
        with cupy.cuda.using_allocator(allocator.malloc):
            assert cupy.cuda.get_allocator() == allocator.malloc
        assert cupy.cuda.runtime.runtimeGetVersion() // 1000 in (11, 12, 13)
        assert cupy.cuda.Device(0).id == 0
        for stream in (TorchStreamWithProtocol(), TorchStream()):
            if hasattr(stream, "__cuda_stream__") or not hasattr(cupy.cuda.Stream, "from_external"):
                assert cupy_bridge.cupy_stream(cupy, stream).ptr == 77

    @pytest.mark.parametrize("name", MODULES)
    def test_availability_is_told_from_the_real_package(self, name, cuda_torch, monkeypatch) -> None:
        pytest.importorskip(MODULES[name], reason=f"{name} is not installed")
        major = self.cupy.cuda.runtime.runtimeGetVersion() // 1000
        monkeypatch.setattr(torch.version, "cuda", f"{major}.4")
        assert registry.get(name).unavailable(torch.device("cuda:0")) is None
        monkeypatch.setattr(torch.version, "cuda", f"{major + 1}.0")
        assert f"CuPy is built for CUDA {major}" in registry.get(name).unavailable(torch.device("cuda:0"))


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODULES)
def test_cuda_temporaries_come_from_torch(name) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    backend = registry.get(name)
    if backend.unavailable(device) is not None:
        pytest.skip(backend.unavailable(device))
    cupy = pytest.importorskip("cupy")
    labels = torch.from_numpy(testing.noise((1, 128, 128, 128))).to(device)
    unit = torch.ones(1, 3, dtype=torch.float64)
    backend.signed_distance(labels, (1,), unit, None)  # CuPy may keep constants from its first call
    held = cupy.get_default_memory_pool().total_bytes()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    backend.signed_distance(labels, (1,), unit, None)
    assert cupy.get_default_memory_pool().total_bytes() == held
    assert torch.cuda.max_memory_allocated() - before > 3 * 4 * labels.numel()
    assert torch.cuda.memory_allocated() == before
