"""``fastsdm info`` and ``fastsdm check``: what they show, and that a check cannot pass by falling back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import testing
from fastsdm._backends import registry, scipy_reference
from fastsdm._backends.scipy_reference import BACKEND as SCIPY
from fastsdm._backends.scipy_reference import ScipyBackend
from fastsdm.cli import terminal
from fastsdm.cli.sole_backend import OtherBackendError, sole_backend

SIZE = ("--size", "10")


def flat(text: str) -> str:
    return " ".join(text.split())


def test_info_lists_every_backend_and_why_it_is_unavailable(command) -> None:
    done = command("info")
    assert done.exit_code == 0
    assert f"fastsdm {fastsdm.__version__}" in done.stdout
    assert f"torch {torch.__version__}" in done.stdout
    for name, status in fastsdm.backends().items():
        assert name in done.stdout
        if not status.available:
            assert status.reason.split()[0] in done.stdout
    assert "what backend='auto' takes on cpu" in flat(done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_info_says_when_the_environment_chooses(command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "FASTSDM_BACKEND" not in command("info").stdout
    monkeypatch.setenv("FASTSDM_BACKEND", "scipy")
    assert "FASTSDM_BACKEND=scipy is set" in command("info").stdout


def test_check_passes_and_names_what_it_checked(command) -> None:
    done = command("check", "--backend", "scipy", *SIZE)
    assert done.exit_code == 0
    assert flat(done.stdout).endswith("0 PASS")
    assert "17 exact" in flat(done.stdout)


def test_check_covers_every_available_backend(command) -> None:
    done = command("check", *SIZE)
    rows = [line.split()[0] for line in done.stdout.splitlines() if line.rstrip().endswith("PASS")]
    assert set(rows) == {name for name, status in fastsdm.backends().items() if status.available}
    assert done.exit_code == 0


@pytest.mark.parametrize(("options", "size"), [((), 20), (("--full",), 40), (("--full", *SIZE), 10)])
def test_check_is_quick_unless_asked(command, monkeypatch: pytest.MonkeyPatch, options, size: int) -> None:
    sizes, real = [], testing.hard_cases
    monkeypatch.setattr(testing, "hard_cases", lambda wanted: sizes.append(wanted) or list(real(10))[:1])
    assert command("check", "--backend", "scipy", *options).exit_code == 0
    assert sizes == [size]


def test_check_can_be_read_at_80_columns(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.console, "_width", 80)
    output = command("check", "--cases", *SIZE).stdout
    assert "…" not in output
    assert max(map(len, output.splitlines())) <= 80


def test_check_shows_every_case_when_asked(command) -> None:
    done = command("check", "--backend", "scipy", "--cases", *SIZE)
    assert "shells, 5 classes, one absent" in done.stdout
    assert done.stdout.count("PASS") == 18


def test_check_fails_on_a_wrong_distance(command, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ScipyBackend.signed_distance

    def slightly_off(self, labels, classes, spacing, max_distance):
        maps = right(self, labels, classes, spacing, max_distance)
        maps[..., -1] *= 1.0001
        return maps

    monkeypatch.setattr(ScipyBackend, "signed_distance", slightly_off)
    done = command("check", "--backend", "scipy", *SIZE)
    assert done.exit_code == 1
    assert "FAIL" in done.stdout
    assert "scipy on cpu is wrong on blobs" in done.stdout


class Impostor:
    """Claims to be a backend of its own and lets another do the work."""

    name = "native"
    exact = True
    device_types = ("cpu",)

    def unavailable(self, device: torch.device) -> str | None:
        return None if device.type == "cpu" else "the CPU only"

    def signed_distance(self, labels, classes, spacing, max_distance):
        return SCIPY.signed_distance(labels, classes, spacing, max_distance)


class HushedImpostor(Impostor):
    """Does so only after its own attempt at another's help failed, and says nothing."""

    answers: list[np.ndarray]

    def signed_distance(self, labels, classes, spacing, max_distance):
        try:
            return super().signed_distance(labels, classes, spacing, max_distance)
        except RuntimeError:
            return torch.from_numpy(self.answers.pop(0))


@pytest.fixture
def native_is(monkeypatch: pytest.MonkeyPatch):
    def install(impostor: Impostor) -> None:
        real = registry.get
        monkeypatch.setattr(registry, "get", lambda name: impostor if name == "native" else real(name))

    return install


def test_check_fails_when_another_backend_answers(command, native_is) -> None:
    native_is(Impostor())
    done = command("check", "--backend", "native", *SIZE)
    assert done.exit_code == 1
    assert "'native' was asked for, but 'scipy' was called" in done.stdout
    assert "PASS" not in done.stdout


def test_check_fails_when_another_backends_refusal_is_hushed_up(command, native_is) -> None:
    impostor = HushedImpostor()
    impostor.answers = [
        testing.reference_signed_distance(case.labels, case.classes, case.spacing).astype(np.float32)
        for case in testing.hard_cases(10)
    ]
    native_is(impostor)
    done = command("check", "--backend", "native", *SIZE)
    assert done.exit_code == 1
    assert "'native' was asked for, but scipy was called" in done.stdout


@pytest.mark.parametrize("convention", ["plain", "kervadec"])
def test_a_backend_that_finishes_the_map_itself_is_watched_too(convention) -> None:
    mask = np.eye(5)
    with (
        pytest.raises(OtherBackendError, match="'scipy' was asked for, but 'native' was called"),
        sole_backend("scipy"),
    ):
        fastsdm.signed_distance(mask, spatial_dims=2, convention=convention, backend="native")
    with sole_backend("native"):
        fastsdm.signed_distance(mask, spatial_dims=2, convention=convention, backend="native")


def test_check_fails_when_scipy_is_called_directly(command, native_is) -> None:
    class OwnCopy(Impostor):
        def signed_distance(self, labels, classes, spacing, max_distance):
            maps = [
                [scipy_reference._plain_map(sample == value, row) for value in classes]
                for sample, row in zip(labels.numpy(), spacing.tolist(), strict=True)
            ]
            shape = (labels.shape[0], len(classes), *labels.shape[1:])
            return torch.from_numpy(
                np.array([[np.broadcast_to(m, shape[2:]) for m in row] for row in maps], np.float32)
            )

    native_is(OwnCopy())
    done = command("check", "--backend", "native", *SIZE)
    assert done.exit_code == 1
    assert "scipy.ndimage.distance_transform_edt was called" in done.stdout


def test_check_fails_when_the_selection_swaps_the_backend(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "select", lambda backend, device: SCIPY)
    done = command("check", "--backend", "torch", *SIZE)
    assert done.exit_code == 1
    assert "'torch' was asked for, but 'scipy' was called" in done.stdout


def test_check_fails_when_nobody_is_called(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastsdm, "signed_distance", lambda labels, **_: torch.zeros(1))
    done = command("check", "--backend", "scipy", *SIZE)
    assert done.exit_code == 1
    assert "'scipy' was asked for, but it was not called" in done.stdout


def test_check_reports_a_backend_that_breaks_and_goes_on(command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self, labels, classes, spacing, max_distance):
        raise RuntimeError("out of [memory]")

    monkeypatch.setattr(ScipyBackend, "signed_distance", broken)
    done = command("check", "--backend", "scipy", *SIZE)
    assert done.exit_code == 1
    assert "scipy on cpu failed on full: out of [memory]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "nonsense"), "backend: must be 'auto' or one of"),
        (("--backend", "cucim"), "backend 'cucim' is unavailable: "),
        (("--device", "nonsense"), "--device: nonsense cannot be used here"),
        (("--device", "meta"), "--device: meta cannot be used here"),
        (("--backend", "cupy", "--device", "cpu"), "backend 'cupy' is unavailable on cpu: "),
    ],
)
def test_check_refuses_in_one_line(command, arguments, message: str) -> None:
    if arguments == ("--backend", "cucim") and fastsdm.backends()["cucim"].available:
        pytest.skip("cucim is available here")
    done = command("check", *arguments, *SIZE)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_check_never_passes_without_having_checked(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastsdm, "backends", dict)
    done = command("check", *SIZE)
    assert done.exit_code == 2
    assert "no backend can run" in done.stderr


def test_info_says_what_auto_takes_on_devices_that_are_not_here(command) -> None:
    output = " ".join(command("info").stdout.split())
    assert "cuda: triton, cucim, cupy, torch; cpu: native, scipy; elsewhere: torch" in output
