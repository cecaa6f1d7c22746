"""A data set of nnU-Net's own layout, planned and preprocessed by nnU-Net's own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np

from tests.integrations.volumes import warped_copies

TRAINERS = Path(__file__).parent / "nnunet_trainers"
LABELS = {"background": 0, "grey": 1, "white": 2, "ignore": 3}


def environment(root: Path, **more: str) -> dict[str, str]:
    """What nnU-Net's commands read; one process, no compiling."""
    folders = {f"nnUNet_{kind}": str(root / kind) for kind in ("raw", "preprocessed", "results")}
    limits = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    return {**os.environ, **folders, **limits, "nnUNet_extTrainer": str(TRAINERS), **more}


def command(root: Path, name: str, *arguments: str, check: bool = True, **more: str) -> str:
    """Run one of nnU-Net's commands and return what it printed."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / name), *arguments],
        env=environment(root, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    output = done.stdout + done.stderr
    assert not check or done.returncode == 0, output[-4000:]
    return output


def prepare(
    root: Path,
    *,
    spacing: tuple[float, ...],
    every: int = 1,
    cases: int = 5,
    configurations: tuple[str, ...] = ("2d", "3d_fullres"),
) -> None:
    """Write Dataset001_MNI with a slab of ignored voxels, plan and preprocess it in 2D and 3D."""
    dataset = root / "raw" / "Dataset001_MNI"
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (dataset / folder).mkdir(parents=True)
    for number, pair in enumerate(warped_copies(cases + 1)):
        image, labels = (array[::every] for array in pair)
        labels[:, 20:24] = LABELS["ignore"]  # inside the head: nnU-Net cuts off what is outside of it
        affine = np.diag([*spacing, 1.0])
        where = "imagesTr" if number < cases else "imagesTs"
        nibabel.save(nibabel.Nifti1Image(image, affine), dataset / where / f"case_{number}_0000.nii.gz")
        if number < cases:
            nibabel.save(nibabel.Nifti1Image(labels, affine), dataset / "labelsTr" / f"case_{number}.nii.gz")
    description = {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": cases}
    (dataset / "dataset.json").write_text(json.dumps({**description, "file_ending": ".nii.gz"}))
    steps = ["-c", *configurations, "-npfp", "1", "-np", *["1"] * len(configurations)]
    command(root, "nnUNetv2_plan_and_preprocess", "-d", "1", *steps)
