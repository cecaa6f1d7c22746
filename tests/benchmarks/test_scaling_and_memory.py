"""Curves and peaks: what is asked, not how fast it is."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from benchmarks.measure.contenders import OurBackend, peer_contenders
from benchmarks.measure.memory import can_measure, peak_memory
from benchmarks.measure.scaling import AXES, measured_point, scaling_points

CPU = torch.device("cpu")


@pytest.mark.parametrize("quick", [True, False])
def test_every_curve_has_at_least_two_points(quick, settings):
    settings.threads = 2
    points = list(scaling_points(OurBackend("native", CPU), [], settings, quick=quick))
    for curve in AXES:
        places = [point.x for point in points if point.curve == curve]
        assert len(places) == len(set(places)) >= 2
    assert all(
        point.contenders[0].max_distance == point.x for point in points if point.curve == "max_distance"
    )
    assert [point.settings.threads for point in points if point.curve == "threads"] == [1, 2]


def test_point_is_checked_and_timed(settings, anisotropic):
    points = scaling_points(OurBackend("native", CPU), peer_contenders(CPU)[0], settings, quick=True)
    limited = next(point for point in points if point.curve == "max_distance")
    timed = measured_point(dataclasses.replace(limited, case=anisotropic))
    assert [row.contender for row in timed] == ["fastsdm native"]
    assert timed[0].ns_per_voxel == pytest.approx(1e9 * timed[0].timing.median_s / anisotropic.map_voxels)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux only")
def test_peak_is_at_least_the_result():
    assert can_measure(CPU)
    row = peak_memory("blobs-128", "scipy", CPU, threads=1)
    assert row.output_bytes == 4 * 128**3
    # Two transforms in float64 lie side by side at least once, twice the size of the float32 map each.
    assert row.peak_over_output >= 4
