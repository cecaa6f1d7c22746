"""Label volumes in zarr stores, read block by block, with the voxel size of OME-NGFF metadata.

The metadata is that of versions 0.4 and 0.5 of the specification (https://ngff.openmicroscopy.org/0.5/).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastsdm._files.errors import FileError
from fastsdm._files.formats import is_store
from fastsdm._files.zarr_package import zarr_package

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_UNITS = {"nanometer": "nm", "micrometer": "um", "millimeter": "mm", "meter": "m"}


@dataclass(frozen=True)
class ZarrLabels:
    """A zarr array of which the last 2 or 3 axes are a volume.

    Attributes:
        array: the zarr array.
        leading: how many axes of size 1 stand before the volume's.
        spacing: voxel size along each axis of the volume; None where no metadata says.
        origin: the metadata that holds the voxel size, for a note.
        unit: of the voxel size, or None.
    """

    array: Any
    leading: int
    spacing: tuple[float, ...] | None
    origin: str | None
    unit: str | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the volume."""
        return tuple(self.array.shape[self.leading :])

    @property
    def chunks(self) -> tuple[int, ...]:
        """Of the volume: what is read and decoded at once."""
        return tuple(self.array.chunks[self.leading :])

    def __getitem__(self, part: tuple[slice, ...]) -> Array:
        return np.asarray(self.array[(*(0,) * self.leading, *part)])


def damages() -> tuple[type[Exception], ...]:
    """What zarr raises for a store that is none, or a damaged one."""
    return OSError, ValueError, KeyError, TypeError, RuntimeError


def open_labels(path: Path) -> ZarrLabels:
    """Open the array at ``path``, or the finest one of the OME-NGFF image there.

    Raises:
        FileError: there is no such array, or it is no volume.
    """
    zarr = zarr_package()
    node = zarr.open(path, mode="r")
    if not isinstance(node, zarr.Group):
        group, name = _group_above(path)
        found = None if group is None else _multiscale(group.attrs.asdict(), name)
        return _volume(path, node, found)
    found = _multiscale(node.attrs.asdict(), None)
    if found is not None:
        return _volume(path, node[found[1]["path"]], found)
    names = sorted(name for name, _ in node.arrays())
    if len(names) != 1:
        held = f"the arrays {', '.join(names)}; name one: {path / names[0]}" if names else "no array"
        raise FileError(f"{path}: must be an array, or a group with OME-NGFF multiscales; holds {held}")
    return _volume(path, node[names[0]], None)


def _group_above(path: Path) -> tuple[Any, str]:
    """The outermost group of the store with multiscales that name the array, and the array's name in it."""
    zarr = zarr_package()
    for above in path.parents:
        if not is_store(above):
            break
        group = zarr.open(above, mode="r")
        name = path.relative_to(above).as_posix()
        if isinstance(group, zarr.Group) and _multiscale(group.attrs.asdict(), name) is not None:
            return group, name
    return None, ""


def _multiscale(attributes: dict[str, Any], name: str | None) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The image and the entry of one of its arrays; of the first one without a name."""
    ome = attributes.get("ome")
    images = (ome if isinstance(ome, dict) else attributes).get("multiscales")
    for image in images if isinstance(images, list) else []:
        for dataset in image["datasets"]:
            if name is None or dataset["path"] == name:
                return image, dataset
    return None


def _volume(path: Path, array: Any, found: tuple[dict[str, Any], dict[str, Any]] | None) -> ZarrLabels:
    shape = tuple(array.shape)
    if found is None:
        leading = 0
        while len(shape) - leading > 3 and shape[leading] == 1:
            leading += 1
        spacing = array.attrs.asdict().get("spacing")
        _check_volume(path, shape, leading)
        steps = None if spacing is None else _numbers(spacing, len(shape) - leading)
        return ZarrLabels(array, leading, steps, "its attribute 'spacing'", None)
    image, dataset = found
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in image.get("axes", [])]
    spatial = [_is_spatial(axis) for axis in axes] or [True] * min(len(shape), 3)
    leading = len(shape) - sum(spatial)
    if (len(spatial) != len(shape) and axes) or not all(spatial[leading:]):
        names = [axis.get("name") for axis in axes]
        raise FileError(
            f"{path}: must have an entry for each of its {len(shape)} axes, spatial ones last; got {names}"
        )
    _check_volume(path, shape, leading)
    sizes = [1.0] * len(shape)
    for entry in (dataset, image):  # the image's own transformations follow those of its arrays
        for change in entry.get("coordinateTransformations", []):
            if change.get("type") == "scale":
                scale = _numbers(change["scale"], len(shape))
                sizes = [size * factor for size, factor in zip(sizes, scale, strict=True)]
    units = {axis.get("unit") for axis in axes[leading:]} if axes else {None}
    if len(units) > 1:  # no distance has a unit then
        sizes = [math.nan] * len(shape)
    unit = units.pop() if len(units) == 1 else None
    origin = f"its OME-NGFF multiscales (array {dataset['path']})"
    return ZarrLabels(array, leading, tuple(sizes[leading:]), origin, _UNITS.get(str(unit), unit))


def _is_spatial(axis: dict[str, Any]) -> bool:
    return axis["type"] == "space" if "type" in axis else axis["name"] in {"z", "y", "x"}


def _check_volume(path: Path, shape: Sequence[int], leading: int) -> None:
    if len(shape) - leading not in (2, 3) or 0 in shape or set(shape[:leading]) - {1}:
        raise FileError(
            f"{path}: must hold a volume with 2 or 3 axes, none of size 0, after axes of size 1; got shape "
            f"{tuple(shape)}"
        )


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    """``count`` numbers; NaN, which no voxel size may be, where the metadata holds something else."""
    listed = values if isinstance(values, list) else [values] * count
    if len(listed) != count or not all(type(value) in {int, float} for value in listed):
        return (math.nan,) * count
    return tuple(map(float, listed))
