"""Labels as files hold them: floats that were rounded or resampled, NaN, negative values."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from fastsdm._files.errors import FileError
from fastsdm._files.volume import VolumeFile
from fastsdm._validate import ROUNDING

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def read_labels(
    source: VolumeFile,
    *,
    mask: bool,
    nan_as: int | None = None,
    negative_inside: bool = False,
    ignore_index: int | None = None,
) -> tuple[Array, list[str]]:
    """Read a file's values as labels.

    Floats within 0.001 of whole numbers are rounded to them. A mask may also hold probabilities from 0 to 1,
    of which those above 0.5 are inside.

    Args:
        source: the file.
        mask: whether the labels are a mask: everything above 0 is inside.
        nan_as: label of voxels that hold NaN; without it NaN is an error.
        negative_inside: whether negative labels are inside of a mask.
        ignore_index: a label that a mask keeps, even if it is negative.

    Returns:
        Boolean or integer labels of the file's shape, non-zero inside of a mask; notes on what was changed,
        one line each.

    Raises:
        FileError: the file is damaged, or its values are no labels.
    """
    values = source.read()
    if values.dtype.kind not in "biuf":
        raise FileError(f"{source.path}: must hold booleans, integers or floats, got dtype {values.dtype}")
    notes: list[str] = []
    if values.dtype.kind == "f":
        values = _whole(source, _without_nan(source, values, nan_as, notes), notes, mask=mask)
    if mask:
        smallest = values.min(initial=0)
        values, count = place_negative(values, ignore_index, inside=negative_inside)
        if count and not negative_inside:
            notes.append(
                f"{count} voxels hold negative labels (down to {smallest}) and are outside; "
                "--negative-inside counts them in"
            )
    return values, notes


def place_negative(values: Array, ignore_index: int | None, *, inside: bool = False) -> tuple[Array, int]:
    """Put the negative labels of a mask outside of it, or inside, and count them; the ignored one stays."""
    if values.dtype.kind != "i" or values.min(initial=0) >= 0:
        return values, 0
    negative = values < 0 if ignore_index is None else (values < 0) & (values != ignore_index)
    count = int(np.count_nonzero(negative))
    return (np.where(negative, np.asarray(inside, dtype=values.dtype), values) if count else values), count


def _without_nan(source: VolumeFile, values: Array, nan_as: int | None, notes: list[str]) -> Array:
    missing = np.isnan(values)
    count = np.count_nonzero(missing)
    if count == 0:
        return values
    if nan_as is None:
        raise FileError(f"{source.path}: {count} voxels hold NaN; --nan-as 0 reads them as label 0")
    notes.append(f"{count} voxels hold NaN, read as label {nan_as}")
    return np.where(missing, np.asarray(nan_as, dtype=values.dtype), values)


def _whole(source: VolumeFile, values: Array, notes: list[str], *, mask: bool) -> Array:
    """Float values as integers, or as a mask where they are probabilities."""
    low, high = float(values.min()), float(values.max())
    largest = 2 ** (np.finfo(values.dtype).nmant + 1)
    for wrong in (low, high):
        if not abs(wrong) <= largest:
            raise FileError(
                f"{source.path}: labels must lie between -{largest} and {largest} in {values.dtype}, "
                f"got {wrong:g}"
            )
    whole = np.rint(values)
    off = np.abs(values - whole)
    furthest = float(off.max())
    if furthest <= ROUNDING:
        if furthest > 0:
            changed = np.count_nonzero(off)
            notes.append(f"{changed} voxels were rounded to whole labels, by {furthest:.1g} at most")
        return whole.astype(np.int32 if max(-low, high) < 2**31 - 1 else np.int64)
    if mask and low >= -ROUNDING and high <= 1 + ROUNDING:
        notes.append("the values lie between 0 and 1 and are taken for probabilities: above 0.5 is inside")
        return values > 0.5
    wrong = float(values.flat[int(off.argmax())])
    rule = "whole numbers, or probabilities from 0 to 1" if mask else "whole numbers"
    raise FileError(f"{source.path}: labels must be {rule}, got {wrong:g}")
