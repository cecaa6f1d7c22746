"""What nnU-Net finds where ``nnUNet_extTrainer`` names this folder."""

from fastsdm.integrations.nnunet import nnUNetTrainerBoundary, nnUNetTrainerHausdorff

__all__ = ["nnUNetTrainerBoundary", "nnUNetTrainerHausdorff"]
