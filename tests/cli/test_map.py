"""``fastsdm map``: what it writes, that headers survive, that no wrong or partial file is left."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

import fastsdm

AFFINE = np.array([[-0.8, 0, 0, 12], [0, 0.6, 0, -7], [0, 0, 3.0, 5], [0, 0, 0, 1]])
SPACING = (0.8, 0.6, 3.0)


@pytest.fixture(params=[".nii", ".nii.gz"])
def nifti(request: pytest.FixtureRequest, tmp_path: Path, labels: np.ndarray) -> Path:
    image = nibabel.Nifti1Image(labels, AFFINE)
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label")
    image.set_sform(AFFINE, code="mni")
    path = tmp_path / f"labels{request.param}"
    nibabel.save(image, path)
    return path


def left_over(directory: Path, *expected: Path) -> set[Path]:
    return set(directory.iterdir()) - set(expected)


def test_nifti_keeps_affine_spacing_units_and_codes(command, nifti: Path, labels: np.ndarray) -> None:
    out = nifti.with_name("map" + "".join(nifti.suffixes))
    done = command("map", nifti, out)
    assert done.exit_code == 0
    image = nibabel.load(out)
    expected = fastsdm.signed_distance(labels, spacing=SPACING)
    np.testing.assert_allclose(image.get_fdata(), expected, rtol=1e-6)
    np.testing.assert_array_equal(image.affine, nibabel.load(nifti).affine)
    assert image.header.get_zooms() == nibabel.load(nifti).header.get_zooms()
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header["sform_code"] == 4
    assert image.header.get_intent()[0] == "none"
    assert image.get_data_dtype() == np.float32
    assert b"kervadec" in bytes(image.header["descrip"])
    assert "voxels of 0.8 x 0.6 x 3" in done.stdout
    assert " mm," in done.stdout


def test_nifti_with_classes_has_them_last(command, nifti: Path, labels: np.ndarray) -> None:
    out = nifti.with_name("map.nii")
    assert command("map", nifti, out, "--classes", "2,0", "--dtype", "float64").exit_code == 0
    image = nibabel.load(out)
    expected = fastsdm.signed_distance(labels, classes=[2, 0], spacing=SPACING)
    assert image.shape == (*labels.shape, 2)
    assert image.get_data_dtype() == np.float64
    np.testing.assert_allclose(np.moveaxis(image.get_fdata(), -1, 0), expected, rtol=1e-6)
    np.testing.assert_allclose(image.header.get_zooms()[:3], SPACING, rtol=1e-6)


def test_scaled_big_endian_and_singleton_axes_are_read_as_values(command, tmp_path: Path, labels) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    image = nibabel.Nifti1Image(labels[..., None].astype(">i2"), np.eye(4), header)
    nibabel.save(image, tmp_path / "in.nii")
    assert command("map", tmp_path / "in.nii", tmp_path / "out.npy", "--classes", 3).exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), fastsdm.signed_distance(labels, classes=3))


def test_every_option_reaches_the_map(command, npy: Path, labels: np.ndarray) -> None:
    out = npy.with_name("out.npy")
    options = {
        "--classes": "1,7",
        "--spacing": "2,1,0.5",
        "--convention": "midline",
        "--empty": "max",
        "--max-distance": "3",
        "--dtype": "float16",
        "--backend": "scipy",
    }
    done = command("map", npy, out, *(part for pair in options.items() for part in pair))
    assert done.exit_code == 0
    expected = fastsdm.signed_distance(
        labels,
        classes=[1, 7],
        spacing=(2, 1, 0.5),
        convention="midline",
        empty="max",
        max_distance=3.0,
        dtype="float16",
    )
    got = np.load(out)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, expected)
    assert "computed by scipy on cpu" in done.stdout
    assert "note: class 7 has no inside voxel; --empty max decides what it reads" in done.stdout


def test_a_class_everywhere_is_noted(command, tmp_path: Path) -> None:
    np.save(tmp_path / "full.npy", np.ones((4, 4, 4), np.uint8))
    done = command("map", tmp_path / "full.npy", tmp_path / "out.npy")
    assert "the mask has no outside voxel" in done.stdout
    assert "no finite distance" in done.stdout


def test_npz_in_and_out(command, npy: Path, labels: np.ndarray) -> None:
    np.savez(npy.with_name("in.npz"), other=labels[0], labels=labels)
    out = npy.with_name("out.NPZ")
    assert command("map", npy.with_name("in.npz"), out, "--spacing", "0.5").exit_code == 0
    with np.load(out) as arrays:
        np.testing.assert_array_equal(arrays["distance"], fastsdm.signed_distance(labels, spacing=0.5))
        np.testing.assert_array_equal(arrays["spacing"], [0.5] * 3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_numpy_to_nifti_carries_the_spacing(command, npy: Path, labels: np.ndarray, ndim: int) -> None:
    spacing = (2.0, 1.0, 0.5)[:ndim]
    values = labels if ndim == 3 else labels[5]
    np.save(npy, values)
    out = npy.with_name("out.nii")
    text = ",".join(map(str, spacing))
    assert command("map", npy, out, "--spacing", text, "--classes", 3).exit_code == 0
    image = nibabel.load(out)
    assert image.header.get_zooms()[:ndim] == spacing
    expected = fastsdm.signed_distance(values, classes=3, spatial_dims=ndim, spacing=spacing)
    got = np.moveaxis(image.get_fdata(), -1, 0).reshape(expected.shape)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_an_existing_file_is_kept_unless_forced(command, npy: Path) -> None:
    out = npy.with_name("out.npy")
    out.write_text("precious")
    done = command("map", npy, out)
    assert done.exit_code == 1
    assert "exists already; --force" in done.stderr
    assert out.read_text() == "precious"
    assert command("map", npy, out, "--force").exit_code == 0
    assert np.load(out).shape == np.load(npy).shape


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    command, npy: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out = npy.with_name("out.npy")
    out.write_text("old")

    def save_half(file, array) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(np, "save", save_half)
    done = command("map", npy, out, "--force")
    assert done.exit_code != 0
    assert isinstance(error, KeyboardInterrupt) or "disk full" in done.stderr
    assert out.read_text() == "old"
    assert left_over(npy.parent, npy, out) == set()


def bad_files(directory: Path, labels: np.ndarray) -> None:
    np.save(directory / "good.npy", labels)
    (directory / "text.npy").write_text("hello")
    (directory / "text.nii").write_text("hello")
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), directory / "whole.nii.gz")
    (directory / "cut.nii.gz").write_bytes((directory / "whole.nii.gz").read_bytes()[:300])
    np.savez(directory / "two.npz", a=labels, b=labels)
    (directory / "text.npz").write_text("hello")
    np.save(directory / "line.npy", labels[0, 0])
    np.save(directory / "none.npy", labels[:0])
    np.save(directory / "nan.npy", np.full((3, 3, 3), np.nan))
    np.save(directory / "half.npy", np.full((3, 3, 3), 0.5))
    np.save(directory / "complex.npy", np.zeros((3, 3, 3), complex))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.npy", "out.npy"), "missing.npy: there is no such file"),
        (("good.mha", "out.npy"), "good.mha: the name must end in one of .nii"),
        (("good.npy", "out.mha"), "out.mha: the name must end in one of .nii"),
        (("good.npy", "nowhere/out.npy"), "there is no directory"),
        (("text.npy", "out.npy"), "text.npy: cannot be read as .npy"),
        (("text.nii", "out.npy"), "text.nii: cannot be read as .nii"),
        (("text.npz", "out.npy"), "text.npz: cannot be read as .npz"),
        (("cut.nii.gz", "out.npy"), "cut.nii.gz: cannot be read as .nii.gz"),
        (("two.npz", "out.npy"), "it must hold one array, or one named 'labels'; it holds a, b"),
        (("line.npy", "out.npy"), "must hold a volume with 2 or 3 axes, none of size 0; got shape (12,)"),
        (("none.npy", "out.npy"), "none of size 0; got shape (0, 17, 12)"),
        (("nan.npy", "out.npy"), "target: must not contain NaN"),
        (("half.npy", "out.npy", "--classes", "2"), "must hold whole numbers, got 0.5"),
        (("complex.npy", "out.npy"), "IN: must hold booleans, integers or floats"),
        (("good.npy", "out.npy", "--spacing", "1,2"), "--spacing: must be one number, or 3"),
        (("good.npy", "out.npy", "--spacing", "a"), "--spacing: must be one number, or 3"),
        (("good.npy", "out.npy", "--spacing", "0"), "spacing: must be positive and finite"),
        (("whole.nii.gz", "out.npy", "--spacing", "1"), "--spacing: is for .npy and .npz"),
        (("good.npy", "out.npy", "--classes", "x"), "--classes: must be a count, or label values"),
        (("good.npy", "out.npy", "--classes", "1,1"), "must not name a label value twice"),
        (("good.npy", "out.npy", "--classes", "-3"), "classes: must be at least 1, got -3"),
        (("good.npy", "out.npy", "--convention", "x"), "convention: must be one of"),
        (("good.npy", "out.npy", "--empty", "raise", "--classes", "9"), "empty='raise'"),
        (("good.npy", "out.npy", "--max-distance", "-1"), "max_distance: must be positive"),
        (("good.npy", "out.npy", "--dtype", "int8"), "--dtype: must be one of float32, float64, float16"),
        (("good.npy", "out.nii", "--dtype", "float16"), "--dtype: NIfTI cannot hold float16"),
        (("good.npy", "out.npy", "--backend", "x"), "backend: must be 'auto' or one of"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    command, tmp_path: Path, labels, arguments, message
) -> None:
    bad_files(tmp_path, labels)
    before = set(tmp_path.iterdir())
    source, out, *options = arguments
    done = command("map", tmp_path / source, tmp_path / out, *options)
    assert done.exit_code == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert set(tmp_path.iterdir()) == before


def test_an_unavailable_backend_is_not_replaced(command, npy: Path) -> None:
    out = npy.with_name("out.npy")
    done = command("map", npy, out, "--backend", "cupy")
    assert done.exit_code == 2
    assert "backend 'cupy' is unavailable" in done.stderr
    assert not out.exists()
