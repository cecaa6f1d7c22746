"""Data for training with distance maps: a real volume and random augmentation."""

from fastsdm.data.datasets import LabelledVolume, mni_icbm152

__all__ = ["LabelledVolume", "mni_icbm152"]
