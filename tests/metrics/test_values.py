"""The metrics give MONAI's values, and DeepMind's where surfaces lie between voxels."""

from __future__ import annotations

import warnings

import monai.metrics
import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fastsdm import metrics, testing
from fastsdm.data import mni_icbm152
from fastsdm.metrics._surface_area import surface_area


def one_hot(labels, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(labels).long(), classes).movedim(-1, 1)


def quietly(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI warns of every empty class
        return function(*arguments, **options)


@st.composite
def pairs(draw):
    ndim = draw(st.sampled_from([2, 3]))
    shape = (draw(st.integers(1, 3)), *(draw(st.integers(1, 14)) for _ in range(ndim)))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    labels = rng.choice(
        3, size=(2, *shape), p=draw(st.sampled_from([(1, 0, 0), (0.9, 0.1, 0), (0.5, 0.3, 0.2)]))
    )
    if draw(st.booleans()):
        labels[1] = np.roll(labels[0], 1, axis=-1)
    spacing = draw(st.sampled_from([None, 0.5, (2.0, 0.7, 1.1)[:ndim]]))
    return one_hot(labels[0], 3), one_hot(labels[1], 3), spacing


@settings(deadline=None, max_examples=60)
@given(
    pair=pairs(),
    background=st.booleans(),
    symmetric=st.booleans(),
    percentile=st.sampled_from([None, 50, 95]),
)
def test_values_are_those_of_monai(pair, background, symmetric, percentile) -> None:
    prediction, reference, spacing = pair
    options = {"include_background": background, "spacing": spacing}
    calls = {
        "compute_hausdorff_distance": {"directed": not symmetric, "percentile": percentile},
        "compute_average_surface_distance": {"symmetric": symmetric},
        "compute_surface_dice": {"class_thresholds": [0.0, 0.7, 2.0][0 if background else 1 :]},
    }
    for name, own in calls.items():
        got = getattr(metrics, name)(prediction, reference, **own, **options)
        expected = quietly(getattr(monai.metrics, name), prediction, reference, **own, **options)
        if own.get("percentile"):  # torch.quantile interpolates between two infinities, which gives NaN
            counts = torch.stack([each.flatten(2).any(dim=2) for each in (prediction, reference)])
            one_empty = (counts[0] != counts[1])[:, 0 if background else 1 :]
            expected = torch.where(one_empty, torch.inf, expected)
        # torch.quantile finds its place between two distances in float32.
        torch.testing.assert_close(
            got, expected, equal_nan=True, rtol=1e-5 if own.get("percentile") else 2e-6, atol=0
        )


@settings(deadline=None, max_examples=40)
@given(pair=pairs())
def test_surface_dice_between_voxels_is_that_of_monai(pair) -> None:
    prediction, reference, spacing = pair
    got = metrics.compute_surface_dice(prediction, reference, [1.0, 1.0], spacing=spacing, use_subvoxels=True)
    spacing = spacing if isinstance(spacing, tuple) else [spacing or 1.0] * (prediction.ndim - 2)
    expected = quietly(
        monai.metrics.compute_surface_dice,
        prediction,
        reference,
        [1.0, 1.0],
        spacing=spacing,
        use_subvoxels=True,
    )
    torch.testing.assert_close(got, expected, equal_nan=True, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Please import")
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.7)])
def test_values_between_voxels_are_those_of_deepmind(spacing) -> None:
    reference = testing.blobs((24, 30, 26), sigma=3)
    prediction = np.roll(testing.blobs((24, 30, 26), sigma=3, fraction=0.25), 2, axis=1)
    theirs = surface_distance.compute_surface_distances(
        reference.astype(bool), prediction.astype(bool), spacing
    )
    masks = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
    options = {"spacing": spacing, "use_subvoxels": True}

    got = metrics.compute_hausdorff_distance(*masks, percentile=95, **options).item()
    assert got == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 95), rel=1e-6)
    got = metrics.compute_hausdorff_distance(*masks, **options).item()
    assert got == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 100), rel=1e-6)
    to_prediction, to_reference = surface_distance.compute_average_surface_distance(theirs)
    assert metrics.compute_average_surface_distance(*masks, **options).item() == pytest.approx(
        to_reference, rel=1e-5
    )
    swapped = metrics.compute_average_surface_distance(*masks[::-1], **options).item()
    assert swapped == pytest.approx(to_prediction, rel=1e-5)
    got = metrics.compute_surface_dice(masks[0], masks[1], [1.0], **options).item()
    assert got == pytest.approx(surface_distance.compute_surface_dice_at_tolerance(theirs, 1.0), rel=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_area_of_every_cell_is_that_of_deepmind(ndim: int) -> None:
    spacing = (2.0, 0.7, 1.3)[:ndim]
    table, kernel = monai.metrics.utils.get_code_to_measure_table(spacing)
    ours = surface_area(spacing)
    # Both number the corners by powers of two, MONAI's from the last corner on.
    weights = kernel.reshape(-1).long()
    for code in range(2**2**ndim):
        theirs = sum(int(weight) for bit, weight in enumerate(weights) if code >> bit & 1)
        assert ours[code].item() == pytest.approx(table[theirs].item(), rel=1e-6), code


def warped(labels: np.ndarray, shift: float = 1.5) -> np.ndarray:
    """The labels moved along a smooth random field."""
    rng = np.random.default_rng(0)
    fields = [ndimage.gaussian_filter(rng.standard_normal(labels.shape), 4) for _ in range(labels.ndim)]
    places = np.indices(labels.shape) + np.stack([shift * field / field.std() for field in fields])
    return ndimage.map_coordinates(labels, places, order=0, mode="nearest")


@pytest.fixture(scope="module")
def brains() -> tuple[torch.Tensor, torch.Tensor]:
    """Tissue labels of a real brain, 2 mm, and a warped copy: ``[1, *S]`` each."""
    labels = mni_icbm152().labels[40:150:2, 40:190:2, 40:150:2].astype(np.int64)
    return torch.from_numpy(warped(labels))[None], torch.from_numpy(labels)[None]


@pytest.mark.parametrize(
    ("backend", "spacing"), [("native", 2.0), ("native", (2.0, 1.0, 3.1)), ("scipy", (2.0, 1.0, 3.1))]
)
def test_a_real_volume_gives_monais_values(brains, backend, spacing) -> None:
    channels = [one_hot(each, 3) for each in brains]
    for name, options in (
        ("compute_hausdorff_distance", {}),
        ("compute_hausdorff_distance", {"percentile": 95}),
        ("compute_hausdorff_distance", {"percentile": 50, "directed": True}),
        ("compute_average_surface_distance", {}),
        ("compute_average_surface_distance", {"symmetric": True}),
        ("compute_surface_dice", {"class_thresholds": [2.0, 3.0]}),
    ):
        got = getattr(metrics, name)(*brains, spacing=spacing, num_classes=3, backend=backend, **options)
        expected = quietly(getattr(monai.metrics, name), *channels, spacing=spacing, **options)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:Please import")
@pytest.mark.parametrize("backend", ["native", "scipy"])
def test_a_real_volume_gives_deepminds_values(brains, backend) -> None:
    spacing = (2.0, 1.0, 3.1)
    options = {"num_classes": 3, "spacing": spacing, "use_subvoxels": True, "backend": backend}
    hd95 = metrics.compute_hausdorff_distance(*brains, percentile=95, **options)
    largest = metrics.compute_hausdorff_distance(*brains, **options)
    average = metrics.compute_average_surface_distance(*brains, **options)
    nsd = metrics.compute_surface_dice(*brains, [2.0, 2.0], **options)
    for column, value in enumerate((1, 2)):
        theirs = surface_distance.compute_surface_distances(
            *((each[0] == value).numpy() for each in reversed(brains)), spacing
        )
        assert hd95[0, column].item() == pytest.approx(
            surface_distance.compute_robust_hausdorff(theirs, 95), rel=1e-5
        )
        assert largest[0, column].item() == pytest.approx(
            surface_distance.compute_robust_hausdorff(theirs, 100), rel=1e-5
        )
        _, to_reference = surface_distance.compute_average_surface_distance(theirs)
        assert average[0, column].item() == pytest.approx(to_reference, rel=1e-5)
        assert nsd[0, column].item() == pytest.approx(
            surface_distance.compute_surface_dice_at_tolerance(theirs, 2.0), rel=1e-5
        )


@pytest.mark.filterwarnings("ignore:Please import")
@pytest.mark.parametrize("kinds", [("full", "full"), ("full", "blob"), ("blob", "empty"), ("empty", "full")])
@pytest.mark.parametrize("backend", ["native", "scipy"])
def test_empty_and_full_classes_between_voxels(backend, kinds, monkeypatch) -> None:
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)  # DeepMind's name of it, gone from numpy 2
    shape, spacing = (8, 9, 10), (1.0, 2.0, 0.7)
    made = {
        "empty": np.zeros(shape, bool),
        "full": np.ones(shape, bool),
        "blob": testing.blobs(shape, sigma=2).astype(bool),
    }
    prediction, reference = (made[kind] for kind in kinds)
    masks = [torch.from_numpy(each)[None, None] for each in (prediction, reference)]
    options = {"spacing": spacing, "use_subvoxels": True, "backend": backend}
    hd95 = metrics.compute_hausdorff_distance(*masks, percentile=95, **options).item()
    nsd = metrics.compute_surface_dice(*masks, [1.0], **options).item()
    theirs = surface_distance.compute_surface_distances(reference, prediction, spacing)
    assert hd95 == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 95), rel=1e-6)
    assert nsd == pytest.approx(surface_distance.compute_surface_dice_at_tolerance(theirs, 1.0), rel=1e-6)


@pytest.mark.parametrize("use_subvoxels", [False, True])
@pytest.mark.parametrize("backend", ["native", "scipy", "torch"])
def test_the_table_of_empty_masks(backend, use_subvoxels) -> None:
    blob = torch.from_numpy(testing.blobs((6, 7, 8), sigma=2))[None, None]
    empty = torch.zeros_like(blob)
    options = {"backend": backend, "use_subvoxels": use_subvoxels}
    cases = [((empty, empty), np.nan, np.nan), ((blob, empty), np.inf, 0.0), ((empty, blob), np.inf, 0.0)]
    for pair, distance, share in cases:
        for directed in (False, True):
            for percentile in (None, 95):
                own = {"directed": directed, "percentile": percentile}
                got = metrics.compute_hausdorff_distance(*pair, **own, **options)
                np.testing.assert_equal(got.item(), distance)
            got = metrics.compute_average_surface_distance(*pair, symmetric=not directed, **options)
            np.testing.assert_equal(got.item(), distance)
        np.testing.assert_equal(metrics.compute_surface_dice(*pair, [1.0], **options).item(), share)
        np.testing.assert_equal(metrics.compute_dice(*pair).item(), share)


def test_spacing_per_sample() -> None:
    prediction, reference = (one_hot(testing.noise((2, 9, 8, 7), seed=seed), 2) for seed in (0, 1))
    spacing = [(1.0, 2.0, 0.5), (3.0, 1.0, 1.0)]
    whole = metrics.compute_average_surface_distance(prediction, reference, spacing=spacing)
    for sample, row in enumerate(spacing):
        part = slice(sample, sample + 1)
        alone = metrics.compute_average_surface_distance(prediction[part], reference[part], spacing=row)
        assert torch.equal(whole[part], alone)


def test_label_maps_and_channels_give_the_same() -> None:
    labels = torch.randint(0, 4, (2, 2, 8, 9, 7), generator=torch.Generator().manual_seed(0))
    channels = [one_hot(each, 4) for each in labels]
    for name in ("compute_hausdorff_distance", "compute_average_surface_distance", "compute_dice"):
        function = getattr(metrics, name)
        got = function(labels[0], labels[1][:, None].to(torch.uint8).numpy()[:, 0], num_classes=4)
        assert torch.equal(got, function(*channels)), name


@pytest.mark.parametrize("ignore_index", [0, 2, 255])
def test_ignored_voxels_belong_to_neither_mask(ignore_index: int) -> None:
    generator = torch.Generator().manual_seed(3)
    prediction, reference = (torch.randint(0, 3, (1, 9, 9, 9), generator=generator) for _ in range(2))
    reference[:, 4:] = ignore_index
    got = metrics.compute_surface_dice(
        prediction, reference, [1.0, 1.0], ignore_index=ignore_index, num_classes=3
    )
    emptied = [torch.where(reference == ignore_index, 0, each) for each in (prediction, reference)]
    expected = metrics.compute_surface_dice(*emptied, [1.0, 1.0], num_classes=3)
    if ignore_index in (1, 2):
        expected[:, ignore_index - 1] = torch.nan
    torch.testing.assert_close(got, expected, equal_nan=True)


def test_dice_of_halves() -> None:
    prediction, reference = torch.zeros(2, 4, 4, 4), torch.zeros(2, 4, 4, 4)
    prediction[0, :2], reference[0, 1:3] = 1, 1
    assert metrics.compute_dice(prediction, reference, num_classes=2).tolist()[0] == [0.5]
    assert metrics.compute_dice(prediction, reference, num_classes=2)[1].isnan().all()


def test_results_are_float32_whatever_torchs_default() -> None:
    masks = torch.rand(1, 2, 6, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = [
            metrics.compute_dice(masks, masks),
            metrics.compute_hausdorff_distance(masks, masks),
            metrics.compute_average_surface_distance(masks, masks),
            metrics.compute_surface_dice(masks, masks, [1.0]),
        ]
    finally:
        torch.set_default_dtype(default)
    assert {values.dtype for values in found} == {torch.float32}


@pytest.mark.parametrize("backend", ["native", "scipy"])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_channels_of_integers_are_inside_above_0(dtype, layout, backend) -> None:
    generator = torch.Generator().manual_seed(4)
    pair = [torch.randint(0, 2, (1, 2, 5, 6, 70), generator=generator) for _ in range(2)]
    # MONAI counts 1 only: a mask of 255 would be empty there.
    values = torch.tensor([1, torch.iinfo(dtype).max, 2, 3, 100]).repeat(14)
    written = [torch.where(each == 1, values, 0) for each in pair]
    written[0][:, :, 0], written[1][:, :, 1] = -1, torch.iinfo(dtype).min
    pair[0][:, :, 0], pair[1][:, :, 1] = 0, 0
    given = [each.to(dtype) for each in written]
    if layout == "channels last":
        given = [each.movedim(1, -1).contiguous().movedim(-1, 1) for each in given]
    for name, own in (
        ("compute_hausdorff_distance", {"percentile": 95}),
        ("compute_average_surface_distance", {}),
    ):
        got = getattr(metrics, name)(*given, include_background=True, backend=backend, **own)
        expected = quietly(getattr(monai.metrics, name), *pair, include_background=True, **own)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)
    expected = metrics.compute_dice(*(each.bool() for each in pair))
    assert torch.equal(metrics.compute_dice(*given), expected)
    mask = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 1, 6, 3)
    assert metrics.compute_hausdorff_distance(mask, mask // 255, backend=backend).item() == 0
