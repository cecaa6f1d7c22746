"""The pytest-benchmark suite: what it times, what it fails on, what it skips."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.measure import maps
from benchmarks.measure.contenders import OurBackend, PeerContender, Prepared
from benchmarks.measure.peers import PEERS
from benchmarks.suite import test_maps as suite
from fastsdm.testing import Tolerance

CPU = torch.device("cpu")
OPTIONS = {"device": "cpu", "threads": 1, "full": False}


class _OffByAHundredth(OurBackend):
    def prepared(self, case, labels, threads):
        right = super().prepared(case, labels, threads)
        return Prepared(lambda round_: right.run(round_) * 1.01, right.plain)


@pytest.fixture
def timed(anisotropic, monkeypatch):
    monkeypatch.setattr(suite, "CASES", {"tiny": anisotropic})
    for cached in (suite._settings, suite._labels_and_reference):
        cached.cache_clear()
    request = SimpleNamespace(config=SimpleNamespace(getoption=OPTIONS.__getitem__))

    def run(contender):
        repeats = []
        benchmark = SimpleNamespace(
            extra_info={}, pedantic=lambda run, rounds: run() or repeats.append(rounds)
        )
        suite.test_map(benchmark, request, "tiny", contender)
        assert benchmark.group == anisotropic.title
        assert benchmark.extra_info["checked"] == "every voxel"
        return repeats

    return run


def test_right_map_is_timed(timed):
    assert timed(OurBackend("native", CPU)) == [5]


def test_wrong_map_of_ours_fails(timed):
    with pytest.raises(AssertionError, match="Agreement"):
        timed(_OffByAHundredth("native", CPU))


def test_wrong_map_of_a_peer_is_skipped(timed, monkeypatch):
    peer = PEERS["edt"]
    monkeypatch.setattr(peer, "tolerance", Tolerance(relative=0.0, voxels=0.0, share_off=0.0), raising=False)
    with pytest.raises(pytest.skip.Exception, match="edt disagrees with scipy"):
        timed(PeerContender(peer, CPU))


def test_slow_contender_is_skipped(timed, monkeypatch):
    monkeypatch.setattr(maps.Settings, "foreseen_s", lambda *_: 7.0)
    with pytest.raises(pytest.skip.Exception, match="would take 7 s, the limit is 6 s"):
        timed(OurBackend("native", CPU))
