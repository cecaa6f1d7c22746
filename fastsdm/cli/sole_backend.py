"""Fail unless the named backend, and no other, computed the map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn
from unittest import mock

import torch
from scipy import ndimage

import fastsdm
from fastsdm._backends import registry

#: Methods that compute a map (``fastsdm._backends.contract``).
_ENTRIES = ("signed_distance", "finished_region")


class OtherBackendError(RuntimeError):
    """Another backend than the one under test computed the map, or none did."""


@contextmanager
def sole_backend(name: str) -> Iterator[None]:
    """Let only the backend ``name`` work inside the block; others, and scipy's own transform, raise.

    Raises:
        OtherBackendError: another one was called, even if its error was caught, or ``name`` was not called.
    """
    called: list[str] = []
    with ExitStack() as stack:
        for backend_type in {type(registry.get(other)) for other in fastsdm.backends()}:
            for entry in _ENTRIES:
                if hasattr(backend_type, entry):
                    watched = _watched(getattr(backend_type, entry), name, called)
                    stack.enter_context(mock.patch.object(backend_type, entry, watched))
        if name != "scipy":
            barred = _barred_function("scipy.ndimage.distance_transform_edt", name, called)
            stack.enter_context(mock.patch.object(ndimage, "distance_transform_edt", barred))
        yield
    others = sorted(set(called) - {name})
    if others:
        raise OtherBackendError(f"'{name}' was asked for, but {', '.join(others)} was called")
    if not called:
        raise OtherBackendError(f"'{name}' was asked for, but it was not called")


def _watched(
    method: Callable[..., torch.Tensor], name: str, called: list[str]
) -> Callable[..., torch.Tensor]:
    def watched(self: Any, *arguments: Any, **keywords: Any) -> torch.Tensor:
        called.append(self.name)
        if self.name != name:
            raise OtherBackendError(f"'{name}' was asked for, but '{self.name}' was called")
        return method(self, *arguments, **keywords)

    return watched


def _barred_function(label: str, name: str, called: list[str]) -> Callable[..., NoReturn]:
    def barred(*_: Any, **__: Any) -> NoReturn:
        called.append(label)
        raise OtherBackendError(f"'{name}' was asked for, but {label} was called")

    return barred
