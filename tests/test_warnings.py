"""Every warning points at the line that called the package, whatever the road to it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import fastsdm
from fastsdm import _worker, testing
from fastsdm._backends import registry
from fastsdm.data import PatchDataset, PatchSampler, Volume
from fastsdm.losses import BoundaryLoss, DeepSupervision

PACKAGE = Path(fastsdm.__file__).parent
MASK = torch.from_numpy(testing.blobs((6, 7, 8), sigma=2))
TARGET = MASK[None, None]
PREDICTION = torch.rand(TARGET.shape)


def given(call: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return caught


def assert_points_here(call: Callable[[], object], message: str) -> None:
    caught = given(call)
    assert [warning.category for warning in caught] == [UserWarning]
    assert message in str(caught[0].message)
    assert caught[0].filename == __file__


def patches(**options) -> object:
    volume = Volume(MASK.numpy() * 1.0, MASK.numpy(), spacing=1.0)
    dataset = PatchDataset([volume], (4, 4, 4), classes=[1], max_distance=3.0)
    return next(iter(DataLoader(dataset, sampler=PatchSampler(dataset, patches_per_epoch=1), **options)))


def prefetched_by_the_worker() -> object:
    pending = fastsdm.prefetch(MASK)
    _worker.submit(lambda _: None, None).result()  # jobs are begun in order
    return pending.result()


def prefetched_by_the_loss() -> object:
    return BoundaryLoss()(PREDICTION, TARGET, distance_map=BoundaryLoss().prefetch(TARGET, 1))


ROADS_TO_A_MAP = {
    "signed_distance": lambda: fastsdm.signed_distance(MASK),
    "distance_transform": lambda: fastsdm.distance_transform(MASK.numpy()),
    "nearest": lambda: fastsdm.nearest(MASK),
    "nearest_label": lambda: fastsdm.nearest_label(MASK),
    "instance_distance": lambda: fastsdm.instance_distance(MASK),
    "a loss": lambda: BoundaryLoss()(PREDICTION, TARGET),
    "a loss in a loss": lambda: DeepSupervision(BoundaryLoss())([PREDICTION], TARGET),
    "target_map": lambda: BoundaryLoss().target_map(TARGET, 1),
    "prefetch": prefetched_by_the_worker,
    "prefetch of a loss": prefetched_by_the_loss,
    "vmap": lambda: torch.vmap(fastsdm.signed_distance)(MASK[None]),
    "patches": patches,
}


@pytest.fixture
def no_kernel(monkeypatch) -> None:
    """Let this installation pass for one without a C++ compiler."""
    monkeypatch.setattr(type(registry.get("native")), "unavailable", lambda self, device: "was not built")
    monkeypatch.setattr(registry, "found", {})
    monkeypatch.setattr(registry, "_warned", set())


@pytest.mark.parametrize("road", ROADS_TO_A_MAP)
def test_scipy_instead_of_the_kernel(no_kernel, road) -> None:
    assert_points_here(ROADS_TO_A_MAP[road], "'scipy' is used on the CPU")
    assert not given(ROADS_TO_A_MAP[road]), "once is enough"


@pytest.mark.parametrize(
    "loss", [BoundaryLoss(softmax=True), DeepSupervision(BoundaryLoss(softmax=True))], ids=["alone", "within"]
)
def test_settings_that_a_single_channel_ignores(loss) -> None:
    assert_points_here(lambda: loss(PREDICTION, TARGET), "single channel prediction")
    wrapped = torch.nn.ModuleList([loss])[0]
    assert_points_here(lambda: wrapped(PREDICTION, TARGET), "single channel prediction")


def test_a_compiled_loss_is_one_graph_all_the_same() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(BoundaryLoss(softmax=True), backend="aot_eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(PREDICTION, TARGET)


def test_spacing_of_monai_images() -> None:
    monai = pytest.importorskip("monai.data")
    import fastsdm.integrations.monai as ours  # noqa: PLC0415

    affine = torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0], dtype=torch.float64))
    image = monai.MetaTensor(TARGET, affine=affine)
    assert_points_here(lambda: ours.BoundaryLoss()(PREDICTION, image), "are taken as cubes of size 1")
    affine[0, 1] = 0.5
    sheared = monai.MetaTensor(TARGET, affine=affine)
    loss = ours.BoundaryLoss()
    assert_points_here(lambda: loss(PREDICTION, sheared, spacing="affine"), "not at right angles")


def test_no_warning_is_given_another_way() -> None:
    """Each would have to count frames, and be wrong on the next road."""
    for path in PACKAGE.rglob("*.py"):
        if path.name != "_warn.py":
            calls = (
                node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
            )
            assert not [
                ast.unparse(call) for call in calls if ast.unparse(call) in {"warnings.warn", "warn"}
            ], path


def test_a_package_whose_name_begins_like_ours_is_a_caller(no_kernel) -> None:
    names = {"__name__": "fastsdm_experiments", "call": fastsdm.signed_distance, "mask": np.eye(3)[None]}
    exec(compile("def run():\n    return call(mask)\n", "their_script.py", "exec"), names)
    assert [warning.filename for warning in given(names["run"])] == ["their_script.py"]
