"""The constructor that the losses share: its arguments, their checks, and how it is documented."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch

from fastsdm import _validate
from fastsdm._backends import registry
from fastsdm._types import SpacingLike
from fastsdm.losses._options import DEFAULTS, POSITIONAL, LossOptions
from fastsdm.losses._reduction import class_weights as weights_tensor
from fastsdm.losses._target import check_classes

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ConstructorSignature:
    """``__signature__`` of the losses: their own parameters and the shared ones, with their defaults.

    A descriptor, because a plain attribute would apply to the instances, too.
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


class SharedSettings(torch.nn.Module):
    """Settings that all losses share.

    Args:
        include_background: whether channel 0 counts.
        to_onehot_y: refuse a target that is not a label map; by default the target's shape decides.
        sigmoid: apply a sigmoid to the prediction.
        softmax: apply a softmax over the channels to the prediction.
        other_act: apply this function to the prediction instead.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, over samples and classes.
        batch: average over the batch before the reduction.
        classes: indices of the K channels the loss uses, instead of ``include_background``. A softmax still
            runs over all channels.
        class_weights: factors of the classes' values before the reduction: K numbers, or one row per sample,
            ``[B, K]``, with 0 where a class is not annotated. None: all 1.
        spacing: default of ``forward``'s ``spacing``: voxel size as a number, one per spatial axis, or
            ``[B, ndim]``. None: that of the ``distance_map``, if it records one, else 1.
        convention: of the map, as in :func:`fastsdm.signed_distance`.
        empty: value of the map for a class that is absent or fills the volume: ``"zero"`` (the other classes
            supervise these voxels), ``"max"``, ``"raise"``, or with ``max_distance`` also ``"inf"``.
        max_distance: clamp of the map, in the units of ``spacing``; None: no clamp.
        normalize: None; ``"max"``: divide each sample's map by its largest absolute distance; ``"unit"``:
            divide, per sample and class, each phase by its largest absolute distance.
        ignore_index: label of voxels that the loss leaves out and that are neither inside nor outside of any
            class in the map. Needs a label map (or a single channel) as target.
        backend: ``"auto"``, or the name of one, as in :func:`fastsdm.signed_distance`.

    Raises:
        TypeError: an argument that the loss does not have, or of a type that cannot be used.
        ValueError: an argument out of its range; the message names argument, rule and value.
    """

    #: Defaults of this loss that differ from the shared ones.
    _defaults: ClassVar[LossOptions] = {}
    __signature__ = ConstructorSignature()

    class_weights: torch.Tensor | None

    def __init__(self, *monai: Any, **options: Unpack[LossOptions]) -> None:
        super().__init__()
        given = _complete(type(self), monai, options)
        self.include_background = _validate.flag("include_background", given["include_background"])
        self.to_onehot_y = _validate.flag("to_onehot_y", given["to_onehot_y"])
        self.sigmoid = _validate.flag("sigmoid", given["sigmoid"])
        self.softmax = _validate.flag("softmax", given["softmax"])
        self.other_act = other_act = given["other_act"]
        if other_act is not None and not callable(other_act):
            raise TypeError(f"other_act: must be None or callable, got {type(other_act).__name__}")
        if int(self.sigmoid) + int(self.softmax) + int(other_act is not None) > 1:
            raise ValueError(
                "sigmoid, softmax, other_act: at most one can be applied, "
                f"got sigmoid={self.sigmoid}, softmax={self.softmax}, other_act={other_act}"
            )
        # MONAI's LossReduction is an enumeration.
        self.reduction: str = getattr(given["reduction"], "value", given["reduction"])
        _validate.choice("reduction", self.reduction, ("none", "mean", "sum"))
        self.batch = _validate.flag("batch", given["batch"])
        self.classes = None if given["classes"] is None else check_classes(given["classes"])
        self.spacing = self._checked_spacing(given["spacing"])
        self.convention, self.empty = given["convention"], given["empty"]
        self.max_distance, self.normalize = given["max_distance"], given["normalize"]
        _validate.convention(self.convention)
        _validate.empty_policy(self.empty)
        _validate.max_distance(self.max_distance)
        if self.normalize is not None:
            _validate.choice("normalize", self.normalize, ("max", "unit"))
        if self.empty == "inf" and self.max_distance is None:
            raise ValueError(
                "empty: must be 'zero', 'max' or 'raise' in a loss without max_distance, got 'inf', "
                "which makes the loss infinite where a class is absent"
            )
        index = given["ignore_index"]
        self.ignore_index = None if index is None else _validate.integer("ignore_index", index)
        self.backend = given["backend"]
        _validate.backend_name(self.backend)
        if self.backend != "auto":
            registry.get(self.backend)
        weights = given["class_weights"]
        # A buffer moves with the module. It is not saved, because it is a setting.
        self.register_buffer(
            "class_weights", None if weights is None else weights_tensor(weights).clone(), persistent=False
        )

    def extra_repr(self) -> str:
        """Every setting, so that a logged loss can be built again."""
        settings = {name: value for name, value in vars(self).items() if name != "training"}
        settings["class_weights"] = None if self.class_weights is None else self.class_weights.tolist()
        return ", ".join(f"{name}={value!r}" for name, value in settings.items() if name[0] != "_")

    def _checked_spacing(self, spacing: SpacingLike | None) -> SpacingLike | None:
        """The constructor's spacing; raise if it fits neither 2 nor 3 spatial axes."""
        if spacing is None:
            return None
        rows = _validate.spacing_tensor(spacing)
        if rows.ndim > 2 or (rows.ndim and rows.shape[-1] not in (2, 3)):
            raise ValueError(
                "spacing: must be a number, 2 or 3 numbers (one per spatial axis), or one such row per "
                f"sample; got shape {tuple(rows.shape)}"
            )
        _validate.spacing_values(rows.reshape(-1, rows.shape[-1] if rows.ndim else 1))
        return spacing


LossT = TypeVar("LossT", bound=type[SharedSettings])


def documented(loss: LossT) -> LossT:
    """Append the shared arguments, as the base class documents them, to a loss's docstring."""
    base = next(kind for kind in loss.__mro__ if "__signature__" in vars(kind))
    if loss.__doc__ is not None and base.__doc__ is not None:  # python -OO has none
        text, _, own = inspect.cleandoc(loss.__doc__).partition("\n\nArgs:\n")
        shared = inspect.cleandoc(base.__doc__).partition("\n\nArgs:\n")[2]
        own = f"{own.rstrip()}\n" if own else ""
        loss.__doc__ = f"{text}\n\nArgs:\n{own}{shared}\n"
    return loss


def _complete(loss: type[SharedSettings], positional: Sequence[Any], given: LossOptions) -> LossOptions:
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


def _own_parameters(kind: type[SharedSettings]) -> dict[str, inspect.Parameter]:
    """Parameters of the constructors from the class up to the base, without ``*args`` and ``**kwargs``."""
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
