"""Where patches are taken: reproducible, split between processes, biased towards the foreground."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fastsdm import testing
from fastsdm.data import PatchDataset, PatchSampler, Volume


def noisy_volumes() -> list[Volume]:
    return [Volume(v, v) for v in (testing.noise((24, 26, 40)), testing.noise((30, 20, 18)))]


def draw(dataset, count=40, **options):
    return list(PatchSampler(dataset, patches_per_epoch=count, **options))


def test_sampling_is_reproducible_and_split_between_processes() -> None:
    dataset = PatchDataset(noisy_volumes(), (16, 12, 14), classes=3, context=None)
    first, second = draw(dataset, 11), draw(dataset, 11)
    assert first == second
    assert len(set(first)) == 11
    assert draw(dataset, 11, seed=1) != first
    assert draw(dataset, 11, seed=1, foreground=0) != draw(dataset, 11, foreground=0)
    sampler = PatchSampler(dataset, patches_per_epoch=11)
    epochs = [list(sampler) for _ in range(3)]
    assert epochs[0] == first
    assert epochs[1] != epochs[0]
    sampler.set_epoch(1)
    assert list(sampler) == epochs[1]
    parts = [PatchSampler(dataset, patches_per_epoch=12, rank=rank, world_size=3) for rank in range(3)]
    drawn = [list(part) for part in parts]
    assert [len(part) for part in parts] == [len(row) for row in drawn] == [4, 4, 4]
    assert list(itertools.chain(*zip(*drawn, strict=True))) == draw(dataset, 12)


def test_foreground_share_and_class_balance() -> None:
    """Class 2 is one voxel among 250 000, class 1 a large slab: both are centred on equally often."""
    labels = np.zeros((60, 64, 66), np.uint8)
    labels[:20] = 1
    labels[40, 32, 33] = 2
    dataset = PatchDataset([Volume(labels, labels)], (8, 8, 8), classes=3, context=None)
    centred = [dataset[p]["label"][4, 4, 4].item() for p in draw(dataset, 600, foreground=1.0)]
    assert 0.4 < np.mean(np.equal(centred, 2)) < 0.6
    assert all((dataset[p]["label"] > 0).any() for p in draw(dataset, 100, foreground=1.0))
    rare = [2 in dataset[p]["label"] for p in draw(dataset, 600, foreground=0.5)]
    assert 0.18 < np.mean(rare) < 0.32
    only = draw(dataset, 100, foreground=1.0, foreground_classes=[2])
    assert {p.start for p in only} == {(36, 28, 29)}
    uniform = np.array([p.start for p in draw(dataset, 600, foreground=0.0)])
    assert np.abs(uniform.mean(axis=0) - np.array([52, 56, 58]) / 2).max() < 3
    assert uniform.min(axis=0).max() <= 1
    assert (uniform.max(axis=0) >= np.array([51, 55, 57])).all()


def test_a_large_class_is_sampled_evenly() -> None:
    labels = np.ones((64, 32, 32), np.uint8)
    dataset = PatchDataset([Volume(labels, labels)], (2, 2, 2), classes=2, context=None)
    centres = np.array([p.start[0] for p in draw(dataset, 2000, foreground=1.0)])
    quarters = np.bincount(centres // 16, minlength=4) / 2000
    assert np.abs(quarters - 0.25).max() < 0.05


def test_padding_is_no_foreground() -> None:
    labels = np.zeros((4, 40, 40), np.uint8)
    labels[2, 20, 20] = 1
    dataset = PatchDataset([Volume(labels, labels)], (8, 8, 8), classes=2, context=None, pad_label=255)
    assert {p.start for p in draw(dataset, 30, foreground=1.0)} == {(-2, 16, 16)}


def test_volumes_without_foreground_are_sampled_uniformly() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    dataset = PatchDataset([Volume(labels, labels)], (8, 8, 8), classes=2, context=None)
    starts = {p.start for p in draw(dataset, 50, foreground=1.0)}
    assert len(starts) > 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patches_per_epoch": 0}, "patches_per_epoch: must be at least 1, got 0"),
        ({"foreground": 1.5}, "foreground: must be from 0 to 1, got 1.5"),
        ({"rank": 2, "world_size": 2}, "rank: must be from 0 to world_size - 1 = 1, got 2"),
        ({"world_size": 2}, "patches_per_epoch: must be a multiple of world_size = 2 .* got 3"),
        ({"seed": -1}, "seed: must not be negative, got -1"),
        (
            {"foreground_classes": [7]},
            r"foreground_classes: every class must be in a volume, \[7\] are in none",
        ),
    ],
)
def test_bad_sampler(change, message) -> None:
    dataset = PatchDataset(noisy_volumes(), (4, 4, 4), classes=2, context=None)
    with pytest.raises(ValueError, match=message):
        PatchSampler(dataset, **({"patches_per_epoch": 3} | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patches_per_epoch": 4.0}, "patches_per_epoch: must be an integer, got 4.0"),
        ({"patches_per_epoch": 4.5}, "patches_per_epoch: must be an integer, got 4.5"),
        ({"seed": 1.5}, "seed: must be an integer, got 1.5"),
        ({"rank": 0.0}, "rank: must be an integer, got 0.0"),
        ({"world_size": 1.0}, "world_size: must be an integer, got 1.0"),
        ({"foreground": "a"}, "foreground: must be a number, got 'a'"),
        ({"foreground_classes": 1}, "foreground_classes: must be None or a sequence of label values, got 1"),
        ({"foreground_classes": "1"}, "foreground_classes: must be an integer, got '1'"),
        ({"foreground_classes": [1.0]}, "foreground_classes: must be an integer, got 1.0"),
    ],
)
def test_arguments_of_the_wrong_type(change, message) -> None:
    dataset = PatchDataset(noisy_volumes(), (4, 4, 4), classes=2, context=None)
    with pytest.raises(TypeError, match=message):
        PatchSampler(dataset, **({"patches_per_epoch": 3} | change))


def test_padding_that_would_wrap_into_a_class_is_refused() -> None:
    """-1 as uint8 is 255, which would be drawn as if it were a foreground class."""
    labels = np.zeros((4, 40, 40), np.uint8)
    with pytest.raises(ValueError, match=r"pad_label: must fit .*uint8, .* from 0 to 255; got -1"):
        PatchDataset([Volume(labels, labels)], (8, 8, 8), classes=2, context=None, pad_label=-1)


def test_foreground_classes_as_an_array_and_no_data_set() -> None:
    dataset = PatchDataset(noisy_volumes(), (4, 4, 4), classes=2, context=None)
    for classes in (np.array([1]), torch.tensor([1])):
        sampler = PatchSampler(dataset, patches_per_epoch=3, foreground_classes=classes)
        assert list(sampler) == list(PatchSampler(dataset, patches_per_epoch=3, foreground_classes=[1]))
    with pytest.raises(TypeError, match="dataset: must be a PatchDataset, got list"):
        PatchSampler([dataset], patches_per_epoch=3)
