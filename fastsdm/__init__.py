"""Exact signed distance maps on the fly, for training with distance-based losses."""

from fastsdm._backends.registry import BackendStatus, backends, use_backend
from fastsdm._errors import BackendUnavailableError
from fastsdm._instances import instance_distance
from fastsdm._nearest import nearest, nearest_label
from fastsdm._prefetch import prefetch
from fastsdm._sdm import distance_transform, signed_distance

__version__ = "0.1.0"

__all__ = [
    "BackendStatus",
    "BackendUnavailableError",
    "__version__",
    "backends",
    "distance_transform",
    "instance_distance",
    "nearest",
    "nearest_label",
    "prefetch",
    "signed_distance",
    "use_backend",
]
