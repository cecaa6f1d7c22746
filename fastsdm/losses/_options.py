"""The keywords that all losses share: name, type and default of each stand here, and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar, cast

import torch

from fastsdm._types import Convention, EmptyPolicy, SpacingLike

if TYPE_CHECKING:
    from fastsdm.losses._constructor import SharedSettings

Activation: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Normalization: TypeAlias = Literal["max", "unit"]
#: One weight per class, or one row per sample, ``[B, K]``.
ClassWeights: TypeAlias = "Sequence[float] | Sequence[Sequence[float]] | torch.Tensor"

LossT = TypeVar("LossT", bound="type[SharedSettings]")

#: MONAI's arguments, in MONAI's order: these may be given by position.
POSITIONAL = ("include_background", "to_onehot_y", "sigmoid", "softmax", "other_act", "reduction", "batch")


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


#: A loss that departs from them says so in its ``_defaults``.
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


def complete(loss: type[SharedSettings], positional: Sequence[Any], given: LossOptions) -> LossOptions:
    """The value of every shared keyword: what was given, else the loss's default.

    Raises:
        TypeError: a keyword that the loss does not have or that is given twice; too many positions.
    """
    if len(positional) > len(POSITIONAL):
        raise TypeError(
            f"{loss.__name__}: takes {', '.join(POSITIONAL)} by position and all else by name, "
            f"got {positional[len(POSITIONAL)]!r} behind them"
        )
    placed = dict(zip(POSITIONAL, positional, strict=False))
    for name in given:
        if name in placed:
            raise TypeError(f"{name}: was given twice, by position and by name")
        if name not in DEFAULTS:
            known = list(inspect.signature(loss).parameters)
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(known)}"
            raise TypeError(f"{name}: is not an argument of {loss.__name__}; {hint}")
    return cast("LossOptions", {**DEFAULTS, **loss._defaults, **placed, **given})


class ConstructorSignature:
    """``__signature__`` of the losses: their own parameters and the shared ones, with their defaults.

    A descriptor, since an attribute would describe the calls of the instances as well.
    """

    def __get__(self, loss: object, kind: type[SharedSettings]) -> inspect.Signature:
        """The signature of the class; instances have none.

        Raises:
            AttributeError: asked for on an instance.
        """
        if loss is not None:
            raise AttributeError("__signature__")
        own = _own_parameters(kind)
        hints = LossOptions.__annotations__
        defaults: dict[str, Any] = {**DEFAULTS, **kind._defaults}
        shared = [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD
                if name in POSITIONAL
                else inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=getattr(hints[name], "__forward_arg__", hints[name]),
            )
            for name, default in defaults.items()
            if name not in own
        ]
        parameters = sorted([*own.values(), *shared], key=lambda parameter: parameter.kind)
        return inspect.Signature(parameters)


def _own_parameters(kind: type[SharedSettings]) -> dict[str, inspect.Parameter]:
    """What the constructors from the class up to the base name, without ``self``, ``*args``, ``**kwargs``."""
    own: dict[str, inspect.Parameter] = {}
    collected = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for base in kind.__mro__:
        if "_defaults" not in dir(base) or "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for parameter in parameters:
            if parameter.kind not in collected:
                own.setdefault(parameter.name, parameter)
    return own


def documented(loss: LossT) -> LossT:
    """Complete a loss's docstring with the arguments that all losses share, as the base class has them."""
    base = next(kind for kind in loss.__mro__ if "__signature__" in vars(kind))
    if loss.__doc__ is not None and base.__doc__ is not None:  # python -OO has none
        text, _, own = inspect.cleandoc(loss.__doc__).partition("\n\nArgs:\n")
        shared = inspect.cleandoc(base.__doc__).partition("\n\nArgs:\n")[2]
        own = f"{own.rstrip()}\n" if own else ""
        loss.__doc__ = f"{text}\n\nArgs:\n{own}{shared}\n"
    return loss
