"""Data for training with distance maps: maps of patches, stored maps, a real volume, augmentation."""

from fastsdm.data._augment import random_affine_elastic
from fastsdm.data._mni import LabelledVolume, mni_icbm152
from fastsdm.data._orientation import RandomOrientation
from fastsdm.data._patch_dataset import PatchDataset, PatchPosition
from fastsdm.data._patch_map import patch_halo, signed_distance_patch
from fastsdm.data._patch_sampler import PatchSampler
from fastsdm.data._precompute import Report, precompute
from fastsdm.data._stored import StoredMap, StoredMaps
from fastsdm.data._volume import Volume

__all__ = [
    "LabelledVolume",
    "PatchDataset",
    "PatchPosition",
    "PatchSampler",
    "RandomOrientation",
    "Report",
    "StoredMap",
    "StoredMaps",
    "Volume",
    "mni_icbm152",
    "patch_halo",
    "precompute",
    "random_affine_elastic",
    "signed_distance_patch",
]
