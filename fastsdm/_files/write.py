"""Writing distance maps as NIfTI or numpy files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastsdm._files.formats import NIFTI, check_format
from fastsdm._files.output import whole_file
from fastsdm._files.volume import VolumeFile

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def write_map(path: Path, maps: Array, source: VolumeFile, description: str) -> None:
    """Write the map of a volume; ``path`` holds all of it or is not touched.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.npy`` or ``.npz``.
        maps: ``[*S]`` or ``[K, *S]``; the class axis goes last in NIfTI.
        source: the volume, whose affine and header the map keeps.
        description: for the NIfTI header.

    Raises:
        FileError: the file cannot be written.
    """
    suffix = check_format(path, reading=False)
    with whole_file(path) as temporary:
        if suffix in NIFTI:
            import nibabel  # noqa: PLC0415  # optional, and only for these files

            nibabel.save(_as_nifti(maps, source, description), temporary)
            return
        with temporary.open("wb") as file:
            if suffix == ".npy":
                np.save(file, maps)
            else:
                np.savez_compressed(file, distance=maps, spacing=np.array(source.spacing))


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
