"""Small volumes for the frameworks to train on: warped copies of the MNI volume."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import torch

from fastsdm.data import mni_icbm152, random_affine_elastic

#: Millimetres along each axis of what `warped_copies` returns: every sixth, fifth and fifth voxel.
SPACING = (6.0, 5.0, 5.0)


@cache
def _coarse() -> tuple[torch.Tensor, torch.Tensor]:
    volume = mni_icbm152()
    image, labels = (
        torch.from_numpy(array[2::6, 2::5, 2::5].copy()) for array in (volume.image, volume.labels)
    )
    return image[None, None], labels[None]


def warped_copies(count: int, *, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images (float32) and labels (uint8, 0 to 2) of 33 x 47 x 38 voxels."""
    image, labels = _coarse()
    images, maps = random_affine_elastic(
        image.expand(count, -1, -1, -1, -1),
        labels.expand(count, -1, -1, -1),
        spacing=SPACING,
        rotation=10.0,
        scaling=(0.9, 1.1),
        elastic_grid=30.0,
        generator=torch.Generator().manual_seed(seed),
    )
    return [(image[0].numpy(), label.numpy()) for image, label in zip(images, maps, strict=True)]


def affine(spacing: tuple[float, ...] = SPACING) -> np.ndarray:
    return np.diag([*spacing, 1.0])


def write_nifti_folder(folder: Path, count: int, *, seed: int = 0) -> Path:
    """``images/case_0.nii.gz`` ... and ``labels/`` of the same names."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number, (image, labels) in enumerate(warped_copies(count, seed=seed)):
        for kind, array in (("images", image), ("labels", labels)):
            nibabel.save(nibabel.Nifti1Image(array, affine()), folder / kind / f"case_{number}.nii.gz")
    return folder
