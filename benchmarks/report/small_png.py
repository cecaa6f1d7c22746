"""Figures that are light enough to live in a repository."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any


def save_small_png(figure: Any, path: Path, *, dpi: int = 90) -> None:
    """Save a matplotlib figure as a PNG with a palette of 256 colours, a third of its size otherwise."""
    from PIL import Image  # noqa: PLC0415  # comes with matplotlib, needed for figures only

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
