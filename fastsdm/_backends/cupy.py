"""CuPy's own transform (``cupyx.scipy.ndimage``), a sibling of cuCIM's."""

from __future__ import annotations

from fastsdm._backends.cupy_bridge import CupyBackend

BACKEND = CupyBackend("cupy", "cupyx.scipy.ndimage", "cupy-cuda{cuda}x")
