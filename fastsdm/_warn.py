"""Warnings that point at the line which called fastsdm."""

from __future__ import annotations

import sys
import threading
import warnings

import torch

#: Packages whose frames lie between a caller and a warning: torch calls modules, operators and data sets.
_PASSED_THROUGH = frozenset({"fastsdm", "torch"})
_kept = threading.local()


def warn_caller(message: str) -> None:
    """Warn at the innermost line outside of this package and torch, or keep it (:func:`keep_for_later`).

    Does nothing while torch.compile traces, where a warning would break the graph.
    """
    if torch.compiler.is_compiling():
        return
    messages: list[str] | None = getattr(_kept, "messages", None)
    if messages is not None:
        messages.append(message)
        return
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _package(frame.f_globals) in _PASSED_THROUGH:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def keep_for_later(messages: list[str] | None) -> None:
    """Append this thread's warnings to a list; None ends that. A worker thread has no caller to name."""
    _kept.messages = messages


def _package(names: dict[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
