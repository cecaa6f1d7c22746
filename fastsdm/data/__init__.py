"""Data for training with distance maps: true maps of patches, a real volume, random augmentation."""

from fastsdm.data.datasets import LabelledVolume, mni_icbm152
from fastsdm.data.patches import patch_halo, signed_distance_patch

__all__ = ["LabelledVolume", "mni_icbm152", "patch_halo", "signed_distance_patch"]
