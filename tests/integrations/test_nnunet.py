"""nnU-Net v2: its own commands on a small data set, and the trainers' losses on its own batches."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from fastsdm.integrations import nnunet
from fastsdm.integrations._nnunet_loss import MapTimer
from fastsdm.losses import BoundaryLoss
from fastsdm.testing import reference_signed_distance
from tests.integrations.nnunet_trainers import tiny_trainers
from tests.integrations.nnunet_workspace import LABELS, command, environment, prepare

pytestmark = pytest.mark.xdist_group("nnunet")
GREY_WHITE = {"background": 0, "grey": 1, "white": 2}
REGIONS = {"background": 0, "brain": [1, 2], "white": 2}
#: The same segmentations, values 0 to 3, read in each of nnU-Net's ways.
READINGS = {
    "labels": {**GREY_WHITE, "slab": 3},
    "labels, ignore": LABELS,
    "regions": {**REGIONS, "slab": 3},
    "regions, ignore": {**REGIONS, "ignore": 3},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data set of 6 x 5 x 5 mm; nnU-Net turns its axes around, the coarsest first."""
    folder = tmp_path_factory.mktemp("nnunet")
    prepare(folder, spacing=(6.0, 5.0, 5.0))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder, nnUNet_n_proc_DA="0").items():
            if name.startswith("nnUNet"):
                patch.setenv(name, value)
        yield folder


def trainer_object(
    root: Path, name: str, configuration: str = "3d_fullres", labels: dict[str, Any] = LABELS
) -> nnunet.DistanceTrainer:
    folder = root / "preprocessed" / "Dataset001_MNI"
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"] = labels
    if any(isinstance(value, list) for value in labels.values()):
        description["regions_class_order"] = [1, 2, 3][: len(labels) - 1 - ("ignore" in labels)]
    plans["continue_training"] = False
    made: nnunet.DistanceTrainer = getattr(tiny_trainers, name)(
        plans, configuration, 0, description, torch.device("cpu")
    )
    return made


def trainer_of(root: Path, name: str, *settings: Any, **named: Any) -> nnunet.DistanceTrainer:
    trainer = trainer_object(root, name, *settings, **named)
    trainer.initialize()
    return trainer


def _load_lazy_modules() -> None:
    """Other tests' MONAI leaves modules that import more as nnU-Net looks through ``sys.modules``."""
    for module in list(sys.modules.values()):
        for name in ("__file__", "__path__"):
            getattr(module, name, None)


class NoRegion(torch.nn.Module):
    """In place of nnU-Net's own loss, where the distance loss alone is looked at."""

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.new_zeros(())


def test_commands_train_stop_resume_and_predict(root: Path) -> None:
    train = ("nnUNetv2_train", "1", "3d_fullres", "0", "-tr", "TinyBoundary", "-device", "cpu")
    compared = command(root, *train, STOP_AT_EPOCH="2", FASTSDM_NNUNET_COMPARE="1", check=False)
    assert "KeyboardInterrupt" in compared
    weights = re.findall(r"Loss weights: 1.0000 nnU-Net, (0\.\d+) BoundaryLoss", compared)
    assert weights == ["0.0100", "0.1733"]
    shares = re.findall(
        r"Signed distance maps: (\d+) in [\d.]+ s, [\d.]+ % of the epoch's [\d.]+ s; "
        r"the same by scipy: [\d.]+ s, [\d.]+ % of [\d.]+ s",
        compared,
    )
    # Two batches and one for validation, at the two finer of three scales.
    assert shares == ["6", "6"]

    resumed = command(root, *train, "--c")
    assert re.findall(r"Loss weights: 1.0000 nnU-Net, (0\.\d+)", resumed) == ["0.3367", "0.5000"]
    assert "Mean Validation Dice" in resumed

    images = root / "raw" / "Dataset001_MNI" / "imagesTs"
    where = ("-i", str(images), "-o", str(root / "predicted"), "-d", "1", "-c", "3d_fullres", "-f", "0")
    limits = ("-tr", "TinyBoundary", "-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1")
    command(root, "nnUNetv2_predict", *where, *limits)
    predicted = nibabel.load(root / "predicted" / "case_5.nii.gz")
    assert predicted.shape == nibabel.load(images / "case_5_0000.nii.gz").shape
    assert set(np.unique(predicted.dataobj)) <= {0, 1, 2}


def test_is_found_by_name_where_the_folder_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name  # noqa: PLC0415

    monkeypatch.setenv("nnUNet_extTrainer", str(nnunet.trainers_folder()))
    _load_lazy_modules()
    for name in ("nnUNetTrainerBoundary", "nnUNetTrainerHausdorff"):
        assert recursive_find_trainer_class_by_name(name) is getattr(nnunet, name)
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer"):
        recursive_find_trainer_class_by_name("nnUNetTrainerNoSuch")


def test_the_example_is_found_and_built(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name  # noqa: PLC0415

    shutil.copy(Path(__file__).parents[2] / "examples" / "nnunet_trainer.py", tmp_path)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    _load_lazy_modules()
    found = recursive_find_trainer_class_by_name("nnUNetTrainerClampedBoundary")
    monkeypatch.setattr(tiny_trainers, "TinyBoundary", found)
    trainer = trainer_of(root, "TinyBoundary")
    assert trainer.loss.distance.max_distance == 30.0
    assert trainer.loss.schedule.weights == (1.0, 0.0)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("name", ["TinyBoundary", "TinyHausdorff"])
def test_trains_on_every_kind_of_target(root: Path, name: str, reading: str, configuration: str) -> None:
    trainer = trainer_of(root, name, configuration, READINGS[reading])
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    before = [weight.clone() for weight in trainer.network.parameters()]
    outputs = [trainer.train_step(next(trainer.dataloader_train))]
    assert np.isfinite(outputs[0]["loss"])
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))
    trainer.on_train_epoch_end(outputs)
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        validated = [trainer.validation_step(next(trainer.dataloader_val))]
    assert np.isfinite(validated[0]["loss"])


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("reading", READINGS)
def test_distances_are_those_of_scipy_at_every_scale(root: Path, reading: str, configuration: str) -> None:
    """Spacing scaled, regions all kept, ignored voxels out of it: by scipy, scale for scale."""
    trainer = trainer_of(root, "TinyBoundary", configuration, READINGS[reading])
    batch = next(trainer.get_dataloaders()[0])
    outputs = [torch.randn_like(output) for output in trainer.network(batch["data"])]
    loss = trainer.loss
    loss.region = NoRegion()
    loss.schedule.load_state_dict({"steps_taken": 3})  # 0.5 on the distance loss

    has_regions, has_ignore = reading.startswith("regions"), reading.endswith("ignore")
    spacing = np.array(trainer.configuration_manager.spacing)
    assert spacing.tolist() == {"2d": [5.0, 5.0], "3d_fullres": [6.0, 5.0, 5.0]}[configuration]
    expected = {"max": 0.0, None: 0.0}  # "max" hides a factor common to all axes
    for weight, output, target in zip(loss.weights, outputs, batch["target"], strict=True):
        if not weight:
            continue
        at_scale = spacing * outputs[0].shape[2:] / np.array(output.shape[2:])
        if has_regions:
            probabilities = output.sigmoid()
            masks = target[:, : output.shape[1]].numpy()
            ignored = target[:, -1].numpy() if has_ignore else None
        else:
            probabilities = output.softmax(dim=1)[:, 1:]
            masks = np.stack([target[:, 0] == k for k in range(1, output.shape[1])], axis=1)
            ignored = (target[:, 0] == 3).numpy() if has_ignore else None
        assert ignored is None or ignored.any()
        for how in expected:
            at_this_scale = boundary_by_scipy(probabilities, masks, ignored, at_scale, how)
            expected[how] += weight * float(at_this_scale)
    for how, total in expected.items():
        loss.distance.normalize = how
        assert loss(outputs, batch["target"]).item() == pytest.approx(0.5 * total, rel=1e-5)


@pytest.mark.parametrize("reading", READINGS)
def test_nnunets_own_loss_is_kept_beside(root: Path, reading: str) -> None:
    trainer = trainer_of(root, "TinyBoundary", labels=READINGS[reading])
    batch = next(trainer.get_dataloaders()[0])
    outputs = [torch.randn_like(output) for output in trainer.network(batch["data"])]
    own = nnunet.nnUNetTrainer._build_loss(trainer)(outputs, batch["target"]).item()
    trainer.loss.schedule.set_epoch(3)
    total = trainer.loss(outputs, batch["target"]).item()
    trainer.loss.region = NoRegion()
    assert total == pytest.approx(own + trainer.loss(outputs, batch["target"]).item(), rel=1e-5)


def boundary_by_scipy(
    probabilities: torch.Tensor,
    masks: np.ndarray,
    ignored: np.ndarray | None,
    spacing: np.ndarray,
    normalize: str | None,
) -> torch.Tensor:
    maps = np.zeros(masks.shape)
    for b, k in np.ndindex(masks.shape[:2]):
        inside = masks[b, k] & (True if ignored is None else ~ignored[b])
        filled = inside if ignored is None else inside | ignored[b]
        outer, inner = (
            reference_signed_distance(mask[None].astype(np.uint8), (1,), spacing[None])[0, 0]
            for mask in (inside, filled)
        )
        shifted = np.where(inside, np.minimum(inner + spacing.min(), 0), outer)
        maps[b, k] = np.where(np.isfinite(shifted), shifted, 0)
        if ignored is not None:
            maps[b, k][ignored[b]] = 0
    if normalize == "max":
        extent = np.abs(maps).max(axis=tuple(range(1, maps.ndim)), keepdims=True)
        maps /= np.where(extent > 0, extent, 1)
    product = (probabilities * torch.from_numpy(maps)).flatten(2).sum(dim=2)
    if ignored is None:
        return (product / masks[0, 0].size).mean()
    return (product / torch.from_numpy((~ignored).reshape(len(ignored), 1, -1).sum(axis=2))).mean()


def test_a_continued_training_has_the_weight_of_its_epoch(root: Path, tmp_path: Path) -> None:
    """The trap: nnU-Net's checkpoint holds no loss; a schedule that counts its steps starts at 0 again."""
    trainer = trainer_of(root, "TinyBoundary")
    trainer.current_epoch = 1
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    continued = trainer_of(root, "TinyBoundary")
    continued.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert continued.current_epoch == 2
    assert continued.loss.schedule.weights.boundary == 0.01
    continued.on_train_epoch_start()
    assert continued.loss.schedule.weights.boundary == pytest.approx(0.01 + 0.49 * 2 / 3)


def test_the_first_region_counts(root: Path) -> None:
    """The trap: include_background=False, right for labels, would drop the region 'brain'."""
    trainer = trainer_of(root, "TinyBoundary", labels=READINGS["regions"])
    batch = next(trainer.get_dataloaders()[0])
    output = torch.zeros(2, 3, *batch["target"][0].shape[2:], requires_grad=True)
    trainer.loss.distance(output, batch["target"][0]).backward()
    assert output.grad[:, 0].abs().max() > 0


@pytest.mark.parametrize("reading", ["labels, ignore", "regions, ignore"])
def test_maps_from_the_workers_give_the_same_loss(root: Path, reading: str) -> None:
    inline = trainer_of(root, "TinyBoundary", labels=READINGS[reading])
    workers = trainer_of(root, "TinyBoundaryInWorkers", labels=READINGS[reading])
    for trainer in (inline, workers):
        trainer.loss.distance.normalize = None  # which would hide a factor common to all axes
    batch = next(workers.get_dataloaders()[0])
    scales = len(batch["target"]) // 2
    outputs = [torch.randn_like(output) for output in workers.network(batch["data"])]
    timer = workers.loss.timer = MapTimer()
    with_maps = workers.loss(outputs, batch["target"])
    assert timer.maps == 0
    assert with_maps.item() == pytest.approx(inline.loss(outputs, batch["target"][:scales]).item(), rel=1e-6)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("name", ["TinyBoundary", "TinyHausdorff"])
def test_maps_beside_the_forward_pass_give_the_same_step(
    root: Path, name: str, reading: str, configuration: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, where it is off, a worker thread stands in for CUDA's second stream."""
    trainer = trainer_of(root, name, configuration, READINGS[reading])
    assert not trainer._starts_maps()
    trainer.loss.schedule.set_epoch(3)
    batch = next(trainer.get_dataloaders()[0])
    before = deepcopy(trainer.network.state_dict())
    inline = trainer.train_step(batch)["loss"]
    trainer.network.load_state_dict(before)
    monkeypatch.setattr(trainer, "_starts_maps", lambda: True)
    ahead = []
    start = trainer.loss.distance.prefetch
    monkeypatch.setattr(
        trainer.loss.distance,
        "prefetch",
        lambda *given, **options: ahead.append(given) or start(*given, **options),
    )
    started = trainer.train_step(batch)["loss"]
    assert len(ahead) == sum(weight > 0 for weight in trainer.loss.weights)
    assert started == pytest.approx(inline, rel=1e-6)


def test_maps_of_one_batch_are_not_taken_for_another(root: Path) -> None:
    trainer = trainer_of(root, "TinyBoundary")
    first, second = (next(trainer.get_dataloaders()[0])["target"] for _ in range(2))
    outputs = [torch.randn(2, 3, *scale.shape[2:]) for scale in first]
    expected = trainer.loss(outputs, second).item()
    assert expected != trainer.loss(outputs, first).item()
    trainer.loss.prefetch(first, 3)
    assert trainer.loss(outputs, second).item() == expected
    assert trainer.loss._started is None  # nor kept for later


def test_on_cuda_the_maps_start_before_the_forward_pass(root: Path) -> None:
    trainer = trainer_of(root, "TinyBoundary")
    trainer.device = torch.device("cuda")
    assert trainer._starts_maps()
    for setting in ({"maps_in_workers": True}, {"maps_beside_forward": False}):
        other = deepcopy(trainer)
        vars(other).update(setting)
        assert not other._starts_maps()


def test_transform_fits_any_pipeline_and_pickles() -> None:
    labels = torch.zeros(1, 8, 10, 12, dtype=torch.int16)
    labels[:, 2:5, 3:7, 4:9] = 1
    loss = BoundaryLoss(softmax=True, include_background=False, spacing=(3.0, 0.8, 0.8))
    transform = pickle.loads(pickle.dumps(nnunet.SignedDistanceTransform(loss, 2)))
    sample = transform(image=torch.zeros(1, 8, 10, 12), segmentation=labels)
    assert torch.equal(sample["distance_map"], loss.target_map(labels[None], 2)[0])
    for spacing in (None, 2.0):  # a loss need not name one number per axis
        loss = BoundaryLoss(spacing=spacing)
        maps = nnunet.SignedDistanceTransform(loss, 2)(image=None, segmentation=labels)["distance_map"]
        assert torch.equal(maps, loss.target_map(labels[None], 2)[0])
    with pytest.raises(TypeError, match=r"^loss: must be a loss of fastsdm\.losses, got Linear"):
        nnunet.SignedDistanceTransform(torch.nn.Linear(1, 1), 2)


def test_anisotropic_plans_keep_each_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Axes that are pooled by different steps: the spacing of a scale is not one factor times the first."""
    prepare(tmp_path, spacing=(24.0, 5.0, 5.0), every=4, cases=2, configurations=("3d_fullres",))
    for name, value in environment(tmp_path, nnUNet_n_proc_DA="0").items():
        if name.startswith("nnUNet"):
            monkeypatch.setenv(name, value)
    trainer = trainer_of(tmp_path, "TinyBoundary")
    assert trainer.configuration_manager.spacing == [24.0, 5.0, 5.0]
    outputs = trainer.network(torch.zeros(1, 1, *trainer.configuration_manager.patch_size))
    spacings = []
    trainer.loss.distance.register_forward_pre_hook(
        lambda _loss, _arguments, options: spacings.append(options["spacing"].tolist()), with_kwargs=True
    )
    trainer.loss(outputs, [torch.zeros(1, 1, *output.shape[2:]) for output in outputs])
    assert spacings[:2] == [[[24.0, 5.0, 5.0]], [[24.0, 10.0, 10.0]]]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo, where nnU-Net's loss breaks the graph
def test_compiled_loss_gives_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_trainers.TinyBoundary, "_do_i_compile", lambda self: False)
    trainer = trainer_of(root, "TinyBoundary")
    target = next(trainer.get_dataloaders()[0])["target"]
    outputs = [torch.randn(2, 3, *scale.shape[2:], requires_grad=True) for scale in target]
    eager = trainer.loss(outputs, target)
    compiled = torch.compile(trainer.loss, backend="aot_eager")(outputs, target)
    assert compiled.item() == pytest.approx(eager.item(), rel=1e-5)
    compiled.backward()
    assert outputs[0].grad is not None


def test_two_processes_train_like_one(root: Path, tmp_path: Path) -> None:
    batch = next(trainer_of(root, "TinyBoundary", labels=READINGS["labels"]).get_dataloaders()[0])
    out = tmp_path / "gradients"
    torch.save([batch["data"], *batch["target"]], f"{out}.batch")
    worker = Path(__file__).with_name("nnunet_ddp_worker.py")
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [
        subprocess.Popen([sys.executable, str(worker), str(rank), str(root), str(out)], env=settings)
        for rank in range(2)
    ]
    for process in processes:
        assert process.wait(timeout=240) == 0
    weights, together, alone = torch.load(out)
    assert 0 < weights[-1] < 1e-5  # DDP wants every output used
    for gradient, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_refuses_what_does_not_fit(root: Path) -> None:
    trainer = trainer_of(root, "TinyBoundary")
    output = [torch.zeros(1, 3, 8, 8, 8)] * 2
    with pytest.raises(ValueError, match=r"^output: must be one per target and weight, got 2 out"):
        trainer.loss(output, output[:1])
    workers = deepcopy(trainer)
    workers.maps_in_workers, workers.enable_deep_supervision = True, False
    with pytest.raises(ValueError, match=r"^maps_in_workers: needs deep supervision"):
        workers.get_dataloaders()
