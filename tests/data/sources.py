"""Sources of blocks that the tests of patches share."""

from __future__ import annotations

import numpy as np


class RecordingSource:
    """An array behind an interface that notes which blocks are read, as an open file would be."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.read = array, array.shape, []

    def __getitem__(self, index):
        self.read.append(index)
        return self.array[index]
