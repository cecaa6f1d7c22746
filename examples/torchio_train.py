"""Train a U-Net on a folder of NIfTI files through TorchIO's queue, with distances of whole volumes.

    python -m examples.torchio_train DATA --classes 3     # DATA/images/*.nii.gz, DATA/labels/*.nii.gz

The last volume is for validation. Lines marked "fastsdm" are what a TorchIO pipeline changes to deliver the
maps; the loss takes them as `distance_map=`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torchio as tio

from examples.networks import UNet3d, dice_loss
from examples.nifti import report, split
from fastsdm.integrations.torchio import SignedDistance  # fastsdm
from fastsdm.losses import BoundaryLoss, RegionBoundaryLoss
from fastsdm.schedules import Increase


def main() -> None:
    """Parse the command line, train, validate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--classes", type=int, required=True, help="with the background")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--patch", type=int, default=64, help="a multiple of 4")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    training, validation = (
        [tio.Subject(image=tio.ScalarImage(image), label=tio.LabelMap(label)) for image, label in pairs]
        for pairs in split(args.data)
    )
    augment = tio.Compose(
        [
            tio.RescaleIntensity(),
            tio.RandomFlip((0, 1, 2)),
            tio.RandomAffine(),
            tio.RandomNoise(std=0.02),
            SignedDistance(classes=args.classes),  # fastsdm
        ]
    )
    queue = tio.Queue(
        tio.SubjectsDataset(training, transform=augment),
        max_length=8,
        samples_per_volume=4,
        sampler=tio.LabelSampler(args.patch, "label"),
        num_workers=args.workers,
    )

    network = UNet3d(1, args.classes).to(device)
    schedule = Increase(start=0.01, end=0.5, steps=max(args.epochs - 1, 1))
    loss = RegionBoundaryLoss(dice_loss, BoundaryLoss(softmax=True, normalize="max"), schedule)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for epoch in range(args.epochs):
        for batch in tio.SubjectsLoader(queue, batch_size=2):
            image, label, maps = (batch[key]["data"].to(device) for key in ("image", "label", "distance_map"))
            value = loss(network(image), label.long(), distance_map=maps)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        weight = schedule.weights.boundary
        print(f"epoch {epoch + 1}/{args.epochs}  loss {value.item():.3f}  boundary weight {weight:.2f}")
        schedule.step()

    network.eval()
    for subject in validation:
        sampler = tio.GridSampler(tio.RescaleIntensity()(subject), args.patch, args.patch // 4)
        whole = tio.GridAggregator(sampler, overlap_mode="hann")
        with torch.no_grad():
            for batch in tio.SubjectsLoader(sampler, batch_size=2):
                whole.add_batch(network(batch["image"]["data"].to(device)), batch["location"])
        found = whole.get_output_tensor().argmax(dim=0)
        report(subject.image.path.name, found, subject.label.data[0], subject.label.spacing, args.classes)


if __name__ == "__main__":
    main()
