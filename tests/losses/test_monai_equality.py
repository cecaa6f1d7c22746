"""At unit spacing the losses are MONAI's, over the whole grid of their arguments."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from fastsdm import losses
from tests.losses.cases import label_map, logits, one_hot

monai_losses = pytest.importorskip("monai.losses")

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "sigmoid": {"sigmoid": True},
    "softmax": {"softmax": True},
    "other": {"other_act": torch.nn.functional.softplus},
}
GRID = list(
    itertools.product((2, 3), (1, 3), (True, False), (True, False), ("none", "mean", "sum"), (True, False))
)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["BoundaryLoss", "HausdorffDTLoss", "LogHausdorffDTLoss"])
@pytest.mark.filterwarnings("ignore:single channel prediction:UserWarning")
def test_values_gradients_and_shapes_equal(name: str, activation: str) -> None:
    for ndim, channels, include_background, to_onehot_y, reduction, batch in GRID:
        arguments: dict[str, Any] = {
            "include_background": include_background,
            "to_onehot_y": to_onehot_y,
            "reduction": reduction,
            "batch": batch,
            **ACTIVATIONS[activation],
        }
        labels = label_map(ndim, classes=max(channels, 2))
        # Floats: MONAI's HausdorffDTLoss truncates the distances of an integer mask to integers.
        labels = labels.float()
        target = labels.unsqueeze(1) if to_onehot_y or channels == 1 else one_hot(labels, channels)
        ours, theirs = (logits(labels, channels).requires_grad_() for _ in range(2))
        expected = getattr(monai_losses, name)(**arguments)(theirs, target)
        value = getattr(losses, name)(**arguments)(ours, target)
        context = f"{ndim}D, {channels} channels, {arguments}"
        assert value.shape == expected.shape, context
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6, msg=lambda m: f"{context}: {m}")  # noqa: B023
        value.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(
            ours.grad,
            theirs.grad,
            rtol=1e-5,
            atol=1e-7,
            msg=lambda m: f"{context}: {m}",  # noqa: B023
        )
