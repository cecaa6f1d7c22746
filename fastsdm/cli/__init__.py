"""The command ``fastsdm``; its packages are optional, so they are imported when it runs."""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = ("typer", "rich", "nibabel", "matplotlib", "PIL")


def main() -> None:
    """Run the command; a missing optional package is answered with one line and the install command."""
    try:
        from fastsdm.cli.app import app  # noqa: PLC0415  # needs the optional packages

        app()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        sys.exit(
            f"fastsdm: this command needs the package {package}, which is not installed; "
            "install it, in a checkout of fastsdm, with: pip install '.[cli]'"
        )
