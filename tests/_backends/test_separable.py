"""The torch backend: batches, what it holds at once, and whether its operators exist on other devices."""

from __future__ import annotations

import re
from importlib import resources

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastsdm import testing
from fastsdm._backends import separable

SHAPES = [(5, 6, 7), (5, 6)]
LIMITS = [None, 2.0]

#: Operators with a kernel of their own for Intel GPUs: intel/torch-xpu-ops, yaml/native/native_functions.yaml
#: at commit 8fbe66e (2026-06-17), those that are used here. Torch's own table names only a few of them.
XPU_KERNELS = frozenset(
    [
        "add.Tensor",
        "add.out",
        "add_.Tensor",
        "amin.out",
        "any.dim",
        "cat",
        "clamp_",
        "div_.Tensor_mode",
        "empty.memory_format",
        "eq.Scalar",
        "eq.Scalar_out",
        "fill_.Scalar",
        "gather",
        "ge.Scalar",
        "gt.Scalar",
        "le.Tensor",
        "masked_fill_.Scalar",
        "maximum",
        "min.dim",
        "minimum",
        "minimum.out",
        "mul.Tensor",
        "mul_.Tensor",
        "ne.Scalar",
        "ne.Tensor",
        "neg",
        "pow_.Scalar",
        "sqrt_",
        "sub.Tensor",
        "view",
        "where.self",
        "where.self_out",
    ]
)


class Recorder(TorchDispatchMode):
    """Keeps the operators that run, and how many numbers each made."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch._ops.OpOverload, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, result.numel() if isinstance(result, torch.Tensor) else 0))
        return result

    def made(self, operator: str) -> list[int]:
        return [numbers for func, numbers in self.calls if str(func) == operator]


def recorded(call) -> Recorder:
    with Recorder() as recorder:
        call()
    return recorder


@pytest.fixture(scope="module")
def operators() -> set[torch._ops.OpOverload]:
    """All that the backend asks of a device, for every kind of call; on `meta`, which has no values."""
    used = set()
    for shape in SHAPES:
        labels = torch.zeros(3, *shape, dtype=torch.int64).to("meta")
        equal = torch.ones(3, len(shape), dtype=torch.float64)
        for spacing in (equal, equal * torch.arange(1, 4)[:, None]):
            for limit in LIMITS:
                calls = (
                    lambda: separable.BACKEND.signed_distance(labels, [0, 1], spacing, limit),  # noqa: B023
                    lambda: separable.BACKEND.nearest(labels, [None], spacing, limit),  # noqa: B023
                    lambda: separable.BACKEND.nearest(labels, [1, 2], spacing, limit),  # noqa: B023
                    lambda: separable.BACKEND.instance_distance(labels, 0, spacing, limit, True),  # noqa: B023
                )
                used |= {func for call in calls for func, _ in recorded(call).calls}
    return used


def test_no_operator_depends_on_values(operators) -> None:
    """Nothing waits for a device, nothing has a shape that only values tell."""
    assert len(operators) > 30
    for tag in (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape):
        assert not [str(func) for func in operators if tag in func.tags]


def torch_table() -> dict[str, str]:
    """Torch's own table of operators, which comes with every torch: name to entry."""
    folder = resources.files("torchgen") / "packaged" / "ATen" / "native"
    text = (folder / "native_functions.yaml").read_text()
    entries = {}
    for entry in re.split(r"\n(?=- func: )", text):
        head = re.match(r"- func: ([\w.]+)\(", entry)
        if head:
            entries[head[1]] = entry
    return entries


def kernels(table: dict[str, str], name: str) -> set[str]:
    """Dispatch keys that an operator, or the one that it is made of, has a kernel for."""
    entry = table[name]
    keys = {key for line in re.findall(r"^    ([\w, ]+): ", entry, re.M) for key in line.split(", ")}
    delegate = re.search(r"structured_delegate: (\S+)", entry)
    if delegate:
        keys |= kernels(table, delegate[1])
    # Without a kernel an operator is written in terms of others, which are recorded in its stead.
    return keys or {"CompositeImplicitAutograd"}


def test_the_table_is_read_rightly() -> None:
    table = torch_table()
    assert "MPS" in kernels(table, "amin")
    assert "MPS" not in kernels(table, "_fft_r2c.out") or "MPS" not in kernels(table, "linalg_eig.out")
    assert "CUDA" in kernels(table, "linalg_eig.out")
    assert "CompositeExplicitAutograd" in kernels(table, "full_like")


def test_every_operator_exists_on_mps_and_xpu(operators) -> None:
    """By torch's tables; no such device was at hand."""
    table = torch_table()
    for func in operators:
        name = str(func).removeprefix("aten.").removesuffix(".default")
        found = kernels(table, name)
        anywhere = any(key.startswith("Composite") for key in found)
        assert anywhere or "MPS" in found, name
        assert anywhere or name in XPU_KERNELS, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", LIMITS)
def test_shapes_on_meta(shape, limit) -> None:
    labels = torch.zeros(3, *shape, dtype=torch.uint8, device="meta")
    spacing = torch.rand(3, len(shape), dtype=torch.float64) + 0.5
    maps = separable.BACKEND.signed_distance(labels, [0, 1], spacing, limit)
    assert (maps.shape, maps.dtype, maps.device.type) == ((3, 2, *shape), torch.float32, "meta")
    indices = separable.BACKEND.nearest(labels, [0, 1], spacing, limit)
    assert (indices.shape, indices.dtype) == ((3, 2, len(shape), *shape), torch.int32)
    inside = separable.BACKEND.instance_distance(labels, 0, spacing, limit, False)
    assert (inside.shape, inside.dtype) == ((3, *shape), torch.float32)


def batch(count: int, shape=(9, 10, 11)) -> torch.Tensor:
    volumes = [testing.shells(shape, classes=3, thickness=1 + seed % 3) for seed in range(count)]
    return torch.from_numpy(np.stack(volumes))


@pytest.mark.parametrize("together", [1, 3000, 1 << 20])
@pytest.mark.parametrize("block", [1, 300, 1 << 19])
@pytest.mark.parametrize("limit", [None, 2.5])
def test_a_batch_is_its_volumes_one_by_one(monkeypatch, together, block, limit) -> None:
    monkeypatch.setattr(separable, "_CPU_TOGETHER", together)
    monkeypatch.setattr(separable, "_CPU_BLOCK", block)
    labels, spacing = batch(4, (6, 5, 7)), torch.rand(4, 3, dtype=torch.float64) + 0.5
    spacing[2] = spacing[1]
    backend = separable.BACKEND
    calls = (
        lambda part: backend.signed_distance(labels[part], [2, 0], spacing[part], limit),
        lambda part: backend.nearest(labels[part], [2, 0], spacing[part], limit),
        lambda part: backend.instance_distance(labels[part], 0, spacing[part], limit, True),
    )
    for call in calls:
        whole = call(slice(0, 4))
        with monkeypatch.context() as patch:
            patch.setattr(separable, "_CPU_BLOCK", 1 << 19)
            for sample in range(4):
                alone = call(slice(sample, sample + 1))[0]
                if limit is None:
                    assert torch.equal(whole[sample], alone)
                else:  # beyond the limit the volumes' voxel sizes say how far is looked
                    clamped = whole[sample].clamp(-limit, limit)
                    assert torch.equal(clamped, alone.clamp(-limit, limit))


def plain(labels: torch.Tensor, limit: float | None = None) -> Recorder:
    spacing = torch.ones(len(labels), 3, dtype=torch.float64)
    return recorded(lambda: separable.BACKEND.signed_distance(labels, [1], spacing, limit))


def test_many_small_volumes_take_the_operators_of_one() -> None:
    one, many = (len(plain(batch(count)).calls) for count in (1, 64))
    assert many < 1.5 * one


def test_what_is_held_at_once_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(separable, "_CPU_TOGETHER", 4000)
    monkeypatch.setattr(separable, "_CPU_BLOCK", 2000)
    labels = batch(30)
    recorder = plain(labels)
    assert 1000 < max(recorder.made("aten.add.Tensor")) <= 2000
    assert max(recorder.made("aten.where.self") + recorder.made("aten.minimum.out")) <= 4000


def test_a_limit_bounds_the_comparisons() -> None:
    labels = torch.from_numpy(testing.one_voxel((40, 40, 40)))[None]
    everything, near = (sum(plain(labels, limit).made("aten.add.Tensor")) for limit in (None, 4.0))
    assert near < everything / 2


@pytest.mark.parametrize("size", [8192, 8193])
def test_rows_beyond_16_bits(size) -> None:
    labels = torch.zeros(1, 1, size, dtype=torch.uint8)
    labels[0, 0, 5] = 1
    got = separable.BACKEND.signed_distance(labels, [1], torch.ones(1, 2).double(), None)
    assert torch.equal(
        got[0, 0, 0], torch.where(labels[0, 0] > 0, -1.0, (torch.arange(size) - 5).abs().float())
    )
