"""A short training with the map computed inside the loss, and what the map costs in each step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from examples.networks import UNet3d, dice_loss
from fastsdm import testing
from fastsdm.data import LabelledVolume, random_affine_elastic
from fastsdm.losses import BoundaryLoss, RegionBoundaryLoss
from fastsdm.schedules import Increase

PATCH = (64, 64, 64)
BATCH = 2
_FOREGROUND = (1, 2)


@dataclass(frozen=True)
class Step:
    """One step of the training; times in seconds.

    Attributes:
        dice: value of the Dice loss.
        boundary: value of the boundary loss.
        whole: forward, loss with the map made inside it, backward, update.
        map_fastsdm: making the same map once more, alone.
        map_scipy: making it by the published recipe.
    """

    dice: float
    boundary: float
    whole: float
    map_fastsdm: float
    map_scipy: float


@dataclass(frozen=True)
class Costs:
    """Medians over the steps, the first left out because it warms up; times in seconds."""

    rest: float
    map_fastsdm: float
    map_scipy: float

    @classmethod
    def of(cls, steps: list[Step]) -> Costs:
        """The medians; the rest of a step is the whole without the map."""
        timed = steps[1:] or steps
        return cls(
            rest=statistics.median(step.whole - step.map_fastsdm for step in timed),
            map_fastsdm=statistics.median(step.map_fastsdm for step in timed),
            map_scipy=statistics.median(step.map_scipy for step in timed),
        )

    @property
    def share_fastsdm(self) -> float:
        """What part of a step goes into the map."""
        return self.map_fastsdm / (self.map_fastsdm + self.rest)

    @property
    def share_scipy(self) -> float:
        """What part of a step would go into the map if scipy made it."""
        return self.map_scipy / (self.map_scipy + self.rest)


class Training:
    """A U-Net that learns the tissue labels from randomly deformed patches of one volume's labelled part.

    Args:
        volume: image and labels.
        steps: how many there will be, for the weight of the boundary loss, which grows over all of them.
        device: where everything runs.
    """

    def __init__(self, volume: LabelledVolume, steps: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        self.image, self.labels = (
            torch.from_numpy(values[_tissue(volume.labels)]).to(device).expand(BATCH, 1, -1, -1, -1)
            for values in (volume.image, volume.labels)
        )
        self.classes = len(volume.label_names)
        self.network = UNet3d(1, self.classes).to(device)
        self.boundary = BoundaryLoss(include_background=False, to_onehot_y=True, softmax=True)
        self.loss = RegionBoundaryLoss(dice_loss, self.boundary, Increase(0.01, 0.1, steps=max(steps, 1)))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=3e-3)
        self.generator = torch.Generator().manual_seed(0)

    def run(self, steps: int) -> Iterator[Step]:
        """Train, and hand out what each step showed."""
        for _ in range(steps):
            yield self._step()

    @torch.no_grad()
    def prediction(self, image: torch.Tensor) -> torch.Tensor:
        """Labels ``[*S]`` of an image ``[*S]``; sizes must be multiples of 4."""
        return torch.as_tensor(self.network(image.to(self.device)[None, None]).argmax(dim=1)[0].cpu())

    def _step(self) -> Step:
        image, labels = random_affine_elastic(
            self.image, self.labels, size=PATCH, elastic_grid=24.0, elastic=3.0, generator=self.generator
        )
        values: list[torch.Tensor] = []

        def whole() -> None:
            logits = self.network(image)
            loss = self.loss(logits, labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            values.append(logits.detach())

        seconds = self._seconds(whole)
        map_fastsdm = self._seconds(lambda: self.boundary.target_map(labels, self.classes))
        map_scipy = self._seconds(lambda: published_maps(labels[:, 0]))
        self.loss.schedule.step()
        logits = values[0]
        return Step(
            dice=dice_loss(logits, labels).item(),
            boundary=self.boundary(logits, labels).item(),
            whole=seconds,
            map_fastsdm=map_fastsdm,
            map_scipy=map_scipy,
        )

    def _seconds(self, work: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def published_maps(labels: torch.Tensor) -> torch.Tensor:
    """The published recipe's map of the foreground classes, ``[B, K, *S]``, made on the CPU."""
    return torch.from_numpy(testing.published_maps(labels.cpu().numpy(), _FOREGROUND)).to(labels.device)


def _tissue(labels: np.ndarray[Any, Any]) -> tuple[slice, ...]:
    """The box around all that is labelled, so that patches are not spent on empty space."""
    return tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(labels))
