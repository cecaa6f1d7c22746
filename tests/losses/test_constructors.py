"""The keywords that the losses share stand in one place, and each loss still shows all of them."""

from __future__ import annotations

import copy
import inspect
import pickle
import pydoc
from typing import ClassVar

import pytest
import torch

from fastsdm import losses
from fastsdm.losses._base import DistanceMapLoss
from fastsdm.losses._options import DEFAULTS, POSITIONAL, LossOptions

OWN: dict[type[DistanceMapLoss], dict[str, object]] = {
    losses.BoundaryLoss: {},
    losses.HausdorffDTLoss: {"alpha": 2.0, "one_sided": False},
    losses.LogHausdorffDTLoss: {"alpha": 2.0, "one_sided": False},
    losses.GeneralizedSurfaceLoss: {"per_class": False},
    losses.SDMRegressionLoss: {},
}
DEPARTURES: dict[type[DistanceMapLoss], dict[str, object]] = {
    losses.HausdorffDTLoss: {"include_background": False, "convention": "plain"},
    losses.LogHausdorffDTLoss: {"include_background": False, "convention": "plain"},
    losses.SDMRegressionLoss: {"normalize": "unit"},
}
every_class = pytest.mark.parametrize("loss", OWN, ids=lambda loss: loss.__name__)


def defaults_of(function) -> dict[str, object]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def test_every_shared_keyword_has_a_type_and_a_default() -> None:
    assert list(DEFAULTS) == list(LossOptions.__annotations__)
    assert tuple(DEFAULTS)[: len(POSITIONAL)] == POSITIONAL


@every_class
def test_the_signature_shows_all_names_with_their_defaults(loss) -> None:
    assert defaults_of(loss) == {**DEFAULTS, **OWN[loss], **DEPARTURES.get(loss, {})}
    by_position = [
        name
        for name, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert by_position == [*(["alpha"] if "alpha" in OWN[loss] else []), *POSITIONAL]
    made = loss()
    for name, default in defaults_of(loss).items():
        assert getattr(made, name) == default, name
    with pytest.raises(AttributeError):  # which would describe the calls of the instance
        _ = made.__signature__


@every_class
def test_help_tells_everything(loss) -> None:
    text = pydoc.render_doc(loss, renderer=pydoc.plaintext)
    described = inspect.getdoc(loss).partition("\nArgs:\n")[2].partition("\nRaises:\n")[0]
    for name in inspect.signature(loss).parameters:
        assert described.count(f"    {name}: ") == 1, name
        assert f"{name}: " in text
    assert "doi" in inspect.getdoc(loss) or loss is losses.LogHausdorffDTLoss
    assert inspect.getdoc(loss).count("Raises:") == 1


@every_class
def test_monai_s_arguments_by_position(loss) -> None:
    own = [3.0] if "alpha" in OWN[loss] else []
    made = loss(*own, False, True, True, False, None, "sum", True)
    values = [made.include_background, made.to_onehot_y, made.sigmoid, made.softmax, made.other_act]
    assert [*values, made.reduction, made.batch] == [False, True, True, False, None, "sum", True]
    if own:
        assert made.alpha == 3.0
        assert loss(1.0, True).include_background
        assert loss().include_background is False


@pytest.mark.parametrize("name", ["BoundaryLoss", "HausdorffDTLoss", "LogHausdorffDTLoss"])
def test_order_and_defaults_are_monai_s(name: str) -> None:
    theirs = defaults_of(getattr(pytest.importorskip("monai.losses"), name))
    ours = defaults_of(getattr(losses, name))
    if "kwargs" in theirs:  # LogHausdorffDTLoss hands all on
        theirs = defaults_of(pytest.importorskip("monai.losses").HausdorffDTLoss)
    theirs = {key: getattr(value, "value", value) for key, value in theirs.items()}
    assert list(ours)[: len(theirs)] == list(theirs)
    assert {key: ours[key] for key in theirs} == theirs


def test_a_subclass_adds_names_and_defaults_of_its_own() -> None:
    class Weighed(losses.HausdorffDTLoss):
        _defaults: ClassVar[LossOptions] = {**losses.HausdorffDTLoss._defaults, "softmax": True}

        def __init__(self, *args, factor: float = 2.0, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            self.factor = factor

    names = list(inspect.signature(Weighed).parameters)
    assert names[0] == "alpha"
    assert {"factor", "one_sided", "spacing"} < set(names)
    assert len(names) == len(set(names))
    assert defaults_of(Weighed)["softmax"] is True
    made = Weighed(1.0, spacing=2.0, factor=3.0)
    assert (made.alpha, made.softmax, made.spacing, made.factor) == (1.0, True, 2.0, 3.0)
    with pytest.raises(TypeError, match=r"spacin: is not an argument of Weighed; did you mean spacing\?"):
        Weighed(spacin=2.0)


@every_class
def test_travels_with_every_setting(loss) -> None:
    made = loss(softmax=True, class_weights=[[1.0, 0.0], [0.5, 2.0]], classes=[0, 2], max_distance=3)
    for twin in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert repr(twin) == repr(made)
    assert torch.equal(eval(repr(made), vars(losses)).class_weights, made.class_weights)


def test_no_function_of_the_losses_takes_ten_parameters() -> None:
    """Beside ``self``; what is shared is one thing."""
    long = {}
    for name in losses.__all__:
        for cls in getattr(losses, name).__mro__:
            if not cls.__module__.startswith("fastsdm"):
                continue
            for method, function in vars(cls).items():
                if inspect.isfunction(function):
                    long[f"{name}.{method}"] = len(inspect.signature(function).parameters)
    assert len(long) > 20
    assert {method: count for method, count in long.items() if count >= 10} == {}


def test_the_hook_for_a_spacing_of_the_batch() -> None:
    """What an integration overrides to read the spacing from an image: one method, on every road."""

    class FromImage(losses.BoundaryLoss):
        def _checked_spacing(self, spacing):
            return None if spacing == "image" else super()._checked_spacing(spacing)

        def batch_spacing(self, given, target, spatial_dims, input=None, distance_map=None):
            own = super().batch_spacing(given, target, spatial_dims, input, distance_map)
            return getattr(target, "steps", own) if given is None else own

    labels = torch.zeros(1, 6, 6, 6, dtype=torch.int64)
    labels[:, 2:4, 1:4, 2:5] = 1
    image = labels.clone()
    image.steps = (3.0, 1.0, 2.0)
    prediction = torch.rand(1, 2, 6, 6, 6)
    loss, plain = FromImage(spacing="image"), losses.BoundaryLoss()
    expected = plain(prediction, labels, spacing=image.steps)
    assert torch.equal(loss(prediction, image), expected)
    assert torch.equal(loss(prediction, image, spacing=1.0), plain(prediction, labels))
    assert torch.equal(loss.target_map(image, 2), plain.target_map(labels, 2, spacing=image.steps))
    pending = loss.prefetch(image, 2)
    assert torch.equal(loss(prediction, image, distance_map=pending), expected)
    with pytest.raises(TypeError, match="spacing: must be a number or numbers, got 'image'"):
        losses.BoundaryLoss(spacing="image")
    assert isinstance(loss, DistanceMapLoss)
