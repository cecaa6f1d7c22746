"""Train a MONAI U-Net on a folder of NIfTI files with the boundary loss beside Dice and cross-entropy.

    python -m examples.monai_train DATA --classes 3     # DATA/images/*.nii.gz, DATA/labels/*.nii.gz

The last volume is for validation. Lines marked "fastsdm" are what changes in a training that has MONAI's
boundary loss; the schedule is an addition.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandCropByPosNegLabeld,
    RandFlipd,
    ScaleIntensityd,
    SpatialPadd,
)

from examples.nifti import report, split
from fastsdm.integrations.monai import BoundaryLoss  # fastsdm
from fastsdm.losses import RegionBoundaryLoss
from fastsdm.schedules import Increase


def main() -> None:
    """Parse the command line, train, validate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--classes", type=int, required=True, help="with the background")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--patch", type=int, default=64)
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    keys, patch = ["image", "label"], [args.patch] * 3
    load = [LoadImaged(keys), EnsureChannelFirstd(keys), ScaleIntensityd("image"), SpatialPadd(keys, patch)]
    crop = RandCropByPosNegLabeld(keys, "label", patch, num_samples=4)
    flips = [RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)]
    training, validation = (
        [{"image": image, "label": label} for image, label in pairs] for pairs in split(args.data)
    )
    dataset = CacheDataset(training, Compose([*load, crop, *flips]), progress=False)

    network = UNet(3, 1, args.classes, channels=(16, 32, 64), strides=(2, 2)).to(device)
    boundary = BoundaryLoss(softmax=True, to_onehot_y=True, spacing="affine", normalize="max")  # fastsdm
    schedule = Increase(start=0.01, end=0.5, steps=max(args.epochs - 1, 1))
    loss = RegionBoundaryLoss(DiceCELoss(softmax=True, to_onehot_y=True), boundary, schedule)
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=args.epochs,
        train_data_loader=DataLoader(dataset, batch_size=1, shuffle=True),
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), lr=2e-3),
        loss_function=loss,
    )

    @trainer.on(Events.EPOCH_COMPLETED)
    def _next_epoch() -> None:
        value, weight = trainer.state.output[0]["loss"], schedule.weights.boundary
        print(f"epoch {trainer.state.epoch}/{args.epochs}  loss {value:.3f}  boundary weight {weight:.2f}")
        schedule.step()

    trainer.run()
    network.eval()
    for files in validation:
        sample = Compose(load[:-1])(files)
        with torch.no_grad():
            logits = sliding_window_inference(sample["image"][None].to(device), patch, 4, network)
        spacing = sample["label"].pixdim.tolist()
        report(files["image"].name, logits[0].argmax(dim=0), sample["label"][0], spacing, args.classes)


if __name__ == "__main__":
    main()
