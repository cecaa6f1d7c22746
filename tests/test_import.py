"""What importing costs, and that the public names stay put."""

from __future__ import annotations

import subprocess
import sys

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
