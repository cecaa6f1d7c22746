"""The loss of nnU-Net's trainers, and a timer for its maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from time import perf_counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from fastsdm import use_backend
from fastsdm._prefetch import Prefetched
from fastsdm.losses import DeepSupervision
from fastsdm.losses._base import DistanceMapLoss
from fastsdm.losses._deep_supervision import scaled_spacing
from fastsdm.schedules import Schedule


class RegionAndDistanceLoss(torch.nn.Module):
    """A region loss and a distance loss at every scale, weighed by a schedule.

    Args:
        region: called as ``region(output, target)`` with the target as nnU-Net's loader makes it.
        distance: any loss of :mod:`fastsdm.losses` that has a map; its spacing is that of the finest scale.
        schedule: of :mod:`fastsdm.schedules`.
        weights: one per scale, finest first; scales of weight 0 are left out.
        ignore_channel: whether the target's last channel marks voxels to ignore.
    """

    def __init__(
        self,
        region: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        distance: DistanceMapLoss,
        schedule: Schedule,
        *,
        weights: Sequence[float],
        ignore_channel: bool = False,
    ) -> None:
        super().__init__()
        self.region, self.schedule, self.ignore_channel = region, schedule, ignore_channel
        self.weights = [float(weight) for weight in weights]
        self.distances = DeepSupervision(distance, self.weights)
        self.timer: MapTimer | None = None
        self._started: tuple[list[torch.Tensor], list[Prefetched[torch.Tensor] | None]] | None = None

    @property
    def distance(self) -> DistanceMapLoss:
        """The distance loss."""
        loss: DistanceMapLoss = self.distances.loss  # type: ignore[assignment]
        return loss

    def forward(
        self,
        output: torch.Tensor | Sequence[torch.Tensor],
        target: torch.Tensor | Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Compute the weighted sum over the scales.

        Args:
            output: logits ``[B, C, *S]``, or one such tensor per scale, finest first.
            target: ``[B, 1, *S]`` labels or ``[B, R, *S]`` regions (and the ignore channel), one per output;
                optionally followed by one map ``[B, K, *S]`` per output.

        Raises:
            ValueError: numbers of outputs, targets and weights that do not fit together.
        """
        outputs, targets = _listed(output), _listed(target)
        maps: Sequence[Any] | None = self._started_for(targets)
        if len(targets) == 2 * len(outputs):
            targets, maps = targets[: len(outputs)], targets[len(outputs) :]
        if not len(outputs) == len(targets) == len(self.weights):
            raise ValueError(
                f"output: must be one per target and weight, got {len(outputs)} outputs, {len(targets)} "
                f"targets, {len(self.weights)} weights"
            )
        regions = [
            weight * self.region(prediction, truth)
            for weight, prediction, truth in zip(self.weights, outputs, targets, strict=True)
            if weight
        ]
        labels, masks = self._split(targets)
        with nullcontext() if self.timer is None else self.timer:
            distance = self.distances(outputs, labels, distance_map=maps, ignore_mask=masks)
        region_weight, distance_weight = self.schedule.weights_tensor.to(distance.dtype).unbind()
        total: torch.Tensor = region_weight * torch.stack(regions).sum() + distance_weight * distance
        return total

    def prefetch(self, target: torch.Tensor | Sequence[torch.Tensor], channels: int) -> None:
        """Start the maps that ``forward`` will need for the same target tensors.

        Args:
            target: as in ``forward``, on the device of the outputs.
            channels: of the outputs.
        """
        targets = _listed(target)
        labels, masks = self._split(targets)
        shapes = [truth.shape[2:] for truth in labels]
        spacing = self.distance.batch_spacing(None, labels[0], len(shapes[0]))
        ignored: list[torch.Tensor | None] = [None] * len(labels) if masks is None else [*masks]
        with nullcontext() if self.timer is None else self.timer:
            handles = [
                self.distance.prefetch(
                    truth,
                    channels,
                    spatial_dims=len(shape),
                    spacing=scaled_spacing(spacing, len(truth), shapes[0], shape),
                    ignore_mask=mask,
                )
                if weight
                else None
                for weight, truth, mask, shape in zip(self.weights, labels, ignored, shapes, strict=True)
            ]
        self._started = (targets, handles)

    def _started_for(self, targets: list[torch.Tensor]) -> list[Prefetched[torch.Tensor] | None] | None:
        """Return the maps that were started for these targets, and drop those of others."""
        started, self._started = self._started, None
        if started is None or len(started[0]) != len(targets):
            return None
        return started[1] if all(a is b for a, b in zip(started[0], targets, strict=True)) else None

    def _split(self, targets: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
        if not self.ignore_channel:
            return targets, None
        return [target[:, :-1] for target in targets], [target[:, -1:] for target in targets]


class MapTimer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Add up the time of the maps that are computed inside ``with`` blocks.

    Args:
        beside_scipy: whether scipy computes each map again on the CPU, with its time added up separately.
    """

    def __init__(self, *, beside_scipy: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self._beside_scipy = beside_scipy
        self._ours, self._scipy, self.maps = 0.0, 0.0, 0
        self._pending: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operator; measure it if it makes a map."""
        kwargs = kwargs or {}
        if getattr(func, "namespace", None) != "fastsdm":
            return func(*args, **kwargs)
        self.maps += 1
        if self._beside_scipy:
            began = perf_counter()
            with use_backend("scipy"):
                func(*tree_map_only(torch.Tensor, torch.Tensor.cpu, args), **kwargs)
            self._scipy += perf_counter() - began
        if any(isinstance(arg, torch.Tensor) and arg.is_cuda for arg in args):
            events = (_timed_event(), _timed_event())
            events[0].record()
            result = func(*args, **kwargs)
            events[1].record()
            self._pending.append(events)
            return result
        began = perf_counter()
        result = func(*args, **kwargs)
        self._ours += perf_counter() - began
        return result

    def report(self, epoch: float) -> str:
        """Return one line for the log; waits for the device.

        Args:
            epoch: duration of the epoch in seconds, including scipy's maps.
        """
        for began, ended in self._pending:
            ended.synchronize()
            self._ours += began.elapsed_time(ended) / 1000
        self._pending.clear()
        epoch -= self._scipy
        line = (
            f"Signed distance maps: {self.maps} in {self._ours:.2f} s, "
            f"{100 * self._ours / epoch:.1f} % of the epoch's {epoch:.1f} s"
        )
        if self._beside_scipy:
            with_scipy = epoch - self._ours + self._scipy
            line += (
                f"; the same by scipy: {self._scipy:.2f} s, {100 * self._scipy / with_scipy:.1f} % of "
                f"{with_scipy:.1f} s"
            )
        return line


def _listed(scales: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [scales] if isinstance(scales, torch.Tensor) else list(scales)


def _timed_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
