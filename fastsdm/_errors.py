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
