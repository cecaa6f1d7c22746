"""Volumes in files: NIfTI with its header, numpy arrays; a file is written whole or not at all."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import nibabel
import numpy as np

from fastsdm.cli.terminal import fail

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_NIFTI = (".nii", ".nii.gz")
_FORMATS = (*_NIFTI, ".npy", ".npz")
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    zipfile.BadZipFile,
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
)


@dataclass(frozen=True)
class Volume:
    """A volume from a file.

    Attributes:
        values: 2 or 3 axes, as stored.
        spacing: voxel size along each axis.
        unit: what spacing and distances are in.
        nifti: the image it came from, with affine and header; None for numpy files.
    """

    values: Array
    spacing: tuple[float, ...]
    unit: str
    nifti: Any


def format_of(path: Path) -> str:
    """The suffix that tells the format; an unknown one is an error."""
    suffix = next((known for known in _FORMATS if path.name.lower().endswith(known)), None)
    if suffix is None:
        fail(f"{path}: the name must end in one of {', '.join(_FORMATS)}")
    return suffix


def is_nifti(path: Path) -> bool:
    """Whether the name says NIfTI."""
    return format_of(path) in _NIFTI


def read_volume(path: Path, spacing: str | None) -> Volume:
    """The volume in a file; what is wrong with it is said in one line."""
    suffix = format_of(path)
    if not path.is_file():
        fail(f"{path}: there is no such file")
    if suffix in _NIFTI and spacing is not None:
        fail("--spacing: is for .npy and .npz; a NIfTI header holds its own")
    nifti: Any = None
    try:
        if suffix in _NIFTI:
            nifti = nibabel.load(path)
            values = np.asanyarray(nifti.dataobj)
        else:
            values = _only_array(path) if suffix == ".npz" else np.load(path, allow_pickle=False)
    except _DAMAGED as error:
        fail(f"{path}: cannot be read as {suffix} ({error})")
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or values.size == 0:
        fail(f"{path}: must hold a volume with 2 or 3 axes, none of size 0; got shape {values.shape}")
    if nifti is None:
        return Volume(values, _spacing_option(spacing, values.ndim), "units of spacing", None)
    unit = nifti.header.get_xyzt_units()[0]
    names = {"mm": "mm", "micron": "um", "meter": "m"}
    zooms = tuple(float(zoom) for zoom in nifti.header.get_zooms()[: values.ndim])
    return Volume(values, zooms, names.get(unit, "units of spacing"), nifti)


def write_map(path: Path, maps: Array, source: Volume, description: str) -> None:
    """Write a distance map, the class axis first as computed; in NIfTI it goes last."""
    with whole_file(path) as temporary:
        suffix = format_of(path)
        if suffix in _NIFTI:
            nibabel.save(_as_nifti(maps, source, description), temporary)
            return
        with temporary.open("wb") as file:
            if suffix == ".npy":
                np.save(file, maps)
            else:
                np.savez_compressed(file, distance=maps, spacing=np.array(source.spacing))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to, which takes its place at the end, or is removed."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path, *, force: bool) -> None:
    """Refuse, before any work is done, what could not be written in the end."""
    if not path.parent.is_dir():
        fail(f"{path}: there is no directory {path.parent}")
    if path.is_dir():
        fail(f"{path}: is a directory")
    if path.exists() and not force:
        fail(f"{path}: exists already; --force overwrites it")


def numbers_option(name: str, text: str, count: int) -> tuple[float, ...]:
    """What a comma-separated option holds: ``count`` numbers, or one for all."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, count):
        fail(f"{name}: must be one number, or {count} separated by commas; got {text!r}")
    return values * count if len(values) == 1 else values


def _spacing_option(spacing: str | None, ndim: int) -> tuple[float, ...]:
    return (1.0,) * ndim if spacing is None else numbers_option("--spacing", spacing, ndim)


def _only_array(path: Path) -> Array:
    with np.load(path, allow_pickle=False) as arrays:
        names: Sequence[str] = arrays.files
        if len(names) != 1 and "labels" not in names:
            raise ValueError(f"it must hold one array, or one named 'labels'; it holds {', '.join(names)}")
        return np.asarray(arrays["labels" if "labels" in names else names[0]])


def _as_nifti(maps: Array, source: Volume, description: str) -> Any:
    if maps.ndim > len(source.spacing):
        maps = np.moveaxis(maps, 0, -1)
        if maps.ndim == 3:  # two spatial axes: the third is the depth in NIfTI, so classes go fourth
            maps = maps[:, :, None]
    if source.nifti is None:
        affine = np.diag([*source.spacing, *(1.0,) * (4 - len(source.spacing))])
        return nibabel.Nifti1Image(maps, affine)  # type: ignore[no-untyped-call]
    header = source.nifti.header.copy()
    header.set_data_dtype(maps.dtype)
    header.set_intent("none")
    header["descrip"] = description.encode()[:79]
    header["cal_min"] = header["cal_max"] = 0
    return type(source.nifti)(maps, source.nifti.affine, header)
