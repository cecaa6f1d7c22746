"""DataLoader workers, after fork and after spawn, and many threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import fastsdm
from fastsdm import testing


class Maps(Dataset):
    """The map of a random mask, made in the worker."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        mask = torch.from_numpy(testing.noise((20, 21, 40), fraction=0.05, seed=index))
        return fastsdm.signed_distance(mask, backend="native")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader_workers(method) -> None:
    here = [Maps()[index] for index in range(6)]  # the parent has made threads before it forks
    loader = DataLoader(Maps(), batch_size=2, num_workers=2, multiprocessing_context=method, timeout=120)
    for batch, expected in zip(loader, zip(here[::2], here[1::2], strict=True), strict=True):
        assert torch.equal(batch, torch.stack(expected))


def test_many_threads_at_once() -> None:
    volumes = [testing.noise((20, 30, 40), fraction=0.02, seed=seed) for seed in range(24)]
    expected = [fastsdm.signed_distance(volume, backend="scipy") for volume in volumes]
    with ThreadPoolExecutor(8) as pool:
        for got, truth in zip(pool.map(fastsdm.signed_distance, volumes), expected, strict=True):
            np.testing.assert_allclose(got, truth, rtol=testing.ROUNDING)
