"""``fastsdm info``: what is installed, which devices there are, which backend runs where and why not."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch
from rich import box
from rich.markup import escape
from rich.table import Table

import fastsdm
from fastsdm._backends import registry
from fastsdm.cli.terminal import console

_PACKAGES = ("torch", "numpy", "scipy", "triton", "cupy", "cucim", "monai", "nibabel", "nilearn")
#: Wheels whose name carries the CUDA version.
_WHEELS = {"cupy": ("cupy-cuda12x", "cupy-cuda13x"), "cucim": ("cucim-cu12", "cucim-cu13")}


def info() -> None:
    """Show versions, devices, and every backend with why it is or is not available."""
    console.print(
        f"[bold]fastsdm {fastsdm.__version__}[/], Python {platform.python_version()}, {platform.platform()}"
    )
    console.print(", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    console.print()
    for line in _devices():
        console.print(line)
    console.print()
    console.print(_backend_table())
    orders = [f"{device_type}: {', '.join(names)}" for device_type, names in registry.AUTO_ORDER.items()]
    elsewhere = ", ".join(registry.auto_order(torch.device("meta")))
    console.print(f"backend='auto' takes the first that runs; {'; '.join(orders)}; elsewhere: {elsewhere}")
    forced = registry.current_choice("auto")
    if forced != "auto":
        console.print(f"FASTSDM_BACKEND={escape(forced)} is set: backend='auto' means that one.")


def _version(package: str) -> str:
    for name in (package, *_WHEELS.get(package, ())):
        for distribution in metadata.distributions(name=name):
            return distribution.version
    return "not installed"


def _devices() -> list[str]:
    vectors = torch.backends.cpu.get_cpu_capability()
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} logical processors"
    lines = [f"cpu: {platform.processor() or platform.machine()}, {vectors}, {threads}"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(f"cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    return lines


def _backend_table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("backend", style="bold", no_wrap=True)
    table.add_column("exact")
    table.add_column("runs on", no_wrap=True)
    table.add_column("note")
    for name, status in fastsdm.backends().items():
        table.add_row(
            name,
            "yes" if status.exact else "no",
            f"[green]{', '.join(status.devices)}[/]" if status.available else "[yellow]unavailable[/]",
            escape(_note(status)),
        )
    return table


def _note(status: fastsdm.BackendStatus) -> str:
    if status.reason:
        return status.reason
    notes = [f"what backend='auto' takes on {', '.join(status.automatic_on)}"] if status.automatic_on else []
    return "; ".join([*notes, *([status.instruction_set] if status.instruction_set else [])])
