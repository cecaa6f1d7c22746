"""The TorchIO transform in TorchIO's own pipelines, queue and loader."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchio as tio

import fastsdm
from fastsdm.integrations.torchio import DistanceMap, SignedDistance
from fastsdm.testing import reference_signed_distance
from tests.integrations.volumes import SPACING, affine, warped_copies, write_nifti_folder


@pytest.fixture
def subject() -> tio.Subject:
    image, labels = warped_copies(1)[0]
    return tio.Subject(
        image=tio.ScalarImage(tensor=image[None], affine=affine()),
        label=tio.LabelMap(tensor=labels[None], affine=affine()),
    )


def test_takes_spacing_and_affine_from_the_image(subject: tio.Subject) -> None:
    subject["label"].affine = np.diag([-6.0, 5.0, 4.0, 1.0])
    mapped = SignedDistance(classes=3, convention="plain")(subject).distance_map
    truth = reference_signed_distance(subject.label.data.numpy(), (0, 1, 2), np.array([[6.0, 5.0, 4.0]]))
    np.testing.assert_allclose(mapped.data.numpy(), truth[0], rtol=1e-6)
    np.testing.assert_array_equal(mapped.affine, subject.label.affine)
    assert "distance_map" not in subject  # TorchIO's transforms work on a copy


def test_masks_one_map_per_channel(subject: tio.Subject) -> None:
    one_hot = tio.OneHot(num_classes=3)(subject)
    mapped = SignedDistance()(one_hot).distance_map.data
    labelled = SignedDistance(classes=3)(subject).distance_map.data
    assert torch.equal(mapped, labelled)


def test_every_option_reaches_the_map(subject: tio.Subject) -> None:
    options = {"classes": [0, 2, 7], "convention": "midline", "empty": "max", "max_distance": 20.0}
    options |= {"dtype": "float16", "ignore_index": 1, "black_border": True}
    mapped = SignedDistance(**options, backend="scipy")(subject).distance_map.data
    assert torch.equal(mapped, fastsdm.signed_distance(subject.label.data[0], spacing=SPACING, **options))
    assert mapped.dtype == torch.float16


def test_several_label_maps(subject: tio.Subject) -> None:
    subject.add_image(copy.deepcopy(subject.label), "second")
    with pytest.raises(ValueError, match=r"^name: must hold '\{\}' for a subject with several label maps"):
        SignedDistance()(subject)
    assert "distance_map" in SignedDistance(include=["second"])(subject)
    assert {"label_sdm", "second_sdm"} <= set(SignedDistance(name="{}_sdm")(subject))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"convention": "signed"}, "convention: must be one of"),
        ({"empty": "no"}, "empty: must be one of"),
        ({"classes": 0}, "classes: must be at least 1"),
        ({"max_distance": -1.0}, "max_distance: must be positive"),
        ({"name": ""}, "name: must be a string"),
        ({"dtype": "int8"}, "dtype: must be"),
        ({"ignore_index": 1.5}, "ignore_index: must be an integer"),
        ({"black_border": 1}, "black_border: must be True or False"),
        ({"backend": None}, "backend: must be"),
    ],
)
def test_refuses_wrong_arguments_at_once(arguments: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        SignedDistance(**arguments)


def test_refuses_subjects_it_cannot_read(subject: tio.Subject) -> None:
    with pytest.raises(ValueError, match=r"^subject: must hold a LabelMap"):
        SignedDistance()(tio.Subject(image=subject.image))
    with pytest.raises(ValueError, match=r"^classes: must be None for a label map with one channel"):
        SignedDistance(classes=3)(tio.OneHot(num_classes=3)(subject))


def test_history_reproduces_the_map(subject: tio.Subject) -> None:
    pipeline = tio.Compose(
        [tio.RandomAffine(scales=0.3), tio.RandomNoise(), SignedDistance(3, name="sdm", max_distance=30.0)]
    )
    augmented = pipeline(subject)
    again = augmented.get_composed_history()(subject)
    assert torch.equal(augmented.sdm.data, again.sdm.data)
    assert torch.equal(augmented.label.data, again.label.data)


def test_intensity_and_label_transforms_leave_the_map_alone(subject: tio.Subject) -> None:
    mapped = SignedDistance(3)(subject)
    after = tio.Compose(
        [
            tio.ZNormalization(),
            tio.RandomNoise(),
            tio.RandomBiasField(),
            tio.RemapLabels({2: 1}),
            tio.OneHot(),
        ]
    )(mapped)
    assert torch.equal(after.distance_map.data, mapped.distance_map.data)
    assert not torch.equal(after.image.data, mapped.image.data)


def test_moving_voxels_moves_the_map_with_them(subject: tio.Subject) -> None:
    transform = tio.Compose(
        [tio.Crop((3, 1, 4, 0, 2, 2)), tio.RandomFlip((0, 1), flip_probability=1), tio.ToOrientation("PIR")]
    )
    cropped_map = transform(SignedDistance(3)(subject)).distance_map
    expected = fastsdm.signed_distance(subject.label.data[0], classes=3, spacing=SPACING)
    expected = expected[:, 3:-1, 4:, 2:-2].flip((1, 2)).numpy()
    # PIR: the second axis, mirrored, then the third, mirrored, then the first.
    assert sorted(np.unique(cropped_map.numpy())) == sorted(np.unique(expected))
    np.testing.assert_array_equal(cropped_map.numpy(), expected.transpose(0, 2, 3, 1)[:, ::-1, ::-1])
    assert cropped_map.spacing == pytest.approx((5.0, 5.0, 6.0))


@pytest.mark.parametrize(
    "transform",
    [
        tio.RandomAffine(),
        tio.Pad(2),
        tio.Resample(4),
        tio.Resize(20),
        tio.CropOrPad(60),
        tio.Lambda(torch.square),
    ],
    ids=lambda transform: transform.name,
)
def test_refuses_to_be_resampled_or_padded(subject: tio.Subject, transform: tio.Transform) -> None:
    mapped = SignedDistance(3)(subject)
    with pytest.raises(RuntimeError, match=r"^\w+: cannot be applied to a distance map, .*put SignedDist"):
        transform(mapped)


def test_can_be_excluded_from_resampling(subject: tio.Subject) -> None:
    mapped = SignedDistance(3)(subject)
    moved = tio.RandomAffine(exclude=["distance_map"])(mapped)
    assert torch.equal(moved.distance_map.data, mapped.distance_map.data)


def test_refuses_another_voxel_size(subject: tio.Subject) -> None:
    mapped = SignedDistance()(subject)
    mapped["image"].affine = affine((1.0, 1.0, 1.0))
    with pytest.raises(RuntimeError, match=r"^CopyAffine: a distance map keeps its voxel size \[5.0, 5"):
        tio.CopyAffine("image")(mapped)


def test_padding_as_an_image_would_have_turned_the_sign(subject: tio.Subject) -> None:
    """The trap: a map kept as a ScalarImage is padded with its minimum, deep inside, where it is outside."""
    truth = SignedDistance([1])(tio.Pad(4)(subject)).distance_map.data
    kept = tio.Subject(
        map=tio.ScalarImage(tensor=SignedDistance([1])(subject).distance_map.data, affine=affine())
    )
    as_image = tio.Pad(4, padding_mode="minimum")(kept)["map"].data
    assert as_image[0, 0, 0, 0] < 0 < truth[0, 0, 0, 0]


def test_queue_with_workers_hands_out_distances_of_the_whole_volume(tmp_path: Path) -> None:
    folder = write_nifti_folder(tmp_path, 3)
    subjects = [
        tio.Subject(
            image=tio.ScalarImage(path), label=tio.LabelMap(folder / "labels" / path.name), name=path.name
        )
        for path in sorted((folder / "images").iterdir())
    ]
    transform = tio.Compose([tio.RandomFlip((0, 1, 2)), SignedDistance(3)])
    queue = tio.Queue(
        tio.SubjectsDataset(subjects, transform=transform),
        max_length=6,
        samples_per_volume=2,
        sampler=tio.LabelSampler(16, "label"),
        num_workers=2,
    )
    seen = 0
    for batch in tio.SubjectsLoader(queue, batch_size=2, num_workers=0):
        assert batch["distance_map"]["data"].shape == (2, 3, 16, 16, 16)
        for n, name in enumerate(batch["name"]):
            patch = batch["distance_map"]["data"][n]
            affine_of_patch = np.asarray(batch["distance_map"]["affine"][n])
            assert np.linalg.norm(affine_of_patch[:3, :3], axis=0) == pytest.approx(SPACING)
            seen += _found_in_whole_map(folder / "labels" / name, patch, batch["location"][n])
            inside = batch["label"]["data"][n, 0] == 1
            assert torch.equal(patch[1] <= 0, inside)
    assert seen == 6


def _found_in_whole_map(path: Path, patch: torch.Tensor, location: torch.Tensor) -> bool:
    """Whether the patch is a crop of the whole volume's map, mirrored along some axes."""
    whole = fastsdm.signed_distance(tio.LabelMap(path).data[0], classes=3, spacing=SPACING)
    low, high = location[:3].tolist(), location[3:].tolist()
    for axes in ([], [1], [2], [3], [1, 2], [1, 3], [2, 3], [1, 2, 3]):
        crop = whole.flip(axes)[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        if torch.equal(crop, patch):
            return True
    return False


def test_pickles_and_copies(subject: tio.Subject) -> None:
    transform = pickle.loads(pickle.dumps(SignedDistance(3, max_distance=9.0)))
    mapped = transform(subject)
    for twin in (pickle.loads(pickle.dumps(mapped)), copy.deepcopy(mapped), copy.copy(mapped)):
        assert isinstance(twin.distance_map, DistanceMap)
        assert torch.equal(twin.distance_map.data, mapped.distance_map.data)
    assert repr(mapped.distance_map).startswith("DistanceMap(shape: (3, 33, 47, 38)")
