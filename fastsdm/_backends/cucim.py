"""cuCIM's transform (``cucim.core.operations.morphology``, PBA+), in float32."""

from __future__ import annotations

from fastsdm._backends.cupy_bridge import CupyBackend

BACKEND = CupyBackend("cucim", "cucim.core.operations.morphology", "cucim-cu{cuda}")
