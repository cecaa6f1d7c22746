"""Volumes in files: read with their geometry, cleaned to labels, written whole or not at all.

``open_volume`` reads a header, ``VolumeFile.read`` the values, ``read_labels`` the values as labels.
``check_output`` refuses what must not be overwritten before any work is done; ``write_map`` writes a map
under a temporary name and moves it. Every error is a ``FileError``: one line beginning with the file's name.
"""

from fastsdm._files.blocks import check_blocks, open_blocks
from fastsdm._files.content import sha256_of, size_of
from fastsdm._files.errors import FileError, UnusablePathError
from fastsdm._files.formats import (
    DTYPES,
    FORMATS,
    ZARR,
    check_dtype,
    check_format,
    format_of,
    is_nifti,
    is_zarr,
)
from fastsdm._files.labels import place_negative, read_labels
from fastsdm._files.memory import (
    available_memory,
    byte_count,
    give_back_freed_memory,
    require_memory,
    resident_memory,
    size,
)
from fastsdm._files.output import check_output, remove_leftovers, whole_directory, whole_file
from fastsdm._files.volume import VolumeFile, open_volume
from fastsdm._files.write import CHUNK, new_zarr_map, write_map
from fastsdm._files.zarr_package import zarr_package

__all__ = [
    "CHUNK",
    "DTYPES",
    "FORMATS",
    "ZARR",
    "FileError",
    "UnusablePathError",
    "VolumeFile",
    "available_memory",
    "byte_count",
    "check_blocks",
    "check_dtype",
    "check_format",
    "check_output",
    "format_of",
    "give_back_freed_memory",
    "is_nifti",
    "is_zarr",
    "new_zarr_map",
    "open_blocks",
    "open_volume",
    "place_negative",
    "read_labels",
    "remove_leftovers",
    "require_memory",
    "resident_memory",
    "sha256_of",
    "size",
    "size_of",
    "whole_directory",
    "whole_file",
    "write_map",
    "zarr_package",
]
