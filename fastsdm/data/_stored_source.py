"""The stored map of one of a data set's volumes, held to what the data set asks for."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastsdm._settings import MapSettings
from fastsdm.data._patch_map import shape_of
from fastsdm.data._stored import StoredMap
from fastsdm.data._volume import PaddedSource, Volume

_ON_THE_FLY = "compute the maps on the fly, with context='halo'"


class StoredSource:
    """Blocks of a volume's stored map, 0 where the volume is padded.

    ``settings`` say how the map of a patch was made, ``wanted`` what the data set asks for.

    Raises:
        TypeError: the volume has no stored map.
        ValueError: it was made with other settings, of a volume of another shape, or cannot be padded.
    """

    def __init__(
        self, volume: Volume, number: int, size: Sequence[int], wanted: MapSettings, pad_label: int
    ) -> None:
        stored = getattr(volume, "distance_map", None)
        if not isinstance(stored, StoredMap):
            held = "none" if stored is None else type(stored).__name__
            raise TypeError(
                "volumes: context='stored' needs the distance_map of each, such as "
                f"StoredMaps(directory).of(labels) gives; volume {number} has {held}"
            )
        shape = shape_of("volumes", volume.labels)
        if stored.spatial_shape != shape:
            raise ValueError(
                f"volumes: the stored map {stored.path} is of shape={stored.spatial_shape}, "
                f"not shape={shape} as the labels of volume {number}"
            )
        if difference := stored.difference(wanted):
            raise ValueError(
                f"volumes: the stored map {stored.path} was made with {difference} as asked for volume "
                f"{number}; store it again with these settings, or {_ON_THE_FLY}"
            )
        is_padded = any(whole < n for whole, n in zip(shape, size, strict=True))
        if is_padded and pad_label != wanted.ignore_index:
            raise ValueError(
                f"pad_label: must be the ignore_index where volumes with stored maps are padded, since any "
                f"other label changes the map; got pad_label={pad_label}, ignore_index={wanted.ignore_index} "
                f"and volume {number} of shape {shape} for patches {tuple(size)}; or {_ON_THE_FLY}"
            )
        self.settings = stored.patch_settings()
        self._map, self._number = stored, number
        self._source = PaddedSource(stored, size)
        self._is_compared = False

    def patch(self, block: tuple[slice, ...], labels: torch.Tensor) -> torch.Tensor:
        """The map of a patch of the padded volume; ValueError if the first one is not of these labels."""
        maps = self._source[block].to(labels.device)
        if not self._is_compared:
            if contradiction := self._map.contradiction(labels, maps):
                raise ValueError(
                    f"volumes: the stored map {self._map.path} was made of other labels than those of volume "
                    f"{self._number}: in the patch at {tuple(part.start for part in block)}, {contradiction}"
                )
            self._is_compared = True
        return maps
