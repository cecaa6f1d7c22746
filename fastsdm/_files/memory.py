"""What a computation needs in memory against what this machine has, before anything is allocated."""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fastsdm._files.errors import FileError

_MEMINFO = Path("/proc/meminfo")
_LIBRARIES = 400 << 20
_M_MMAP_THRESHOLD = -3  # of <malloc.h>
_CONTROL_GROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def require_memory(path: Path, shape: Sequence[int], needs: Mapping[str, int]) -> None:
    """Raise FileError where ``needs``, in bytes by purpose, exceed the memory that is free."""
    free, total = available_memory(), sum(needs.values())
    if free is None or total <= free:
        return
    parts = ", ".join(f"{what} {size(count)}" for what, count in needs.items())
    raise FileError(
        f"{path}: {' x '.join(map(str, shape))} voxels need at least {size(total)} of memory ({parts}); "
        f"{size(free)} is free"
    )


def available_memory() -> int | None:
    """Bytes that can still be allocated, swap included; None where the system does not say."""
    limits = [limit for limit in (_control_group_limit(), _system_rest()) if limit is not None]
    return min(limits, default=None)


def resident_memory() -> int:
    """Bytes that this process holds; a guess of what its libraries need where the system does not say."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.is_file() else _LIBRARIES


def give_back_freed_memory() -> None:
    """Have the C library return large blocks to the system as soon as they are freed.

    By default glibc keeps blocks of up to 32 MiB for later, many times over with several threads. Where the C
    library is another one, nothing happens.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def byte_count(text: str) -> int:
    """The number of bytes that a text such as ``4GiB``, ``500 MB`` or ``1e9`` stands for, or ValueError."""
    found = re.fullmatch(r"\s*([0-9.eE+]+)\s*(?:([kmgt])(i?)b?|b)?\s*", text, re.IGNORECASE)
    try:
        count = float(found[1]) if found else 0.0
    except ValueError:
        count = 0.0
    if not found or not 1 <= count < math.inf:
        raise ValueError(f"must be a size such as '4GiB' or '500MB', got {text!r}")
    power = " kmgt".index(found[2].lower()) if found[2] else 0
    return int(count * (1024 if found[3] else 1000) ** power)


def size(count: float) -> str:
    """A number of bytes for people."""
    power = 0 if count < 1024 else min(int(math.log2(count) / 10), 5)
    return f"{count / 1024**power:.3g} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[power]}"


def _system_rest() -> int | None:
    if _MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
        held = [lines.get(name) for name in ("MemAvailable", "SwapFree")]
        if held[0] is not None:
            return sum(int(text.split()[0]) * 1024 for text in held if text is not None)
    try:  # elsewhere all of it, so that only what is hopeless is refused
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _control_group_limit() -> int | None:
    """The container's whole limit: its usage counts cached files, which give way."""
    texts = (limit.read_text().strip() for limit in _CONTROL_GROUP_LIMITS if limit.is_file())
    return next((int(text) for text in texts if text != "max"), None)
