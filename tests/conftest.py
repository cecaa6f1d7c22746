"""Fixtures that every test may use."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from fastsdm import testing
from fastsdm._backends import registry
from fastsdm._backends.contract import Backend

# Workers that share the processors are quicker with a thread each; what threads do to a result is tested
# where they are asked for by number.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def _poisoned(make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def empty(*args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        if isinstance(made, torch.Tensor):
            if made.dtype.is_floating_point:
                made.detach().fill_(math.nan)
            elif made.dtype is not torch.bool and not made.dtype.is_complex:
                made.fill_(torch.iinfo(made.dtype).max)
        elif made.dtype.kind in "fc":
            made.fill(math.nan)
        elif made.dtype.kind in "iu":
            made.fill(np.iinfo(made.dtype).max)
        return made

    return empty


@pytest.fixture(scope="session", autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fill fresh memory with NaN or the largest integer, so that a voxel which no kernel wrote is seen."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (torch, np):
            for name in ("empty", "empty_like"):
                patch.setattr(module, name, _poisoned(getattr(module, name)))
        yield


@pytest.fixture
def unpoisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave fresh memory alone, for tests that count operations or kernels."""
    for module in (torch, np):
        for name in ("empty", "empty_like"):
            monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)


@dataclass(frozen=True)
class BackendUnderTest:
    """A backend on a device, called as the public function calls it."""

    backend: Backend
    device: str

    @property
    def tolerance(self) -> testing.Tolerance:
        return testing.EXACT if self.backend.exact else testing.APPROXIMATE

    def plain_map(
        self,
        labels: np.ndarray | torch.Tensor,
        classes: tuple[int, ...],
        spacing: np.ndarray,
        max_distance: float | None = None,
    ) -> np.ndarray:
        maps = self.backend.signed_distance(
            torch.as_tensor(labels).contiguous().to(self.device),
            classes,
            torch.as_tensor(spacing, dtype=torch.float64),
            max_distance,
        )
        assert maps.dtype == torch.float32
        assert maps.device.type == self.device
        assert maps.shape == (labels.shape[0], len(classes), *labels.shape[1:])
        return maps.cpu().numpy()


def _backends_under_test() -> list[Any]:
    on_cpu = ["native", "scipy", "torch", "jump-flooding"]
    if os.environ.get("TRITON_INTERPRET") == "1":
        on_cpu = ["triton"]
    params = [pytest.param((name, "cpu"), id=f"{name}-cpu") for name in on_cpu]
    on_cuda = registry.AUTO_ORDER["cuda"]
    return params + [
        pytest.param((name, "cuda"), id=f"{name}-cuda", marks=pytest.mark.gpu) for name in on_cuda
    ]


@pytest.fixture(params=_backends_under_test())
def under_test(request: pytest.FixtureRequest) -> BackendUnderTest:
    name, device = request.param
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    backend = registry.get(name)
    reason = backend.unavailable(torch.device(device))
    if reason is not None:
        if device == "cpu":
            pytest.fail(f"{name} must run here, but: {reason}")
        pytest.skip(f"{name} on {device}: {reason}")
    return BackendUnderTest(backend, device)
