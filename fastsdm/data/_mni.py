"""A real labelled volume that needs no download."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastsdm.data._volume import Volume

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledVolume(Volume):
    """A volume in memory with the names of its labels.

    Attributes:
        image: ``[D, H, W]`` float32, 0 to 1.
        labels: ``[D, H, W]`` uint8.
        spacing: voxel size along each axis, in millimetres.
        name: short name of the volume.
        label_names: what each label value means.
        citation: where the data come from.
    """

    image: Array = field(repr=False)
    labels: Array = field(repr=False)
    spacing: tuple[float, float, float]
    name: str
    label_names: tuple[str, ...]
    citation: str


def mni_icbm152() -> LabelledVolume:
    """The MNI ICBM152 T1 template (skull-stripped, symmetric, 1 mm, 197 x 233 x 189) with tissue labels.

    It is read from files of the installed package ``nilearn``: nothing is downloaded, and the package is not
    imported, which would take seconds. Axes are as stored: left to right, posterior to
    anterior, inferior to superior.

    The template comes with the probabilities of grey and of white matter in every voxel. A voxel's label is
    the most probable of three: 0 neither (cerebrospinal fluid or outside, one minus the other two), 1 grey
    matter, 2 white matter; a tie goes to the smaller label.

    Source: Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54,
    2011, doi:10.1016/j.neuroimage.2010.07.033.

    Raises:
        ModuleNotFoundError: nilearn or nibabel is not installed.
        FileNotFoundError: this version of nilearn does not hold the files.
    """
    image, grey, white = (_packaged_volume(kind) for kind in ("t1", "gm", "wm"))
    neither = 255 - grey.astype(np.int16) - white  # the maps hold probabilities as 0 to 255
    labels = np.where(white > np.maximum(grey, neither), 2, grey > neither).astype(np.uint8)
    return LabelledVolume(
        name="MNI ICBM152 T1",
        image=np.ascontiguousarray(image, np.float32) / np.float32(image.max()),
        labels=np.ascontiguousarray(labels),
        label_names=("background", "grey matter", "white matter"),
        spacing=(1.0, 1.0, 1.0),
        citation="Fonov et al., NeuroImage 54, 2011, doi:10.1016/j.neuroimage.2010.07.033",
    )


def _packaged_volume(kind: str) -> Array:
    nibabel = _nibabel()
    name = f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    path = _nilearn_directory() / "datasets" / "data" / name
    if not path.is_file():
        raise FileNotFoundError(
            f"mni_icbm152: the installed nilearn does not hold {name} (looked in {path.parent}); "
            "versions 0.11 to 0.14 do"
        )
    return np.asanyarray(nibabel.load(path).dataobj)


def _nilearn_directory() -> Path:
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise _missing("nilearn")
    return Path(spec.origin).parent


def _nibabel() -> Any:
    try:
        import nibabel  # noqa: PLC0415  # optional
    except ModuleNotFoundError as error:
        if error.name != "nibabel":
            raise
        raise _missing("nibabel") from error
    return nibabel


def _missing(package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"mni_icbm152: needs the package {package}, which is not installed; "
        "install it, in a checkout of fastsdm, with: pip install '.[demo]'",
        name=package,
    )
