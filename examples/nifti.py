"""A folder of NIfTI files as the examples read it, and what they report at the end."""

from __future__ import annotations

from pathlib import Path

import torch

from fastsdm.metrics import compute_average_surface_distance, compute_dice


def split(folder: Path, held_out: int = 1) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
    """Pairs of image and label map for training, and the last ``held_out`` of them for validation.

    Raises:
        FileNotFoundError: ``folder/images`` does not hold more than ``held_out`` files, each with a file of
            the same name in ``folder/labels``.
    """
    images = sorted((folder / "images").glob("*.nii.gz"))
    pairs = [(image, folder / "labels" / image.name) for image in images]
    missing = [label for _, label in pairs if not label.is_file()]
    if missing or len(pairs) <= held_out:
        raise FileNotFoundError(
            f"{folder}: must hold more than {held_out} images/*.nii.gz, each with labels/ of the same name; "
            f"found {len(pairs)}, without labels: {[path.name for path in missing]}"
        )
    return pairs[:-held_out], pairs[-held_out:]


def report(name: str, prediction: torch.Tensor, truth: torch.Tensor, spacing: object, classes: int) -> None:
    """Print Dice and the average symmetric surface distance of every class of one volume ``[*S]``."""
    pair = prediction.cpu().long()[None], truth.cpu().long()[None]
    dice = compute_dice(*pair, num_classes=classes)[0].tolist()
    surface = compute_average_surface_distance(*pair, symmetric=True, spacing=spacing, num_classes=classes)[
        0
    ].tolist()
    for value, (overlap, distance) in enumerate(zip(dice, surface, strict=True), start=1):
        print(f"{name}  class {value}  Dice {overlap:.3f}  surface distance {distance:.2f} mm")
