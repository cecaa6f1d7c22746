"""What a computation needs in memory against what this machine has, before anything is allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastsdm._files.errors import FileError

_MEMINFO = Path("/proc/meminfo")
_CONTROL_GROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def require_memory(path: Path, shape: Sequence[int], needs: Mapping[str, int]) -> None:
    """Raise before an allocation that cannot succeed.

    Args:
        path: the file that the volume comes from.
        shape: of the volume, for the message.
        needs: bytes by what they are for.

    Raises:
        FileError: together they exceed the memory that is free; the message names each.
    """
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
