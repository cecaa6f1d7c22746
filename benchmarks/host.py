"""`python -m benchmarks.host`: what a call costs the host; see `benchmarks.studies.host`."""

import typer

from benchmarks.studies.host import main

if __name__ == "__main__":
    typer.run(main)
