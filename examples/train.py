"""Train a small 3D U-Net on the MNI volume with a region loss and an on-the-fly boundary loss.

    python -m examples.train                        # uses a CUDA device if there is one
    python -m examples.train --resume --epochs 10   # continues from the checkpoint

It trains on the back of the brain and reports the Dice score of the front.

Randomly deformed patches, mixed precision, the distance map computed beside the forward pass, a schedule that
shifts the weight from the region to the boundary, a checkpoint after every epoch. Needs nilearn and nibabel.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from examples.networks import UNet3d, dice_loss, dice_scores
from fastsdm.data import mni_icbm152, random_affine_elastic
from fastsdm.losses import BoundaryLoss, RegionBoundaryLoss
from fastsdm.schedules import Rebalance

CLASSES = 3
FRONT = 72  # millimetres that no training patch sees


def region_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus soft Dice loss."""
    logits = logits.float()
    return nn.functional.cross_entropy(logits, labels) + dice_loss(logits, labels[:, None])


@torch.no_grad()
def dice_score(network: nn.Module, image: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean Dice score of the two tissues in the middle of a volume."""
    low = [(size - 64) // 2 for size in labels.shape[1:]]
    crop: tuple[Any, ...] = (..., *(slice(start, start + 64) for start in low))
    return statistics.mean(dice_scores(network(image[crop]).argmax(dim=1), labels[crop], CLASSES))


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25, help="per epoch")
    parser.add_argument("--patch", type=int, default=32, help="edge length, a multiple of 4")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/train.pt"), help="the checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    # Off on the CPU: one without bfloat16 instructions takes 25 times longer with it.
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    args = parser.parse_args()

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    volume = mni_icbm152()
    image = torch.from_numpy(volume.image).to(device)[None, None]
    labels = torch.from_numpy(volume.labels).to(device)[None]
    # The front of the brain is for validation. (Its halves are no choice: the template is symmetric.)
    held_out = image[..., -FRONT:, :], labels[..., -FRONT:, :]
    image, labels = image[..., :-FRONT, :], labels[..., :-FRONT, :]
    patches = image.expand(args.batch, -1, -1, -1, -1), labels.expand(args.batch, -1, -1, -1)

    network = UNet3d(1, CLASSES).to(device)
    # In millimetres the boundary loss would drown the region loss long before the network finds the tissues.
    boundary = BoundaryLoss(softmax=True, spacing=volume.spacing, normalize="max")
    loss = RegionBoundaryLoss(region_loss, boundary, Rebalance(steps=max(args.epochs - 1, 1), end=0.5))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler(device.type, enabled=args.amp and half == torch.float16)
    parts: dict[str, Any] = {"network": network, "loss": loss, "optimizer": optimizer, "scaler": scaler}
    first_epoch = 0
    if args.resume:
        checkpoint = torch.load(args.out, map_location=device, weights_only=True)
        first_epoch = checkpoint.pop("epoch")
        for name, state in checkpoint.items():
            parts[name].load_state_dict(state)
        torch.manual_seed(first_epoch)  # else the first epochs' patches would come again

    for epoch in range(first_epoch, args.epochs):
        start, total = time.perf_counter(), torch.zeros((), device=device)
        for _ in range(args.steps):
            x, y = random_affine_elastic(*patches, size=[args.patch] * 3, spacing=volume.spacing)
            maps = boundary.prefetch(y, CLASSES)
            with torch.autocast(device.type, dtype=half, enabled=args.amp):
                value = loss(network(x), y.long(), distance_map=maps)
            optimizer.zero_grad()
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            total += value.detach()
        weights = loss.schedule.weights
        loss.schedule.step()
        args.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            {"epoch": epoch + 1, **{name: part.state_dict() for name, part in parts.items()}}, args.out
        )
        print(
            f"epoch {epoch + 1}/{args.epochs}  loss {total.item() / args.steps:.3f}  "
            f"boundary weight {weights.boundary:.2f}  Dice {dice_score(network, *held_out):.3f}  "
            f"{time.perf_counter() - start:.1f} s"
        )


if __name__ == "__main__":
    main()
