"""Names of the backends, which of them are available, and how one is selected."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from fastsdm._backends.contract import Backend
from fastsdm._errors import BackendUnavailableError
from fastsdm._warn import warn_caller

_MODULES = {
    "triton": "fastsdm._backends.triton_launcher",
    "cucim": "fastsdm._backends.cucim",
    "cupy": "fastsdm._backends.cupy",
    "torch": "fastsdm._backends.separable",
    "jump-flooding": "fastsdm._backends.jump_flooding",
    "native": "fastsdm._backends.native",
    "scipy": "fastsdm._backends.scipy_reference",
}
#: Names that ``auto`` tries, in this order, by device type of the tensor.
AUTO_ORDER: dict[str, tuple[str, ...]] = {
    "cuda": ("triton", "cucim", "cupy", "torch"),
    "cpu": ("native", "scipy"),
}
_AUTO_ORDER_ELSEWHERE = ("torch",)
_ENVIRONMENT_VARIABLE = "FASTSDM_BACKEND"

#: Backends found available, by choice and device (and kind). Unavailable ones are asked again.
found: dict[tuple[object, ...], Backend] = {}
_selected: ContextVar[str | None] = ContextVar("fastsdm_backend", default=None)


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend could run here.

    Attributes:
        name: what to pass as ``backend=``.
        exact: distances are exact up to float32 rounding.
        devices: types of this machine's devices on which it runs.
        reason: why it runs on none of them, and the fix; None if it runs.
        automatic_on: types of this machine's devices on which ``backend="auto"`` selects it.
        instruction_set: vector instructions of the CPU that it uses, such as "avx512"; None if it does not
            choose any.
    """

    name: str
    exact: bool
    devices: tuple[str, ...]
    reason: str | None
    automatic_on: tuple[str, ...] = ()
    instruction_set: str | None = None

    @property
    def available(self) -> bool:
        """Whether it runs on a device of this machine."""
        return bool(self.devices)

    def __str__(self) -> str:
        where = f"on {', '.join(self.devices)}" if self.devices else f"unavailable: {self.reason}"
        return f"{self.name}: {where}"


def backends() -> dict[str, BackendStatus]:
    """Return every backend by name: where it runs on this machine, or why it cannot and the fix.

    Also renews the choice of ``backend="auto"``, so that it finds packages installed since the first map.
    """
    found.clear()
    present = _devices_present()
    automatic = {device.type: _automatic(device) for device in present}
    return {name: _status(get(name), present, automatic) for name in _MODULES}


def get(name: str) -> Backend:
    """Return the backend of that name, available or not.

    Raises:
        ValueError: unknown name.
    """
    if name not in _MODULES:
        raise ValueError(f"backend: must be 'auto' or one of {', '.join(map(repr, _MODULES))}; got {name!r}")
    backend: Backend = importlib.import_module(_MODULES[name]).BACKEND
    return backend


def names() -> tuple[str, ...]:
    """Return the names of all backends."""
    return tuple(_MODULES)


def auto_order(device: torch.device) -> tuple[str, ...]:
    """Return the names that ``auto`` tries for a tensor on ``device``, in this order."""
    return AUTO_ORDER.get(device.type, _AUTO_ORDER_ELSEWHERE)


def current_choice(backend: str) -> str:
    """Return the name that counts: an explicit one, else ``use_backend``'s, the environment's or 'auto'."""
    if backend != "auto":
        return backend
    return _selected.get() or os.environ.get(_ENVIRONMENT_VARIABLE) or "auto"


def select(backend: str, device: torch.device) -> Backend:
    """Return the backend that will work on ``device``.

    Raises:
        ValueError: unknown name.
        BackendUnavailableError: the named backend cannot run, or ``auto`` finds none that can.
    """
    name = current_choice(backend)
    chosen = found.get((name, device))
    if chosen is None:
        chosen = found[name, device] = _available(name, device)
    return chosen


def _available(name: str, device: torch.device) -> Backend:
    if name != "auto":
        chosen = get(name)
        reason = chosen.unavailable(device)
        if reason is not None:
            raise BackendUnavailableError(name, reason)
        return chosen
    first, reasons = first_available(map(get, auto_order(device)), device)
    if first is None:
        raise BackendUnavailableError("auto", f"nothing runs on {device} ({'; '.join(reasons)})")
    return first


def first_available(candidates: Iterable[Backend], device: torch.device) -> tuple[Backend | None, list[str]]:
    """Return the first candidate that can run on ``device``, and why those before it cannot."""
    reasons: list[str] = []
    for candidate in candidates:
        reason = candidate.unavailable(device)
        if reason is None:
            if candidate.name == "scipy":
                _warn_slow(reasons)
            return candidate, reasons
        reasons.append(f"{candidate.name}: {reason}")
    return None, reasons


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Make ``name`` the backend of every call in the block that does not name one itself.

    The choice holds for the current thread (or asynchronous task) and has precedence over the environment
    variable ``FASTSDM_BACKEND``. ``"auto"`` restores the automatic choice.

    Raises:
        ValueError: unknown name.
    """
    if name != "auto":
        get(name)
    token = _selected.set(name)
    try:
        yield
    finally:
        _selected.reset(token)


def _status(
    backend: Backend, present: Sequence[torch.device], automatic: Mapping[str, str | None]
) -> BackendStatus:
    usable = tuple(device.type for device in present if backend.unavailable(device) is None)
    home = torch.device((backend.device_types or ("cpu",))[0])
    return BackendStatus(
        name=backend.name,
        exact=backend.exact,
        devices=usable,
        reason=None if usable else backend.unavailable(home),
        automatic_on=tuple(device_type for device_type, name in automatic.items() if name == backend.name),
        instruction_set=getattr(backend, "instruction_set", None) if usable else None,
    )


def _automatic(device: torch.device) -> str | None:
    return next((name for name in auto_order(device) if get(name).unavailable(device) is None), None)


def _devices_present() -> list[torch.device]:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return [torch.device("cpu"), *([accelerator] if accelerator is not None else [])]


_warned: set[str] = set()


def _warn_slow(reasons: Sequence[str]) -> None:
    """Warn once that scipy, hundreds of times slower, replaces the kernel that was not built."""
    if "scipy" in _warned:
        return
    _warned.add("scipy")
    warn_caller(
        f"backend 'scipy' is used on the CPU, which takes seconds a volume ({'; '.join(reasons)}); name "
        "backend='scipy' to take it without this warning"
    )
