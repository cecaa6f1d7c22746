"""Names, types and defaults of the keywords that all losses share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias, TypedDict

import torch

from fastsdm._types import Convention, EmptyPolicy, SpacingLike

Activation: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Normalization: TypeAlias = Literal["max", "unit"]
#: One weight per class, or one row per sample, ``[B, K]``.
ClassWeights: TypeAlias = "Sequence[float] | Sequence[Sequence[float]] | torch.Tensor"

#: MONAI's arguments, in MONAI's order: these may be given by position.
POSITIONAL = ("include_background", "to_onehot_y", "sigmoid", "softmax", "other_act", "reduction", "batch")


class PendingMap(Protocol):
    """A map that is still being computed, such as :func:`fastsdm.prefetch` returns."""

    def result(self) -> torch.Tensor:
        """Wait for the map and hand it over."""


class LossOptions(TypedDict, total=False):
    """Keywords of every loss; :class:`fastsdm.losses._constructor.SharedSettings` says what they mean."""

    include_background: bool
    to_onehot_y: bool
    sigmoid: bool
    softmax: bool
    other_act: Activation | None
    reduction: str
    batch: bool
    classes: Sequence[int] | None
    class_weights: ClassWeights | None
    spacing: SpacingLike | None
    convention: Convention
    empty: EmptyPolicy
    max_distance: float | None
    normalize: Normalization | None
    ignore_index: int | None
    backend: str


class ForwardOptions(TypedDict, total=False):
    """Keywords of a loss's ``forward``; :class:`fastsdm.losses._base.DistanceMapLoss` says what they mean."""

    spacing: SpacingLike | None
    distance_map: torch.Tensor | PendingMap | None
    ignore_mask: torch.Tensor | None
    class_weights: ClassWeights | None


#: A loss overrides them by its ``_defaults``.
DEFAULTS: LossOptions = {
    "include_background": True,
    "to_onehot_y": False,
    "sigmoid": False,
    "softmax": False,
    "other_act": None,
    "reduction": "mean",
    "batch": False,
    "classes": None,
    "class_weights": None,
    "spacing": None,
    "convention": "kervadec",
    "empty": "zero",
    "max_distance": None,
    "normalize": None,
    "ignore_index": None,
    "backend": "auto",
}
