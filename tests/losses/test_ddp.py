"""Two processes on half a batch each train like one process on the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

LOSSES = ("BoundaryLoss", "HausdorffDTLoss", "GeneralizedSurfaceLoss")
WORKER = """
import os
import sys
import torch
import torch.distributed as dist
from fastsdm import losses

def gradients(names, image, labels, wrap=lambda network: network):
    found = []
    for name in names:
        torch.manual_seed(0)
        network = wrap(torch.nn.Conv3d(1, 3, 3, padding=1))
        getattr(losses, name)(softmax=True)(network(image), labels).backward()
        found += [parameter.grad for parameter in network.parameters()]
    return found

torch.manual_seed(1)
image, labels = torch.rand(4, 1, 9, 8, 7), torch.randint(0, 3, (4, 9, 8, 7))
rank, rendezvous, out, *names = int(sys.argv[1]), *sys.argv[2:]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
share = slice(2 * rank, 2 * rank + 2)
together = gradients(names, image[share], labels[share], torch.nn.parallel.DistributedDataParallel)
if rank == 0:
    torch.save((together, gradients(names, image, labels)), out)
dist.destroy_process_group()
os._exit(0)  # without the interpreter's shutdown, in which gloo's threads now and then abort the process
"""


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch was built without gloo")
def test_gradients_are_those_of_the_joined_batch(tmp_path: Path) -> None:
    out = tmp_path / "gradients.pt"
    processes = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(rank), str(tmp_path / "meet"), str(out), *LOSSES])
        for rank in range(2)
    ]
    for process in processes:
        assert process.wait(timeout=240) == 0
    together, alone = torch.load(out)
    assert len(alone) == 2 * len(LOSSES)
    for gradient, expected in zip(together, alone, strict=True):
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
