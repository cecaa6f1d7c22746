"""Gradients, reduced precision, compilation, determinism, memory."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import fastsdm
from fastsdm import losses
from fastsdm._backends import registry
from fastsdm.losses._base import DistanceMapLoss
from fastsdm.schedules import Rebalance
from tests.losses.cases import label_map, logits
from tests.losses.test_targets import every_loss

CLASSES = 3


@every_loss
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "other_act", None])
@pytest.mark.parametrize("ignore_index", [None, 1])
def test_gradcheck(
    make: Callable[..., DistanceMapLoss], activation: str | None, ignore_index: int | None
) -> None:
    labels = label_map(3)[:2, :4, :4, :3]
    prediction = logits(labels, CLASSES).double().requires_grad_()
    settings = {"other_act": torch.tanh} if activation == "other_act" else {str(activation): True}
    loss = make(reduction="none", ignore_index=ignore_index, **(settings if activation else {}))
    torch.autograd.gradcheck(lambda p: loss(p, labels, spacing=[1.0, 2.0, 0.5]), prediction, fast_mode=True)


@every_loss
def test_second_derivatives(make: Callable[..., DistanceMapLoss]) -> None:
    labels = label_map(3)[:2, :4, :4, :3]
    prediction = logits(labels, CLASSES).double().requires_grad_()
    loss = make(softmax=True, reduction="none")
    torch.autograd.gradgradcheck(lambda p: loss(p, labels), prediction, fast_mode=True)


def test_gradient_of_the_boundary_loss_is_the_map() -> None:
    labels = label_map(3)
    prediction = torch.rand(3, CLASSES, *labels.shape[1:], requires_grad=True)
    loss = losses.BoundaryLoss()
    loss(prediction, labels).backward()
    torch.testing.assert_close(prediction.grad, loss.target_map(labels, CLASSES) / prediction.numel())


def test_no_gradient_reaches_target_or_map() -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES).requires_grad_()
    target = torch.rand(3, CLASSES, *labels.shape[1:], requires_grad=True)
    maps = torch.rand(3, CLASSES, *labels.shape[1:], requires_grad=True)
    for loss in (losses.BoundaryLoss(), losses.HausdorffDTLoss(include_background=True)):
        loss(prediction, target, distance_map=maps).backward()
    assert target.grad is None
    assert maps.grad is None
    assert prediction.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_is_summed_in_float32(
    make: Callable[..., DistanceMapLoss], dtype: torch.dtype
) -> None:
    labels = label_map(3).repeat(1, 4, 4, 4)  # large enough for sums that float16 cannot hold
    half = logits(labels, CLASSES).to(dtype)
    full = half.float().requires_grad_()
    half.requires_grad_()
    loss = make(softmax=True, spacing=40.0)
    value, expected = loss(half, labels), loss(full, labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    value.backward()
    expected.backward()
    assert half.grad.dtype == dtype
    torch.testing.assert_close(half.grad, full.grad.to(dtype))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(make: Callable[..., DistanceMapLoss], dtype: torch.dtype) -> None:
    labels = label_map(3)
    image = torch.rand(3, 1, *labels.shape[1:])
    network = torch.nn.Conv3d(1, CLASSES, 1)
    loss = make(softmax=True)
    with torch.autocast("cpu", dtype=dtype):
        output = network(image)
        assert output.dtype == dtype
        value = loss(output, labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(output.float(), labels))
    value.backward()
    assert network.weight.grad.isfinite().all()


@every_loss
def test_deterministic(make: Callable[..., DistanceMapLoss], deterministic_algorithms: None) -> None:
    labels = label_map(3)
    runs = []
    for _ in range(2):
        prediction = logits(labels, CLASSES).requires_grad_()
        value = make(softmax=True, ignore_index=2, normalize="unit")(prediction, labels)
        value.backward()
        runs.append((value.detach(), prediction.grad))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


@pytest.fixture
def deterministic_algorithms() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def cross_entropy(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(prediction, target)


COMPILED = {
    "boundary": lambda: losses.BoundaryLoss(softmax=True),
    "boundary, every setting": lambda: losses.BoundaryLoss(
        softmax=True,
        classes=[0, 2],
        spacing=[1.0, 2.0, 0.5],
        normalize="unit",
        max_distance=3.0,
        ignore_index=2,
    ),
    "hausdorff": lambda: losses.HausdorffDTLoss(softmax=True),
    "log hausdorff": lambda: losses.LogHausdorffDTLoss(softmax=True),
    "surface": lambda: losses.GeneralizedSurfaceLoss(softmax=True, class_weights=[0.2, 0.3, 0.5]),
    "regression": lambda: losses.SDMRegressionLoss(other_act=torch.tanh),
    "region and boundary": lambda: losses.RegionBoundaryLoss(
        cross_entropy, losses.BoundaryLoss(softmax=True), Rebalance()
    ),
}


@pytest.mark.parametrize("make", COMPILED.values(), ids=COMPILED)
def test_compiles_to_one_graph_once(make: Callable[[], torch.nn.Module]) -> None:
    torch.compiler.reset()
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    loss = make()
    compiled = torch.compile(loss, fullgraph=True, backend=count)
    for step in range(3):
        labels = label_map(3, seed=step)
        eager = logits(labels, CLASSES, seed=step).requires_grad_()
        traced = eager.detach().clone().requires_grad_()
        expected, value = loss(eager, labels), compiled(traced, labels)
        torch.testing.assert_close(value, expected)
        expected.backward()
        value.backward()
        torch.testing.assert_close(traced.grad, eager.grad)
        if isinstance(loss, losses.RegionBoundaryLoss):
            loss.schedule.step()
    assert len(graphs) == 1
    assert any("signed_distance" in str(node.target) for node in graphs[0].graph.nodes)


@pytest.mark.parametrize("make", COMPILED.values(), ids=COMPILED)
def test_another_batch_size_compiles_nothing(make: Callable[[], torch.nn.Module]) -> None:
    """The first batch is of 2, a length that no tensor of ours may share by chance."""
    torch.compiler.reset()
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    loss = make()
    compiled = torch.compile(loss, fullgraph=True, backend=count, dynamic=True)
    for batch in (2, 3, 5):
        labels = label_map(3, batch=batch, classes=CLASSES)
        prediction = logits(labels, CLASSES)
        torch.testing.assert_close(compiled(prediction, labels), loss(prediction, labels))
    assert len(graphs) == 1


def test_compiled_code_does_not_look_at_soft_targets() -> None:
    torch.compiler.reset()
    loss = losses.HausdorffDTLoss(softmax=True)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    prediction = logits(label_map(3), CLASSES)
    target = torch.softmax(prediction, 1)
    torch.testing.assert_close(compiled(prediction, target), loss(prediction, target))
    assert compiled(prediction, 2 * target).isfinite()  # refused where it is not compiled


@every_loss
def test_nothing_piles_up_over_steps(make: Callable[..., DistanceMapLoss]) -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES).requires_grad_()
    loss = make(softmax=True)

    def living() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    def steps(count: int) -> None:
        for _ in range(count):
            loss(prediction, labels).backward()
            prediction.grad = None

    steps(2)
    before = living()
    steps(30)
    assert living() <= before


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's process accounting")
@pytest.mark.parametrize("name", ["BoundaryLoss", "HausdorffDTLoss"])
def test_resident_memory_stays_level(name: str) -> None:
    labels = torch.zeros(2, 48, 48, 48, dtype=torch.uint8)
    labels[:, 10:30, 12:40, 15:35] = 1
    prediction = logits(labels, 2).requires_grad_()
    loss = getattr(losses, name)(softmax=True)

    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def steps(count: int) -> None:
        for _ in range(count):
            loss(prediction, labels).backward()
            prediction.grad = None

    steps(5)
    before = resident()
    steps(60)
    # One map that stayed behind in every step would be 60 times this.
    assert resident() - before < 4 * prediction.numel() * 8


@pytest.mark.parametrize("ignore_index", [None, 1])
@pytest.mark.parametrize(
    ("name", "settings", "calls"),
    [
        ("BoundaryLoss", {}, 1),
        ("HausdorffDTLoss", {}, 1),
        ("LogHausdorffDTLoss", {}, 1),
        ("HausdorffDTLoss", {"one_sided": True}, 1),
        ("GeneralizedSurfaceLoss", {}, 1),
        ("SDMRegressionLoss", {}, 1),
    ],
)
def test_one_backend_call_for_all_classes_and_samples(
    name: str,
    settings: dict[str, bool],
    calls: int,
    ignore_index: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend, made = registry.select("auto", torch.device("cpu")), []

    class Counted:
        def signed_distance(self, *arguments: Any) -> torch.Tensor:
            made.append(arguments)
            return backend.signed_distance(*arguments)

    monkeypatch.setattr(registry, "select", lambda *_: Counted())
    labels = label_map(3)
    loss = getattr(losses, name)(softmax=True, ignore_index=ignore_index, **settings)
    loss(logits(labels, CLASSES).requires_grad_(), labels).backward()
    assert len(made) == calls


def test_the_backend_asked_for_is_used() -> None:
    labels = label_map(3)
    prediction = logits(labels, CLASSES)
    with pytest.raises(ValueError, match="backend: must be 'auto' or one of"):
        losses.BoundaryLoss(backend="fast")(prediction, labels)
    with fastsdm.use_backend("scipy"):
        expected = losses.HausdorffDTLoss(softmax=True)(prediction, labels)
    torch.testing.assert_close(losses.HausdorffDTLoss(softmax=True)(prediction, labels), expected)
    maps = torch.rand(3, CLASSES - 1, *labels.shape[1:])
    with pytest.raises(ValueError, match="backend: must be 'auto' or one of"):
        losses.HausdorffDTLoss(backend="fast")(prediction, labels, distance_map=maps)
