"""What a loss refuses, each with a message that names argument, rule and value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fastsdm import losses

PREDICTION = torch.rand(2, 3, 4, 5, 6)
LABELS = torch.zeros(2, 4, 5, 6, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"other_act": 3}, "other_act: must be None or callable, got int"),
        ({"softmax": True, "sigmoid": True}, "sigmoid, softmax, other_act: at most one can be applied, got"),
        ({"softmax": True, "other_act": torch.tanh}, "sigmoid, softmax, other_act: at most one"),
        ({"reduction": "max"}, "reduction: must be one of 'none', 'mean', 'sum'; got 'max'"),
        ({"convention": "signed"}, "convention: must be one of .*; got 'signed'"),
        ({"empty": "nan"}, "empty: must be one of .*; got 'nan'"),
        (
            {"empty": "inf"},
            "empty: must be 'zero', 'max' or 'raise' in a loss without max_distance, got 'inf'",
        ),
        ({"max_distance": -1.0}, "max_distance: must be positive and finite, got -1.0"),
        ({"max_distance": "far"}, "max_distance: must be None or a number, got str"),
        ({"normalize": "mean"}, "normalize: must be one of 'max', 'unit'; got 'mean'"),
        ({"backend": "magic"}, "backend: must be 'auto' or one of .*; got 'magic'"),
        ({"spacing": 0.0}, "spacing: must be positive and finite, got 0.0"),
        ({"spacing": [1.0, -2.0, 1.0]}, "spacing: must be positive and finite, got -2.0"),
        ({"spacing": [[1.0, 1.0], [1.0, float("nan")]]}, "spacing: must be positive and finite, got nan"),
        ({"spacing": [1.0]}, r"spacing: must be a number, 2 or 3 numbers .*; got shape \(1,\)"),
        ({"spacing": torch.ones(1, 1, 3)}, r"spacing: must be a number, 2 or 3 .*; got shape \(1, 1, 3\)"),
        ({"spacing": "wide"}, "spacing: must be a number or numbers, got 'wide'"),
        ({"ignore_index": 1.5}, "ignore_index: must be an integer, got 1.5"),
        ({"ignore_index": True}, "ignore_index: must be an integer, got True"),
        ({"backend": None}, "backend: must be 'auto' or the name of a backend, got None"),
        ({"softmax": 1}, "softmax: must be True or False, got 1"),
        ({"sigmoid": "yes"}, "sigmoid: must be True or False, got 'yes'"),
        ({"include_background": 2.0}, "include_background: must be True or False, got 2.0"),
        ({"to_onehot_y": None}, "to_onehot_y: must be True or False, got None"),
        ({"batch": np.int64(1)}, "batch: must be True or False, got .*1"),
        ({"max_distance": True}, "max_distance: must be None or a number, got bool"),
        ({"classes": np.array([True, False])}, "classes: must hold integers, got"),
        ({"classes": np.array([1.0, 2.0])}, "classes: must hold integers, got"),
        ({"classes": torch.tensor(1)}, "classes: must be None or a sequence of channels, got Tensor"),
        ({"classes": torch.ones(2, device="meta")}, "classes: must be on the CPU"),
        ({"classes": 2}, "classes: must be None or a sequence of channels, got int"),
        ({"classes": "12"}, "classes: must be None or a sequence of channels, got str"),
        ({"classes": [1, True]}, r"classes: must hold integers, got \[1, True\]"),
        ({"classes": []}, r"classes: must be one or more channels from 0 on, ascending; got \[\]"),
        ({"classes": [-1, 1]}, r"classes: must be one or more channels from 0 on, ascending; got \[-1, 1\]"),
        ({"classes": [2, 1]}, r"classes: must be one or more channels from 0 on, ascending; got \[2, 1\]"),
        ({"classes": [1, 1]}, r"classes: must be one or more channels from 0 on, ascending; got \[1, 1\]"),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        losses.BoundaryLoss(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.BoundaryLoss(sofmax=True),  # type: ignore[call-arg]
            "sofmax: is not an argument of BoundaryLoss; did you mean softmax?",
        ),
        (
            lambda: losses.HausdorffDTLoss(alfa=1),  # type: ignore[call-arg]
            "alfa: is not an argument of HausdorffDTLoss; did you mean alpha?",
        ),
        (
            lambda: losses.BoundaryLoss(alpha=1),  # type: ignore[call-arg]
            "alpha: is not an argument of BoundaryLoss; it takes include_background, to_onehot_y",
        ),
        (
            lambda: losses.SDMRegressionLoss(True, include_background=True),
            "include_background: was given twice, by position and by name",
        ),
        (
            lambda: losses.HausdorffDTLoss(2.0, True, include_background=True),
            "include_background: was given twice",
        ),
        (
            lambda: losses.BoundaryLoss(*[False] * 4, None, "mean", False, [1]),
            r"BoundaryLoss: takes include_background, .*, batch by position .*, got \[1\] behind them",
        ),
        (lambda: losses.HausdorffDTLoss("far"), "alpha: must be a number, got 'far'"),
        (lambda: losses.HausdorffDTLoss(True), "alpha: must be a number, got True"),
        (lambda: losses.HausdorffDTLoss(one_sided=1), "one_sided: must be True or False, got 1"),
        (
            lambda: losses.GeneralizedSurfaceLoss(per_class="mean"),
            "per_class: must be True or False, got 'mean'",
        ),
        (lambda: losses.DeepSupervision(losses.BoundaryLoss(), ["a"]), "weights: must be a number, got 'a'"),  # type: ignore[list-item]
        (
            lambda: losses.DeepSupervision(losses.BoundaryLoss(), 1.5),
            "weights: must be None or a sequence of numbers, got 1.5",
        ),
        (
            lambda: losses.GeneralizedSurfaceLoss.inverse_frequency(5),
            "voxel_counts: must be a sequence of numbers, got 5",
        ),
        (
            lambda: losses.HausdorffDTLoss()(torch.rand(1, 2, 3, 3, 3), torch.zeros(1, 2, 3, 3, 3) + 0j),
            "target: must hold booleans, integers or floats, got dtype torch.complex64",
        ),
        (
            lambda: losses.DeepSupervision(losses.BoundaryLoss(), [True]),
            "weights: must be a number, got True",
        ),
        (
            lambda: losses.DeepSupervision(losses.BoundaryLoss(), spatial_dims=True),
            "spatial_dims: must be an integer, got True",
        ),
        (lambda: losses.BoundaryLoss().target_map(LABELS, True), "channels: must be an integer, got True"),
        (lambda: losses.BoundaryLoss().prefetch(LABELS, 2.5), "channels: must be an integer, got 2.5"),
        (
            lambda: losses.GeneralizedSurfaceLoss.inverse_frequency(["a"]),  # type: ignore[list-item]
            "voxel_counts: must be a number, got 'a'",
        ),
    ],
)
def test_wrong_types_and_names(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_alpha(alpha: float) -> None:
    with pytest.raises(ValueError, match=f"alpha: must be positive and finite, got {alpha}"):
        losses.HausdorffDTLoss(alpha)


def test_classes_beyond_the_prediction() -> None:
    with pytest.raises(ValueError, match=r"classes: must be below the prediction's 3 channels, got \[0, 3\]"):
        losses.BoundaryLoss(classes=[0, 3])(PREDICTION, LABELS)


CLASS_WEIGHTS = "class_weights: must be at least 0 and finite, and one of them positive, got"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0], rf"{CLASS_WEIGHTS} \[1.0, -1.0\]"),
        ([0.0, 0.0], CLASS_WEIGHTS),
        ([[1.0, float("inf")]], CLASS_WEIGHTS),
        ([[0.0], [float("nan")]], CLASS_WEIGHTS),
        (torch.zeros(2, 3), CLASS_WEIGHTS),
        ([], r"class_weights: must be \[K\] or, per sample, \[B, K\], got shape \(0,\)"),
        (torch.ones(1, 2, 3), r"class_weights: must be \[K\] or, .* got shape \(1, 2, 3\)"),
        (2.0, r"class_weights: must be \[K\] or, .* got shape \(\)"),
        ([[1.0], [1.0, 2.0]], "class_weights: must be None, numbers or rows of equal length, got"),
        ("12", "class_weights: must be None, numbers or rows of equal length, got '12'"),
        ([True, False], "class_weights: must be None, numbers or rows of equal length, got"),
        (torch.ones(3, dtype=torch.bool), "class_weights: must hold numbers, got dtype torch.bool"),
        (np.ones(3, dtype=bool), "class_weights: must hold numbers, got dtype bool"),
        (torch.ones(3) + 0j, "class_weights: must hold numbers, got dtype torch.complex64"),
        ([1.0, 2.0], r"class_weights: must have one value per channel that counts \(3\), got 2"),
        (torch.ones(3, 3), r"class_weights: must have one row per sample \(2\), got 3"),
    ],
)
@pytest.mark.parametrize("loss", [losses.BoundaryLoss, losses.GeneralizedSurfaceLoss])
def test_class_weights(loss: type[losses.BoundaryLoss], weights: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        loss()(PREDICTION, LABELS, class_weights=weights)
    with pytest.raises((ValueError, TypeError), match=message):
        loss(class_weights=weights)(PREDICTION, LABELS)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (torch.rand(2, 3, 4), r"input: must be \[B, C, H, W\] or \[B, C, D, H, W\], got shape \(2, 3, 4\)"),
        (LABELS[:, None], r"input: must hold floats, got dtype torch.int64"),
        (PREDICTION.numpy(), "input: must be a torch tensor, got ndarray"),
        ([PREDICTION], "input: must be a torch tensor, got list"),
    ],
)
def test_prediction(prediction: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        losses.BoundaryLoss()(prediction, LABELS)


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ([[1]], {}, "target: must be a torch tensor, a numpy array or a cupy array, got list"),
        (
            LABELS[:1],
            {},
            r"target: must have batch size and spatial shape of the prediction .*, got \(1, 4, 5, 6\)",
        ),
        (LABELS[:, :3], {}, "target: must have batch size and spatial shape"),
        (LABELS[:, 0], {}, "target: must have batch size and spatial shape"),
        (
            PREDICTION[:, :2],
            {},
            r"target: must be a label map or one channel per class \(3\) for a prediction of shape "
            r"\(2, 3, 4, 5, 6\), got shape \(2, 2, 4, 5, 6\)",
        ),
        (PREDICTION, {"to_onehot_y": True}, "target: must be a label map .* and to_onehot_y=True, got shape"),
        (
            PREDICTION,
            {"ignore_index": 3},
            "ignore_index: needs a label map; got ignore_index=3 .* ignore_mask",
        ),
        (LABELS.to("meta"), {}, "target: must be on the prediction's device cpu, got meta"),
        (LABELS + 0.5, {}, "target: float label maps must hold whole numbers, got 0.5"),
    ],
)
def test_target(target: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        losses.BoundaryLoss(**arguments)(PREDICTION, target)


@pytest.mark.parametrize("wrong", [float("nan"), -0.5, 255.0, float("inf")])
@pytest.mark.parametrize("channels", [1, 3])
def test_float_channels_are_probabilities(wrong: float, channels: int) -> None:
    prediction = PREDICTION[:, :channels]
    target = (prediction > 0.5).float()
    target[1, channels - 1, 2, 3, 4] = wrong
    for loss in (losses.BoundaryLoss(), losses.HausdorffDTLoss(include_background=True)):
        message = f"target: float channels must hold values from 0 to 1, got {wrong}"
        with pytest.raises(ValueError, match=message):
            loss(prediction, target)
        with pytest.raises(ValueError, match=message):
            loss.target_map(target, channels)
        ignored = torch.zeros(2, 4, 5, 6, dtype=torch.bool)
        ignored[1, 2, 3, 4] = True
        assert loss(prediction, target, ignore_mask=ignored).isfinite()
    if channels == 3:
        left_out = target[:, [2, 1, 0]]  # with the background
        assert losses.HausdorffDTLoss()(prediction, left_out).isfinite()


@pytest.mark.parametrize("beyond", [-1e-6, 1 + 1e-6])
def test_float_channels_may_miss_the_range_by_rounding(beyond: float) -> None:
    assert losses.HausdorffDTLoss()(PREDICTION, torch.full_like(PREDICTION, beyond)).isfinite()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"spacing": [1.0, 2.0]}, "spacing: must be a number, 3 numbers"),
        ({"spacing": -1.0}, "spacing: must be positive and finite, got -1.0"),
        (
            {"distance_map": PREDICTION[:, :1]},
            r"distance_map: must have shape \(2, 3, 4, 5, 6\), got \(2, 1, 4",
        ),
        (
            {"distance_map": PREDICTION.to("meta")},
            "distance_map: must be on the prediction's device cpu, got meta",
        ),
        ({"distance_map": "map"}, r"distance_map: must be a tensor or have a result\(\).*, got str"),
        ({"distance_map": PREDICTION > 0.5}, "distance_map: must hold distances, got dtype torch.bool"),
        ({"distance_map": PREDICTION + 0j}, "distance_map: must hold distances, got dtype torch.complex64"),
        (
            {"ignore_mask": PREDICTION[:, :2] > 0.5},
            r"ignore_mask: must have one channel, 3 \(one per class\) or none, got shape \(2, 2, 4",
        ),
        ({"ignore_mask": LABELS[:, 1:]}, "ignore_mask: must have batch size and spatial shape"),
        ({"ignore_mask": LABELS.to("meta")}, "ignore_mask: must be on the prediction's device cpu, got meta"),
    ],
)
def test_keywords(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        losses.BoundaryLoss()(PREDICTION, LABELS, **keywords)


def test_target_map() -> None:
    with pytest.raises(ValueError, match="spatial_dims: must be 2 or 3, got 4"):
        losses.BoundaryLoss().target_map(LABELS, 3, spatial_dims=4)
    with pytest.raises(ValueError, match="target: must have a batch axis before the axes of spatial_dims=3"):
        losses.BoundaryLoss().target_map(LABELS[0], 3)
