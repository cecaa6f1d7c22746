"""``fastsdm compare``: the numbers of fastsdm.metrics, for two volumes and for two folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from fastsdm import metrics, testing

SPACING = (0.8, 0.7, 3.0)


def write(path: Path, labels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    affine = np.diag([*SPACING, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), affine), path)
    return path


def volumes(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    reference = testing.blobs((20, 22, 12), sigma=3, seed=seed) + testing.blobs(
        (20, 22, 12), sigma=2, seed=seed + 9
    )
    return np.roll(reference, 1, axis=0), reference


def expected(pair, label: int, tolerance: float = 1.0) -> dict[str, float]:
    masks = [torch.from_numpy(each == label)[None, None] for each in pair]
    return {
        "dice": metrics.compute_dice(*masks).item(),
        "hd95": metrics.compute_hausdorff_distance(*masks, percentile=95, spacing=SPACING).item(),
        "assd": metrics.compute_average_surface_distance(*masks, symmetric=True, spacing=SPACING).item(),
        "nsd": metrics.compute_surface_dice(*masks, [tolerance], spacing=SPACING).item(),
    }


def test_two_volumes(command, tmp_path: Path) -> None:
    pair = volumes()
    paths = [write(tmp_path / name, each) for name, each in zip(("p.nii.gz", "r.nii.gz"), pair, strict=True)]
    done = command(
        "compare", *paths, "--out", tmp_path / "out.csv", "--out", tmp_path / "out.json", "--tolerance", 2
    )
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == ["1", "2"]
    for row in rows:
        wanted = expected(pair, int(row["label"]), 2.0)
        assert {name: float(row[name]) for name in wanted} == pytest.approx(wanted)
        assert f"{wanted['hd95']:.4f}" in done.stdout
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["means"]["1"]["dice"]["mean"] == pytest.approx(expected(pair, 1)["dice"])


def test_two_folders_give_means_over_the_cases(command, tmp_path: Path) -> None:
    pairs = [volumes(seed) for seed in range(3)]
    for number, (prediction, reference) in enumerate(pairs):
        write(tmp_path / "pred" / f"case{number}.nii.gz", prediction)
        write(tmp_path / "ref" / f"case{number}.nii.gz", reference)
    done = command(
        "compare", tmp_path / "pred", tmp_path / "ref", "--classes", "1,", "--out", tmp_path / "o.json"
    )
    assert done.exit_code == 0, done.stderr
    scores = [expected(pair, 1)["assd"] for pair in pairs]
    mean = json.loads((tmp_path / "o.json").read_text())["means"]["1"]["assd"]
    assert (mean["mean"], mean["std"]) == pytest.approx((np.mean(scores), np.std(scores)))
    assert f"{np.mean(scores):.4f} ± {np.std(scores):.4f}" in done.stdout


def test_a_class_that_one_volume_lacks_is_infinitely_far(command, tmp_path: Path) -> None:
    reference = volumes()[1]
    paths = [write(tmp_path / "p.nii", reference * 0), write(tmp_path / "r.nii", reference)]
    done = command("compare", *paths, "--classes", "1,7", "--out", tmp_path / "o.json")
    assert done.exit_code == 0, done.stderr
    absent, in_neither = json.loads((tmp_path / "o.json").read_text())["cases"]
    assert (absent["dice"], absent["hd95"], absent["nsd"]) == (0.0, "inf", 0.0)
    assert in_neither["dice"] is None


def test_a_class_that_only_the_prediction_holds_is_an_error_that_counts(command, tmp_path: Path) -> None:
    reference = np.minimum(volumes()[1], 1)
    paths = [write(tmp_path / "p.nii", volumes()[1]), write(tmp_path / "r.nii", reference)]
    done = command("compare", *paths, "--out", tmp_path / "o.json")
    assert done.exit_code == 0, done.stderr
    shared, invented = json.loads((tmp_path / "o.json").read_text())["cases"]
    assert (shared["label"], invented["label"]) == (1, 2)
    assert (invented["dice"], invented["hd95"], invented["nsd"]) == (0.0, "inf", 0.0)


def test_ignored_voxels_do_not_count(command, tmp_path: Path) -> None:
    prediction, reference = volumes()
    reference = reference.copy()
    reference[:8] = 9
    paths = [write(tmp_path / "p.nii", prediction), write(tmp_path / "r.nii", reference)]
    done = command("compare", *paths, "--ignore-index", 9, "--out", tmp_path / "o.csv")
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == ["1", "2"]
    cut = [np.where(reference == 9, 0, each) for each in (prediction, reference)]
    assert float(rows[0]["dice"]) == pytest.approx(expected(cut, 1)["dice"])


def test_surfaces_between_voxels(command, tmp_path: Path) -> None:
    prediction, reference = volumes()
    paths = [write(tmp_path / "p.nii", prediction), write(tmp_path / "r.nii", reference)]
    done = command("compare", *paths, "--subvoxels", "--out", tmp_path / "o.json")
    assert done.exit_code == 0, done.stderr
    masks = [torch.from_numpy(each == 1)[None, None] for each in (prediction, reference)]
    options = {"spacing": SPACING, "use_subvoxels": True}
    case = json.loads((tmp_path / "o.json").read_text())["cases"][0]
    assert case["hd95"] == pytest.approx(
        metrics.compute_hausdorff_distance(*masks, percentile=95, **options).item()
    )
    assert case["nsd"] == pytest.approx(metrics.compute_surface_dice(*masks, [1.0], **options).item())


def test_an_existing_file_is_kept_without_force(command, tmp_path: Path) -> None:
    labels = write(tmp_path / "a.nii", volumes()[1])
    (tmp_path / "o.csv").write_text("kept")
    assert command("compare", labels, labels, "--out", tmp_path / "o.csv").exit_code != 0
    assert (tmp_path / "o.csv").read_text() == "kept"
    assert command("compare", labels, labels, "--out", tmp_path / "o.csv", "--force").exit_code == 0
    assert (tmp_path / "o.csv").read_text() != "kept"


def test_refusals_are_one_line(command, tmp_path: Path) -> None:
    labels = volumes()[1]
    one, small = write(tmp_path / "a.nii", labels), write(tmp_path / "b.nii", labels[:-1])
    moved = write(tmp_path / "c.nii", labels, np.diag([0.8, 0.7, 2.0, 1.0]))
    zeros = write(tmp_path / "z.nii", labels * 0)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "full" / "x.nii", labels)
    flat = tmp_path / "flat.npy"
    np.save(flat, labels[0].astype(np.uint8))
    write(tmp_path / "twice" / "x.nii", labels)
    np.savez(tmp_path / "twice" / "x.npz", probabilities=labels)
    for arguments, message in (
        ((one, flat), "must have the shape of"),
        ((flat, one), "must have the shape of"),
        (
            (tmp_path / "twice", tmp_path / "full"),
            "one volume per case, x.nii and x.npz are",
        ),
        ((one, small), "must have the shape of"),
        ((one, moved), "must lie on the grid of"),
        ((one, tmp_path / "full"), "must both be files or both be folders"),
        ((tmp_path / "empty", tmp_path / "full"), "lacks 'x'"),
        ((one, one, "--classes", ","), "--classes: must be a count, or label values"),
        ((one, one, "--classes", "1,1"), "--classes: must not name a label value twice"),
        ((one, one, "--classes", "a"), "--classes: must be a count, or label values"),
        ((one, one, "--classes", "0x1"), "--classes: must be a count, or label values"),
        ((one, one, "--out", tmp_path / "o.txt"), "--out: must end in .csv or .json, got"),
        ((one, one, "--out", one.with_suffix(".json"), "--out", tmp_path / "no" / "o.csv"), "o.csv"),
        ((one, one, "--tolerance", "-1"), "--tolerance"),
        ((one, one, "--tolerance", "inf"), "--tolerance: must be at least 0 and finite, got inf"),
        ((one, one, "--tolerance", "nan"), "--tolerance: must be at least 0 and finite, got nan"),
        ((one, one, "--device", "nowhere"), "nowhere"),
        ((zeros, zeros), "holds no label to compare"),
        ((tmp_path / "full", tmp_path / "empty"), "lacks 'x'"),
        ((tmp_path / "empty", tmp_path / "empty"), "holds no volume"),
        ((one, tmp_path / "absent.nii"), "absent.nii"),
    ):
        done = command("compare", *arguments)
        assert done.exit_code in {1, 2}
        assert message in " ".join(done.stderr.split()), done.stderr
        assert "Traceback" not in done.stderr
