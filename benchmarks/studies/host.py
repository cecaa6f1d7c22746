"""Microseconds that a call takes the host, apart from the kernels: the table of docs/performance.md.

python -m benchmarks.host [--rounds 5] [--beside BUILD]

A time is the 20th percentile of many blocks of 20 calls, then the median over rounds. The Triton rows run the
real path on the CPU with the launches replaced by nothing. Rows with a dash are parts of the first row.
With `--beside` a build of another commit is timed in alternation, each in a process of its own:

    git worktree add ../old COMMIT && pip install --no-deps --target ../old-build ../old
    python -m benchmarks.host --beside ../old-build
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.report.markdown import table

#: Runs in a process of its own, so that it can import another build; names of modules are those of either.
_COMMON = '''
import importlib, json, sys, time, torch, fastsdm
torch.set_num_threads(1)

def named(*names):
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            pass
    raise SystemExit(f"none of {names} is there")

def microseconds(call, seconds=0.25):
    call(), call()
    begun, blocks = time.perf_counter(), []
    while time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        for _ in range(20):
            call()
        blocks.append((time.perf_counter() - before) / 20)
    return quick(blocks)

def quick(times):
    """The 20th percentile: what else the machine does makes a call slower, never quicker."""
    return sorted(times)[len(times) // 5] * 1e6
'''
_PROBE = '''
launcher = named("fastsdm._backends.triton_launcher", "fastsdm.backends._triton")
registry = named("fastsdm._backends.registry", "fastsdm.registry")
small, cpu = torch.zeros(4, 4, 4, dtype=torch.uint8), torch.device("cpu")
small[1:3, 1:3, 1:3] = 1
batch = torch.zeros(2, 32, 32, 32, dtype=torch.uint8)
def microseconds_when_done(seconds=0.25):
    """Of the two calls of a prefetch whose map was made in the meantime."""
    begun, times = time.perf_counter(), []
    while time.perf_counter() - begun < seconds:
        before = time.perf_counter()
        pending = fastsdm.prefetch(small)
        begun_in = time.perf_counter() - before
        time.sleep(2e-4)
        before = time.perf_counter()
        pending.result()
        times.append(begun_in + time.perf_counter() - before)
    return quick(times)

result = {
    "native, 4 x 4 x 4": microseconds(lambda: fastsdm.signed_distance(small)),
    "native, spacing of three numbers": microseconds(
        lambda: fastsdm.signed_distance(small, spacing=(3.0, 0.8, 0.8))
    ),
    "native, prefetched, asked for at once": microseconds(lambda: fastsdm.prefetch(small).result()),
    "native, prefetched, asked for when done": microseconds_when_done(),
    "selecting a backend": microseconds(lambda: registry.select("auto", cpu)),
}

def steps():
    """What the first row is made of: parts replaced by nothing, and the differences."""
    from fastsdm import _conventions, _operator, _sdm
    from fastsdm._backends import _native_ext
    from fastsdm._backends.native import BACKEND as native

    arguments = (small[None], None, [1.0] * 3, None, "kervadec", "inf", None, torch.float32, "auto")
    maps, operator = torch.zeros(1, 1, 4, 4, 4), _operator.signed_distance_operator
    finish = _conventions.finish("kervadec", "inf", ((1.0,) * 3,), (4, 4, 4), None)
    asked = (small[None], [None], ((1.0,) * 3,), None, finish, (0, 0, 0), (4, 4, 4), torch.float32)
    _sdm.signed_distance_operator = lambda *ignored: maps
    checks = microseconds(lambda: fastsdm.signed_distance(small))
    _sdm.signed_distance_operator = operator
    backend = microseconds(lambda: native.finished_region(*asked))
    extension, _native_ext.signed_distance = _native_ext.signed_distance, lambda *a, **k: None
    python = microseconds(lambda: native.finished_region(*asked))
    _native_ext.signed_distance = extension
    made, type(native).finished_region = type(native).finished_region, lambda self, *ignored: maps
    dispatched = microseconds(lambda: operator(*arguments))
    called = microseconds(lambda: _operator._signed_distance(*arguments))
    type(native).finished_region = made
    looked_up = result["selecting a backend"]
    return {
        "- arrays, checks, shapes": checks,
        "- torch's dispatch of the operator": dispatched - called,
        "- looking the backend up": looked_up,
        "- the operator's own: spacing, limit, finish": called - looked_up,
        "- the backend's Python: its result, its arguments": python,
        "- the kernel": backend - python,
    }

if "steps" in sys.argv:
    whole, *others = list(result.items())
    result = dict([whole, *steps().items(), *others])
launcher._launch = lambda *arguments, **options: None
triton = {
    "triton without launches, plain": {"convention": "plain"},
    "triton without launches, kervadec, zero": {"empty": "zero"},
    "triton without launches, 3 classes, zero, limit": {"classes": 3, "empty": "zero", "max_distance": 20.0},
}
for name, options in triton.items():
    result[name] = microseconds(lambda: fastsdm.signed_distance(batch, backend="triton", **options))
print(json.dumps(result))
'''
#: In another process: kernels are either interpreted, as the rows without launches need, or run on the GPU.
_CUDA_PROBE = """
batch = torch.zeros(2, 32, 32, 32, dtype=torch.uint8, device="cuda")
one = torch.zeros(1, device="cuda")
calls = {
    "CUDA: an empty torch kernel": lambda: one.add_(0),
    "CUDA: triton": lambda: fastsdm.signed_distance(batch, backend="triton"),
    "CUDA: triton, empty='zero'": lambda: fastsdm.signed_distance(batch, empty="zero", backend="triton"),
    "CUDA: triton, prefetched": lambda: fastsdm.prefetch(batch, backend="triton").result(),
}
print(json.dumps({name: microseconds(call) for name, call in calls.items()}))
"""
_CUDA_ROWS = re.findall(r'"(CUDA: [^"]+)"', _CUDA_PROBE)


def _probe(build: Path | None) -> dict[str, float | None]:
    steps = ["steps"] if build is None else []
    measured = _measured(build, _PROBE, *steps, TRITON_INTERPRET="1")
    on_cuda = _measured(build, _CUDA_PROBE) if torch.cuda.is_available() else dict.fromkeys(_CUDA_ROWS)
    return {**measured, **on_cuda}


def _measured(build: Path | None, probe: str, *arguments: str, **variables: str) -> dict[str, float | None]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("FASTSDM_BACKEND", "TRITON_INTERPRET")}
    environment = {**inherited, **variables}
    command = [sys.executable, "-c", _COMMON + probe, *arguments]
    if build is not None:  # without site an editable install of this tree stays out of the way
        command.insert(1, "-S")
        environment["PYTHONPATH"] = os.pathsep.join((str(build.resolve()), sysconfig.get_path("purelib")))
    # Elsewhere, or the sources in the current folder would be imported instead of the build.
    done = subprocess.run(
        command, env=environment, cwd=sys.prefix, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{build or 'this tree'}: {done.stderr.strip().splitlines()[-1]}")
    measured: dict[str, float | None] = json.loads(done.stdout)
    return measured


def _median(name: str, rounds: Sequence[dict[str, float | None]]) -> float | None:
    times = [time for measured in rounds if (time := measured.get(name)) is not None]
    return statistics.median(times) if times else None


def main(
    beside: Annotated[Path | None, typer.Option(help="Folder of a build of another commit.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Processes for each build.")] = 5,
) -> None:
    """Print the host's cost of a call, step by step."""
    ours: list[dict[str, float | None]] = []
    theirs: list[dict[str, float | None]] = []
    for _ in range(rounds):
        ours.append(_probe(None))
        if beside is not None:
            theirs.append(_probe(beside))
    rows = []
    for name in ours[0]:
        here, there = _median(name, ours), _median(name, theirs)
        row = [name, "skipped: no CUDA device" if here is None else f"{here:.1f}"]
        if theirs:
            ratio = f"{there / here:.1f}x" if here and there else ""
            row += ["" if there is None else f"{there:.1f}", ratio]
        rows.append(row)
    print(table(["step", "us", *(["us, other build", "ratio"] if theirs else [])], rows))
