"""The map under torch.compile: one graph, eager's values and gradients, compiled once."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import fastsdm
from fastsdm import _operator, testing
from fastsdm.losses import BoundaryLoss, HausdorffDTLoss

SHAPE = (9, 10, 11)


def labels(seed: int = 0) -> torch.Tensor:
    masks = [testing.blobs(SHAPE, sigma=2, seed=2 * seed + sample) for sample in range(2)]
    return torch.stack([torch.from_numpy(mask) for mask in masks]).long()


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("limit", [None, 3.0])
def test_operator_is_registered_as_torch_wants_it(dtype, limit) -> None:
    spacing = torch.ones(2, 3, dtype=torch.float64)
    arguments = (labels(), spacing, [], [0, 1, 2], "kervadec", "zero", limit, dtype, "auto")
    torch.library.opcheck(_operator.signed_distance_operator, arguments)
    flat = (
        labels()[0] > 0,
        None,
        [0.5, 2.0],
        [1],
        "midline",
        "max",
        limit,
        dtype,
        "scipy",
    )
    torch.library.opcheck(_operator.signed_distance_operator, flat)


def step(
    loss: torch.nn.Module, logits: torch.Tensor, target: torch.Tensor, spacing: torch.Tensor
) -> torch.Tensor:
    return loss(logits.softmax(1), target, spacing=spacing)


def value_and_gradient(run, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, *SHAPE, generator=generator, requires_grad=True)
    spacing = 0.5 + torch.rand(2, 3, dtype=torch.float64, generator=generator)
    value = run(logits, labels(seed), spacing)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


@pytest.mark.parametrize("loss", [BoundaryLoss(), BoundaryLoss(normalize="max")], ids=["plain", "normalized"])
def test_training_steps_are_one_graph_compiled_once(loss) -> None:
    compiler = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda *inputs: step(loss, *inputs), backend=compiler, fullgraph=True)
    for seed in range(4):
        expected = value_and_gradient(lambda *inputs: step(loss, *inputs), seed)
        torch.testing.assert_close(value_and_gradient(compiled, seed), expected)
    assert compiler.frame_count == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own, in 2.13
def test_training_step_under_inductor() -> None:
    loss = BoundaryLoss()
    compiled = torch.compile(lambda *inputs: step(loss, *inputs), fullgraph=True)
    expected = value_and_gradient(lambda *inputs: step(loss, *inputs), 0)
    torch.testing.assert_close(value_and_gradient(compiled, 0), expected)


@pytest.mark.parametrize(
    "settings", [{}, {"classes": 2}, {"classes": [1, 5], "convention": "midline", "empty": "max"}]
)
def test_function_alone(settings) -> None:
    compiled = torch.compile(
        lambda target: fastsdm.signed_distance(target, **settings) * 2, backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(labels()), fastsdm.signed_distance(labels(), **settings) * 2)


def test_distance_transform_alone() -> None:
    compiled = torch.compile(fastsdm.distance_transform, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(labels()), fastsdm.distance_transform(labels()))


def test_volumes_of_changing_size() -> None:
    compiler = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(fastsdm.signed_distance, backend=compiler, fullgraph=True, dynamic=True)
    frames = []
    for size in (7, 9, 12, 15):
        mask = torch.from_numpy(testing.noise((2, size, size + 1, size + 2)))
        torch.testing.assert_close(compiled(mask), fastsdm.signed_distance(mask))
        frames.append(compiler.frame_count)
    assert len(set(frames)) == 1


def test_spacing_that_is_wrong_is_still_refused() -> None:
    compiled = torch.compile(fastsdm.signed_distance, backend="aot_eager", fullgraph=True)
    good = torch.ones(2, 3, dtype=torch.float64)
    compiled(labels(), spacing=good)
    with pytest.raises(ValueError, match="spacing: must be positive"):
        compiled(labels(), spacing=-good)


#: What Inductor says while it compiles for CUDA; a warning raised there would break the compile.
INDUCTOR_ADVICE = (
    "ignore:.*torch.jit.script_method:DeprecationWarning",
    "ignore:TensorFloat32 tensor cores:UserWarning",  # on matrix products, none here
    r"ignore:\s*Online softmax is disabled on the fly:UserWarning",
)


@pytest.mark.gpu
@pytest.mark.filterwarnings(*INDUCTOR_ADVICE)
@pytest.mark.parametrize("amp", [None, torch.float16, torch.bfloat16])
def test_cuda_training_steps_are_one_graph_compiled_once(amp) -> None:
    loss = BoundaryLoss()

    def amp_step(logits, target, spacing):
        with torch.autocast("cuda", dtype=amp, enabled=amp is not None):
            return step(loss, logits.cuda(), target.cuda(), spacing)

    compiler = CompileCounterWithBackend("inductor")
    compiled = torch.compile(amp_step, backend=compiler, fullgraph=True)
    for seed in range(3):
        torch.testing.assert_close(value_and_gradient(compiled, seed), value_and_gradient(amp_step, seed))
    assert compiler.frame_count == 1


@pytest.mark.gpu
@pytest.mark.filterwarnings(*INDUCTOR_ADVICE)
@pytest.mark.parametrize(
    "loss", [BoundaryLoss(), HausdorffDTLoss(include_background=True)], ids=lambda loss: type(loss).__name__
)
def test_cuda_training_steps_in_cuda_graphs(loss) -> None:
    """Recorded once, replayed with other logits and labels."""

    def cuda_step(logits, target):
        return loss(torch.softmax(logits, dim=1), target)

    compiled = torch.compile(cuda_step, mode="reduce-overhead")
    for seed in range(5):  # the first calls warm up and record
        generator = torch.Generator().manual_seed(seed)
        target = torch.randint(0, 3, (2, 1, 9, 10, 11), generator=generator).cuda()
        results = []
        for call in (compiled, cuda_step):
            logits = torch.randn(2, 3, 9, 10, 11, generator=torch.Generator().manual_seed(seed)).cuda()
            logits.requires_grad_()
            torch.compiler.cudagraph_mark_step_begin()
            value = call(logits, target)
            value.backward()
            results.append((value.detach().clone(), logits.grad.clone()))
        torch.testing.assert_close(results[0], results[1])
