"""Augment image and labels on the device in one resampling, then compute the maps of the batch there.

    python -m examples.augment_on_device --steps 10

Every patch is deformed with its labels in one resampling, which also yields the labels of the halo: the
voxels around the patch on which its true distances depend. One call makes the maps of the batch from them. So
the maps are those of the augmented labels, and true up to the patch's border; what lies outside the volume
counts as background.

The volume is the MNI template's; nothing is downloaded. It stays on the device as a whole. Volumes that do
not fit there can be handed over in blocks, by `PatchDataset(..., context=None)` with a size that the
deformation does not reach out of.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from examples.networks import UNet3d
from fastsdm.data import mni_icbm152, patch_halo, random_affine_elastic, signed_distance_patch
from fastsdm.losses import BoundaryLoss

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
    torch.manual_seed(0)

    brain = mni_icbm152()
    image = torch.from_numpy(brain.image).to(device).expand(arguments.batch, 1, *brain.image.shape)
    labels = torch.from_numpy(brain.labels).to(device).expand(arguments.batch, *brain.labels.shape)
    halo = patch_halo(MAX_DISTANCE, spacing=brain.spacing)
    network, boundary = UNet3d(1, CLASSES).to(device), BoundaryLoss(softmax=True)
    optimizer = torch.optim.Adam(network.parameters())
    generator = torch.Generator().manual_seed(0)

    seconds: dict[str, list[float]] = {"augment": [], "maps": [], "network": []}
    for step in range(arguments.steps):
        times = [finished(device)]
        x, around = random_affine_elastic(
            image, labels, size=arguments.size, halo=halo, spacing=brain.spacing, generator=generator
        )
        times.append(finished(device))
        maps = signed_distance_patch(
            around,
            [halo] * arguments.batch,
            arguments.size,
            classes=CLASSES,
            spacing=brain.spacing,
            max_distance=MAX_DISTANCE,
        )
        times.append(finished(device))
        y = around[(slice(None), *(slice(h, h + n) for h, n in zip(halo, arguments.size, strict=True)))]
        logits = network(x)
        loss = nn.functional.cross_entropy(logits, y.long()) + 0.01 * boundary(logits, y, distance_map=maps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(finished(device))
        print(f"step {step}  loss {loss.item():.3f}  foreground {(y > 0).float().mean():.0%}")
        for part, begin, end in zip(seconds, times, times[1:], strict=False):
            seconds[part].append(end - begin)

    print(f"images {tuple(x.shape)}, labels {tuple(y.shape)}, maps {tuple(maps.shape)} on {device}")
    medians = {part: statistics.median(taken[1:] or taken) for part, taken in seconds.items()}  # 1st: warm-up
    for part, median in medians.items():
        print(f"{part:8s} {1000 * median:8.1f} ms  {median / sum(medians.values()):6.1%} of the step")


def finished(device: torch.device) -> float:
    """The time when all work handed to the device is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
