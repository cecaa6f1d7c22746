"""Augment image and labels on the device in one resampling, then compute the maps of the batch there.

    python examples/augment_on_device.py --steps 10

Every patch is deformed with its labels in one resampling, which also yields the labels of the halo: the
voxels around the patch on which its true distances depend. One call makes the maps of the batch, and the halo
is cut off. So the maps are those of the augmented labels, and true up to the patch's border.

The volume is the MNI template's; nothing is downloaded. It stays on the device as a whole. Volumes that do
not fit there can be handed over in blocks, by `PatchDataset(..., context=None)` with a size that the
deformation does not reach out of.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

import fastsdm
from fastsdm.data import mni_icbm152, patch_halo, random_affine_elastic

CLASSES = 3
#: The map is clamped there; what is farther from a surface needs no exact distance, and the halo stays small.
MAX_DISTANCE = 16.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=3, default=(64, 64, 64))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)

    brain = mni_icbm152()
    image = torch.from_numpy(brain.image).to(device).expand(arguments.batch, 1, *brain.image.shape)
    labels = torch.from_numpy(brain.labels).to(device).expand(arguments.batch, *brain.labels.shape)
    halo = patch_halo(MAX_DISTANCE, spacing=brain.spacing)
    size_with_halo = [n + 2 * h for n, h in zip(arguments.size, halo, strict=True)]
    patch: Any = (..., *(slice(h, h + n) for n, h in zip(arguments.size, halo, strict=True)))
    generator = torch.Generator().manual_seed(0)

    print("step  augment, ms  maps, ms  foreground")
    for step in range(arguments.steps):
        begin = finished(device)
        images, targets = random_affine_elastic(
            image, labels, size=size_with_halo, spacing=brain.spacing, generator=generator
        )
        augmented = finished(device)
        maps = fastsdm.signed_distance(
            targets, classes=CLASSES, spacing=brain.spacing, empty="max", max_distance=MAX_DISTANCE
        )
        images, targets, maps = images[patch], targets[patch], maps[patch]
        mapped = finished(device)
        # The training step stands here: loss(network(images), targets, distance_map=maps).
        print(
            f"{step:4d} {1000 * (augmented - begin):12.1f} {1000 * (mapped - augmented):9.1f} "
            f"{(targets > 0).float().mean():11.1%}"
        )
    print(
        f"images {tuple(images.shape)}, labels {tuple(targets.shape)}, maps {tuple(maps.shape)} on {device}"
    )


def finished(device: torch.device) -> float:
    """The time when all work handed to the device is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
