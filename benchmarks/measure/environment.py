"""What a result was measured with: processor, devices, versions, commit. No host names, no paths."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

import fastsdm

_PACKAGES = (
    "fastsdm", "torch", "numpy", "scipy", "edt", "SimpleITK", "diplib", "monai", "triton",
    "cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cucim", "cucim-cu12", "cucim-cu13",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Environment:
    """The environment block of a result."""

    machine: str
    processor: str
    cores: int
    threads: int
    memory_gib: float
    simd: str
    system: str
    device: str
    device_driver: str
    python: str
    packages: dict[str, str]
    commit: str
    date: str

    @property
    def where(self) -> str:
        """Machine and what of it a run used, in a few words."""
        used = f"{self.threads} threads, {self.simd}" if self.device == "none" else self.device_driver
        return f"{self.machine}, {used}"

    @property
    def slug(self) -> str:
        """The machine as a file name."""
        return re.sub(r"[^a-z0-9]+", "-", self.machine.lower()).strip("-")


def environment(device: torch.device, threads: int) -> Environment:
    """Describe this machine as seen by a run on `device`."""
    processor, cores = _processor(), _cores()
    on_cuda = device.type == "cuda"
    device_name = torch.cuda.get_device_name(device) if on_cuda else "none"
    return Environment(
        machine=device_name if on_cuda else f"{processor}, {cores} cores",
        processor=processor,
        cores=cores,
        threads=threads,
        memory_gib=_memory_gib(),
        simd=_simd(),
        system=f"{platform.system()} {platform.machine()}",
        device=device_name,
        device_driver=_driver() if on_cuda else "none",
        python=platform.python_version(),
        packages=_versions(),
        commit=_commit(),
        date=datetime.now(timezone.utc).date().isoformat(),
    )


def _driver() -> str:
    return f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"


def _cores() -> int:
    """Physical cores where Linux lists them, else logical ones."""
    listed = re.findall(
        r"^physical id\s*: (\d+)$.*?^core id\s*: (\d+)$", _cpuinfo(), re.MULTILINE | re.DOTALL
    )
    return len(set(listed)) or os.cpu_count() or 1


def _memory_gib() -> float:
    """Memory of the machine; 0 on systems without `sysconf`."""
    if not hasattr(os, "sysconf"):
        return 0.0
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _cpuinfo() -> str:
    listing = Path("/proc/cpuinfo")
    return listing.read_text() if listing.exists() else ""


def _processor() -> str:
    if listing := _cpuinfo():
        found = re.search(r"^model name\s*:\s*(.+)$", listing, re.MULTILINE)
        if found:
            return re.sub(r"\((R|TM)\)|\bCPU\b|\s@.*|\d+-Core Processor", "", found.group(1)).strip()
    return platform.processor() or platform.machine()


def _simd() -> str:
    return fastsdm.backends()["native"].instruction_set or "native backend not built"


def _versions() -> dict[str, str]:
    installed = {found.name.lower(): found.version for found in metadata.distributions() if found.name}
    return {package: installed[package.lower()] for package in _PACKAGES if package.lower() in installed}


def _commit() -> str:
    """Short hash, with a mark where fastsdm or benchmarks differ from it; "unknown" outside a clone."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "fastsdm", "benchmarks", ":!benchmarks/results")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with changes" if changed else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
