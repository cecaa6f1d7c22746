"""The U-Net's border weights, against a loop over the cells by scipy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fastsdm.targets import border_weights
from tests.targets.cells import cells


def oracle(labels: np.ndarray, spacing=None, *, w0=10.0, sigma=5.0, inside=False) -> np.ndarray:
    """The border term alone."""
    values = np.unique(labels[labels != 0])
    if len(values) < 2:
        return np.zeros(labels.shape)
    distances = np.sort(
        [ndimage.distance_transform_edt(labels != value, sampling=spacing) for value in values], axis=0
    )
    term = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return term if inside else term * (labels == 0)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_random_cells(data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    shape = [data.draw(st.integers(2, 25 if ndim == 2 else 12)) for _ in range(ndim)]
    count = data.draw(st.integers(1, min(20, int(np.prod(shape)))))
    seed = data.draw(st.integers(0, 10**6))
    batch = np.stack(
        [cells(shape, count, gap=data.draw(st.sampled_from([0.3, 0.8])), seed=s) for s in (seed, seed + 1)]
    )
    spacing = data.draw(st.sampled_from([1.0, (2.0, 0.5, 1.5)[:ndim]]))
    options = {
        "w0": data.draw(st.sampled_from([10.0, 3.5])),
        "sigma": data.draw(st.sampled_from([0.5, 2.0, 5.0])),
        "inside": data.draw(st.booleans()),
    }
    got = border_weights(batch, spatial_dims=ndim, spacing=spacing, class_weights=(0.0, 0.0), **options)
    sampling = None if spacing == 1.0 else spacing
    expected = np.stack([oracle(labels, sampling, **options) for labels in batch])
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=options["w0"] * 2**-24)


@pytest.mark.parametrize("backend", ["native", "scipy", "torch"])
def test_spacing_of_each_sample_on_every_backend(backend) -> None:
    batch = np.stack([cells((13, 14, 15), 6, seed=seed) for seed in (3, 4)])
    rows = [(1.0, 2.0, 0.5), (3.0, 1.0, 1.0)]
    got = border_weights(batch, spacing=rows, sigma=2.0, class_weights=(0, 0), backend=backend)
    for sample, row in enumerate(rows):
        np.testing.assert_allclose(
            got[sample], oracle(batch[sample], row, sigma=2.0), rtol=2e-5, atol=10 * 2**-24
        )


def test_class_weights_are_added() -> None:
    labels = cells((20, 20), 4)
    plain = border_weights(labels, spatial_dims=2, class_weights=(0, 0))
    got = border_weights(labels, spatial_dims=2, class_weights=(0.5, 2))
    np.testing.assert_allclose(got, plain + np.where(labels == 0, 0.5, 2.0), rtol=1e-6)


def test_the_term_ends_where_it_is_below_a_rounding() -> None:
    labels = torch.zeros(1, 200, dtype=torch.uint8)
    labels[0, 0], labels[0, 199] = 1, 2
    assert border_weights(labels, spatial_dims=2, sigma=5.0).unique().tolist() == [1.0]
    # d1 + d2 is 199 all along the gap
    got = border_weights(labels, spatial_dims=2, sigma=50.0)[0, 1:-1]
    assert got.tolist() == pytest.approx([1 + 10 * np.exp(-(199**2) / (2 * 50**2))] * 198, rel=1e-6)


def test_fewer_than_two_cells() -> None:
    labels = torch.zeros(3, 6, 7, dtype=torch.int64)
    labels[1, 2:4] = 5
    labels[2, 0], labels[2, 5] = 3, 4
    got = border_weights(labels, spatial_dims=2)
    assert got[:2].unique().tolist() == [1.0]
    assert got[2].max() > 1
    assert border_weights(labels[:0], spatial_dims=2).shape == (0, 6, 7)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sigma": 0}, ValueError, "sigma: must be positive and finite, got 0"),
        ({"sigma": float("nan")}, ValueError, "sigma: must be positive and finite, got nan"),
        ({"sigma": "5"}, TypeError, "sigma: must be a number, got '5'"),
        ({"w0": -1.0}, ValueError, "w0: must be at least 0 and finite, got -1.0"),
        ({"w0": None}, TypeError, "w0: must be a number, got None"),
        ({"class_weights": (1.0,)}, ValueError, r"class_weights: must be two numbers .* got \(1.0,\)"),
        ({"class_weights": 1.0}, TypeError, "class_weights: must be a pair of numbers, got 1.0"),
        ({"class_weights": (1.0, -2)}, ValueError, "class_weights: must be at least 0 and finite, got -2"),
        ({"inside": 1}, TypeError, "inside: must be True or False, got 1"),
        ({"spacing": (1.0, 2.0, 3.0)}, ValueError, "spacing: must be a number, 2 numbers"),
        ({"spacing": 0.0}, ValueError, "spacing: must be positive and finite, got 0.0"),
        ({"spatial_dims": 4}, ValueError, "spatial_dims: .* got 4"),
        ({"background": 300}, ValueError, "background: must fit the labels' dtype torch.uint8"),
        ({"backend": 1}, TypeError, "backend: must be 'auto' or the name of a backend, got 1"),
        ({"backend": "fast"}, ValueError, "backend: must be 'auto' or one of .*'fast'"),
    ],
)
def test_refusals(options, error, message) -> None:
    labels = torch.tensor([[1, 0, 2]], dtype=torch.uint8)
    with pytest.raises(error, match=message) as caught:
        border_weights(labels, **{"spatial_dims": 2, **options})
    assert "\n" not in str(caught.value)


def test_resampled_labels_are_rounded() -> None:
    labels = torch.from_numpy(cells((20, 21), 5))
    expected = border_weights(labels, spatial_dims=2)
    for miss in (-4e-4, 4e-4):
        assert torch.equal(border_weights(labels + miss, spatial_dims=2), expected)


def test_labels_that_are_none() -> None:
    with pytest.raises(ValueError, match="labels: must not contain NaN"):
        border_weights(torch.tensor([[1.0, float("nan")]]), spatial_dims=2)
    with pytest.raises(ValueError, match="labels: must have at least 3 axes"):
        border_weights(torch.zeros(3, 3))
    with pytest.raises(TypeError, match="labels: must be a torch tensor"):
        border_weights([[1, 2]])
