"""What a call of the native backend adds to the resident memory: its result, and little else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
import numpy as np
import torch
import fastsdm
from pathlib import Path

torch.set_num_threads(2)

def resident(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])

def labels_of(size):
    axes = np.ogrid[:size, :size, :size]
    return sum(7**k * (axis * 7 // size) for k, axis in enumerate(axes)).astype(np.int32)  # 343 boxes

call = {"instances": fastsdm.instance_distance, "nearest": fastsdm.nearest, "map": fastsdm.signed_distance}
call = call[sys.argv[1]]
call(labels_of(40), backend="native")
labels = labels_of(192)
Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is resident now
before = resident("VmRSS:")
result = call(labels, backend="native")
print((resident("VmHWM:") - before) / result.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's high-water mark")
@pytest.mark.parametrize("call", ["instances", "nearest", "map"])
def test_no_memory_but_the_result(call) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, call], capture_output=True, text=True, check=True, timeout=120
    )
    assert 0.9 < float(ran.stdout) < 1.15
