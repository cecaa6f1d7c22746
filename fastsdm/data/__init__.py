"""Data for training with distance maps: true maps of patches, a real volume, random augmentation."""

from fastsdm.data._augment import random_affine_elastic
from fastsdm.data._mni import LabelledVolume, mni_icbm152
from fastsdm.data._patch_dataset import PatchDataset, PatchPosition, Volume
from fastsdm.data._patch_map import patch_halo, signed_distance_patch
from fastsdm.data._patch_sampler import PatchSampler
from fastsdm.data._precompute import Report, precompute

__all__ = [
    "LabelledVolume",
    "PatchDataset",
    "PatchPosition",
    "PatchSampler",
    "Report",
    "Volume",
    "mni_icbm152",
    "patch_halo",
    "precompute",
    "random_affine_elastic",
    "signed_distance_patch",
]
