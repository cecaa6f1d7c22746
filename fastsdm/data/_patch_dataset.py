"""Patches of volumes for training: image, labels and the distance map, by context."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast, get_args

import torch
from torch.utils.data import Dataset

from fastsdm import _validate
from fastsdm._distance_map import remember
from fastsdm._sdm import signed_distance
from fastsdm._settings import check_options
from fastsdm._types import EmptyPolicy
from fastsdm.data._map_request import MapLoss, PatchOptions, requested_maps
from fastsdm.data._orientation import RandomOrientation
from fastsdm.data._patch_map import checked_patch_size, signed_distance_patch
from fastsdm.data._stored_source import StoredSource
from fastsdm.data._volume import PaddedSource, Volume, check_volumes

if TYPE_CHECKING:
    from typing_extensions import Unpack

Context: TypeAlias = Literal["full", "halo", "patch", "stored"]
#: From image, labels and a seeded generator to image and labels of the same shapes.
Augmentation: TypeAlias = Callable[
    [torch.Tensor, torch.Tensor, torch.Generator], "tuple[torch.Tensor, torch.Tensor]"
]


class PatchPosition(NamedTuple):
    """Position of a patch and seed of its augmentation; the patch depends on nothing else.

    Attributes:
        volume: index of the volume in the data set.
        start: first voxel in the volume's indices; negative along an axis that is padded.
        seed: of the augmentation.
    """

    volume: int
    start: tuple[int, ...]
    seed: int = 0


class PatchDataset(Dataset[dict[str, Any]]):
    """Data set of patches with image, labels and signed distance map; indexed by :class:`PatchPosition`.

    Give the ``DataLoader`` a :class:`fastsdm.data.PatchSampler` as its sampler. Workers may be forked or
    spawned; a spawned worker opens a memory map again by its file name.

    ``context`` says what the map of a patch is computed from:

    - ``"full"``: the whole volume. The map is kept for later patches of that volume, unless ``augment`` is
      given.
    - ``"halo"``: the patch and the voxels around it that ``max_distance`` reaches
      (:func:`fastsdm.data.signed_distance_patch`): the same values as ``"full"`` with that ``max_distance``.
    - ``"stored"``: the volume's ``distance_map``, which ``fastsdm precompute`` stored. Only the patch of it
      is read. A map that was made with other settings than these is refused, and so is any augmentation
      but :class:`RandomOrientation`.
    - ``"patch"``: the patch alone, with zeros for a class without inside or outside voxels in it. Wrong
      wherever the nearest boundary is not in the patch; offered for comparison.
    - None: no map is made, for labels that are augmented later, on the device.

    A volume shorter than the patch is padded evenly on both sides with ``pad_label`` and ``pad_value``. The
    map is that of the padded labels; with a ``pad_label`` that is not among ``classes`` the padding is
    outside of every class. A stored map was made without padding, so with ``"stored"`` the ``pad_label`` must
    be the ``ignore_index``, whose voxels do not change a map.

    Args:
        volumes: with ``image``, ``labels`` and ``spacing``; see :class:`Volume`.
        size: shape of the patches, 2 or 3 numbers.
        classes: None for a mask, K for the labels 0 to K-1, or the label values themselves.
        context: see above.
        loss: a loss of :mod:`fastsdm.losses` from which ``max_distance``, ``convention``, ``ignore_index``
            and ``backend`` of the maps are taken, instead of ``options``. A stored map must also have its
            ``empty``.
        augment: ``(image, labels, generator) -> (image, labels)`` on whole (padded) volumes, without a change
            of shape. It runs before the patch is cut, with a generator seeded by the position, and the map
            is that of the labels it returns. Or a :class:`RandomOrientation`, which turns the patch with its
            map.
        pad_label: label of padded voxels; a value of the labels' dtype, of every volume.
        pad_value: image value of padded voxels; a value of the images' dtype, of every volume.
        cached_maps: how many maps of whole volumes each worker keeps.
        options: ``max_distance``, ``convention``, ``ignore_index`` and ``backend`` of
            :func:`fastsdm.signed_distance`. Maps are clamped to ``max_distance``, which ``"halo"`` needs.
            Voxels labelled ``ignore_index`` supervise nothing; as ``pad_label`` too, padding is neither
            inside nor outside.

    Raises:
        TypeError, ValueError: an argument that cannot be used, or a stored map that does not fit the others.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        size: Sequence[int],
        *,
        classes: int | Sequence[int] | None,
        context: Context | None = "halo",
        loss: MapLoss | None = None,
        augment: Augmentation | RandomOrientation | None = None,
        pad_label: int = 0,
        pad_value: float = 0.0,
        cached_maps: int = 4,
        **options: Unpack[PatchOptions],
    ) -> None:
        check_options(PatchDataset, options, PatchOptions)
        self.size = checked_patch_size(size)
        if context is not None:
            _validate.choice("context", context, get_args(Context))
        self._settings, self._backend = requested_maps(loss, options, classes)
        if context == "halo" and self._settings.max_distance is None:
            raise ValueError("max_distance: context='halo' needs it (it bounds the halo), got None")
        self._cached_maps = _validate.integer("cached_maps", cached_maps)
        if self._cached_maps < 0:
            raise ValueError(f"cached_maps: must not be negative, got {cached_maps}")
        pad_label = _validate.integer("pad_label", pad_label)
        pad_value = _validate.number("pad_value", pad_value)
        volumes = check_volumes(volumes, len(self.size))
        self.label_sources = [PaddedSource(v.labels, self.size, pad_label, "pad_label") for v in volumes]
        self._image_sources = [PaddedSource(v.image, self.size, pad_value, "pad_value") for v in volumes]
        rows = [_validate.spacing_rows(volume.spacing, (), len(self.size))[0] for volume in volumes]
        _validate.spacing_values(torch.stack(rows))
        self._spacing: list[list[float]] = torch.stack(rows).tolist()
        self._context, self._augment = context, augment
        self.classes, self.ignore_index = self._settings.classes, self._settings.ignore_index
        if isinstance(augment, RandomOrientation):
            augment.check(self.size)
        elif augment is not None and not callable(augment):
            raise TypeError(f"augment: must be None, callable or a RandomOrientation, got {augment!r}")
        self._stored: list[StoredSource] = []
        if context == "stored":
            if not (augment is None or isinstance(augment, RandomOrientation)):
                raise ValueError(
                    "augment: a stored map follows flips and permutations of the axes only, which "
                    f"RandomOrientation makes; any other deformation needs the map of the deformed labels: "
                    f"context='halo'; got {augment!r}"
                )
            self._stored = [
                StoredSource(volume, number, self.size, self._settings.with_spacing(row), pad_label)
                for number, (volume, row) in enumerate(zip(volumes, self._spacing, strict=True))
            ]
        elif context == "patch":
            self._settings = replace(self._settings, empty="zero")
        else:  # the map of a volume, or of a patch with its halo, knows better than any policy
            self._settings = replace(self._settings, empty=None)
        self._maps: OrderedDict[int, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        """Number of volumes."""
        return len(self.label_sources)

    def __getitem__(self, position: PatchPosition) -> dict[str, Any]:
        """Return the patch at a position.

        Returns:
            ``image`` ``[*size]`` or ``[C, *size]``; ``label`` ``[*size]``; ``distance_map`` ``[*size]`` for a
            mask, ``[K, *size]`` with ``classes``, absent where the context is None; ``spacing`` ``[ndim]`` of
            its axes; ``volume`` and ``start``, the position as tensors.

        Raises:
            TypeError: ``position`` is not a :class:`PatchPosition` of integers.
            ValueError: the volume does not exist, the patch does not lie inside it and its padding, or a
                stored map does not belong to the volume's labels.
        """
        if not isinstance(position, PatchPosition):
            raise TypeError(
                f"position: must be a PatchPosition, got {type(position).__name__}; hand a PatchSampler to "
                "the DataLoader: DataLoader(dataset, sampler=PatchSampler(dataset, ...))"
            )
        number = _validate.integer("position.volume", position.volume)
        seed = _validate.integer("position.seed", position.seed)
        if not 0 <= number < len(self):
            raise ValueError(f"position: volume must be from 0 to {len(self) - 1}, got {number}")
        if _validate.integers("position.start", position.start).shape != (len(self.size),):
            raise ValueError(f"position: start must be {len(self.size)} indices, got {position.start}")
        image, labels = self._image_sources[number], self.label_sources[number]
        start = tuple(a + b for a, b in zip(position.start, labels.before, strict=True))
        if any(not 0 <= a <= whole - n for a, n, whole in zip(start, self.size, labels.shape, strict=True)):
            raise ValueError(
                f"position: the patch must lie inside volume {number}, padded to {labels.shape} with "
                f"{labels.before} voxels in front; got start {position.start} for size {self.size}"
            )
        if self._augment is not None and not isinstance(self._augment, RandomOrientation):
            image, labels = self._augmented(self._augment, image.whole(), labels.whole(), seed)
        patch: tuple[Any, ...] = tuple(slice(a, a + n) for a, n in zip(start, self.size, strict=True))
        sample = {"image": image[patch], "label": labels[patch]}
        settings, spacing = self._settings, self._spacing[number]
        if self._context == "stored":
            stored = self._stored[number]
            sample["distance_map"] = stored.patch(patch, sample["label"])
            settings = stored.settings
        elif self._context is not None:
            sample["distance_map"] = self._computed_map(number, labels, patch, sample["label"])
        if isinstance(self._augment, RandomOrientation):
            generator = torch.Generator().manual_seed(seed)
            orientation = self._augment.drawn(len(self.size), generator)
            sample = {key: orientation.of(part) for key, part in sample.items()}
            spacing = orientation.of_row(spacing)
        if self._context is not None:
            sample["distance_map"] = remember(sample["distance_map"], settings.with_spacing(spacing))
        return {
            **sample,
            "spacing": torch.tensor(spacing, dtype=torch.float64, device="cpu"),
            "volume": torch.tensor(number, device="cpu"),
            "start": torch.tensor(position.start, device="cpu"),
        }

    def _computed_map(
        self, number: int, labels: PaddedSource, patch: tuple[slice, ...], patch_labels: torch.Tensor
    ) -> torch.Tensor:
        if self._context == "full":
            place: tuple[Any, ...] = (..., *patch)
            return self._whole_map(number, labels)[place].contiguous()
        if self._context == "patch":
            return self._map(patch_labels, number, empty="zero")
        maps = signed_distance_patch(
            labels,
            [part.start for part in patch],
            self.size,
            max_distance=cast("float", self._settings.max_distance),  # checked when made
            **self._map_options(number),
        )
        return cast("torch.Tensor", maps)

    def _augmented(
        self, augment: Augmentation, image: torch.Tensor, labels: torch.Tensor, seed: int
    ) -> tuple[PaddedSource, PaddedSource]:
        after = augment(image, labels, torch.Generator().manual_seed(seed))
        if after[0].shape != image.shape or after[1].shape != labels.shape:
            raise ValueError(
                "augment: must keep the shapes of image and labels, "
                f"{tuple(image.shape)} and {tuple(labels.shape)} became {tuple(after[0].shape)} and "
                f"{tuple(after[1].shape)}"
            )
        return PaddedSource(after[0], self.size), PaddedSource(after[1], self.size)

    def _whole_map(self, number: int, labels: PaddedSource) -> torch.Tensor:
        if self._augment is not None and not isinstance(self._augment, RandomOrientation):
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
            empty=empty,
            max_distance=self._settings.max_distance,
            **self._map_options(number),
        )

    def _map_options(self, number: int) -> dict[str, Any]:
        return {
            "classes": self.classes,
            "spacing": self._spacing[number],
            "convention": self._settings.convention,
            "ignore_index": self.ignore_index,
            "backend": self._backend,
        }
