"""What every metric and every object that collects them refuses: argument, rule and value in one line."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import metrics

MASKS = torch.zeros(2, 3, 4, 5, 6)
LABELS = torch.zeros(2, 4, 5, 6, dtype=torch.int64)
NAN = torch.full((1, 3, 3, 4), math.nan)

FUNCTIONS = {
    "hausdorff_distance": (),
    "average_surface_distance": (),
    "surface_dice": ([1.0, 1.0],),
    "dice": (),
}
OBJECTS = {
    "HausdorffDistanceMetric": {},
    "SurfaceDistanceMetric": {},
    "SurfaceDiceMetric": {"class_thresholds": [1.0, 1.0]},
    "DiceMetric": {},
}
#: Inputs that no metric takes, by what the message says.
INPUTS = [
    ((MASKS, MASKS[:1]), {}, ValueError, r"y: must have the shape of y_pred \(2, 3, 4, 5, 6\), got \(1,"),
    ((MASKS[0, 0], MASKS[0, 0]), {}, ValueError, r"y_pred: must be \[B, C, \*S\] with 2 or 3 .* \(4, 5, 6\)"),
    ((MASKS, MASKS[0, 0]), {}, ValueError, r"y: must be \[B, C, \*S\] with 2 or 3 .* \(4, 5, 6\)"),
    ((MASKS, [1]), {}, TypeError, "y: must be a torch tensor, a numpy array or a cupy array, got list"),
    (
        (MASKS + 1j, MASKS),
        {},
        TypeError,
        "y_pred: must hold booleans, integers or floats, got dtype torch.comp",
    ),
    ((MASKS, MASKS.to("meta")), {}, ValueError, "y: must be on the device of y_pred cpu, got meta"),
    ((NAN, NAN * 0), {}, ValueError, "y_pred: must not contain NaN"),
    ((torch.zeros_like(NAN), NAN), {}, ValueError, "y: must not contain NaN"),
    ((torch.zeros_like(NAN), NAN.half()), {}, ValueError, "y: must not contain NaN"),
    ((LABELS, LABELS), {"num_classes": 1}, ValueError, "num_classes: .* at least 2, got 1"),
    ((LABELS, LABELS), {"num_classes": True}, TypeError, "num_classes: must be an integer, got True"),
    ((LABELS, LABELS), {"num_classes": 2.5}, TypeError, "num_classes: must be an integer, got 2.5"),
    ((LABELS[0, 0], LABELS[0, 0]), {"num_classes": 3}, ValueError, r"y_pred: must be \[B, \*S\] or \[B, 1,"),
    ((LABELS + 0.5, LABELS), {"num_classes": 3}, ValueError, "y_pred: float label maps .* got 0.5"),
    ((LABELS, LABELS * math.nan), {"num_classes": 3}, ValueError, "y: must not contain NaN"),
    ((MASKS, MASKS), {"ignore_index": 1.5}, TypeError, "ignore_index: must be an integer, got 1.5"),
    (
        (MASKS, MASKS),
        {"include_background": 95},
        TypeError,
        "include_background: must be True or False, got 95",
    ),
]
#: Options that only those with surfaces have.
SURFACE_OPTIONS = [
    ({"distance_metric": "taxicab"}, ValueError, "distance_metric: must be 'euclidean', got 'taxicab'"),
    ({"spacing": (1.0, 2.0)}, ValueError, "spacing: must be a number, 3 numbers"),
    ({"spacing": [(1.0, 1.0, 1.0)] * 3}, ValueError, r"spacing: .* got shape \(3, 3\)"),
    ({"spacing": []}, ValueError, r"spacing: must hold one number per spatial axis, got shape \(0,\)"),
    ({"spacing": -1}, ValueError, "spacing: must be positive and finite, got -1"),
    ({"spacing": (1.0, math.nan, 1.0)}, ValueError, "spacing: must be positive and finite, got nan"),
    ({"spacing": "mm"}, TypeError, "spacing: must be a number or numbers, got 'mm'"),
    ({"use_subvoxels": "yes"}, TypeError, "use_subvoxels: must be True or False, got 'yes'"),
    ({"backend": "fast"}, ValueError, "backend: must be 'auto' or one of .* got 'fast'"),
    ({"backend": 3}, TypeError, "backend: must be 'auto' or the name of a backend, got 3"),
]
#: Options of one metric: of its function and of its object.
OWN_OPTIONS = [
    ("hausdorff_distance", "HausdorffDistanceMetric", {"percentile": 0}, ValueError, "percentile: .* got 0"),
    (
        "hausdorff_distance",
        "HausdorffDistanceMetric",
        {"percentile": 101},
        ValueError,
        "at most 100; got 101",
    ),
    (
        "hausdorff_distance",
        "HausdorffDistanceMetric",
        {"percentile": math.nan},
        ValueError,
        "above 0 .* got nan",
    ),
    ("hausdorff_distance", "HausdorffDistanceMetric", {"percentile": "95"}, TypeError, "a number, got '95'"),
    ("hausdorff_distance", "HausdorffDistanceMetric", {"directed": None}, TypeError, "directed: .* got None"),
    ("average_surface_distance", "SurfaceDistanceMetric", {"symmetric": 1}, TypeError, "symmetric: .* got 1"),
    (
        "hausdorff_distance",
        "HausdorffDistanceMetric",
        {"percentil": 9},
        TypeError,
        "percentil: is no argument",
    ),
    (
        "average_surface_distance",
        "SurfaceDistanceMetric",
        {"directed": True},
        TypeError,
        "directed: is no arg",
    ),
]
THRESHOLDS = [
    ([1.0, -1], ValueError, r"class_thresholds: must be at least 0 and finite, got \[1.0, -1.0\]"),
    ([1.0, np.inf], ValueError, "class_thresholds: must be at least 0 and finite"),
    ([1.0, math.nan], ValueError, "class_thresholds: must be at least 0 and finite"),
    ([1.0, "2"], TypeError, "class_thresholds: must be a number, got '2'"),
    (1.0, TypeError, "class_thresholds: must be a sequence of numbers, got float"),
    ("12", TypeError, "class_thresholds: must be a sequence of numbers, got str"),
]


def refused(error, message, function, *arguments, **options) -> None:
    with pytest.raises(error, match=message) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)


def applies(name: str, options) -> bool:
    return not (name == "dice" and {"use_subvoxels", "backend"} & options.keys())


@pytest.mark.parametrize(("arguments", "options", "error", "message"), INPUTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_refuse_inputs(name, arguments, options, error, message) -> None:
    refused(error, message, getattr(metrics, f"compute_{name}"), *arguments, *FUNCTIONS[name], **options)


@pytest.mark.parametrize(("arguments", "options", "error", "message"), INPUTS)
@pytest.mark.parametrize("name", OBJECTS)
def test_objects_refuse_inputs(name, arguments, options, error, message) -> None:
    metric = getattr(metrics, name)(**OBJECTS[name])
    refused(error, message, metric.update, *arguments, **options)
    refused(error, message, metric, *arguments, **options)
    refused(ValueError, "compute: needs at least one batch, none was added", metric.compute)


@pytest.mark.parametrize(("arguments", "options", "error", "message"), INPUTS)
@pytest.mark.parametrize("backend", ["native", "scipy"])
def test_every_backend_refuses_inputs(backend, arguments, options, error, message) -> None:
    refused(error, message, metrics.compute_hausdorff_distance, *arguments, backend=backend, **options)


@pytest.mark.parametrize(("options", "error", "message"), SURFACE_OPTIONS)
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "dice"])
def test_functions_refuse_options(name, options, error, message) -> None:
    function = getattr(metrics, f"compute_{name}")
    refused(error, message, function, MASKS, MASKS, *FUNCTIONS[name], **options)


@pytest.mark.parametrize(("options", "error", "message"), SURFACE_OPTIONS)
@pytest.mark.parametrize("name", [name for name in OBJECTS if name != "DiceMetric"])
def test_objects_refuse_options(name, options, error, message) -> None:
    metric = getattr(metrics, name)(**OBJECTS[name])
    refused(error, message, metric.update, MASKS, MASKS, **options)
    if error is TypeError or "distance_metric" in options:  # what needs no data is refused at once
        refused(error, message, getattr(metrics, name), **OBJECTS[name], **options)


@pytest.mark.parametrize(("function", "name", "options", "error", "message"), OWN_OPTIONS)
def test_options_of_one_metric(function, name, options, error, message) -> None:
    refused(error, message, getattr(metrics, f"compute_{function}"), MASKS, MASKS, **options)
    refused(error, message, getattr(metrics, name), **options)


@pytest.mark.parametrize(("thresholds", "error", "message"), THRESHOLDS)
def test_thresholds(thresholds, error, message) -> None:
    refused(error, message, metrics.compute_surface_dice, MASKS, MASKS, thresholds)
    refused(error, message, metrics.SurfaceDiceMetric, thresholds)


def test_thresholds_of_other_classes() -> None:
    message = r"class_thresholds: must have one value per class that counts \(2\), got 1"
    refused(ValueError, message, metrics.compute_surface_dice, MASKS, MASKS, [1.0])
    refused(ValueError, message, metrics.SurfaceDiceMetric([1.0]), MASKS, MASKS)


@pytest.mark.parametrize("name", OBJECTS)
def test_reductions(name) -> None:
    make = getattr(metrics, name)
    message = "reduction: must be one of .* got 'median'"
    refused(ValueError, message, make, **OBJECTS[name], reduction="median")
    metric = make(**OBJECTS[name])
    metric.update(MASKS, MASKS)
    refused(ValueError, message, metric.compute, "median")
    refused(
        TypeError, "colour: is no argument of the metric; it takes include", make, **OBJECTS[name], colour=1
    )
    refused(TypeError, "colour: is no argument of the metric", metric.update, MASKS, MASKS, colour=1)


def test_a_backend_that_cannot_run_is_refused() -> None:
    with pytest.raises(fastsdm.BackendUnavailableError, match="triton"):
        metrics.compute_hausdorff_distance(MASKS, MASKS, backend="triton")
