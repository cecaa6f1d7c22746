"""What a NIfTI header says of its geometry: voxel sizes, their unit, and where the header is at odds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_UNITS = {"mm": "mm", "micron": "um", "meter": "m"}
#: Sizes that differ by less are the same but for float32 rounding of the affine: the header's are exact.
_ROUNDING = 1e-5
#: Disagreement, and error made by a shear, that is worth a line.
_WORTH_SAYING = 1e-3


def load(path: Path) -> tuple[Any, tuple[float, ...], list[str]]:
    """Open a NIfTI file without reading its voxels.

    Returns:
        The image; the voxel sizes that the header holds beside the affine (``pixdim``), as stored; what
        nibabel mended while reading, which it would otherwise print.
    """
    import nibabel  # noqa: PLC0415  # optional, and only for these files

    with _collected_log(nibabel.imageglobals.logger) as messages:
        image: Any = nibabel.load(path)
    with nibabel.openers.ImageOpener(str(path)) as file:
        raw = type(image).header_class.from_fileobj(file, check=False)
    pixdim = tuple(abs(float(size)) for size in raw["pixdim"][1 : 1 + len(image.shape)])
    # pixdim is compared with the affine by `voxel_sizes`
    return image, pixdim, [message for message in messages if not message.startswith("pixdim")]


def damages() -> tuple[type[Exception], ...]:
    """What nibabel raises for a file that is no NIfTI, or a damaged one."""
    import nibabel  # noqa: PLC0415

    return nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError


def unit(image: Any) -> str | None:
    """Unit of lengths, or None where the header does not say."""
    return _UNITS.get(image.header.get_xyzt_units()[0])


def voxel_sizes(
    image: Any, pixdim: Sequence[float], shape: Sequence[int]
) -> tuple[tuple[float, ...], list[str]]:
    """Voxel sizes by the affine, with notes on a ``pixdim`` that disagrees and on the error of a shear.

    An axis of one voxel without a size counts as 1: no distance depends on it.
    """
    count = len(shape)
    columns = np.asarray(image.affine, dtype=np.float64)[:3, :count]
    has_affine = bool(image.header["sform_code"] > 0 or image.header["qform_code"] > 0)
    sizes = np.linalg.norm(columns, axis=0) if has_affine else np.array(pixdim[:count])
    notes = []
    stored = np.array(pixdim[:count])
    with np.errstate(invalid="ignore"):  # both may be infinite
        differ = np.abs(stored - sizes)
    if np.all(differ <= _ROUNDING * sizes):
        sizes = stored
    elif np.any(differ > _WORTH_SAYING * sizes):
        notes.append(
            f"pixdim and affine disagree: the affine's voxel size {by(sizes)} counts, not pixdim {by(stored)}"
        )
    sizes = np.where((np.array(shape) == 1) & ~(sizes > 0), 1.0, sizes)
    too_large, too_small = shear_errors(columns) if has_affine else (0.0, 0.0)
    if max(too_large, too_small) > _WORTH_SAYING:
        notes.append(
            "the affine is sheared: distances, measured as if its axes were at right angles, can be up to "
            f" {100 * too_large:.2g} % too large or {100 * too_small:.2g} % too small"
        )
    return tuple(map(float, sizes)), notes


def shear_errors(columns: Array) -> tuple[float, float]:
    """By which shares of the true one a distance is too large or too small if axes count as orthogonal.

    ``columns`` ``[3, ndim]`` are the steps along each axis; both bounds are 0 where one is 0 or not finite.
    With unit axes ``C`` an offset ``u`` is in truth as long as ``|C u|``, between the smallest and the
    largest singular value of ``C`` times ``|u|``.
    """
    sizes = np.linalg.norm(columns, axis=0)
    if not (np.all(np.isfinite(sizes)) and np.all(sizes > 0)):
        return 0.0, 0.0
    singular = np.linalg.svd(columns / sizes, compute_uv=False)
    with np.errstate(divide="ignore"):
        return float(1 / singular[-1] - 1), float(1 - 1 / singular[0])


def by(sizes: Sequence[float] | Array) -> str:
    """Sizes for people: ``0.8 x 0.8 x 3``."""
    return " x ".join(f"{size:g}" for size in sizes)


@contextmanager
def _collected_log(logger: logging.Logger) -> Iterator[list[str]]:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    previous, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield messages
    finally:
        logger.handlers, logger.propagate = previous, propagate
