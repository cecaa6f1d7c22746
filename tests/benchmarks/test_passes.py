"""How many passes over device memory the losses make: bounds, and that the counter counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.studies import passes

DOCS = Path(__file__).parents[2] / "docs" / "losses.md"
#: Passes forward and backward, and maps: at most.
BOUNDS = {
    "BoundaryLoss(softmax=True)": (2, 2, 1),
    "BoundaryLoss(sigmoid=True)": (2, 2, 1),
    "BoundaryLoss(False, softmax=True)": (3, 3, 1),
    "BoundaryLoss(softmax=True, class_weights=[1, 2, 3])": (3, 2, 1),
    "BoundaryLoss(softmax=True, ignore_index=255)": (12, 3, 1),
    "HausdorffDTLoss(softmax=True)": (8, 4, 1),
    "HausdorffDTLoss(2, True, softmax=True)": (8, 3, 1),
    "HausdorffDTLoss(1.5, softmax=True)": (9, 4, 1),
    "HausdorffDTLoss(softmax=True, one_sided=True)": (6, 4, 1),
    "HausdorffDTLoss(softmax=True, class_weights=[1, 2])": (9, 4, 1),
    "HausdorffDTLoss(softmax=True, ignore_index=255)": (19, 5, 1),
    "LogHausdorffDTLoss(softmax=True)": (8, 4, 1),
    "GeneralizedSurfaceLoss(softmax=True)": (8, 3, 1),
    "SDMRegressionLoss(other_act=torch.tanh)": (15, 9, 1),
}


@pytest.mark.parametrize("case", passes.CASES)
def test_passes_stay_within_their_bounds(case: str) -> None:
    found = passes.passes(passes.loss_of(case))
    forward, backward, maps = BOUNDS[case]
    assert len(found.forward) <= forward, found.forward
    assert len(found.backward) <= backward, found.backward
    assert found.maps <= maps


@pytest.mark.parametrize("case", passes.CASES)
def test_the_documentation_has_the_counts(case: str) -> None:
    title, *cells = passes.row(case)
    (line,) = (line for line in DOCS.read_text().splitlines() if line.startswith(f"| {title} |"))
    assert line.endswith(f"| {' | '.join(cells)} |")


def test_one_softmax_and_no_copies() -> None:
    for case in ("BoundaryLoss(softmax=True)", "HausdorffDTLoss(softmax=True)"):
        found = passes.passes(passes.loss_of(case))
        names = [name.removeprefix("aten::") for name in (*found.forward, *found.backward)]
        assert sum("softmax" in name for name in names) == 2  # one forward, one backward
        assert not {"clone", "cat", "stack", "contiguous"} & {name.partition(".")[0] for name in names}


class Known(torch.nn.Module):
    """Three passes forward: the product, the sum, and the labels' comparison; views and reserves beside."""

    def forward(self, prediction: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        torch.eq(labels, 1, out=torch.empty(labels.shape, dtype=torch.bool, device=labels.device))
        small = prediction[:, 0, 0, 0].square().sum()
        return (2 * prediction).flatten(2).sum() + 0 * small


def test_the_counter_counts_what_is_known() -> None:
    found = passes.passes(Known())
    assert [name.partition(".")[0] for name in found.forward] == ["aten::eq", "aten::mul", "aten::sum"]
    assert found.maps == 0
    voxels = passes.BATCH * 16**3
    float_pass = 4 * passes.CHANNELS * voxels
    backward = len(found.backward)
    assert backward >= 1
    assert found.bytes >= 2 * voxels + 3 * float_pass + backward * float_pass
