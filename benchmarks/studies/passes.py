"""Passes over device memory that a loss makes around its map, counted, not timed: a table of docs/losses.md.

python -m benchmarks.studies.passes

The losses run on torch's `meta` device, where operators are dispatched as on an accelerator and nothing is
computed. A pass is an operator that reads or writes a tensor of at least one value per voxel. Views and
memory that is only reserved do not count. Traffic is what the passes read and write at least, in bytes per
voxel and channel of the prediction (a float32 has 4). The map's operator is counted apart, without traffic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import typer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.report.markdown import table
from fastsdm import losses

BATCH, CHANNELS, SHAPE = 2, 3, (16, 16, 16)
_RESERVED = frozenset({"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty"})

#: What is counted: constructors, as they are called.
CASES = (
    "BoundaryLoss(softmax=True)",
    "BoundaryLoss(sigmoid=True)",
    "BoundaryLoss(False, softmax=True)",
    "BoundaryLoss(softmax=True, class_weights=[1, 2, 3])",
    "BoundaryLoss(softmax=True, ignore_index=255)",
    "HausdorffDTLoss(softmax=True)",
    "HausdorffDTLoss(2, True, softmax=True)",
    "HausdorffDTLoss(1.5, softmax=True)",
    "HausdorffDTLoss(softmax=True, one_sided=True)",
    "HausdorffDTLoss(softmax=True, class_weights=[1, 2])",
    "HausdorffDTLoss(softmax=True, ignore_index=255)",
    "LogHausdorffDTLoss(softmax=True)",
    "GeneralizedSurfaceLoss(softmax=True)",
    "SDMRegressionLoss(other_act=torch.tanh)",
)


def loss_of(case: str) -> torch.nn.Module:
    """The loss that this constructor call makes."""
    loss: torch.nn.Module = eval(case, {"torch": torch, **vars(losses)})  # one of CASES
    return loss


@dataclass
class Passes:
    """What a loss and its gradient cost.

    Attributes:
        forward: names of the operators that make a pass, in order, the map's left out.
        backward: the same of the gradient.
        maps: calls of the map's operator.
        bytes: read and written by the passes.
    """

    forward: list[str] = field(default_factory=list)
    backward: list[str] = field(default_factory=list)
    maps: int = 0
    bytes: int = 0

    @property
    def count(self) -> int:
        """Of all passes around the maps."""
        return len(self.forward) + len(self.backward)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    def __init__(self, voxels: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.passes = Passes()
        self.names = self.passes.forward
        self._voxels = voxels

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view or func.name().partition(".")[0] in {*_RESERVED, "aten::detach"}:
            return result
        written = [kwargs["out"]] if "out" in kwargs else tree_leaves(result)
        read = {id(leaf): leaf for leaf in tree_leaves((args, {**kwargs, "out": None}))}.values()
        moved = [leaf for leaf in (*read, *written) if self._is_whole(leaf)]
        if func.namespace == "fastsdm":
            self.passes.maps += 1
        elif moved:
            self.names.append(func.name())
            self.passes.bytes += sum(leaf.numel() * leaf.element_size() for leaf in moved)
        return result

    def _is_whole(self, leaf: object) -> bool:
        return isinstance(leaf, torch.Tensor) and leaf.numel() >= self._voxels


def passes(loss: torch.nn.Module, dtype: torch.dtype = torch.float32) -> Passes:
    """Of one call with a label map `[B, *S]` of uint8, and its gradient.

    Args:
        loss: any of `fastsdm.losses`.
        dtype: of the prediction.
    """
    labels = torch.zeros(BATCH, *SHAPE, dtype=torch.uint8, device="meta")
    prediction = torch.zeros(BATCH, CHANNELS, *SHAPE, dtype=dtype, device="meta", requires_grad=True)
    counter = _Counter(labels.numel())
    with counter:
        value = loss(prediction, labels)
        counter.names = counter.passes.backward
        value.backward()
    return counter.passes


def row(title: str) -> tuple[str, ...]:
    """A case's cells: the loss, passes forward and backward, maps, traffic."""
    found = passes(loss_of(title))
    traffic = found.bytes / (BATCH * CHANNELS * math.prod(SHAPE))
    return (
        f"`{title}`",
        f"{len(found.forward)}",
        f"{len(found.backward)}",
        f"{found.maps}",
        f"{traffic:.0f}",
    )


def main() -> None:
    """Print the table."""
    header = ("loss", "forward", "backward", "maps", "bytes per voxel and channel")
    print(table(header, [row(title) for title in CASES]))


if __name__ == "__main__":
    typer.run(main)
