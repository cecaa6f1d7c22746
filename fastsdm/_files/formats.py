"""File formats by name, and for those that are not handled the command that converts them."""

from __future__ import annotations

from pathlib import Path

from fastsdm._files.errors import UnusablePathError

NIFTI = (".nii", ".nii.gz")
FORMATS = (*NIFTI, ".npy", ".npz")
#: A directory, of which ``fastsdm map`` reads and writes a part at a time.
ZARR = ".zarr"
#: Of maps; NIfTI holds the first two.
DTYPES = ("float32", "float64", "float16")
#: Files that describe a zarr array or group; the last holds the attributes of zarr 2.
METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")

_SIMPLE_ITK = (
    "python -c \"import SimpleITK as s; s.WriteImage(s.ReadImage('{name}'), '{stem}.nii.gz')\" "
    "(needs: pip install SimpleITK)"
)
_NIBABEL = "python -c \"import nibabel as n; n.save(n.load('{name}'), '{stem}.nii.gz')\""
_TIFF = (
    "python -c \"import numpy, tifffile; numpy.save('{stem}.npy', tifffile.imread('{name}'))\" "
    "(needs: pip install tifffile)"
)
_DICOM_SEGMENTATION = (
    "segimage2itkimage --inputDICOM '{name}' --outputType nii --outputDirectory . (from dcmqi)"
)
_DICOM_SERIES = "dcm2niix -z y -o . '{name}'"
_DICOM = f"{_DICOM_SEGMENTATION} for a segmentation object, or {_DICOM_SERIES} for a series of images"
_ARRAY_CALLS = {
    ".h5": "import h5py, numpy; numpy.save('{stem}.npy', h5py.File('{name}')['DATASET'][()])",
    ".mat": "import numpy, scipy.io; numpy.save('{stem}.npy', scipy.io.loadmat('{name}')['VARIABLE'])",
    ".b2nd": "import blosc2, numpy; numpy.save('{stem}.npy', blosc2.open('{name}')[:])",
    ".pt": "import numpy, torch; numpy.save('{stem}.npy', torch.load('{name}').numpy())",
}
_CONVERSIONS = {
    **dict.fromkeys((".mha", ".mhd", ".nrrd", ".nhdr", ".vtk", ".gipl", ".gipl.gz"), _SIMPLE_ITK),
    **dict.fromkeys((".mgz", ".mgh", ".mnc", ".hdr", ".img", ".img.gz"), _NIBABEL),
    **dict.fromkeys((".tif", ".tiff"), _TIFF),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), _DICOM),
    **{suffix: f'python -c "{call}"' for suffix, call in _ARRAY_CALLS.items()},
    ".hdf5": f'python -c "{_ARRAY_CALLS[".h5"]}"',
    ".pth": f'python -c "{_ARRAY_CALLS[".pt"]}"',
}


def format_of(path: Path) -> str | None:
    """The suffix that tells the format, or None for one that is not handled.

    The path may lead to an array or a group inside of a zarr store, as in ``image.zarr/labels/0``.
    """
    known = _suffix(path, (*FORMATS, ZARR))
    inside_store = any(part.lower().endswith(ZARR) for part in path.parts[:-1])
    # The files of a store, chunks and metadata, are no volumes.
    return ZARR if known is None and inside_store and not path.is_file() else known


def is_nifti(path: Path) -> bool:
    """Whether the name says NIfTI."""
    return format_of(path) in NIFTI


def is_zarr(path: Path) -> bool:
    """Whether the path leads to a zarr store, or into one."""
    return format_of(path) == ZARR


def is_store(path: Path) -> bool:
    """Whether the directory is a zarr array or group."""
    return any((path / name).is_file() for name in METADATA)


def check_format(path: Path, *, reading: bool) -> str:
    """The suffix that tells the format.

    Args:
        path: a file to read or to write.
        reading: whether it is to be read, so that a conversion can be suggested.

    Raises:
        UnusablePathError: the format is not handled; the message gives the command that converts a known one.
    """
    suffix = format_of(path)
    if suffix is None:
        message = f"{path}: the name must end in one of {', '.join((*FORMATS, ZARR))}"
        hint = _conversion(path) if reading else None
        raise UnusablePathError(message if hint is None else f"{message}; convert it: {hint}")
    return suffix


def check_dtype(path: Path, dtype: str) -> None:
    """Raise ValueError for a dtype that maps do not have, or that the format of ``path`` cannot hold."""
    allowed = DTYPES[:2] if is_nifti(path) else DTYPES
    if dtype not in allowed:
        where = f" in {format_of(path)}" if is_nifti(path) else ""
        raise ValueError(f"dtype: must be one of {', '.join(allowed)}{where}; got {dtype!r}")


def _conversion(path: Path) -> str | None:
    known = _suffix(path, tuple(_CONVERSIONS))
    if known is None:
        if path.is_dir():
            return _DICOM_SERIES.format(name=path)
        return _DICOM.format(name=path) if _is_dicom(path) else None
    return _CONVERSIONS[known].format(name=path, stem=str(path)[: -len(known)])


def _is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM files do, which often have no suffix."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _suffix(path: Path, known: tuple[str, ...]) -> str | None:
    name = path.name.lower()
    return max((suffix for suffix in known if name.endswith(suffix)), key=len, default=None)
