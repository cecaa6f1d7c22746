"""The trainers that nnU-Net finds if ``nnUNet_extTrainer`` names this folder."""

from fastsdm.integrations.nnunet import nnUNetTrainerBoundary, nnUNetTrainerHausdorff

__all__ = ["nnUNetTrainerBoundary", "nnUNetTrainerHausdorff"]
