"""``fastsdm precompute``: what it prints and how it ends; what it stores is tested in tests/data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fastsdm
from fastsdm import testing


def test_maps_are_made_once(command, tmp_path: Path) -> None:
    labels = testing.blobs((9, 10, 11), sigma=2)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", labels)
    arguments = (
        "precompute",
        tmp_path / "in",
        "--out",
        tmp_path / "out",
        "--classes",
        "2",
        "--spacing",
        "2,1,1",
    )
    done = command(*arguments, "--max-distance", "4", "--dtype", "float16")
    assert done.exit_code == 0, done.stderr
    assert "1 maps made, 0 already there, 0 failed" in " ".join(done.stdout.split())
    stored = np.load(tmp_path / "out" / "a.npy")
    expected = fastsdm.signed_distance(labels, classes=2, spacing=(2, 1, 1), max_distance=4, dtype="float16")
    assert np.array_equal(stored, expected)
    again = command(*arguments, "--max-distance", "4", "--dtype", "float16")
    assert "0 maps made, 1 already there, 0 failed" in " ".join(again.stdout.split())
    other = command(*arguments, "--max-distance", "5", "--dtype", "float16")
    assert other.exit_code == 1
    assert "max_distance: 4.0, not 5.0" in " ".join(other.stderr.split())


def test_a_broken_file_is_named_and_the_exit_code_says_so(command, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", testing.blobs((9, 10, 11), sigma=2))
    (tmp_path / "b.npy").write_bytes(b"no array")
    done = command("precompute", tmp_path / "a.npy", tmp_path / "b.npy", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert f"{tmp_path / 'b.npy'}:" in "".join(done.stderr.splitlines())
    assert (tmp_path / "out" / "a.npy").exists()


def test_wrong_usage_names_the_option(command, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", testing.blobs((9, 10, 11), sigma=2))
    for option, value, message in (
        ("--format", "png", "--format: must be one of '.nii', "),
        ("--out", tmp_path / "a.npy", f"--out: must be a folder, or a new one; {tmp_path / 'a.npy'} is not"),
        ("--scheduler", "nonsense", "--scheduler: must be the address of one, got 'nonsense'"),
        ("--empty", "raise", "--empty: must be one of"),
    ):
        done = command("precompute", tmp_path / "a.npy", "--out", tmp_path / "out", option, value)
        assert done.exit_code == 2, done.stderr
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
