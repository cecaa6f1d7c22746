"""The commands of docs/cli.md, run in the order they stand, in one folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fastsdm import testing

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_map_and_view_as_the_page_has_them(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr = pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    labels = testing.shells((82, 116, 36), classes=3, thickness=3.0).astype(np.uint8)
    affine = np.diag([3.0, 0.8, 0.8, 1.0])
    nibabel.save(nibabel.Nifti1Image(labels, affine), "labels.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.float32), affine), "t1.nii.gz")
    np.save("labels.npy", labels)
    zarr.save_array("labels.zarr", labels)
    lines = re.findall(r"^fastsdm ((?:map|view) [^#\n]*)", PAGE.read_text(), re.M)
    assert len(lines) >= 7
    for line in lines:
        done = command(*shlex.split(line))
        assert done.exit_code == 0, f"{line}: {done.output}"
