"""The whole benchmark on a GPU: `python -m benchmarks.gpu`, with the arguments of `python -m benchmarks`.

Writes JSON, Markdown and plots named after the device into benchmarks/results/. With `--find` it only names
the device, and the backends that run there or what they lack.
"""

from __future__ import annotations

import sys

import torch

import fastsdm
from benchmarks.__main__ import app


def main() -> None:
    """Measure, or exit with 1 where there is no device to measure on."""
    if not torch.cuda.is_available():
        sys.exit(
            f"no GPU: torch {torch.__version__} finds no CUDA or ROCm device, so there is nothing to run on"
        )
    if sys.argv[1:] == ["--find"]:
        print(f"{torch.cuda.get_device_name()}, and {torch.cuda.device_count()} device(s) in all")
        print(*fastsdm.backends().values(), sep="\n")
        return
    app()  # takes the GPU by default


if __name__ == "__main__":
    main()
