"""The optional package zarr."""

from __future__ import annotations

from typing import Any

from fastsdm._files.errors import UnusablePathError


def zarr_package() -> Any:
    """Import zarr.

    Raises:
        UnusablePathError: it is not installed.
    """
    try:
        import zarr  # noqa: PLC0415  # optional, and only for these files
    except ModuleNotFoundError as error:
        if error.name != "zarr":
            raise
        raise UnusablePathError(
            "zarr: the package is not installed; in a checkout of fastsdm: pip install '.[zarr]' "
            "(needs Python 3.11 or later)"
        ) from error
    return zarr
