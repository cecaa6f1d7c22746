"""Names of types that every layer shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch

Convention: TypeAlias = Literal["kervadec", "kervadec-literal", "plain", "midline"]
EmptyPolicy: TypeAlias = Literal["inf", "zero", "max", "raise"]
#: One number, one per axis, or an array-like ``[..., ndim]`` with one row per sample.
SpacingLike: TypeAlias = "float | Sequence[Any] | torch.Tensor | Any"
