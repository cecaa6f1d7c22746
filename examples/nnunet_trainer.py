"""An nnU-Net trainer of one's own: the boundary loss in millimetres, clamped, on a schedule of its own.

    mkdir trainers && cp examples/nnunet_trainer.py trainers/
    export nnUNet_extTrainer="$PWD/trainers"
    nnUNetv2_plan_and_preprocess -d 4
    nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainerClampedBoundary
    nnUNetv2_predict -d 4 -c 3d_fullres -f 0 -tr nnUNetTrainerClampedBoundary -i images -o predicted

The folder is its own since nnU-Net imports every module in it. For the loss with its default settings no file
is needed: see docs/nnunet.md. nnU-Net validates on the cases of the fold that it does not train on, and
``nnUNetv2_train`` ends with their Dice.
"""

from __future__ import annotations

from typing import Any

from fastsdm.integrations.nnunet import nnUNetTrainerBoundary
from fastsdm.losses import BoundaryLoss
from fastsdm.schedules import Rebalance, Schedule


class nnUNetTrainerClampedBoundary(nnUNetTrainerBoundary):  # nnU-Net's way to name trainers
    """Distances beyond 30 mm weigh no more than 30 mm; the region loss hands over half of its weight."""

    def build_distance_loss(self, **settings: Any) -> BoundaryLoss:
        """The boundary loss with a clamp."""
        return BoundaryLoss(**settings, max_distance=30.0)

    def build_schedule(self) -> Schedule:
        """From the region loss alone to equal weights, slowly at both ends."""
        return Rebalance(start=0.0, end=0.5, steps=max(self.num_epochs - 1, 1), shape="cosine")
