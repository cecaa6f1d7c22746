"""The Triton kernels under Triton's interpreter; `test_triton.py` runs this file with TRITON_INTERPRET=1.

Not collected by itself: the variable counts when the kernels are first imported, and the same process
compiles them for real elsewhere.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastsdm import testing
from fastsdm.backends import _triton

UNIT = (1.0, 1.0, 1.0)
# Tiles as on hardware; the shapes below leave a part of each unfilled.
GPU_TILES = {"nvidia": _triton.NVIDIA, "amd": _triton.AMD}


def plain_map(labels: np.ndarray, classes: tuple[int, ...], spacing: np.ndarray) -> np.ndarray:
    return _triton.BACKEND.signed_distance(
        torch.from_numpy(labels), classes, torch.from_numpy(spacing), None
    ).numpy()


@pytest.mark.parametrize("tiles", GPU_TILES)
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((5, 67), (1.0, 1.0)),  # three words and three column tiles, the last of each part full
        ((66, 35), (2.5, 0.4)),  # two segments, the second of two rows
        ((131, 3), (1.0, 1.0)),  # longer coarse steps
        ((3, 4, 5), UNIT),
        ((2, 65, 3), (0.7, 1.3, 2.0)),  # two segments along the second axis
        ((65, 2, 3), (2.0, 1.0, 1.0)),  # and along the first
    ],
)
def test_tiles_of_the_gpu(monkeypatch, tiles, shape, spacing) -> None:
    monkeypatch.setattr(_triton, "_tiles", lambda device: GPU_TILES[tiles])
    labels = testing.noise(shape, fraction=0.04)[None]
    spacings = np.array([spacing])
    truth = testing.reference_signed_distance(labels, (1,), spacings)
    result = testing.agreement(plain_map(labels, (1,), spacings), truth, spacings, testing.EXACT)
    assert result.passed, result


def test_rows_too_long_for_half_precision() -> None:
    labels = testing.one_voxel((2, 2300))[None]
    labels[0, :, 0] = 0
    maps = plain_map(labels, (1,), np.ones((1, 2)))
    truth = testing.reference_signed_distance(labels, (1,), np.ones((1, 2)))
    assert np.array_equal(maps, truth.astype(np.float32))


def test_wide_class_values() -> None:
    labels = np.where(testing.noise((4, 5, 6)), 2**40, 2**40 + 2**33)[None]
    maps = plain_map(labels, (2**40, 0), np.ones((1, 3)))
    truth = testing.reference_signed_distance(labels, (2**40, 0), np.ones((1, 3)))
    assert np.array_equal(maps, truth.astype(np.float32))
    # A value beyond the labels' own type is absent, it does not wrap round to one that is there.
    narrow = np.ones((1, 4, 5, 6), np.uint8)
    assert (plain_map(narrow, (257, 2**32 + 1), np.ones((1, 3))) == np.inf).all()


@pytest.mark.parametrize(
    ("shape", "tiles"),
    [((35, 33), "nvidia"), ((66, 3), "nvidia"), ((3, 5, 7), "nvidia"), ((3, 5, 7), "amd")],
)
def test_every_pass_stays_within_its_fields(shape, tiles) -> None:
    """Each pass reads a field between values that would win, and writes one between canaries."""
    samples, classes, canary = 2, (1, 2), 7.0
    labels = testing.shells(shape, classes=3, thickness=2.0).astype(np.uint8)
    batch = torch.from_numpy(np.stack([labels, np.roll(labels, 1, axis=-1)]))
    launches = _triton.passes(batch.shape, batch.dtype, len(classes), GPU_TILES[tiles])
    tables = _triton._axis_tables(torch.ones(samples, len(shape), dtype=torch.float64), None)
    extras = [torch.tensor(classes, dtype=torch.int32), *tables]

    # Beyond the labels lies another class; beyond a field, a source right here for either phase.
    source = _embedded(batch, 9)
    for launch, extra in zip(launches, extras, strict=True):
        guard = 4 * max(shape) ** 2
        whole = torch.full((launch.target_items + 2 * guard,), canary, dtype=launch.target_dtype)
        target = whole[guard:-guard]
        target.fill_(torch.nan)
        _triton._launch(launch, source, extra, target)
        assert (whole[:guard] == canary).all()
        assert (whole[-guard:] == canary).all()
        assert not target.isnan().any()
        source = _embedded(target, 0)
    truth = testing.reference_signed_distance(batch.numpy(), classes, np.ones((samples, len(shape))))
    assert np.array_equal(target.numpy(), truth.astype(np.float32).ravel())


def _embedded(tensor: torch.Tensor, around: int) -> torch.Tensor:
    guard = 4096
    whole = torch.full((tensor.numel() + 2 * guard,), around, dtype=tensor.dtype)
    whole[guard:-guard] = tensor.flatten()
    return whole[guard:-guard]
