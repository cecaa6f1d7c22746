"""Patches for training: contexts, padding, augmentation, workers, the real volume."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import fastsdm
from fastsdm import testing
from fastsdm.data import (
    PatchDataset,
    PatchPosition,
    PatchSampler,
    Volume,
    mni_icbm152,
    patch_halo,
    random_affine_elastic,
)
from tests.data.sources import RecordingSource

SIZE = (16, 12, 14)
LIMIT = 5.0


def volumes() -> list[Volume]:
    shells = testing.shells((24, 26, 40), classes=3, thickness=6).astype(np.uint8)
    rare = 2 * testing.one_voxel((30, 20, 18))
    image = np.random.default_rng(0).random((2, *rare.shape), dtype=np.float32)
    return [
        Volume(shells * 0.5, shells, spacing=(2.0, 1.0, 0.75)),
        Volume(image, rare, spacing=1.0),
    ]


def full_map(labels, **options):
    return fastsdm.signed_distance(torch.as_tensor(labels), classes=3, **options)


def cut(array, start, size=SIZE):
    return torch.as_tensor(array[(..., *(slice(a, a + n) for a, n in zip(start, size, strict=True)))])


def draw(dataset, count=40, **options):
    return list(PatchSampler(dataset, patches_per_epoch=count, **options))


@pytest.mark.parametrize("context", ["full", "halo"])
def test_full_and_halo_are_the_crop_of_the_volumes_map(context) -> None:
    dataset = PatchDataset(volumes(), SIZE, classes=3, context=context, max_distance=LIMIT)
    assert len(dataset) == 2
    for position in draw(dataset):
        volume, patch = volumes()[position.volume], dataset[position]
        expected = full_map(volume.labels, spacing=volume.spacing, empty="max", max_distance=LIMIT)
        assert torch.equal(patch["distance_map"], cut(expected, position.start))
        assert torch.equal(patch["image"], cut(volume.image, position.start))
        assert torch.equal(patch["label"], cut(volume.labels, position.start))
        assert patch["volume"] == position.volume
        assert patch["start"].tolist() == list(position.start)
        assert all(part.is_contiguous() for part in patch.values())


def test_full_needs_no_limit() -> None:
    dataset = PatchDataset(volumes(), SIZE, classes=3, context="full", convention="plain")
    for position in draw(dataset, 8):
        volume = volumes()[position.volume]
        expected = full_map(volume.labels, spacing=volume.spacing, empty="max", convention="plain")
        assert torch.equal(dataset[position]["distance_map"], cut(expected, position.start))


def test_patch_context_knows_the_patch_only() -> None:
    dataset = PatchDataset(volumes(), SIZE, classes=3, context="patch", max_distance=LIMIT)
    silent = 0
    for position in draw(dataset):
        patch, spacing = dataset[position], volumes()[position.volume].spacing
        expected = full_map(patch["label"], spacing=spacing, empty="zero", max_distance=LIMIT)
        assert torch.equal(patch["distance_map"], expected)
        silent += not patch["distance_map"].any()
    assert silent > 0, "no patch without foreground among them, on which it says nothing at all"


def test_without_context_no_map_is_made() -> None:
    dataset = PatchDataset(volumes(), SIZE, classes=3, context=None)
    assert set(dataset[PatchPosition(0, (0, 0, 0))]) == {"image", "label", "spacing", "volume", "start"}


def test_patches_do_not_share_memory_with_the_volumes_or_the_cache() -> None:
    held = volumes()
    dataset = PatchDataset(held, SIZE, classes=3, context="full", max_distance=LIMIT)
    first = dataset[PatchPosition(0, (1, 2, 3))]
    again = {key: part.clone() for key, part in first.items()}
    for part in first.values():
        part.zero_()
    for key, part in dataset[PatchPosition(0, (1, 2, 3))].items():
        assert torch.equal(part, again[key])


@pytest.mark.parametrize(("cached", "computed"), [(0, 7), (1, 6), (2, 4), (3, 3)])
def test_whole_maps_are_kept(monkeypatch, cached, computed) -> None:
    held = [Volume(v, v) for v in (testing.noise((8, 8, 8), seed=seed) for seed in range(3))]
    calls = []
    original = fastsdm.signed_distance

    def counted(labels, **options):
        calls.append(labels)
        return original(labels, **options)

    monkeypatch.setattr(fastsdm.data._patch_dataset, "signed_distance", counted)
    dataset = PatchDataset(held, (4, 4, 4), classes=2, context="full", cached_maps=cached)
    for number in (0, 1, 0, 0, 2, 0, 1):
        dataset[PatchPosition(number, (1, 2, 3))]
    assert len(calls) == computed


PADDED_START, PADDED_SHAPE = (-3, 4, -1), (16, 26, 14)


@pytest.mark.parametrize("context", ["full", "halo", "patch"])
@pytest.mark.parametrize("pad_label", [0, 1, 9])
def test_volumes_smaller_than_the_patch_are_padded(context, pad_label) -> None:
    labels = testing.shells((10, 26, 12), classes=3, thickness=4).astype(np.uint8)
    image = labels.astype(np.float32) + 1
    dataset = PatchDataset(
        [Volume(image, labels)],
        SIZE,
        classes=3,
        context=context,
        max_distance=LIMIT,
        pad_label=pad_label,
        pad_value=-7.0,
    )
    widths = [(3, 3), (0, 0), (1, 1)]
    padded = np.pad(labels, widths, constant_values=pad_label)
    assert padded.shape == PADDED_SHAPE
    patch = dataset[PatchPosition(0, PADDED_START)]
    assert torch.equal(patch["label"], cut(padded, (0, 4, 0)))
    assert torch.equal(patch["image"], cut(np.pad(image, widths, constant_values=-7.0), (0, 4, 0)))
    expected = (
        full_map(cut(padded, (0, 4, 0)), empty="zero", max_distance=LIMIT)
        if context == "patch"
        else cut(full_map(padded, empty="max", max_distance=LIMIT), (0, 4, 0))
    )
    assert torch.equal(patch["distance_map"], expected)
    for position in draw(dataset, 20, foreground=0.5):
        assert (position.start[0], position.start[2]) == (-3, -1)
        assert 0 <= position.start[1] <= 14


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int16", "uint32", "int64", "float32"])
def test_padding_of_every_dtype(dtype) -> None:
    labels = testing.noise((9, 9, 9)).astype(dtype)
    dataset = PatchDataset([Volume(labels, labels)], (12, 4, 9), classes=2, context=None)
    assert torch.equal(
        dataset[PatchPosition(0, (-1, 3, 0))]["label"],
        cut(np.pad(labels, [(1, 2), (0, 0), (0, 0)]), (0, 3, 0), (12, 4, 9)),
    )


@pytest.mark.parametrize(
    ("name", "value", "dtype"),
    [
        ("pad_label", -1, "uint8"),
        ("pad_label", 300, "uint8"),
        ("pad_label", -129, "int8"),
        ("pad_label", 2, "bool"),
        ("pad_label", 2**16, "uint16"),
        ("pad_value", -1, "uint8"),
        ("pad_value", 0.5, "int16"),
        ("pad_value", np.nan, "int64"),
        ("pad_value", 1e5, "float16"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_padding_must_fit_the_dtype(name, value, dtype, kind) -> None:
    volume = Volume(kind(np.zeros((9, 9, 9), dtype)), kind(np.zeros((9, 9, 9), dtype)))
    fits = {"size": (12, 4, 9), "classes": 2, "context": None}
    with pytest.raises(ValueError, match=rf"{name}: must fit .* torch\.{dtype}, .*; got {value}"):
        PatchDataset([volume], **fits, **{name: value})
    recorded = Volume(RecordingSource(np.asarray(volume.image)), RecordingSource(np.asarray(volume.labels)))
    dataset = PatchDataset([recorded], **fits, **{name: value})
    with pytest.raises(ValueError, match=f"{name}: must fit"):
        dataset[PatchPosition(0, (-1, 3, 0))]


@pytest.mark.parametrize(
    ("name", "value", "dtype"),
    [
        ("pad_label", 255, "uint8"),
        ("pad_label", -128, "int8"),
        ("pad_label", 1, "bool"),
        ("pad_label", 2**32 - 1, "uint32"),
        ("pad_value", -1000.1, "float32"),
        ("pad_value", np.inf, "float16"),
        ("pad_value", 65504, "float16"),
    ],
)
def test_padding_at_the_edge_of_its_dtype(name, value, dtype) -> None:
    volume = Volume(np.zeros((9, 9, 9), dtype), np.zeros((9, 9, 9), dtype))
    dataset = PatchDataset([volume], (12, 4, 9), classes=2, context=None, **{name: value})
    patch = dataset[PatchPosition(0, (-1, 3, 0))]["label" if name == "pad_label" else "image"]
    assert patch[0, 0, 0].item() == pytest.approx(value)


def flip_first_axis(image, labels, generator):
    flip = bool(torch.randint(2, (), generator=generator))
    return (image.flip(-3), labels.flip(-3)) if flip else (image, labels)


@pytest.mark.parametrize("context", ["full", "halo", "patch"])
def test_maps_are_those_of_the_augmented_labels(context) -> None:
    plain = PatchDataset(volumes(), SIZE, classes=3, context=context, max_distance=LIMIT)
    dataset = PatchDataset(
        volumes(), SIZE, classes=3, context=context, max_distance=LIMIT, augment=flip_first_axis
    )
    flipped = 0
    for position in draw(dataset):
        volume = volumes()[position.volume]
        if flip := bool(torch.randint(2, (), generator=torch.Generator().manual_seed(position.seed))):
            volume = Volume(
                np.flip(volume.image, -3).copy(), np.flip(volume.labels, 0).copy(), volume.spacing
            )
            plain_volume = PatchDataset([volume], SIZE, classes=3, context=context, max_distance=LIMIT)
            expected = plain_volume[position._replace(volume=0)]
        else:
            expected = plain[position]
        flipped += flip
        got = dataset[position]
        for key in ("image", "label", "distance_map"):
            assert torch.equal(got[key], expected[key])
    assert 5 < flipped < 35


def test_augmentation_by_random_deformation() -> None:
    def deform(image, labels, generator):
        after = random_affine_elastic(image[None, None], labels[None], generator=generator)
        return after[0][0, 0], after[1][0]

    held = [Volume(testing.noise((20, 20, 20)).astype(np.float32), testing.blobs((20, 20, 20), sigma=2))]
    dataset = PatchDataset(held, (8, 8, 8), classes=2, max_distance=3.0, augment=deform)
    position = PatchPosition(0, (4, 4, 4), seed=5)
    first = dataset[position]
    assert torch.equal(dataset[position]["distance_map"], first["distance_map"])
    assert not torch.equal(dataset[position._replace(seed=6)]["label"], first["label"])


def loaded(dataset, sampler, **options):
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, **options)
    return [list(loader), list(loader)]


def same(batches, others) -> bool:
    return all(torch.equal(a[key], b[key]) for a, b in zip(batches, others, strict=True) for key in a)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_what_one_process_gives(method, tmp_path) -> None:
    labels = testing.blobs((24, 26, 30), sigma=3)
    np.save(tmp_path / "labels.npy", labels)
    mapped = np.load(tmp_path / "labels.npy", mmap_mode="r")
    held = [Volume(labels.astype(np.float32), mapped), Volume(labels * 0.5, torch.from_numpy(labels))]
    dataset = PatchDataset(held, SIZE, classes=3, max_distance=LIMIT, augment=flip_first_axis)

    def sampler():
        return PatchSampler(dataset, patches_per_epoch=8, seed=3)

    alone = loaded(dataset, sampler())
    assert not same(*alone), "the second epoch repeats the first"
    workers = loaded(
        dataset,
        sampler(),
        num_workers=2,
        multiprocessing_context=method,
        persistent_workers=True,
        timeout=120,
    )
    assert same(alone[0], workers[0])
    assert same(alone[1], workers[1])


@pytest.mark.parametrize("context", ["halo", "patch", None])
def test_only_what_a_patch_needs_is_read(context) -> None:
    image = RecordingSource(np.zeros((2, 40, 40, 40)))
    labels = RecordingSource(testing.noise((40, 40, 40)))
    dataset = PatchDataset([Volume(image, labels)], (8, 8, 8), classes=2, context=context, max_distance=4.0)
    dataset[PatchPosition(0, (12, 16, 20))]
    patch = (slice(12, 20), slice(16, 24), slice(20, 28))
    with_halo = (slice(7, 25), slice(11, 29), slice(15, 33))
    assert image.read == [(slice(None), *patch)]
    assert labels.read == ([patch, with_halo] if context == "halo" else [patch])


def test_memory_maps_are_sent_by_name(tmp_path) -> None:
    volume = np.asfortranarray(testing.shells((20, 30, 40), classes=3))
    for name, array in (("c", np.ascontiguousarray(volume)), ("f", volume), ("view", volume)):
        np.save(tmp_path / f"{name}.npy", array)
    c, f, view = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("c", "f", "view"))
    assert f.flags.f_contiguous
    for source, small in ((c, True), (f, True), (view[1:], False)):
        dataset = PatchDataset([Volume(source, source)], SIZE, classes=3, max_distance=LIMIT)
        sent = pickle.dumps(dataset)
        assert (len(sent) < 5000) == small, "a view of a map has no file of its own"
        position = PatchPosition(0, (2, 3, 4))
        for key, part in dataset[position].items():
            assert torch.equal(pickle.loads(sent)[position][key], part)


@pytest.mark.parametrize("context", ["full", "halo", "patch"])
def test_two_dimensions(context) -> None:
    labels = testing.blobs((40, 50), sigma=3)
    dataset = PatchDataset(
        [Volume(labels * 1.0, labels)], (16, 20), classes=None, context=context, max_distance=4.0
    )
    known = labels[3:19, 5:25] if context == "patch" else labels
    expected = fastsdm.signed_distance(known, spatial_dims=2, max_distance=4.0)
    expected = expected if context == "patch" else expected[3:19, 5:25]
    np.testing.assert_array_equal(dataset[PatchPosition(0, (3, 5))]["distance_map"], expected)


def test_patches_without_foreground_of_the_real_volume() -> None:
    """What the contexts tell a network where a 48^3 patch of the brain holds no grey or white matter."""
    brain, size, limit = mni_icbm152(), (48, 48, 48), 40.0
    whole = full_map(brain.labels, spacing=brain.spacing)
    datasets = {
        context: PatchDataset([brain], size, classes=3, context=context, max_distance=limit)
        for context in ("full", "halo", "patch")
    }
    grid = itertools.product(*(range(whole % 24, whole - 47, 24) for whole in brain.labels.shape))
    empty = [
        PatchPosition(0, (z, y, x))
        for z, y, x in grid
        if not brain.labels[z : z + 48, y : y + 48, x : x + 48].any()
    ]
    near = [p for p in empty if cut(whole[1:], p.start, size).min() < limit / 2]
    assert len(near) > 3
    for position in near[:: len(near) // 4]:
        truth = cut(whole, position.start, size)
        maps = {context: dataset[position]["distance_map"] for context, dataset in datasets.items()}
        for context in ("full", "halo"):
            assert torch.equal(maps[context], truth.clamp(-limit, limit))
            for foreground in (1, 2):
                assert maps[context][foreground].min() > 0
                assert maps[context][foreground].unique().numel() > 100
        assert not maps["patch"].any()
    assert patch_halo(limit, spacing=brain.spacing) == (41, 41, 41)
