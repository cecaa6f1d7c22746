"""What importing costs, and that the public names stay put."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastsdm

OPTIONAL = ["cucim", "cupy", "dask", "matplotlib", "monai", "nibabel", "nilearn", "rich", "triton", "typer"]


def test_import_loads_no_optional_package() -> None:
    code = (
        "import torch, numpy, sys; before = set(sys.modules); "
        "import fastsdm, fastsdm.losses, fastsdm.schedules; "
        f"print([name for name in {OPTIONAL!r} if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_loads_no_scipy_before_it_is_asked_for() -> None:
    code = "import sys, fastsdm; print('scipy.ndimage' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


#: What takes longer to import than a map takes, and no map needs.
HEAVY = [
    "matplotlib",
    "scipy.ndimage",
    "torch._dynamo",
    "torch._inductor",
    "monai",
    "dask",
    "nilearn",
    "triton",
]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["map", "in.npy", "out.npy"]])
def test_the_command_line_loads_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    np.save(tmp_path / "in.npy", np.eye(6, dtype=np.uint8)[None].repeat(4, axis=0))
    code = (
        "import sys, torch; before = set(sys.modules); from fastsdm.cli.app import app; "
        f"app({arguments!r}, standalone_mode=False); "
        f"print([name for name in {HEAVY!r} if name in sys.modules and name not in before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "out.npy").exists() == ("map" in arguments)


def test_backends_stays_a_function_once_a_backend_is_imported() -> None:
    code = (
        "import fastsdm, numpy; fastsdm.signed_distance(numpy.ones((2, 2, 2)), backend='scipy'); "
        "print(callable(fastsdm.backends))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_public_names() -> None:
    assert set(fastsdm.__all__) == {
        "BackendStatus",
        "BackendUnavailableError",
        "__version__",
        "backends",
        "distance_transform",
        "instance_distance",
        "nearest",
        "nearest_label",
        "prefetch",
        "signed_distance",
        "use_backend",
    }
    assert all(hasattr(fastsdm, name) for name in fastsdm.__all__)
