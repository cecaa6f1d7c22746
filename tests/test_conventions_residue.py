"""The shift leaves no residue: at any spacing, on every exact backend, for every convention."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fastsdm
from fastsdm import _conventions, losses, testing
from fastsdm._backends import registry
from fastsdm._types import Convention

EXACT = [name for name in ("native", "scipy", "torch") if registry.get(name).exact]
CONVENTIONS = get_args(Convention)
# Each left a residue on some backend, one unit in the last place or two.
KNOWN = [(0.8, 0.8, 3.0), (0.5, 0.5, 1.75), (6.0, 1.2, 1.2), (2.77, 1.3, 1.3), (3.0, 0.8, 0.8)]


@st.composite
def spacings(draw) -> tuple[float, ...]:
    """Half of them two equal fine axes and a coarse one, in any order; the others at random."""
    fine = draw(st.floats(0.05, 20))
    if draw(st.booleans()):
        return tuple(draw(st.permutations([fine, fine, fine * draw(st.floats(1, 10))])))
    return (fine, draw(st.floats(0.05, 20)), draw(st.floats(0.05, 20)))


def thin_and_thick() -> np.ndarray:
    """A sheet, rods and a block: voxels that touch the outside along each axis, and some that do not."""
    mask = testing.noise((9, 10, 21), fraction=0.05, seed=5)
    mask[1:4, 2:7, 3:9] = 1
    mask[6, 1:9, 2:18] = 1
    mask[2:8, 8, 12:14] = 1
    return mask


MASK = thin_and_thick()
INSIDE = MASK > 0


@pytest.mark.parametrize("backend", EXACT)
@settings(deadline=None, max_examples=120)
@given(spacing=spacings(), convention=st.sampled_from(CONVENTIONS), limited=st.booleans())
@example(KNOWN[0], "kervadec", False)
@example(KNOWN[1], "kervadec", False)
@example(KNOWN[2], "kervadec", False)
@example(KNOWN[3], "kervadec", False)
@example(KNOWN[4], "kervadec", True)
@example((1.0, 1.0, 2.77), "kervadec-literal", False)
def test_no_residue(backend, spacing, convention, limited) -> None:
    limit = 4 * min(spacing) if limited else None
    got = fastsdm.signed_distance(
        MASK, spacing=spacing, convention=convention, max_distance=limit, backend=backend
    )
    plain = testing.reference_signed_distance(MASK[None], [1], np.array([spacing]))[0, 0]
    h = min(spacing)
    shift = {"kervadec": h, "kervadec-literal": 1.0, "midline": h / 2, "plain": 0.0}[convention]
    inner = np.abs(plain) - shift
    if convention != "midline":
        inner[~INSIDE] = plain[~INSIDE]
    # A shifted distance is 0 or larger than rounding: there is nothing in between.
    assert not ((got != 0) & (np.abs(got) <= shift * 2.0**-22)).any()
    touching = np.abs(inner) <= shift * 1e-9
    assert (got[touching] == 0).all()
    assert not np.signbit(got[touching]).any()
    if convention != "kervadec-literal":
        assert (got[INSIDE] <= 0).all()
        assert (got[~INSIDE] >= 0).all()
    if convention == "kervadec":
        assert touching.any(), "no voxel touches the outside along the finest axis: the test shows nothing"
    expected = np.where(INSIDE, -inner, inner)
    if limit is not None:
        expected = expected.clip(-limit, limit)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * max(shift, h))


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("spacing", KNOWN)
def test_known_spacings(backend, spacing) -> None:
    got = fastsdm.signed_distance(INSIDE, spacing=spacing, backend=backend)
    assert got[INSIDE].max() == 0
    assert (got[~INSIDE] > 0).all()
    rod = got[6, 1:9, 2:18]
    if spacing[0] > min(spacing):  # the sheet's normal is the coarse axis; its rim touches along a fine one
        assert (rod[0] == 0).all()
    else:
        assert (rod == 0).all()


@pytest.mark.parametrize("spacing", KNOWN)
@pytest.mark.parametrize("normalize", ["unit", "max"])
def test_a_thin_class_is_not_blown_up_by_normalisation(spacing, normalize) -> None:
    """Every voxel touches the outside along the finest axis, so the map inside is 0, and stays 0."""
    labels = torch.zeros(1, 1, 24, 24, 24)
    fine = spacing.index(min(spacing))
    labels[0, 0, 8:10, 12, 4:20] = 1
    labels = labels.transpose(3, 2 + fine)  # one voxel thick along the finest axis
    loss = losses.SDMRegressionLoss(spacing=spacing, normalize=normalize)
    target = loss.target_map(labels, 1)
    assert (target[labels > 0] == 0).all()
    assert (target[labels == 0] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype) -> None:
    got = fastsdm.signed_distance(torch.from_numpy(INSIDE), spacing=(0.8, 0.8, 3), dtype=dtype)
    assert (got[torch.from_numpy(INSIDE)] <= 0).all()


def test_per_sample_spacing() -> None:
    masks = np.stack([INSIDE] * len(KNOWN))
    got = fastsdm.signed_distance(masks, spacing=np.array(KNOWN))
    assert got[masks].max() == 0
    for sample, spacing in zip(got, KNOWN, strict=True):
        np.testing.assert_array_equal(sample, fastsdm.signed_distance(INSIDE, spacing=spacing))


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("limit", [1e-9, 1e-7, 1e-6, 1e-3])
def test_a_limit_within_rounding_of_the_shift_still_cuts(backend, limit) -> None:
    """What lies beyond the limit reads the limit, however close the search came to the shift."""
    got = fastsdm.signed_distance(INSIDE, spacing=3.0, max_distance=limit, backend=backend)
    whole = fastsdm.signed_distance(INSIDE, spacing=3.0, backend=backend)
    np.testing.assert_array_equal(got, whole.clip(-np.float32(limit), np.float32(limit)))


def test_the_rule_by_its_numbers() -> None:
    """Up to ``2^-21`` of the shift is 0, the next float is not; only inside, and never ``-0``."""
    shift = np.float32(0.8)
    bound = float(shift) * 2.0**-21
    how = _conventions.Finish((float(shift),), both_sides=False, missing=(np.inf,), limit=np.inf)
    step = np.spacing(shift)
    near = [shift + k * step for k in range(-10, 11)]
    plain = torch.tensor([[[*(-d for d in near), bound / 2, -np.inf, np.inf]]], dtype=torch.float32)
    got = _conventions.apply_(plain, how).flatten()
    differences = [float(d) - float(shift) for d in near]
    expected = [0.0 if abs(m) <= bound else -m for m in differences]
    assert got[: len(near)].tolist() == expected
    assert 0.0 in expected[:10]
    assert expected[0] != 0 != expected[-1]
    assert not torch.signbit(got[: len(near)][got[: len(near)] == 0]).any()
    assert got[len(near) :].tolist() == [np.float32(bound / 2), -np.inf, np.inf]
