"""Exceptions of the package."""

from __future__ import annotations


class BackendUnavailableError(RuntimeError):
    """A named backend cannot run; the message gives the reason and the fix."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"backend '{name}' is unavailable: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[BackendUnavailableError], tuple[str, str]]:
        """Rebuild from both arguments, so that the error crosses process boundaries."""
        return type(self), (self.name, self.reason)


_LONGEST_SHOWN = 200


def shown(value: object) -> str:
    """The value in one line of a message: an array is described, and what is long is cut."""
    shape = getattr(value, "shape", ())
    if isinstance(shape, tuple) and len(shape):
        return f"{type(value).__name__} of shape {tuple(shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
