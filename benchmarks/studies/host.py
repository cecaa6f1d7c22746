"""What a call costs the host, apart from the kernels: `python -m benchmarks.host`.

Every row is the median over rounds of the mean of many calls, in microseconds. The Triton rows run the real
path on the CPU with the launches replaced by nothing. With `--beside DIR` a build of another commit is timed
in alternation, each in a process of its own:

    git worktree add ../old COMMIT && pip install --no-deps --target ../old-build ../old
    python -m benchmarks.host --beside ../old-build
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.report.markdown import table

#: Run in a process of its own, so that it can import another build; names of modules are those of either.
_PROBE = """
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
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(20):
            call()
        count += 20
    return (time.perf_counter() - begun) / count * 1e6

launcher = named("fastsdm._backends.triton_launcher", "fastsdm.backends._triton")
registry = named("fastsdm._backends.registry", "fastsdm.registry")
launch = launcher._launch
small, cpu = torch.zeros(4, 4, 4, dtype=torch.uint8), torch.device("cpu")
small[1:3, 1:3, 1:3] = 1
batch = torch.zeros(2, 32, 32, 32, dtype=torch.uint8)
rows = {
    "native, 4 x 4 x 4": lambda: fastsdm.signed_distance(small),
    "native, spacing of three numbers": lambda: fastsdm.signed_distance(small, spacing=(3.0, 0.8, 0.8)),
    "native, prefetched and awaited": lambda: fastsdm.prefetch(small).result(),
    "selecting a backend": lambda: registry.select("auto", cpu),
}
result = {name: microseconds(call) for name, call in rows.items()}
launcher._launch = lambda *arguments, **options: None
triton = {
    "triton without launches, plain": {"convention": "plain"},
    "triton without launches, kervadec, zero": {"empty": "zero"},
    "triton without launches, 3 classes, zero, limit": {"classes": 3, "empty": "zero", "max_distance": 20.0},
}
for name, options in triton.items():
    result[name] = microseconds(lambda: fastsdm.signed_distance(batch, backend="triton", **options))
if torch.cuda.is_available():
    launcher._launch = launch
    batch, one = batch.cuda(), torch.zeros(1, device="cuda")
    result["CUDA: an empty torch kernel"] = microseconds(lambda: one.add_(0))
    result["CUDA: a default call"] = microseconds(lambda: fastsdm.signed_distance(batch))
    result["CUDA: prefetched"] = microseconds(lambda: fastsdm.prefetch(batch).result())
print(json.dumps(result))
"""


def _probe(build: Path | None) -> dict[str, float]:
    environment = dict(os.environ)
    environment.pop("FASTSDM_BACKEND", None)
    command = [sys.executable, "-c", _PROBE]
    # The path without launches is reached on the CPU where the kernels are to be interpreted.
    environment["TRITON_INTERPRET"] = "1"
    if build is not None:  # without site an editable install of this tree stays out of the way
        command.insert(1, "-S")
        environment["PYTHONPATH"] = os.pathsep.join((str(build.resolve()), sysconfig.get_path("purelib")))
    # Elsewhere, or the sources in the current folder would be imported instead of the build.
    done = subprocess.run(
        command, env=environment, cwd=sys.prefix, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{build or 'this tree'}: {done.stderr.strip().splitlines()[-1]}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main(
    beside: Annotated[
        Path | None, typer.Option(help="Folder that a build of another commit was put in.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Processes for each build.")] = 5,
) -> None:
    """Print the host's cost of a call, step by step."""
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for _ in range(rounds):
        ours.append(_probe(None))
        if beside is not None:
            theirs.append(_probe(beside))
    rows = []
    for name in ours[0]:
        here = statistics.median(measured[name] for measured in ours)
        row = [name, f"{here:.1f}"]
        if theirs:
            there = statistics.median(measured[name] for measured in theirs)
            row += [f"{there:.1f}", f"{there / here:.1f}x"]
        rows.append(row)
    print(table(["step", "us", *(["us, other build", "ratio"] if theirs else [])], rows))


if __name__ == "__main__":
    typer.run(main)
