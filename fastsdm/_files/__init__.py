"""Volumes in files: read with their geometry, cleaned to labels, written whole or not at all.

``open_volume`` reads a header, ``VolumeFile.read`` the values, ``read_labels`` the values as labels.
``check_output`` refuses what must not be overwritten before any work is done; ``write_map`` writes a map
under a temporary name and moves it. Every error is a ``FileError``: one line beginning with the file's name.
"""

from fastsdm._files.blocks import check_blocks, open_blocks
from fastsdm._files.errors import FileError, UnusablePathError
from fastsdm._files.formats import check_format, format_of, is_nifti
from fastsdm._files.labels import read_labels
from fastsdm._files.memory import require_memory
from fastsdm._files.output import check_output, remove_leftovers, whole_file
from fastsdm._files.volume import VolumeFile, open_volume
from fastsdm._files.write import write_map
from fastsdm._files.zarr_maps import ZARR, remove_leftover_directories, tree_size, write_zarr, zarr_package

__all__ = [
    "ZARR",
    "FileError",
    "UnusablePathError",
    "VolumeFile",
    "check_blocks",
    "check_format",
    "check_output",
    "format_of",
    "is_nifti",
    "open_blocks",
    "open_volume",
    "read_labels",
    "remove_leftover_directories",
    "remove_leftovers",
    "require_memory",
    "tree_size",
    "whole_file",
    "write_map",
    "write_zarr",
    "zarr_package",
]
