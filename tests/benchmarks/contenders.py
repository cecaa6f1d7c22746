"""Contenders that go wrong."""

from __future__ import annotations

from benchmarks.measure.contenders import Contender, Prepared


def off_by_a_hundredth(contender: Contender) -> Contender:
    """Make this contender's maps wrong by one percent."""
    right = contender.prepared

    def prepared(case, labels, threads):
        found = right(case, labels, threads)
        return Prepared(lambda round_: found.run(round_) * 1.01, found.plain)

    contender.prepared = prepared
    return contender


def raising(contender: Contender) -> Contender:
    """Make this contender fail."""

    def prepared(case, labels, threads):
        raise MemoryError("no room [for this]")

    contender.prepared = prepared
    return contender
