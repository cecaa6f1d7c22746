"""Volumes in files: read with their geometry, cleaned to labels, written whole or not at all.

``open_volume`` reads a header, ``VolumeFile.read`` the values, ``read_labels`` the values as labels.
``check_output`` refuses what must not be overwritten before any work is done; ``write_map`` writes a map
under a temporary name and moves it. Every error is a ``FileError``: one line beginning with the file's name.
"""

from fastsdm._files.blocks import check_blocks, open_blocks
from fastsdm._files.directory import check_output_directory, remove_leftover_directories, whole_directory
from fastsdm._files.errors import FileError, UnusablePathError
from fastsdm._files.formats import check_format, format_of, is_nifti, is_zarr
from fastsdm._files.labels import count_labels, place_negative, read_labels
from fastsdm._files.memory import (
    available_memory,
    byte_count,
    give_back_freed_memory,
    require_memory,
    resident_memory,
    size,
)
from fastsdm._files.output import check_output, remove_leftovers, whole_file
from fastsdm._files.volume import VolumeFile, open_volume
from fastsdm._files.write import write_map
from fastsdm._files.zarr_maps import ZARR, tree_size, write_zarr
from fastsdm._files.zarr_package import zarr_package

__all__ = [
    "ZARR",
    "FileError",
    "UnusablePathError",
    "VolumeFile",
    "available_memory",
    "byte_count",
    "check_blocks",
    "check_format",
    "check_output",
    "check_output_directory",
    "count_labels",
    "format_of",
    "give_back_freed_memory",
    "is_nifti",
    "is_zarr",
    "open_blocks",
    "open_volume",
    "place_negative",
    "read_labels",
    "remove_leftover_directories",
    "remove_leftovers",
    "require_memory",
    "resident_memory",
    "size",
    "tree_size",
    "whole_directory",
    "whole_file",
    "write_map",
    "write_zarr",
    "zarr_package",
]
