"""TorchIO: the signed distance map of a label map, as a transform."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, cast

import numpy as np
import torchio as tio

from fastsdm._sdm import signed_distance
from fastsdm.integrations._transforms import TransformOptions, check_transform

__all__ = ["DistanceMap", "SignedDistance"]

#: Transforms that only select, mirror or reorder voxels: distances stay true.
_MOVING = (tio.Crop, tio.Flip, tio.ToCanonical, tio.ToOrientation, tio.Transpose)


class DistanceMap(tio.Image):
    """An image that holds distances.

    It is neither a ``ScalarImage`` nor a ``LabelMap``, so intensity transforms and label transforms leave it
    alone. Cropping, mirroring and reordering axes carry it along. All other spatial transforms would resample
    or pad it, and are refused.

    Args:
        *args: as of ``torchio.Image``.
        **kwargs: as of ``torchio.Image``; ``type`` is ``"distance"``.

    Raises:
        RuntimeError: a transform writes values into the map, or changes its voxel size.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["type"] = "distance"
        super().__init__(*args, **kwargs)

    def set_data(self, tensor: Any) -> None:
        """Store a tensor ``[C, *S]``; raise inside a transform after which distances would be wrong."""
        _refuse_resampling(_running_transform())
        super().set_data(tensor)

    @property
    def affine(self) -> Any:
        """Matrix from voxel indices to world coordinates; its voxel size cannot change."""
        return super().affine

    @affine.setter
    def affine(self, matrix: Any) -> None:
        new = self._parse_affine(matrix)
        if "affine" in self and not np.allclose(_sizes(new), _sizes(self["affine"]), rtol=1e-4):
            transform = _running_transform()
            by = "affine" if transform is None else transform.name
            raise RuntimeError(
                f"{by}: a distance map keeps its voxel size {_sizes(self['affine'])}, got {_sizes(new)}; "
                "put SignedDistance after it"
            )
        self["affine"] = new


class SignedDistance(tio.LabelTransform):
    """Add the signed distance map of a label map to the subject.

    The map is a :class:`DistanceMap` with the label map's affine and spacing. Put the transform after those
    that change labels or resample; the patches that a sampler cuts out afterwards hold the distances of the
    whole volume.

    Args:
        classes: None for masks, one map per channel; K for the labels 0 to K-1; or the label values.
        name: key of the map in the subject. Where the subject has several label maps (see ``include``), it
            must contain ``{}``, which stands for the label map's name.
        **options: ``convention``, ``empty``, ``max_distance`` (in the units of the affine),
            ``ignore_index``, ``black_border``, ``dtype`` and ``backend`` of
            :func:`fastsdm.signed_distance`; and the arguments of every TorchIO transform: ``p``, ``copy``,
            ``include``, ``exclude``.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names argument, rule and value.
    """

    def __init__(
        self,
        classes: int | Sequence[int] | None = None,
        *,
        name: str = "distance_map",
        **options: Any,
    ) -> None:
        own = {key: value for key, value in options.items() if key in TransformOptions.__optional_keys__}
        super().__init__(**{key: value for key, value in options.items() if key not in own})
        self._options = cast("TransformOptions", own)
        check_transform(SignedDistance, name, classes, self._options)
        self.classes, self.map_name = classes, name

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Add the maps; TorchIO's ``__call__`` calls this."""
        labels = self.get_images_dict(subject)
        if not labels:
            raise ValueError(f"subject: must hold a LabelMap, got {subject}")
        if len(labels) > 1 and "{}" not in self.map_name:
            raise ValueError(
                f"name: must hold '{{}}' for a subject with several label maps ({', '.join(labels)}), got "
                f"{self.map_name!r}; or choose one by include=['...']"
            )
        for key, label in labels.items():
            subject.add_image(self._map_of(label), self.map_name.replace("{}", key))
        return subject

    def _map_of(self, label: tio.LabelMap) -> DistanceMap:
        data = label.data
        if self.classes is not None:
            if data.shape[0] != 1:
                raise ValueError(
                    f"classes: must be None for a label map with one channel per class, got {self.classes!r} "
                    f"and data of shape {tuple(data.shape)}"
                )
            data = data[0]
        maps = signed_distance(data, classes=self.classes, spacing=label.spacing, **self._options)
        return DistanceMap(tensor=maps, affine=label.affine)

    def _get_named_arguments(self) -> dict[str, object]:
        # The history builds the transform again from these. TorchIO's own way, `args_names`, would read the
        # attribute `name`, which holds the name of the transform's class.
        return {"classes": self.classes, "name": self.map_name, **self._options}


def _running_transform() -> tio.Transform | None:
    """Return the innermost transform that is being applied, or None."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if frame.f_code.co_name == "apply_transform" and isinstance(owner, tio.Transform):
            return owner
        frame = frame.f_back
    return None


def _refuse_resampling(transform: tio.Transform | None) -> None:
    if transform is None or isinstance(transform, (*_MOVING, SignedDistance)):
        return
    raise RuntimeError(
        f"{transform.name}: cannot be applied to a distance map, whose values would no longer be distances; "
        "put SignedDistance after it"
    )


def _sizes(affine: Any) -> list[float]:
    """Return the voxel sizes in ascending order, so that reordered axes compare equal."""
    return sorted(np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0)).round(6).tolist())
