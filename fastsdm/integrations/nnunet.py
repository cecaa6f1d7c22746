"""nnU-Net v2: trainers that add a distance loss, and a transform that makes the map in the workers.

nnU-Net finds the trainers through its variable for external trainers::

    export nnUNet_extTrainer="$(python -m fastsdm.integrations.nnunet)"
    nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainerBoundary
"""

from __future__ import annotations

import os
from pathlib import Path
from time import time
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from fastsdm.integrations._nnunet_loss import MapTimer, RegionAndDistanceLoss
from fastsdm.losses import BoundaryLoss, HausdorffDTLoss
from fastsdm.losses._base import DistanceMapLoss
from fastsdm.losses._deep_supervision import scaled_spacing
from fastsdm.schedules import Increase, Schedule

__all__ = [
    "DistanceTrainer",
    "SignedDistanceTransform",
    "nnUNetTrainerBoundary",
    "nnUNetTrainerHausdorff",
    "trainers_folder",
]

#: If this variable is set, scipy computes every map again, and the log compares the times.
_COMPARE = "FASTSDM_NNUNET_COMPARE"


def trainers_folder() -> Path:
    """Return the folder that ``nnUNet_extTrainer`` has to name."""
    return Path(__file__).parent / "nnunet_trainers"


class DistanceTrainer(nnUNetTrainer):
    """nnU-Net's trainer with a distance loss added to its own loss at every scale.

    Labels, regions, an ignore label and regions with an ignore label are supported, in 2D and 3D. The spacing
    is the configuration's, scaled to each output. The schedule follows the epoch, so a training that is
    continued has the right weights. The log has the weights, and the maps' share of every epoch.

    Augmentation scales patches by up to 40 % and keeps the voxel grid; distances are measured on that grid.

    Attributes:
        maps_in_workers: whether the data loader's processes make the training patches' maps. Needs deep
            supervision. False: the loss makes them, on its device.
        maps_beside_forward: whether on CUDA the maps are made on a second stream during the forward pass of
            the network. They stay in memory until the loss uses them. On the CPU, where they would compete
            with the forward pass for the cores, the loss makes them.
    """

    maps_in_workers = False
    maps_beside_forward = True

    def build_distance_loss(self, **settings: Any) -> DistanceMapLoss:
        """Return the distance loss; override it to change settings.

        Args:
            **settings: activation, background, ignore label and spacing, as the plans have them.
        """
        raise NotImplementedError

    def build_schedule(self) -> Schedule:
        """Return the weights over the epochs: 1 for nnU-Net's loss, 0.01 to 0.5 for the distance loss."""
        return Increase(start=0.01, end=0.5, steps=max(self.num_epochs - 1, 1))

    def _build_loss(self) -> torch.nn.Module:
        region = super()._build_loss()
        weights = [1.0]
        if self.enable_deep_supervision:
            region, weights = region.loss, [float(w) for w in region.weight_factors]
        has_regions = self.label_manager.has_regions
        ignore_label = self.label_manager.ignore_label
        spacing = [float(step) for step in self.configuration_manager.spacing]
        distance = self.build_distance_loss(
            softmax=not has_regions,
            sigmoid=has_regions,
            include_background=has_regions,  # every region is foreground, the first one too
            ignore_index=None if has_regions else ignore_label,
            spacing=spacing,
            normalize="max",
        )
        return RegionAndDistanceLoss(
            region,
            distance,
            self.build_schedule(),
            weights=weights,
            ignore_channel=has_regions and ignore_label is not None,
        )

    def on_epoch_start(self) -> None:
        """Start to time the maps."""
        super().on_epoch_start()
        self._maps = MapTimer(beside_scipy=_COMPARE in os.environ)
        self.loss.timer = self._maps
        self._epoch_began = time()

    def on_train_epoch_start(self) -> None:
        """Set the schedule to the epoch."""
        super().on_train_epoch_start()
        self.loss.schedule.set_epoch(self.current_epoch)
        region, distance = self.loss.schedule.weights
        self.print_to_log_file(
            f"Loss weights: {region:.4f} nnU-Net, {distance:.4f} {type(self.loss.distance).__name__}"
        )

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run a step; on CUDA the maps are started before the forward pass."""
        if self._starts_maps():
            target = batch["target"]
            if isinstance(target, list):
                target = [scale.to(self.device, non_blocking=True) for scale in target]
            else:
                target = target.to(self.device, non_blocking=True)
            self.loss.prefetch(target, self.label_manager.num_segmentation_heads)
            batch = {**batch, "target": target}
        step: dict[str, Any] = super().train_step(batch)
        return step

    def _starts_maps(self) -> bool:
        return self.maps_beside_forward and not self.maps_in_workers and self.device.type == "cuda"

    def on_epoch_end(self) -> None:
        """Log the maps' share of the epoch."""
        self.print_to_log_file(self._maps.report(time() - self._epoch_began))
        super().on_epoch_end()

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Any:
        """Return nnU-Net's transforms, with ``maps_in_workers`` followed by the map."""
        transforms = super().get_training_transforms(*args, **kwargs)
        if self.maps_in_workers:
            if not self.enable_deep_supervision:
                raise ValueError("maps_in_workers: needs deep supervision, which this trainer switched off")
            transforms.transforms.append(
                SignedDistanceTransform(
                    self.loss.distance,
                    self.label_manager.num_segmentation_heads,
                    ignore_channel=self.loss.ignore_channel,
                    key=None,
                )
            )
        return transforms


class nnUNetTrainerBoundary(DistanceTrainer):  # nnU-Net's way to name trainers
    """Dice, cross-entropy and the boundary loss (doi:10.1016/j.media.2020.101851) under a schedule."""

    def build_distance_loss(self, **settings: Any) -> DistanceMapLoss:
        """Return the boundary loss."""
        return BoundaryLoss(**settings)


class nnUNetTrainerHausdorff(DistanceTrainer):  # nnU-Net's way to name trainers
    """Dice, cross-entropy and the Hausdorff loss (doi:10.1109/TMI.2019.2930068) under a schedule."""

    def build_distance_loss(self, **settings: Any) -> DistanceMapLoss:
        """Return the Hausdorff loss by distance transforms."""
        return HausdorffDTLoss(**settings)


class SignedDistanceTransform(BasicTransform):
    """Add the map of a sample's segmentation, as a loss would make it: a batchgeneratorsv2 transform.

    Put it after all spatial transforms. After ``DownsampleSegForDSTransform`` it makes one map per scale,
    with the spacing of each.

    Args:
        loss: a loss of :mod:`fastsdm.losses`, whose settings the map is made with, spacing included.
        channels: number of channels of the prediction.
        ignore_channel: whether the segmentation's last channel marks voxels to ignore, as in nnU-Net's region
            targets.
        key: key of the maps ``[K, *S]`` in the sample. None appends them to the list of segmentations, since
            nnU-Net's data loader passes no other keys on.

    Raises:
        TypeError: ``loss`` is not one of :mod:`fastsdm.losses`.
    """

    def __init__(
        self,
        loss: DistanceMapLoss,
        channels: int,
        *,
        ignore_channel: bool = False,
        key: str | None = "distance_map",
    ) -> None:
        super().__init__()
        if not isinstance(loss, DistanceMapLoss):
            raise TypeError(f"loss: must be a loss of fastsdm.losses, got {type(loss).__name__}")
        self.loss, self.channels, self.ignore_channel, self.key = loss, channels, ignore_channel, key

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Add the map to the sample."""
        segmentation = data_dict["segmentation"]
        scales = segmentation if isinstance(segmentation, list) else [segmentation]
        maps = [self._map_of(scale, scales[0].shape[1:]) for scale in scales]
        if self.key is None:
            data_dict["segmentation"] = [*scales, *maps]
        else:
            data_dict[self.key] = maps if isinstance(segmentation, list) else maps[0]
        return data_dict

    def _map_of(self, segmentation: torch.Tensor, finest: torch.Size) -> torch.Tensor:
        ignored = None
        if self.ignore_channel:
            segmentation, ignored = segmentation[:-1], segmentation[-1:][None]
        shape = segmentation.shape[1:]
        spacing = self.loss.batch_spacing(None, segmentation[None], len(shape))
        return self.loss.target_map(
            segmentation[None],
            self.channels,
            spatial_dims=len(shape),
            spacing=scaled_spacing(spacing, 1, finest, shape),
            ignore_mask=ignored,
        )[0]


if __name__ == "__main__":
    print(trainers_folder())
