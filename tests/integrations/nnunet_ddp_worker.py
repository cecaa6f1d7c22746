"""One of two processes that train a trainer's network with its loss; nnU-Net's command needs CUDA for it."""

from __future__ import annotations

import os
import sys
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed as dist

rank, root, out = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{out}.meet", rank=rank, world_size=2)

from tests.integrations.test_nnunet import READINGS, trainer_object  # noqa: E402  # nnU-Net looks for the group

# Without an ignore label every voxel counts in the cross-entropy, and halves of a batch weigh the same.
trainer = trainer_object(root, "TinyBoundary", labels=READINGS["labels"])
assert trainer.is_ddp
trainer.device = torch.device("cpu")
torch.manual_seed(0)
network = trainer.build_network_architecture(
    trainer.plans_manager, trainer.configuration_manager, 1, trainer.label_manager.num_segmentation_heads
)
network = network.double()  # in float32 the two orders of summation differ by more than the test allows
single = deepcopy(network)
loss = trainer._build_loss()
loss.schedule.load_state_dict({"steps_taken": 3})
image, *targets = torch.load(f"{out}.batch")
image = image.double()
share = slice(rank, rank + 1)
wrapped = torch.nn.parallel.DistributedDataParallel(network)
loss(wrapped(image[share]), [target[share] for target in targets]).backward()
together = [weight.grad for weight in network.parameters()]
if rank == 0:
    # nnU-Net's Dice is the mean over the samples where the plans do not say batch_dice.
    assert not trainer.configuration_manager.batch_dice
    loss(single(image), targets).backward()
    torch.save((loss.weights, together, [weight.grad for weight in single.parameters()]), out)
dist.barrier()
sys.stdout.flush()
os._exit(0)  # without the interpreter's shutdown, in which gloo's threads now and then abort the process
