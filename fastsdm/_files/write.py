"""Writing distance maps as NIfTI or numpy files, or as zarr arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastsdm._files.formats import NIFTI, ZARR, check_format
from fastsdm._files.output import whole_directory, whole_file
from fastsdm._files.zarr_package import zarr_package

if TYPE_CHECKING:
    from fastsdm._files.volume import VolumeFile
    from fastsdm._settings import MapSettings

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

#: Edge of a zarr chunk in voxels, by the number of axes: 1 MiB of float32, of which a training patch touches
#: a few.
CHUNK = {2: 512, 3: 64}
_AXES = ("z", "y", "x")


def write_map(path: Path, maps: Array, source: VolumeFile, settings: MapSettings) -> None:
    """Write the map of a volume; ``path`` holds all of it or is not touched.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.npy``, ``.npz`` or ``.zarr``.
        maps: ``[*S]`` or ``[K, *S]``; the class axis goes last in NIfTI.
        source: the volume, whose voxel size, affine and header the map keeps.
        settings: of the map, of which NIfTI and zarr keep what they can.

    Raises:
        FileError: the map cannot be written.
    """
    suffix = check_format(path, reading=False)
    if suffix == ZARR:
        with whole_directory(path) as directory:
            new_zarr_map(directory, source, settings, maps.dtype)[...] = maps
        return
    with whole_file(path) as temporary:
        if suffix in NIFTI:
            import nibabel  # noqa: PLC0415  # optional, and only for these files

            nibabel.save(_as_nifti(maps, source, _description(settings)), temporary)
            return
        with temporary.open("wb") as file:
            if suffix == ".npy":  # np.save does not say why a write fails
                maps = np.ascontiguousarray(maps)
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(maps))
                file.write(maps.data)
            else:
                np.savez_compressed(file, distance=maps, spacing=np.array(source.spacing))


def new_zarr_map(
    directory: Path,
    source: VolumeFile,
    settings: MapSettings,
    dtype: np.dtype[Any],
    chunk: Sequence[int] | None = None,
) -> Any:
    """Begin the zarr array of a map.

    Args:
        directory: where the array goes, from :func:`whole_directory`.
        source: the volume, whose shape, voxel size and unit the map has.
        settings: of the map, kept among the attributes.
        dtype: of the map.
        chunk: its shape without the class axis; a chunk holds one class. None for edges of ``CHUNK`` voxels.
    """
    from fastsdm import __version__  # noqa: PLC0415  # the package is imported by now

    ndim = len(source.shape)
    edges = map(min, chunk or (CHUNK[ndim],) * ndim, source.shape)
    classes = () if settings.classes is None else (len(settings.classes),)
    attributes = {
        "description": _description(settings),
        "version": __version__,
        "spacing": list(source.spacing),
        "unit": source.unit,
        "classes": settings.classes,
        "max_distance": settings.max_distance,
        "ignore_index": settings.ignore_index,
    }
    return zarr_package().create_array(
        store=directory,
        shape=(*classes, *source.shape),
        chunks=(*(1 for _ in classes), *edges),
        dtype=dtype,
        dimension_names=(*("c" for _ in classes), *_AXES[-ndim:]),
        attributes={name: value for name, value in attributes.items() if value is not None},
    )


def _description(settings: MapSettings) -> str:
    return f"fastsdm {settings.convention} signed distance"


def _as_nifti(maps: Array, source: VolumeFile, description: str) -> Any:
    import nibabel  # noqa: PLC0415

    if maps.ndim > len(source.spacing):
        maps = np.moveaxis(maps, 0, -1)
        if maps.ndim == 3:  # two spatial axes: the third is the depth in NIfTI, so classes go fourth
            maps = maps[:, :, None]
    if source.image is None:
        affine = np.diag([*source.spacing, *(1.0,) * (4 - len(source.spacing))])
        return nibabel.Nifti1Image(maps, affine)  # type: ignore[no-untyped-call]
    header = source.image.header.copy()
    header.set_data_dtype(maps.dtype)
    header.set_intent("none")
    header["descrip"] = description.encode()[:79]
    header["cal_min"] = header["cal_max"] = 0
    written = type(source.image)(maps, source.image.affine, header)
    sizes = np.linalg.norm(written.affine[:3, :3], axis=0)[: maps.ndim]
    zooms = written.header.get_zooms()
    if not np.allclose(zooms[: len(sizes)], sizes, rtol=1e-3):  # the affine counts; do not pass the fault on
        written.header.set_zooms((*sizes, *zooms[len(sizes) :]))
    return written
