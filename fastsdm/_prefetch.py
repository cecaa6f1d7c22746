"""Distance maps computed during the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Generic, cast

import torch

from fastsdm._arrays import ArrayT, as_tensor
from fastsdm._backends import registry
from fastsdm._distance_map import remember
from fastsdm._sdm import signed_distance
from fastsdm._settings import MapOptions, MapSettings
from fastsdm._worker import submit

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Prefetched(Generic[ArrayT]):
    """A map that is being computed; the losses take it as ``distance_map``.

    Attributes:
        settings: of the map.
    """

    def __init__(self, finished: Callable[[], ArrayT], settings: MapSettings) -> None:
        self._finished = finished
        self._known: ArrayT | None = None
        self.settings = settings

    def result(self) -> ArrayT:
        """Return the map, as :func:`fastsdm.signed_distance` would; the same one on every call.

        A torch tensor keeps its settings, so that a loss with other settings refuses it. On CUDA the current
        stream waits for the map, not the host. Elsewhere this call computes the map if the worker thread has
        not begun it.

        Raises:
            Exception: the error of :func:`fastsdm.signed_distance`.
        """
        maps = self._finished()
        if not isinstance(maps, torch.Tensor):
            return maps
        if self._known is None:
            self._known = cast("ArrayT", remember(maps, self.settings))
        return self._known


_OPTIONS = frozenset(MapOptions.__annotations__)


def prefetch(target: ArrayT, **options: Unpack[MapOptions]) -> Prefetched[ArrayT]:
    """Start the signed distance map of a target and return at once.

    Call it before the forward pass and pass the result to the loss as ``distance_map``. ``loss.prefetch``
    does the same with the loss's own settings. It helps if the map takes much longer than the few
    microseconds that prefetching costs: large volumes on the CPU while the network runs on a GPU, or cuCIM.
    It does not help a step that is limited by the host.

    On CUDA a second stream computes the map, after everything queued on the current stream so far; elsewhere
    a worker thread does. With ``"auto"`` a choice by :func:`fastsdm.use_backend` counts at the time of this
    call. Do not write to the target before ``result()`` was called; it may be freed.

    Args:
        target: as in :func:`fastsdm.signed_distance`.
        options: keywords of :func:`fastsdm.signed_distance`. ``empty="raise"`` makes this call wait for the
            device on CUDA.

    Returns:
        An object whose ``result()`` returns the map, or raises the error of its computation.

    Raises:
        TypeError: an argument that :func:`fastsdm.signed_distance` does not have.
    """
    if not options.keys() <= _OPTIONS:
        unknown = min(options.keys() - _OPTIONS)
        raise TypeError(
            f"{unknown}: is no argument of prefetch; it takes {', '.join(MapOptions.__annotations__)}"
        )
    chosen = registry.current_choice(options.get("backend", "auto"))
    options["backend"] = chosen
    return start(partial(signed_distance, **options), target, MapSettings.of(options))


def start(mapped: Callable[..., Any], target: ArrayT, settings: MapSettings) -> Prefetched[ArrayT]:
    """Start ``mapped(target)`` on a second stream or a worker thread; ``settings`` are those of the map."""
    if _is_on_cuda(target):
        return _on_side_stream(mapped, target, settings)
    return Prefetched(submit(mapped, target).result, settings)


def _on_side_stream(
    mapped: Callable[..., torch.Tensor], target: ArrayT, settings: MapSettings
) -> Prefetched[ArrayT]:
    labels, restore = as_tensor(target, "target")
    side = _side_stream(labels.device)
    side.wait_stream(torch.cuda.current_stream(labels.device))
    # The allocator must keep the target's memory until the side stream has used it.
    labels.record_stream(side)
    maps: torch.Tensor | None = None
    failed: Exception | None = None
    with torch.cuda.stream(side):
        try:
            maps = mapped(labels)
        except Exception as error:  # not handled: result() raises it, as it would a worker thread's
            failed = error
    ready = side.record_event()

    # record_stream cannot keep another library's array alive; a reference in the result does.
    kept = None if isinstance(target, torch.Tensor) else target
    seen: list[Any] = []  # streams that wait for the map already

    def finished(_kept: object = kept) -> ArrayT:
        if maps is None:
            assert failed is not None
            raise failed
        consumer = torch.cuda.current_stream(maps.device)
        if consumer not in seen:
            consumer.wait_event(ready)
            maps.record_stream(consumer)
            seen.append(consumer)
        handed: ArrayT = restore(maps)
        return handed

    return Prefetched(finished, settings)


def _is_on_cuda(target: object) -> bool:
    if isinstance(target, torch.Tensor):
        return target.is_cuda
    return type(target).__module__.partition(".")[0] == "cupy"


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
