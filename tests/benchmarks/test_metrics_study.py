"""The study of the surface metrics, on a small volume."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies import metrics
from fastsdm import testing


@pytest.mark.filterwarnings("ignore:Please import")
def test_everyone_is_checked_and_timed() -> None:
    found = metrics.timings(metrics.blobs(24), 0.01)
    assert set(found["HD95"]) == {"fastsdm", "MONAI"}
    assert set(found["NSD between voxels"]) == {"fastsdm", "MONAI", "DeepMind"}
    assert all(timing.median_s > 0 for contenders in found.values() for timing in contenders.values())


def test_the_inputs_are_what_the_table_says() -> None:
    for make in metrics.INPUTS.values():
        labels = make(48)
        assert labels.shape == (48, 48, 48)
        assert np.unique(labels).tolist() == [0, 1, 2, 3]


def test_a_warped_copy_is_another_volume_of_the_same_classes() -> None:
    labels = testing.shells((40, 40, 40), classes=3).astype(np.uint8)
    moved = metrics.warped(labels)
    assert moved.shape == labels.shape
    assert set(np.unique(moved)) <= set(np.unique(labels))
    assert 0.02 < (moved != labels).mean() < 0.9


def test_a_wrong_value_is_not_timed() -> None:
    metrics.check("HD95", {"fastsdm": [[1.0, np.nan]], "MONAI": [[1.0, np.nan]]})
    with pytest.raises(AssertionError, match=r"HD95: MONAI found .*; nothing is timed"):
        metrics.check("HD95", {"fastsdm": [[1.0, np.nan]], "MONAI": [[1.001, np.nan]]})
