"""The gate: the truth on a sample, what it refuses, and that nobody is timed before it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

import fastsdm
from benchmarks.measure.contenders import OurBackend, our_contenders
from benchmarks.measure.gate import sampled_reference
from benchmarks.measure.maps import measured, reference_for
from benchmarks.measure.peers import PEERS, peer_contenders
from fastsdm import testing
from tests.benchmarks.contenders import off_by_a_hundredth

CPU = torch.device("cpu")


@pytest.mark.parametrize("fixture", ["anisotropic", "label_batch", "one_absent"])
def test_sampled_truth_is_scipys(fixture, request):
    case = request.getfixturevalue(fixture)
    labels = case.make()
    spacing = np.tile(case.spacing, (len(labels), 1))
    full = testing.reference_signed_distance(labels, case.values, spacing)
    sample = sampled_reference(case, labels, voxels=3000)
    assert len(sample.values) == 3000
    np.testing.assert_allclose(sample.values, full[sample.points], rtol=1e-12)


def test_sample_replaces_scipy_where_it_would_take_too_long(anisotropic, settings):
    labels = anisotropic.make()
    assert reference_for(anisotropic, labels, settings).points is None
    settings.reference_s = 0.0
    assert reference_for(anisotropic, labels, settings).points is not None


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if "cpu" in peer.device_types])
@pytest.mark.parametrize("fixture", ["anisotropic", "label_batch"])
def test_peers_give_the_map_they_are_timed_for(name, fixture, request, settings):
    found = [each for each in peer_contenders(CPU)[0] if each.name == name]
    if not found:
        pytest.skip(peer_contenders(CPU)[1][name])
    case = request.getfixturevalue(fixture)
    case = dataclasses.replace(case, classes=case.values)  # the recipe takes label maps only
    (row,) = measured(case, found, settings)
    assert row.agreement.passed
    assert row.timing.repeats >= 1


def test_wrong_map_is_not_timed(anisotropic, settings):
    contenders = [OurBackend("native", CPU), off_by_a_hundredth(OurBackend("scipy", CPU))]
    right, wrong = measured(anisotropic, contenders, settings)
    assert right.timing is not None
    assert not right.wrong
    assert wrong.timing is None
    assert wrong.wrong
    assert wrong.note.startswith("disagrees with scipy, by up to 0.")
    assert wrong.failed


def test_outside_half_is_judged_alone(anisotropic, settings):
    labels = anisotropic.make()
    reference = reference_for(anisotropic, labels, settings)
    maps = np.where(reference.values > 0, reference.values, -1.0)
    assert reference.agreement(maps, testing.EXACT, "outside").passed
    assert not reference.agreement(maps, testing.EXACT, "signed").passed
    assert not reference.agreement(1.01 * maps, testing.EXACT, "outside").passed


def test_truth_is_clamped_like_the_map(anisotropic, settings):
    reference = reference_for(anisotropic, anisotropic.make(), settings)
    clamped = reference.values.clip(-2.0, 2.0)
    assert not reference.agreement(clamped, testing.EXACT).passed
    limited = dataclasses.replace(anisotropic, max_distance=2.0)
    assert dataclasses.replace(reference, case=limited).agreement(clamped, testing.EXACT).passed


def test_peers_without_an_answer_for_an_absent_class_are_left_out(one_absent, settings):
    rows = measured(one_absent, [OurBackend("native", CPU), PEERS["SimpleITK"](CPU)], settings)
    assert rows[0].agreement.passed
    assert rows[1].timing is None
    assert rows[1].note == "has no answer for an absent class"


def test_tolerances_of_peers_refuse_what_is_no_rounding(anisotropic, settings):
    reference = reference_for(anisotropic, anisotropic.make(), settings)
    for peer in PEERS.values():
        off = 1 + 3 * peer.tolerance.relative
        assert reference.agreement(reference.values, peer.tolerance).passed
        assert not reference.agreement(off * reference.values, peer.tolerance).passed
    assert max(peer.tolerance.relative for peer in PEERS.values()) == PEERS["SimpleITK"].tolerance.relative


def test_scipy_is_timed_by_the_check_where_there_is_no_time_for_another_call(
    anisotropic, settings, monkeypatch
):
    calls = []
    transform = ndimage.distance_transform_edt
    monkeypatch.setattr(
        ndimage,
        "distance_transform_edt",
        lambda *args, **kwargs: calls.append(args) or transform(*args, **kwargs),
    )
    settings.budget = dataclasses.replace(settings.budget, seconds=0.0, longest_call_s=0.0)
    (row,) = measured(anisotropic, [PEERS["scipy"](CPU)], settings)
    assert row.timing.repeats == 1
    assert len(calls) == 2
    assert settings.rates["scipy"] == pytest.approx(anisotropic.map_voxels / row.timing.median_s)


def test_absent_class_foretells_nothing_of_scipy(one_absent, settings):
    reference_for(one_absent, one_absent.make(), settings)
    assert "scipy" not in settings.rates


def test_scipy_takes_part_beside_a_device():
    assert "scipy" in {each.name for each in peer_contenders(torch.device("cuda"))[0]}
    assert PEERS["scipy"](torch.device("cuda")).on_host
    assert not PEERS["CuPy"](torch.device("cuda")).on_host


def test_the_backend_that_auto_takes_comes_first():
    found = [each.name for each in our_contenders(CPU)]
    assert found[0] == "fastsdm native"
    assert "fastsdm scipy" not in found
    assert [each.name for each in our_contenders(CPU, ["scipy", "auto"])] == ["fastsdm scipy", found[0]]


def test_a_named_backend_that_cannot_run_there_is_refused():
    with pytest.raises(fastsdm.BackendUnavailableError, match=r"native.*does not run on mps"):
        our_contenders(torch.device("mps"), ["native"])


def test_slow_contender_is_left_out_by_its_expected_time(anisotropic, settings):
    settings.budget = dataclasses.replace(settings.budget, longest_call_s=1.0)
    settings.rates["fastsdm native"] = anisotropic.map_voxels / 3.0
    (row,) = measured(anisotropic, [OurBackend("native", CPU)], settings)
    assert row.timing is None
    assert row.note == "would take 3 s, the limit is 1 s"
