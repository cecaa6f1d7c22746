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
    assert "note: class 7 has no inside voxel; --empty max decides what the map holds there" in done.stdout


def test_a_class_everywhere_is_noted(command, tmp_path: Path) -> None:
    np.save(tmp_path / "full.npy", np.ones((4, 4, 4), np.uint8))
    done = command("map", tmp_path / "full.npy", tmp_path / "out.npy")
    assert "the mask has no outside voxel" in done.stdout
    assert "no finite distance" in done.stdout


@pytest.mark.parametrize("empty", ["inf", "zero", "max"])
def test_the_policy_for_empty_classes(command, tmp_path: Path, empty: str) -> None:
    labels = np.ones((4, 5, 6), np.uint8)
    np.save(tmp_path / "full.npy", labels)
    assert command("map", tmp_path / "full.npy", tmp_path / "out.npy", "--empty", empty).exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), fastsdm.signed_distance(labels, empty=empty))


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
    assert done.exit_code == 2
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

    def save_half(file, header) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", save_half)
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
    np.save(directory / "image.npy", np.full((3, 3, 3), 812.25))
    np.save(directory / "complex.npy", np.zeros((3, 3, 3), complex))
    np.save(directory / "many.npy", np.zeros((100, 100, 100), np.uint32))
    (directory / "hard.npy").hardlink_to(directory / "good.npy")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        # What is wrong with the command line: exit code 2.
        (("missing.npy", "out.npy"), 2, "missing.npy: there is no such file"),
        (("good.mha", "out.npy"), 2, "good.mha: the name must end in one of .nii"),
        (("good.npy", "out.mha"), 2, "out.mha: the name must end in one of .nii"),
        (("good.npy", "nowhere/out.npy"), 2, "there is no directory"),
        (("good.npy", "good.npy", "--force"), 2, "good.npy: is the input, which is never replaced"),
        (("good.npy", "hard.npy", "--force"), 2, "good.npy by another name, which is never replaced"),
        (("good.npy", "out.npy", "--spacing", "1,2"), 2, "--spacing: must be one number, or 3"),
        (("good.npy", "out.npy", "--spacing", "a"), 2, "--spacing: must be one number, or one per axis"),
        (("good.npy", "out.npy", "--spacing", "0"), 2, "--spacing: must be positive and finite"),
        (("good.npy", "out.npy", "--classes", "x"), 2, "--classes: must be a count, or label values"),
        (("good.npy", "out.npy", "--classes", "1,1"), 2, "--classes: must not name a label value twice"),
        (("good.npy", "out.npy", "--classes", "-3"), 2, "--classes: must be at least 1, got -3"),
        (
            ("good.npy", "out.npy", "--classes", "300"),
            2,
            "--classes: 300 is a count and means the labels 0 to 299, but",
        ),
        (("good.npy", "out.npy", "--classes", "300"), 2, "for the label 300 alone write '300,'"),
        (("good.npy", "out.npy", "--classes", "1,-4"), 2, "--classes: label -4 cannot be in"),
        (("good.npy", "out.npy", "--classes", "300,"), 2, "which holds uint8 (0 to 255)"),
        (("good.npy", "out.npy", "--convention", "x"), 2, "--convention: must be one of"),
        (("good.npy", "out.npy", "--empty", "x"), 2, "--empty: must be one of"),
        (("good.npy", "out.npy", "--max-distance", "-1"), 2, "--max-distance: must be positive"),
        (("good.npy", "out.npy", "--dtype", "int8"), 2, "--dtype: must be one of float32, float64, float16"),
        (
            ("good.npy", "out.nii", "--dtype", "float16"),
            2,
            "must be one of float32, float64 in .nii; got",
        ),
        (("good.npy", "out.npy", "--backend", "x"), 2, "--backend: must be 'auto' or one of"),
        (("good.npy", "out.npy", "--device", "x"), 2, "--device: x cannot be used here"),
        # What is wrong with a file: exit code 1.
        (("text.npy", "out.npy"), 1, "text.npy: cannot be read as .npy"),
        (("text.nii", "out.npy"), 1, "text.nii: cannot be read as .nii"),
        (("text.npz", "out.npy"), 1, "text.npz: cannot be read as .npz"),
        (("cut.nii.gz", "out.npy"), 1, "cut.nii.gz: cannot be read as .nii.gz"),
        (("two.npz", "out.npy"), 1, "two.npz: must hold one array beside 'spacing', or one named 'labels'"),
        (("line.npy", "out.npy"), 1, "must hold a volume with 2 or 3 axes, none of size 0; got shape (12,)"),
        (("none.npy", "out.npy"), 1, "none of size 0; got shape (0, 17, 12)"),
        (("nan.npy", "out.npy"), 1, "nan.npy: 27 voxels hold NaN; --nan-as 0"),
        (("half.npy", "out.npy", "--classes", "2"), 1, "half.npy: labels must be whole numbers, got 0.5"),
        (("image.npy", "out.npy"), 1, "whole numbers, or probabilities from 0 to 1, got 812.25"),
        (("complex.npy", "out.npy"), 1, "complex.npy: must hold booleans, integers or floats"),
        (("good.npy", "out.npy", "--empty", "raise", "--classes", "9"), 1, "empty='raise'"),
        (("many.npy", "out.npy", "--classes", "3000000"), 1, "map float32 of 3000000 classes 10.9 TiB"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    command, tmp_path: Path, labels, arguments, code: int, message: str
) -> None:
    bad_files(tmp_path, labels)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    source, out, *options = arguments
    done = command("map", tmp_path / source, tmp_path / out, *options)
    assert done.exit_code == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("labels", "expected", "options", "said"),
    [
        (np.eye(6, dtype="f4") * np.float32(0.99999994), np.eye(6), (), "rounded to whole labels"),
        (np.eye(6) - 1e-9, np.eye(6), (), "rounded to whole labels"),
        (np.eye(6) * 0.9, np.eye(6), (), "above 0.5 is inside"),
        (np.eye(6) - np.eye(6, k=2), np.eye(6), (), "negative labels (down to -1) and are outside"),
        (np.eye(6) - np.eye(6, k=2), np.eye(6) + np.eye(6, k=2), ("--negative-inside",), None),
        (np.where(np.eye(6), 1, np.nan), np.eye(6), ("--nan-as", 0), "30 voxels hold NaN, read as label 0"),
    ],
)
def test_labels_are_cleaned_and_it_is_said(
    command, tmp_path: Path, labels, expected, options, said: str | None
) -> None:
    np.save(tmp_path / "in.npy", labels)
    done = command("map", tmp_path / "in.npy", tmp_path / "out.npy", *options)
    assert done.exit_code == 0
    notes = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]
    np.testing.assert_array_equal(
        np.load(tmp_path / "out.npy"), fastsdm.signed_distance(expected, spatial_dims=2)
    )


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("ignored", [2, -1])
def test_ignored_voxels_are_neither_inside_nor_outside(
    command, npy: Path, labels: np.ndarray, classes: int | None, ignored: int
) -> None:
    values = labels.astype(np.int16)
    values[3:5] = ignored
    np.save(npy, values)
    out = npy.with_name("out.npy")
    options = ("--ignore-index", ignored, *(() if classes is None else ("--classes", classes)))
    assert command("map", npy, out, *options).exit_code == 0
    expected = fastsdm.signed_distance(values, classes=classes, ignore_index=ignored)
    np.testing.assert_array_equal(np.load(out), expected)
    assert not np.load(out)[..., 3:5, :, :].any()


def test_spacing_replaces_that_of_any_file_and_it_is_said(command, nifti: Path, labels: np.ndarray) -> None:
    out = nifti.with_name("out.nii")
    done = command("map", nifti, out, "--spacing", "2")
    assert "--spacing 2 x 2 x 2 replaces the file's voxel size 0.8 x 0.6 x 3" in done.stdout
    assert " mm," not in done.stdout
    image = nibabel.load(out)
    np.testing.assert_array_equal(image.get_fdata(), fastsdm.signed_distance(labels, spacing=2))
    np.testing.assert_array_equal(image.affine, nibabel.load(nifti).affine)


def test_an_npz_map_can_be_made_of_what_map_wrote(command, npy: Path, labels: np.ndarray) -> None:
    np.savez(npy.with_name("in.npz"), labels=labels, spacing=[2, 1, 0.5])
    out = npy.with_name("out.npy")
    assert command("map", npy.with_name("in.npz"), out).exit_code == 0
    np.testing.assert_array_equal(np.load(out), fastsdm.signed_distance(labels, spacing=(2, 1, 0.5)))


def test_classes_without_voxels_are_named_together(command, npy: Path) -> None:
    done = command("map", npy, npy.with_name("out.npy"), "--classes", "2,3,4,5,9,200", "--max-distance", "1")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("note: "))
    assert "classes 3-5, 9, 200 have no inside voxel" in line
    done = command("map", npy, npy.with_name("many.npy"), "--classes", "40")
    assert "classes 3-39 have no inside voxel" in done.stdout


def test_out_of_memory_is_one_line(command, npy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_, **__) -> None:
        raise MemoryError

    monkeypatch.setattr(fastsdm, "signed_distance", exhausted)
    done = command("map", npy, npy.with_name("out.npy"))
    assert (done.exit_code, done.stderr) == (1, "error: out of memory\n")


def test_an_unavailable_backend_is_not_replaced(command, npy: Path) -> None:
    out = npy.with_name("out.npy")
    done = command("map", npy, out, "--backend", "cupy")
    assert done.exit_code == 2
    assert "backend 'cupy' is unavailable" in done.stderr
    assert not out.exists()
