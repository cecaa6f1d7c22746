"""Patches of volumes for training: image, labels and the distance map, by context."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast, get_args

import torch
from torch.utils.data import Dataset

from fastsdm import _validate
from fastsdm._distance_map import remember
from fastsdm._sdm import signed_distance
from fastsdm._settings import MapSettings
from fastsdm._types import Convention, EmptyPolicy, SpacingLike
from fastsdm.data._patch_map import (
    ArraySource,
    check_number,
    checked_patch_size,
    shape_of,
    signed_distance_patch,
    whole_number,
    whole_numbers,
)
from fastsdm.data._volume import PaddedSource

Context: TypeAlias = Literal["full", "halo", "patch"]
#: From image, labels and a seeded generator to image and labels of the same shapes.
Augmentation: TypeAlias = Callable[
    [torch.Tensor, torch.Tensor, torch.Generator], "tuple[torch.Tensor, torch.Tensor]"
]


class VolumeLike(Protocol):
    """What patches are taken from, such as :class:`Volume` and what ``mni_icbm152`` returns."""

    @property
    def image(self) -> ArraySource:
        """``[*S]`` or ``[C, *S]``."""

    @property
    def labels(self) -> ArraySource:
        """``[*S]``, integer or bool."""

    @property
    def spacing(self) -> SpacingLike:
        """Voxel size: a number or one per spatial axis."""


class MapLoss(Protocol):
    """What a data set takes from a loss of :mod:`fastsdm.losses`."""

    max_distance: float | None
    convention: Convention
    ignore_index: int | None
    backend: str


@dataclass(frozen=True, eq=False)
class Volume:
    """An image with its labels, as arrays, tensors, memory maps or open files.

    Attributes:
        image: ``[*S]`` or ``[C, *S]``.
        labels: ``[*S]``, integer or bool.
        spacing: voxel size: a number or one per spatial axis.
    """

    image: ArraySource
    labels: ArraySource
    spacing: SpacingLike = 1.0


class PatchPosition(NamedTuple):
    """Where a patch is taken, and the seed of its augmentation: all that the patch depends on.

    Attributes:
        volume: number of the volume.
        start: first voxel in the volume's indices; negative along an axis that is padded.
        seed: of the augmentation.
    """

    volume: int
    start: tuple[int, ...]
    seed: int = 0


class PatchDataset(Dataset[dict[str, Any]]):
    """Image, labels and signed distance map of patches; indexed by :class:`PatchPosition`.

    Hand a :class:`fastsdm.data.PatchSampler` to the ``DataLoader`` beside it. It works in workers, forked or
    spawned; a memory map reaches a spawned worker by its file's name.

    What the map of a patch is computed from, its ``context``:

    - ``"full"``: the whole volume. Kept for the next patches of that volume unless ``augment`` is given.
    - ``"halo"``: the patch and the voxels around it that ``max_distance`` reaches
      (:func:`fastsdm.data.signed_distance_patch`): the same values as ``"full"`` with that ``max_distance``.
    - ``"patch"``: the patch alone, zeros for a class without inside or outside voxels in it. Wrong
      wherever the nearest boundary is not in the patch; here for comparison.
    - None: no map is made, as when labels are augmented later, on the device.

    A volume shorter than the patch is padded evenly on both sides with ``pad_label`` and ``pad_value``. The
    map is that of the padded labels, so that map and labels tell the network the same; with a
    ``pad_label`` that is not among ``classes`` the padding is outside of every class.

    Args:
        volumes: with ``image``, ``labels`` and ``spacing``; see :class:`Volume`.
        size: shape of the patches, 2 or 3 numbers.
        classes: None for a mask, K for the labels 0 to K-1, or the label values themselves.
        context: see above.
        max_distance: maps are clamped to it; ``"halo"`` needs it.
        convention: as in :func:`fastsdm.signed_distance`.
        ignore_index: as in :func:`fastsdm.signed_distance`: label of voxels that supervise nothing. As
            ``pad_label`` too, padding is neither inside nor outside.
        loss: a loss of :mod:`fastsdm.losses` whose ``max_distance``, ``convention``, ``ignore_index`` and
            ``backend`` the maps are made with, instead of giving them here.
        augment: ``(image, labels, generator) -> (image, labels)``, of whole (padded) volumes, shapes kept;
            runs before the patch is cut, with a generator seeded by the position. The map is that of
            the labels it returns.
        pad_label: label of padded voxels; a value of the labels' dtype, of every volume.
        pad_value: image value of padded voxels; a value of the images' dtype, of every volume.
        cached_maps: how many maps of whole volumes each worker keeps.
        backend: as in :func:`fastsdm.signed_distance`.

    Raises:
        TypeError, ValueError: an argument that cannot be used.
    """

    def __init__(
        self,
        volumes: Sequence[VolumeLike],
        size: Sequence[int],
        *,
        classes: int | Sequence[int] | None,
        context: Context | None = "halo",
        max_distance: float | None = None,
        convention: Convention | None = None,
        ignore_index: int | None = None,
        loss: MapLoss | None = None,
        augment: Augmentation | None = None,
        pad_label: int = 0,
        pad_value: float = 0.0,
        cached_maps: int = 4,
        backend: str | None = None,
    ) -> None:
        self.size = checked_patch_size(size)
        given = {
            "max_distance": max_distance,
            "convention": convention,
            "ignore_index": ignore_index,
            "backend": backend,
        }
        max_distance, convention, ignore_index, backend = _settings_for(loss, given)
        if context is not None:
            _validate.choice("context", context, get_args(Context))
        if context == "halo" and max_distance is None:
            raise ValueError("max_distance: context='halo' needs it (it bounds the halo), got None")
        _validate.max_distance(max_distance)
        _validate.convention(convention)
        if whole_number("cached_maps", cached_maps) < 0:
            raise ValueError(f"cached_maps: must not be negative, got {cached_maps}")
        if classes is not None:
            _validate.class_values(classes, torch.int64)
        if augment is not None and not callable(augment):
            raise TypeError(f"augment: must be None or callable, got {augment!r}")
        pad_label = whole_number("pad_label", pad_label)
        check_number("pad_value", pad_value)
        _check_volumes(volumes, len(self.size))
        self.label_sources = [PaddedSource(v.labels, self.size, pad_label, "pad_label") for v in volumes]
        self._image_sources = [PaddedSource(v.image, self.size, pad_value, "pad_value") for v in volumes]
        rows = [_validate.spacing_rows(volume.spacing, (), len(self.size))[0] for volume in volumes]
        _validate.spacing_values(torch.stack(rows))
        self._spacing: list[list[float]] = torch.stack(rows).tolist()
        self._context, self._max_distance, self._augment = context, max_distance, augment
        self.classes = None if classes is None else tuple(_validate.class_values(classes, torch.int64))
        self.ignore_index = ignore_index
        self._options: dict[str, Any] = {
            "classes": classes,
            "convention": convention,
            "ignore_index": ignore_index,
            "backend": backend,
        }
        self._settings = MapSettings(
            None if classes is None else tuple(_validate.class_values(classes, torch.int64)),
            None,
            convention,
            # The map of a volume, or of a patch with its halo, knows better than any policy.
            "zero" if context == "patch" else None,
            None if max_distance is None else float(max_distance),
            ignore_index,
        )
        self._cached_maps = cached_maps
        self._maps: OrderedDict[int, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        """How many volumes patches are taken from."""
        return len(self.label_sources)

    def __getitem__(self, position: PatchPosition) -> dict[str, Any]:
        """The patch at a position.

        Returns:
            ``image`` ``[*size]`` or ``[C, *size]``; ``label`` ``[*size]``; ``distance_map`` ``[*size]`` for a
            mask, ``[K, *size]`` with ``classes``, absent where the context is None; ``volume`` and ``start``,
            the position as tensors.

        Raises:
            TypeError: the index is no position, or does not consist of integers.
            ValueError: there is no such volume, or the patch does not lie inside it, padding included.
        """
        if not isinstance(position, PatchPosition):
            raise TypeError(
                f"position: must be a PatchPosition, got {type(position).__name__}; hand a PatchSampler to "
                "the DataLoader: DataLoader(dataset, sampler=PatchSampler(dataset, ...))"
            )
        number = whole_number("position.volume", position.volume)
        seed = whole_number("position.seed", position.seed)
        if not 0 <= number < len(self):
            raise ValueError(f"position: volume must be from 0 to {len(self) - 1}, got {number}")
        if whole_numbers("position.start", position.start).shape != (len(self.size),):
            raise ValueError(f"position: start must be {len(self.size)} indices, got {position.start}")
        image, labels = self._image_sources[number], self.label_sources[number]
        start = tuple(a + b for a, b in zip(position.start, labels.before, strict=True))
        if any(not 0 <= a <= whole - n for a, n, whole in zip(start, self.size, labels.shape, strict=True)):
            raise ValueError(
                f"position: the patch must lie inside volume {number}, padded to {labels.shape} with "
                f"{labels.before} voxels in front; got start {position.start} for size {self.size}"
            )
        if self._augment is not None:
            image, labels = self._augmented(image.whole(), labels.whole(), seed)
        patch: Any = tuple(slice(a, a + n) for a, n in zip(start, self.size, strict=True))
        sample = {
            "image": image[patch],
            "label": labels[patch],
            "volume": torch.tensor(number, device="cpu"),
            "start": torch.tensor(position.start, device="cpu"),
        }
        if self._context == "full":
            sample["distance_map"] = self._whole_map(number, labels)[(..., *patch)].contiguous()
        elif self._context == "halo":
            sample["distance_map"] = signed_distance_patch(
                labels,
                start,
                self.size,
                spacing=self._spacing[number],
                max_distance=cast("float", self._max_distance),  # checked when made
                **self._options,
            )
        elif self._context == "patch":
            sample["distance_map"] = self._map(sample["label"], number, empty="zero")
        if self._context is not None:
            made = self._settings.with_spacing(self._spacing[number])
            sample["distance_map"] = remember(sample["distance_map"], made)
        return sample

    def _augmented(
        self, image: torch.Tensor, labels: torch.Tensor, seed: int
    ) -> tuple[PaddedSource, PaddedSource]:
        assert self._augment is not None
        after = self._augment(image, labels, torch.Generator().manual_seed(seed))
        if after[0].shape != image.shape or after[1].shape != labels.shape:
            raise ValueError(
                "augment: must keep the shapes of image and labels, "
                f"{tuple(image.shape)} and {tuple(labels.shape)} became {tuple(after[0].shape)} and "
                f"{tuple(after[1].shape)}"
            )
        return PaddedSource(after[0], self.size), PaddedSource(after[1], self.size)

    def _whole_map(self, number: int, labels: PaddedSource) -> torch.Tensor:
        if self._augment is not None:
            return self._map(labels.whole(), number, empty="max")
        if number not in self._maps:
            self._maps[number] = self._map(labels.whole(), number, empty="max")
        self._maps.move_to_end(number)
        distance_map = self._maps[number]
        while len(self._maps) > self._cached_maps:
            self._maps.popitem(last=False)
        return distance_map

    def _map(self, labels: torch.Tensor, number: int, *, empty: EmptyPolicy) -> torch.Tensor:
        return signed_distance(
            labels,
            spatial_dims=len(self.size),
            spacing=self._spacing[number],
            empty=empty,
            max_distance=self._max_distance,
            **self._options,
        )


def _settings_for(
    loss: MapLoss | None, given: dict[str, Any]
) -> tuple[float | None, Convention, int | None, str]:
    """The settings of the maps: those given, or a loss's."""
    if loss is not None:
        loss = getattr(loss, "boundary", loss)  # of a RegionBoundaryLoss
        if not all(hasattr(loss, name) for name in given):
            raise TypeError(f"loss: must be one of fastsdm.losses, got {type(loss).__name__}")
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"{name}: must not be given beside loss, which brings its own; got {value!r}"
                )
        given = {name: getattr(loss, name) for name in given}
    if given["ignore_index"] is not None:
        given["ignore_index"] = _validate.integer("ignore_index", given["ignore_index"])
    return (
        given["max_distance"],
        given["convention"] or "kervadec",
        given["ignore_index"],
        given["backend"] or "auto",
    )


def _check_volumes(volumes: object, ndim: int) -> None:
    if not (hasattr(volumes, "__len__") and hasattr(volumes, "__getitem__")) or hasattr(volumes, "shape"):
        raise TypeError(
            "volumes: must be a sequence of objects with image, labels and spacing (see Volume), "
            f"got {type(volumes).__name__}"
        )
    held: Sequence[Any] = cast("Sequence[Any]", volumes)
    if len(held) == 0:
        raise ValueError("volumes: must hold at least one volume, got none")
    for number, volume in enumerate(held):
        if not all(hasattr(volume, name) for name in ("image", "labels", "spacing")):
            raise TypeError(
                "volumes: each must have image, labels and spacing (see Volume), "
                f"volume {number} is of type {type(volume).__name__}"
            )
        labels, image = shape_of("volumes", volume.labels), shape_of("volumes", volume.image)
        if len(labels) != ndim:
            raise ValueError(
                f"volumes: labels must have {ndim} axes (as many as size has), "
                f"volume {number} has shape {labels}"
            )
        if image[-ndim:] != labels:
            raise ValueError(
                f"volumes: image and labels must have the same spatial shape, volume {number} has "
                f"{image} and {labels}"
            )
