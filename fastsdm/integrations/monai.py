"""MONAI: losses that read the spacing of a MetaTensor, and the map as array and dictionary transforms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform
from monai.transforms.traits import LazyTrait
from monai.utils import TransformBackends

from fastsdm._sdm import signed_distance
from fastsdm._settings import check_options
from fastsdm._types import SpacingLike
from fastsdm.data import signed_distance_patch
from fastsdm.integrations._monai_losses import (
    BoundaryLoss,
    DeepSupervision,
    GeneralizedSurfaceLoss,
    HausdorffDTLoss,
    LogHausdorffDTLoss,
    _is_affine,
    spacing_of,
)
from fastsdm.integrations._transforms import CropOptions, TransformOptions, check_transform

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "BoundaryLoss",
    "DeepSupervision",
    "GeneralizedSurfaceLoss",
    "HausdorffDTLoss",
    "LogHausdorffDTLoss",
    "RandCropWithSignedDistanceD",
    "RandCropWithSignedDistanceDict",
    "RandCropWithSignedDistanced",
    "SignedDistance",
    "SignedDistanceD",
    "SignedDistanceDict",
    "SignedDistanced",
    "spacing_of",
]


class SignedDistance(Transform):
    """Compute the signed distance map of a channel-first label map or mask.

    The result has the input's metadata. In a lazy pipeline pending resampling is carried out before this
    transform; called by hand on data with pending operations, it raises. Later spatial transforms would
    interpolate the map: only crops, flips and 90 degree rotations keep it true.

    Args:
        classes: None for masks ``[C, *S]``, one map each; K for the labels 0 to K-1 of a label map
            ``[1, *S]``, or the label values: the result is ``[K, *S]``.
        spacing: ``"affine"``, or as in :func:`fastsdm.signed_distance`.
        **options: ``convention``, ``empty``, ``max_distance``, ``ignore_index``, ``black_border``, ``dtype``
            and ``backend`` of :func:`fastsdm.signed_distance`.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names argument, rule and value.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012  # MONAI's way to say so

    def __init__(
        self,
        classes: int | Sequence[int] | None = None,
        *,
        spacing: SpacingLike = "affine",
        **options: Unpack[TransformOptions],
    ) -> None:
        check_transform(SignedDistance, "distance_map", classes, options)
        self.classes, self.spacing, self._options = classes, spacing, options

    def __call__(self, label: Any) -> Any:
        """Return the map ``[K, *S]`` or ``[C, *S]``, of the input's kind.

        Raises:
            ValueError: no affine to take the spacing from; ``classes`` and more than one channel.
        """
        _refuse_pending(label)
        spatial = label.ndim - 1
        spacing = spacing_of(label, spatial) if _is_affine(self.spacing) else self.spacing
        labels = label if self.classes is None else _single_channel(label)
        return signed_distance(
            labels, classes=self.classes, spatial_dims=spatial, spacing=spacing, **self._options
        )


class SignedDistanced(MapTransform):
    """Dictionary-based :class:`SignedDistance`: adds the maps under new keys.

    Args:
        keys: keys of the label maps.
        classes: as in :class:`SignedDistance`.
        name: key of the map; ``{}`` stands for the label map's key.
        allow_missing_keys: whether a key may be missing.
        spacing: as in :class:`SignedDistance`.
        **options: as in :class:`SignedDistance`.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names argument, rule and value.
    """

    backend = SignedDistance.backend

    def __init__(
        self,
        keys: Any,
        classes: int | Sequence[int] | None = None,
        *,
        name: str = "distance_map",
        allow_missing_keys: bool = False,
        spacing: SpacingLike = "affine",
        **options: Unpack[TransformOptions],
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_transform(SignedDistanced, name, classes, options)
        if len(self.keys) > 1 and "{}" not in name:
            raise ValueError(f"name: must hold '{{}}' for several keys, got {name!r}")
        self.name = name
        self.transform = SignedDistance(classes, spacing=spacing, **options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the dictionary with the maps added."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[self.name.replace("{}", str(key))] = self.transform(result[key])
        return result


class RandCropWithSignedDistanced(Randomizable, MapTransform):
    """Run a crop of MONAI's and add that part of the whole volume's signed distance map.

    ``crop`` is any dictionary transform that crops: ``RandCropByPosNegLabeld``, ``RandSpatialCropd``, ... The
    position of the crop is read from the affine of the cropped label map. The map is computed from the crop
    and the voxels around it that ``max_distance`` reaches; nothing is cached.

    Args:
        crop: a dictionary transform that crops the label map, among others.
        label_key: key of the label map, ``[1, *S]``.
        classes: as in :class:`SignedDistance`.
        max_distance: the map is clamped to ``[-max_distance, max_distance]``, in the affine's units.
        name: key of the map.
        **options: ``convention``, ``ignore_index``, ``dtype`` and ``backend`` of
            :func:`fastsdm.signed_distance`.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names argument, rule and value.
    """

    def __init__(
        self,
        crop: Any,
        label_key: str = "label",
        *,
        classes: int | Sequence[int] | None,
        max_distance: float,
        name: str = "distance_map",
        **options: Unpack[CropOptions],
    ) -> None:
        if not callable(crop):
            raise TypeError(f"crop: must be a dictionary transform, got {type(crop).__name__}")
        super().__init__([label_key])
        check_options(RandCropWithSignedDistanced, options, CropOptions)
        settings = cast("TransformOptions", {**options, "max_distance": max_distance})
        check_transform(SignedDistance, name, classes, settings)
        self.crop, self.label_key, self.name = crop, label_key, name
        self.classes, self.max_distance, self._options = classes, max_distance, options

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandCropWithSignedDistanced:
        """Seed the crop."""
        super().set_random_state(seed, state)
        if isinstance(self.crop, Randomizable):
            self.crop.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> Any:
        """Return what the crop returns, with the map in each dictionary.

        Raises:
            ValueError: the label map has no affine, several channels, or was not only cropped.
        """
        whole = data[self.label_key]
        _refuse_pending(whole)
        spacing = spacing_of(whole, whole.ndim - 1)
        labels = _single_channel(whole)
        cropped = self.crop(data, lazy=False) if isinstance(self.crop, LazyTrait) else self.crop(data)
        for sample in cropped if isinstance(cropped, list) else [cropped]:
            part = sample[self.label_key]
            maps = signed_distance_patch(
                labels.as_tensor(),
                _start_of(part, whole),
                part.shape[1:],
                classes=self.classes,
                max_distance=self.max_distance,
                spacing=spacing,
                **self._options,
            )
            maps = maps if self.classes is not None else maps[None]
            sample[self.name] = MetaTensor(maps, meta=dict(part.meta))
        return cropped


SignedDistanceD = SignedDistanceDict = SignedDistanced
RandCropWithSignedDistanceD = RandCropWithSignedDistanceDict = RandCropWithSignedDistanced


def _start_of(part: MetaTensor, whole: MetaTensor) -> list[int]:
    """Index in the whole volume of the crop's first voxel."""
    ndim = whole.ndim - 1
    before, after = whole.affine.numpy(), part.affine.numpy()
    start = np.linalg.solve(before, after[:, -1])[:ndim]
    moved = not np.allclose(before[:, :-1], after[:, :-1], atol=1e-6 * np.abs(before).max())
    if moved or not np.allclose(start, start.round(), atol=1e-3):
        raise ValueError(
            "crop: must only crop (and track its metadata), got a label map whose affine changed otherwise; "
            "put transforms that rotate, flip or resample before or after it"
        )
    low = [int(index) for index in start.round()]
    if any(a < 0 or a + n > size for a, n, size in zip(low, part.shape[1:], whole.shape[1:], strict=True)):
        raise ValueError(
            f"crop: must lie inside the volume {tuple(whole.shape[1:])}, got start {low} and size "
            f"{tuple(part.shape[1:])}; pad the volume before"
        )
    return low


def _single_channel(label: Any) -> Any:
    if label.shape[0] != 1:
        raise ValueError(f"label: must have one channel for classes, got shape {tuple(label.shape)}")
    return label[0]


def _refuse_pending(label: Any) -> None:
    if isinstance(label, MetaTensor) and label.has_pending_operations:
        raise ValueError(
            "label: must hold no pending operations; call monai.transforms.apply_pending first, or let "
            "Compose do it"
        )
