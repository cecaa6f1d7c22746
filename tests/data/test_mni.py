"""The real volume: what it holds, that nothing is fetched, and what is said when its package is missing."""

from __future__ import annotations

import importlib.util
import io
import socket
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fastsdm.data import LabelledVolume, mni_icbm152
from fastsdm.data import _mni as datasets


@pytest.fixture(scope="module")
def volume() -> LabelledVolume:
    return mni_icbm152()


def _stored(kind: str) -> np.ndarray:
    directory = Path(importlib.util.find_spec("nilearn").origin).parent / "datasets" / "data"
    path = directory / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    return nibabel.load(path).get_fdata()


def test_shape_types_and_spacing(volume: LabelledVolume) -> None:
    assert volume.image.shape == volume.labels.shape == (197, 233, 189)
    assert volume.image.dtype == np.float32
    assert volume.labels.dtype == np.uint8
    assert volume.image.flags.c_contiguous
    assert volume.labels.flags.c_contiguous
    assert volume.spacing == (1.0, 1.0, 1.0)
    assert (volume.image.min(), volume.image.max()) == (0.0, 1.0)


def test_labels_are_the_most_probable_tissue(volume: LabelledVolume) -> None:
    grey, white = _stored("gm") / 255, _stored("wm") / 255
    probabilities = np.stack([1 - grey - white, grey, white])
    chosen = np.take_along_axis(probabilities, volume.labels[None].astype(int), axis=0)[0]
    assert np.all(chosen >= probabilities.max(axis=0) - 1e-12)
    assert np.bincount(volume.labels.ravel()).tolist() == [6949246, 1090506, 635537]
    assert len(volume.label_names) == 3


def test_image_is_the_template_that_nilearn_hands_out(volume: LabelledVolume) -> None:
    code = (
        "import sys, numpy as np; from nilearn.datasets import load_mni152_template as load; "
        "np.save(sys.stdout.buffer, load(resolution=1).get_fdata(dtype='float32'))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=True)
    expected = np.load(io.BytesIO(done.stdout))
    np.testing.assert_allclose(volume.image, expected, rtol=1e-6)


def test_nothing_is_downloaded_and_nilearn_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setitem(sys.modules, "nilearn.datasets", None)  # importing it would raise
    assert mni_icbm152().labels.any()


@pytest.mark.parametrize("package", ["nilearn", "nibabel"])
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if package == "nilearn":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    else:
        monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ModuleNotFoundError, match=rf"{package}.*pip install '\.\[demo\]'") as caught:
        mni_icbm152()
    assert caught.value.name == package


def test_a_nilearn_without_the_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_nilearn_directory", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="does not hold mni_icbm152_t1"):
        mni_icbm152()
