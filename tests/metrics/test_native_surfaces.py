"""Surfaces measured by the native backend equal those measured through scipy's maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsdm import metrics, testing
from fastsdm._backends import _native_ext, native_surface
from fastsdm.metrics._inputs import Inputs, Settings
from fastsdm.metrics._surface import SurfaceDistances, surfaces_of_sample

# Around one, two and three words of 64 voxels, with and without the cell beyond the last voxel.
WIDTHS = [1, 2, 7, 62, 63, 64, 65, 127, 128, 129, 200]


def measured(pair: Sequence[Any], backend: str, **options: Any) -> dict[tuple[int, int], SurfaceDistances]:
    """Distances of every class and direction, by column."""
    use_subvoxels = options.pop("use_subvoxels", False)
    symmetric = options.pop("symmetric", True)
    inputs = Inputs(pair[0], pair[1], Settings(**options))
    return {
        (sample, column): distances
        for sample in range(inputs.batch)
        for column, distances in surfaces_of_sample(
            inputs, sample, use_subvoxels=use_subvoxels, symmetric=symmetric, backend=backend
        )
    }


def assert_same(got, expected) -> None:
    assert got.keys() == expected.keys()
    for key, ours in got.items():
        theirs = expected[key]
        assert ours.counts == theirs.counts
        assert len(ours.ways) == len(theirs.ways)
        for own, other in zip(ours.ways, theirs.ways, strict=True):
            np.testing.assert_allclose(own.distances, other.distances, rtol=2e-7, atol=0)
            assert (own.areas is None) == (other.areas is None)
            if own.areas is not None:
                assert np.array_equal(own.areas, other.areas)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_random_volumes(data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    shape = [*(data.draw(st.integers(1, 9)) for _ in range(ndim - 1)), data.draw(st.sampled_from(WIDTHS))]
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    share = data.draw(st.sampled_from([0.0, 0.01, 0.3, 0.9, 1.0]))
    labels = rng.choice(3, size=(2, 2, 1, *shape), p=[1 - share, share * 0.7, share * 0.3])
    options = {
        "num_classes": 3,
        "include_background": data.draw(st.booleans()),
        "spacing": data.draw(st.sampled_from([1.0, (2.5, 0.7, 1.3)[:ndim], (0.3, 5.0, 1.0)[:ndim]])),
        "use_subvoxels": data.draw(st.booleans()),
        "symmetric": data.draw(st.booleans()),
        "ignore_index": data.draw(st.sampled_from([None, 1, 2])),
    }
    assert_same(measured(labels, "native", **options), measured(labels, "scipy", **options))


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "every other voxel", "mixed"])
@pytest.mark.parametrize(
    "dtype",
    [
        "bool",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
    ],
)
def test_every_dtype_and_layout(dtype: str, layout: str) -> None:
    labels = torch.from_numpy(testing.noise((2, 6, 7, 140), fraction=0.4))[:, None].long()
    channels = torch.cat([labels == 0, labels > 0, labels < 0], dim=1)
    prediction, reference = channels[:1], channels[1:]
    expected = measured((prediction, reference), "scipy")
    if layout == "channels last":
        prediction, reference = (
            each.movedim(1, -1).contiguous().movedim(-1, 1) for each in (prediction, reference)
        )
    if layout == "every other voxel":
        prediction, reference = (
            each.repeat_interleave(2, dim=-1)[..., ::2] for each in (prediction, reference)
        )
    own = getattr(torch, dtype)
    others = torch.float32 if own != torch.float32 else torch.int16
    pair = prediction.to(own), reference.to(others if layout == "mixed" else own)
    assert_same(measured(pair, "native"), expected)


def test_labels_of_different_dtypes() -> None:
    labels = torch.randint(0, 5, (2, 1, 5, 6, 70), generator=torch.Generator().manual_seed(0))
    labels[1][labels[1] == 4] = 300  # no uint8 could hold it
    pair = labels[0].to(torch.uint8), labels[1].to(torch.int16)
    expected = measured(pair, "scipy", num_classes=301)
    assert expected[0, 299].one_empty
    assert_same(measured(pair, "native", num_classes=301), expected)


@pytest.mark.parametrize(
    ("shape", "places"),
    [
        ((1, 1, 400), [(0, 0, 3), (0, 0, 399)]),
        ((110, 100, 5), [(0, 0, 0), (109, 99, 4)]),  # beyond the table of neighbouring rows
        ((110, 100, 5), [(60, 99, 1), (2, 3, 4)]),
        ((3, 3, 300), [(0, 2, 150), (2, 0, 0)]),
    ],
)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 3.0, 1.5)])
def test_single_voxels_far_away(shape, places, spacing) -> None:
    pair = torch.zeros(2, 1, 1, *shape)
    for mask, place in zip(pair, places, strict=True):
        mask[(0, 0, *place)] = 1
    assert_same(measured(pair, "native", spacing=spacing), measured(pair, "scipy", spacing=spacing))


@pytest.mark.parametrize("use_subvoxels", [False, True])
def test_surfaces_so_far_apart_that_a_map_is_made(use_subvoxels: bool) -> None:
    pair = torch.zeros(2, 1, 1, 60, 64, 66, dtype=torch.uint8)
    pair[0, ..., :20, :, :], pair[1, ..., 55:, :, :] = 1, 1
    options = {"use_subvoxels": use_subvoxels, "spacing": (1.5, 1.0, 0.8)}
    assert_same(measured(pair, "native", **options), measured(pair, "scipy", **options))


@pytest.mark.parametrize("isa", _native_ext.isas())
@pytest.mark.parametrize("threads", [1, 3])
def test_instruction_sets_and_threads(isa: str, threads: int) -> None:
    labels = torch.from_numpy(testing.shells((40, 41, 90), classes=3))[None].to(torch.uint8)
    moved = labels.roll(3, dims=2)
    results = [
        native_surface.surface_distances(
            labels,
            moved,
            [(0, 1), (0, 2)],
            (1.0, 0.5, 2.0),
            use_subvoxels=False,
            symmetric=True,
            threads=number,
            isa=which,
        )
        for number, which in ((1, "baseline"), (threads, isa))
    ]
    for first, second in zip(*results, strict=True):
        for one, other in zip(first, second, strict=True):
            assert np.array_equal(one.distances, other.distances)


def test_many_classes_are_measured_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.randint(0, 7, (2, 1, 8, 9, 10), generator=torch.Generator().manual_seed(1))
    whole = metrics.compute_hausdorff_distance(*labels, num_classes=7)
    monkeypatch.setattr(native_surface, "_MEMORY", 2 * 4 * 8 * 3 * 8 * 9)  # two classes
    assert torch.equal(metrics.compute_hausdorff_distance(*labels, num_classes=7), whole)
    assert whole.isfinite().all()
