"""Train a U-Net on a folder of NIfTI files with Lightning: prefetched maps, a schedule, resume.

    python -m examples.lightning_train DATA --classes 3     # DATA/images/*.nii.gz, DATA/labels/*.nii.gz
    python -m examples.lightning_train DATA --classes 3 --epochs 80 --resume runs/lightning/last.ckpt

The last volume is for validation. Lines marked "fastsdm" are what a Lightning module changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import nibabel
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from examples.networks import UNet3d, dice_loss
from examples.nifti import report, split
from fastsdm.data import PatchDataset, PatchSampler, Volume
from fastsdm.losses import BoundaryLoss, RegionBoundaryLoss
from fastsdm.schedules import Increase


def volume_of(image: Path, label: Path) -> Volume:
    """Image from 0 to 1, labels, and the spacing that the affine says."""
    loaded = nibabel.load(image)
    voxels = np.asarray(loaded.dataobj, np.float32)
    labels = np.asarray(nibabel.load(label).dataobj).astype(np.int64)
    spacing = np.linalg.norm(loaded.affine[:3, :3], axis=0).tolist()
    return Volume(image=(voxels - voxels.min()) / np.ptp(voxels), labels=labels, spacing=spacing)


class Segmentation(pl.LightningModule):
    """A U-Net under Dice and boundary loss; the checkpoint holds the schedule's position."""

    def __init__(self, classes: int, epochs: int, spacing: list[float]) -> None:
        super().__init__()
        self.network = UNet3d(1, classes)
        boundary = BoundaryLoss(softmax=True, spacing=spacing, normalize="max")
        schedule = Increase(start=0.01, end=0.5, steps=max(epochs - 1, 1))
        self.loss = RegionBoundaryLoss(dice_loss, boundary, schedule)  # fastsdm

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        """One step; the map is under way while the network works."""
        label = batch["label"][:, None]
        maps = self.loss.boundary.prefetch(label, self.network.last.out_channels)  # fastsdm
        value: torch.Tensor = self.loss(self.network(batch["image"][:, None]), label, distance_map=maps)
        self.log("loss", value)
        return value

    def on_train_epoch_end(self) -> None:
        """The next epoch has the next weights."""
        print(f"epoch {self.current_epoch + 1}  boundary weight {self.loss.schedule.weights.boundary:.2f}")
        self.loss.schedule.step()  # fastsdm

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


@torch.no_grad()
def predicted(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Labels of a whole volume, padded to what the network can halve."""
    padding = [n for size in reversed(image.shape) for n in (0, -size % 4)]
    logits = network(torch.nn.functional.pad(image, padding)[None, None])
    return logits[0].argmax(dim=0)[tuple(slice(size) for size in image.shape)]


def main() -> None:
    """Parse the command line, train, validate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--classes", type=int, required=True, help="with the background")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--patch", type=int, default=64, help="a multiple of 4")
    parser.add_argument("--patches", type=int, default=100, help="per epoch")
    parser.add_argument("--out", type=Path, default=Path("runs/lightning"))
    parser.add_argument("--resume", type=Path, help="a checkpoint")
    args = parser.parse_args()
    pl.seed_everything(0)

    training, validation = split(args.data)
    volumes = [volume_of(*pair) for pair in training]
    dataset = PatchDataset(volumes, [args.patch] * 3, classes=args.classes, context=None)
    sampler = PatchSampler(dataset, patches_per_epoch=args.patches)
    module = Segmentation(args.classes, args.epochs, volumes[0].spacing)
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        logger=False,
        callbacks=[ModelCheckpoint(args.out, save_last=True)],
        enable_progress_bar=False,
        default_root_dir=args.out,
    )
    trainer.fit(module, DataLoader(dataset, batch_size=2, sampler=sampler), ckpt_path=args.resume)

    module.eval()
    for image, label in validation:
        volume = volume_of(image, label)
        found = predicted(module.network, torch.as_tensor(volume.image, device=module.device))
        report(image.name, found, torch.as_tensor(volume.labels), volume.spacing, args.classes)


if __name__ == "__main__":
    main()
