"""What `auto` takes on which device, and what is said of a backend that cannot run."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass

import pytest
import torch

import fastsdm
from fastsdm._backends import capabilities, registry

NAMES = ("triton", "cucim", "cupy", "torch", "jump-flooding", "native", "scipy")


@dataclass
class Candidate:
    """A backend that runs on some devices and never computes."""

    name: str
    devices: tuple[str, ...]
    device_types: tuple[str, ...] = ("cpu",)

    @property
    def exact(self) -> bool:
        return self.name != "jump-flooding"

    def unavailable(self, device: torch.device) -> str | None:
        return None if device.type in self.devices else f"{self.name} does not want {device.type}"


@pytest.fixture
def only(monkeypatch):
    """Make exactly these backends available, on every device."""

    def make(*available: str) -> None:
        table = {name: Candidate(name, ("cpu", "cuda", "mps") if name in available else ()) for name in NAMES}
        monkeypatch.setattr(registry, "get", table.__getitem__)
        monkeypatch.setattr(registry, "_warned", set())
        monkeypatch.setattr(registry, "found", {})
        monkeypatch.delenv("FASTSDM_BACKEND", raising=False)

    return make


@pytest.mark.parametrize(
    ("device", "order"),
    [("cuda", ["triton", "cucim", "cupy", "torch"]), ("cpu", ["native", "scipy"]), ("mps", ["torch"])],
)
@pytest.mark.filterwarnings("ignore:backend 'scipy' is used")
def test_auto_takes_the_first_that_runs(only, device, order) -> None:
    for rank in range(len(order)):
        only(*order[rank:])
        assert registry.select("auto", torch.device(device)).name == order[rank]
    only(*set(NAMES) - set(order))
    with pytest.raises(fastsdm.BackendUnavailableError, match="auto") as caught:
        registry.select("auto", torch.device(device))
    for name in order:
        assert f"{name} does not want {device}" in caught.value.reason


def test_auto_never_takes_an_approximate_backend(only) -> None:
    only("jump-flooding")
    for device in ("cpu", "cuda", "mps"):
        with pytest.raises(fastsdm.BackendUnavailableError, match="auto"):
            registry.select("auto", torch.device(device))
    assert registry.select("jump-flooding", torch.device("mps")).name == "jump-flooding"


def test_auto_says_once_that_scipy_stands_in_for_the_kernel(only) -> None:
    only("scipy")
    with pytest.warns(UserWarning, match="'scipy' is used on the CPU.*native: native does not want cpu"):
        registry.select("auto", torch.device("cpu"))
    registry.found.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.select("auto", torch.device("cpu"))
        registry.select("scipy", torch.device("cpu"))


def test_selecting_asks_a_backend_once(only, monkeypatch) -> None:
    only("native")
    asked = []
    unavailable = Candidate.unavailable
    monkeypatch.setattr(
        Candidate, "unavailable", lambda self, device: (asked.append(self.name), unavailable(self, device))[1]
    )
    for _ in range(3):
        assert registry.select("auto", torch.device("cpu")).name == "native"
    assert asked == ["native"]


def test_a_named_backend_never_gives_way(only) -> None:
    only("scipy", "torch")
    for name in ("native", "cucim"):
        with pytest.raises(fastsdm.BackendUnavailableError, match=f"{name} does not want cpu"):
            registry.select(name, torch.device("cpu"))


@pytest.fixture
def cuda_torch(monkeypatch) -> None:
    """Let this torch pass for one with CUDA 12 and a device."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


GPU_PACKAGES = ("cucim", "cupy")


@pytest.mark.parametrize("name", GPU_PACKAGES)
class TestReasonsOfTheCupyBackends:
    """Each says what is missing and what to do about it."""

    def reason(self, name: str, device: str = "cuda:0") -> str | None:
        return registry.get(name).unavailable(torch.device(device))

    def test_tensor_elsewhere(self, name) -> None:
        assert ".cuda()" in self.reason(name, "cpu")

    def test_torch_without_cuda(self, name, monkeypatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", None)
        monkeypatch.setattr(torch.version, "hip", None)
        assert "built without CUDA" in self.reason(name)
        assert "https://pytorch.org" in self.reason(name)

    def test_torch_for_rocm(self, name, monkeypatch) -> None:
        monkeypatch.setattr(torch.version, "hip", "6.3")
        assert "'triton'" in self.reason(name)

    def test_no_device(self, name, monkeypatch, cuda_torch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert "no CUDA device" in self.reason(name)

    @pytest.mark.parametrize("major", ["12", "13"])
    def test_package_missing(self, name, major, monkeypatch, cuda_torch) -> None:
        monkeypatch.setattr(torch.version, "cuda", f"{major}.0")
        monkeypatch.setitem(sys.modules, "cupy", None)
        wheel = {"cucim": f"cucim-cu{major}", "cupy": f"cupy-cuda{major}x"}[name]
        assert f"pip install '{wheel}'" in self.reason(name)


def test_every_unavailable_backend_gives_a_reason() -> None:
    for status in fastsdm.backends().values():
        assert status.available == (status.reason is None)
        assert status.available or str(status).startswith(f"{status.name}: unavailable: ")


def test_status_names_what_auto_takes() -> None:
    chosen = registry.select("auto", torch.device("cpu")).name
    assert [each.name for each in fastsdm.backends().values() if "cpu" in each.automatic_on] == [chosen]


@pytest.mark.usefixtures("cuda_torch")
def test_what_auto_takes_does_not_depend_on_the_choice_in_force(only, monkeypatch) -> None:
    only("cupy", "triton", "scipy")
    monkeypatch.setattr(registry, "_devices_present", lambda: [torch.device("cpu"), torch.device("cuda")])
    with fastsdm.use_backend("triton"):
        automatic = {name: status.automatic_on for name, status in fastsdm.backends().items()}
    first = next(name for name in registry.AUTO_ORDER["cuda"] if name in {"cupy", "triton"})
    assert {name: devices for name, devices in automatic.items() if devices} == {
        first: ("cuda",),
        "scipy": ("cpu",),
    }


def test_status_of_native_names_its_instruction_set() -> None:
    from fastsdm._backends import _native_ext  # noqa: PLC0415

    statuses = fastsdm.backends()
    assert statuses["native"].instruction_set == _native_ext.isas()[0]
    assert statuses["scipy"].instruction_set is None


def test_a_capability_is_asked_for_once(monkeypatch) -> None:
    monkeypatch.setattr(registry, "found", {})
    asked = []
    get = registry.get
    monkeypatch.setattr(registry, "get", lambda name: asked.append(name) or get(name))

    def taken(kind=capabilities.NearestBackend) -> str:
        return capabilities.select(kind, "auto", torch.device("cpu"), "it").name

    for _ in range(3):
        assert taken() == taken(capabilities.InstanceBackend) == "native"
    assert asked == ["native", "native"]
    with fastsdm.use_backend("scipy"):
        assert taken() == "scipy"
    monkeypatch.setattr(type(registry.get("native")), "unavailable", lambda self, device: "taken away")
    fastsdm.backends()
    with warnings.catch_warnings():  # that scipy is slow, once a process
        warnings.simplefilter("ignore")
        assert taken() == "scipy"
