"""The whole benchmark on a GPU: `python -m benchmarks.gpu`, with the arguments of `python -m benchmarks`.

Writes JSON, Markdown and plots named after the device into benchmarks/results/. With `--find` it only names
the device and the backends, and ends with 1 where one of them lacks something, unless `--partial` allows it.
"""

from __future__ import annotations

import sys

import torch

import fastsdm
from benchmarks.__main__ import app

_CUDA_BACKENDS = ("cucim", "cupy", "triton")


def main() -> None:
    """Measure, or exit with 1 where there is no device to measure on."""
    if not torch.cuda.is_available():
        sys.exit(
            f"no GPU: torch {torch.__version__} finds no CUDA or ROCm device, so there is nothing to run on"
        )
    if "--find" in sys.argv:
        print(f"{torch.cuda.get_device_name()}, and {torch.cuda.device_count()} device(s) in all")
        backends = fastsdm.backends().values()
        print(*backends, sep="\n")
        missing = [
            each.name for each in backends if each.name in _CUDA_BACKENDS and "cuda" not in each.devices
        ]
        if missing and torch.version.hip is None and "--partial" not in sys.argv:
            sys.exit(
                f"{', '.join(missing)}: would be neither tested nor timed; install what is named above, with "
                f"{sys.executable} -m pip, or go on without: make gpu PARTIAL=1"
            )
        return
    app()  # takes the GPU by default


if __name__ == "__main__":
    main()
