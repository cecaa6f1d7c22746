"""What the metrics refuse: argument, rule and value in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsdm import metrics

MASKS = torch.zeros(2, 3, 4, 5, 6)
LABELS = torch.zeros(2, 4, 5, 6, dtype=torch.int64)


@pytest.mark.parametrize(
    ("function", "arguments", "options", "message"),
    [
        (
            "hausdorff_distance",
            (MASKS, MASKS[:1]),
            {},
            r"y: must have the shape of y_pred \(2, 3, 4, 5, 6\), got \(1,",
        ),
        (
            "hausdorff_distance",
            (MASKS, MASKS),
            {"percentile": 0},
            "percentile: must be None, or above 0 .* got 0",
        ),
        ("hausdorff_distance", (MASKS, MASKS), {"percentile": 101}, "percentile: .* at most 100; got 101"),
        (
            "hausdorff_distance",
            (MASKS, MASKS),
            {"distance_metric": "taxicab"},
            "must be 'euclidean', got 'taxicab'",
        ),
        (
            "hausdorff_distance",
            (MASKS, MASKS),
            {"spacing": (1.0, 2.0)},
            r"spacing: must be a number, 3 numbers",
        ),
        (
            "hausdorff_distance",
            (MASKS, MASKS),
            {"spacing": -1},
            "spacing: must be positive and finite, got -1",
        ),
        ("hausdorff_distance", (MASKS[0, 0], MASKS[0, 0]), {}, r"y_pred: must be \[B, C, \*S\] with 2 or 3"),
        ("hausdorff_distance", (LABELS, LABELS), {"num_classes": 1}, "num_classes: .* at least 2, got 1"),
        ("dice", (LABELS + 0.5, LABELS), {"num_classes": 3}, "y_pred: float label maps .* got 0.5"),
        (
            "surface_dice",
            (MASKS, MASKS, [1.0]),
            {},
            r"class_thresholds: .* per class that counts \(2\), got 1",
        ),
        ("surface_dice", (MASKS, MASKS, [1.0, -1]), {}, "class_thresholds: must be at least 0 and finite"),
        (
            "surface_dice",
            (MASKS, MASKS, [1.0, np.inf]),
            {},
            "class_thresholds: must be at least 0 and finite",
        ),
    ],
)
def test_refusals(function, arguments, options, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        getattr(metrics, f"compute_{function}")(*arguments, **options)
    assert "\n" not in str(error.value)
