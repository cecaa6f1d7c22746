"""What the benchmarks of patches and augmentation measure, on volumes where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.studies import augmentation, patches
from benchmarks.studies.augmentation import Case, Comparison
from fastsdm.data import Volume


def test_share_of_wrong_voxels() -> None:
    """One foreground voxel: no patch knows more than itself, and most hold none."""
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[12, 12, 12] = 1
    wrong, silent = patches.wrong_shares(Volume(labels, labels), (8, 8, 8), 2, 6.0)
    assert len(wrong) == len(silent) == patches.SHARE_PATCHES
    for share, without_foreground in zip(wrong, silent, strict=True):
        # The patch that holds the voxel misses nothing. Another reads 0 throughout, which is wrong by more
        # than a voxel but for at most 11 of 1024: those within 2 of the foreground.
        assert share > 0.98 if without_foreground else share == 0
    assert 0 < np.mean(silent) < 1


def test_cost_is_not_timed_of_a_wrong_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "signed_distance_patch", lambda *_, **__: torch.zeros(2, 4, 128, 128, 128))
    with pytest.raises(SystemExit, match="nothing is timed"):
        patches.cost(torch.zeros(256, 256, 256, dtype=torch.uint8))


def small_labels() -> torch.Tensor:
    labels = torch.zeros(1, 1, 30, 28, 32, dtype=torch.uint8)
    labels[..., 8:20, 9:19, 11:22] = 1
    labels[..., 12:16, 12:16, 14:18] = 2
    return labels


@pytest.mark.parametrize("case", augmentation.CASES[:2], ids=lambda case: case.name)
def test_transforms_that_commute(case: Case) -> None:
    assert augmentation.errors(case.compare(small_labels())).largest == 0


def test_a_spacing_that_is_not_permuted_shows() -> None:
    assert augmentation.errors(augmentation.CASES[2].compare(small_labels())).largest > 1


def test_scaling_needs_its_factor() -> None:
    scaled = augmentation.affine(2 * np.eye(3))
    without = augmentation.errors(Case("", scaled).compare(small_labels()))
    right = augmentation.errors(Case("", scaled, factor=2.0).compare(small_labels()))
    assert right.largest < 1.5 < without.mean


def test_errors_are_those_of_the_known_voxels() -> None:
    truth = torch.tensor([-2.0, 1.0, 8.0, 20.0]).reshape(1, 1, 1, 1, 4)
    warped = torch.tensor([-2.5, 1.0, 11.0, math.nan]).reshape(1, 1, 1, 1, 4)
    known = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 1, 4)
    e = augmentation.errors(Comparison(torch.zeros_like(truth), truth, warped, known))
    assert (e.mean, e.mean_in_band) == (pytest.approx(3.5 / 3), pytest.approx(0.25))
    assert (e.largest, e.share_over_one) == (3.0, pytest.approx(1 / 3))
