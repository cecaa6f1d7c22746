"""Every CUDA backend on streams and devices other than the default, and without stalling either."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import testing
from fastsdm._backends import registry
from fastsdm.losses import BoundaryLoss

pytestmark = pytest.mark.gpu
NAMES = registry.AUTO_ORDER["cuda"]
UNIT = torch.ones(1, 3, dtype=torch.float64)


def backend_on(name: str, device: torch.device):
    backend = registry.get(name)
    reason = backend.unavailable(device)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    return backend


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_side_stream_of_every_device(name) -> None:
    labels = testing.shells((40, 41, 42), classes=3)[None]
    reference = testing.reference_signed_distance(labels, (0, 1, 2), UNIT.numpy())
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        backend = backend_on(name, device)
        tolerance = testing.EXACT if backend.exact else testing.APPROXIMATE
        with torch.cuda.stream(torch.cuda.Stream(device)):
            on_device = torch.from_numpy(labels).to(device)
            maps = backend.signed_distance(on_device, (0, 1, 2), UNIT, None)
            del on_device
            torch.full((3, 40, 41, 42), torch.nan, device=device)  # takes what was given back too early
            got = maps.cpu().numpy()
        assert maps.device == device
        assert testing.agreement(got, reference, UNIT.numpy(), tolerance).passed


def test_tensor_on_a_device_that_is_not_the_current_one(name) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two devices")
    device = torch.device("cuda", 1)
    backend_on(name, device)
    mask = testing.blobs((30, 31, 32), sigma=3)
    with torch.cuda.device(0):
        got = fastsdm.signed_distance(torch.from_numpy(mask).to(device), backend=name)
        assert torch.cuda.current_device() == 0
    assert got.device == device
    expected = fastsdm.signed_distance(mask, backend="scipy")
    np.testing.assert_allclose(got.cpu().numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # is a prototype, it says
@pytest.mark.parametrize("classes", [None, 3])
def test_isotropic_map_does_not_wait_for_the_device(name, classes) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    backend_on(name, device)
    labels = torch.from_numpy(testing.shells((40, 40, 40), classes=3)).to(device)
    settings = {"classes": classes, "spacing": 0.7, "empty": "zero", "max_distance": 9.0, "backend": name}
    fastsdm.signed_distance(labels, **settings)  # compiles, which waits
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")  # tells of torch's own waits, the sleep also of CuPy's
    try:
        torch.cuda._sleep(2_000_000_000)
        fastsdm.signed_distance(labels, **settings)
        if name != "torch":  # thousands of kernels: the driver's queue is full before they are all in it
            assert not torch.cuda.current_stream().query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()


@pytest.mark.parametrize("amp", [torch.float16, torch.bfloat16])
def test_loss_under_autocast_equals_the_one_on_the_cpu(name, amp) -> None:
    backend_on(name, torch.device("cuda", torch.cuda.current_device()))
    target = torch.from_numpy(testing.shells((20, 21, 22), classes=3))[None]
    logits = torch.randn(1, 3, 20, 21, 22, generator=torch.Generator().manual_seed(0))
    values = []
    for device, backend in (("cpu", "scipy"), ("cuda", name)):
        here = logits.to(device, copy=True).requires_grad_()  # a leaf of its own on the CPU, too
        with torch.autocast(device, dtype=amp):
            value = BoundaryLoss(softmax=True, backend=backend)(here, target.to(device))
        value.backward()
        values.append((value.detach().cpu().float(), here.grad.cpu()))
    torch.testing.assert_close(values[1], values[0], rtol=1e-3, atol=1e-5)
