"""A distance map that is computed beside the forward pass."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Generic, cast

import torch

from fastsdm._arrays import ArrayT, as_tensor
from fastsdm._backends import registry
from fastsdm._distance_map import remember
from fastsdm._sdm import signed_distance
from fastsdm._settings import MapOptions, MapSettings

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Prefetched(Generic[ArrayT]):
    """A map under way; the losses take it as ``distance_map``.

    Attributes:
        settings: how it is made.
    """

    def __init__(
        self, future: Future[Any], hand_over: Callable[[Any], ArrayT], settings: MapSettings
    ) -> None:
        self._future = future
        self._hand_over = hand_over
        self._known: torch.Tensor | None = None
        self.settings = settings

    def result(self) -> ArrayT:
        """The map, as :func:`fastsdm.signed_distance` would have returned it; the same one on every call.

        A tensor remembers how it was made, so that a loss with other settings refuses it. On CUDA the host
        does not wait: the current stream does.

        Raises:
            Exception: whatever :func:`fastsdm.signed_distance` raised.
        """
        maps = self._hand_over(self._future.result())
        if not isinstance(maps, torch.Tensor):
            return maps
        if self._known is None:
            self._known = remember(maps, self.settings)
        return cast("ArrayT", self._known)


def prefetch(target: ArrayT, **options: Unpack[MapOptions]) -> Prefetched[ArrayT]:
    """Start the signed distance map of a target and return at once.

    Call it before the forward pass and hand the result to the loss; ``loss.prefetch`` does so with the loss's
    own settings. On CUDA the map is computed on a stream of its own, after all that the current stream holds
    by now; elsewhere by a worker thread. With ``"auto"`` the choice of :func:`fastsdm.use_backend` that is in
    force at this call counts.

    The target must not be written to before ``result()`` has been called; it may be freed.

    Args:
        target: as in :func:`fastsdm.signed_distance`.
        options: keywords of :func:`fastsdm.signed_distance`. ``empty="raise"`` makes this call wait for the
            device on CUDA.

    Returns:
        A handle whose ``result()`` hands the map over, or raises what went wrong.

    Raises:
        TypeError: an argument that :func:`fastsdm.signed_distance` does not have.
    """
    unknown = sorted(options.keys() - MapOptions.__annotations__.keys())
    if unknown:
        raise TypeError(
            f"{unknown[0]}: is no argument of prefetch; it takes {', '.join(MapOptions.__annotations__)}"
        )
    chosen = registry.current_choice(options.get("backend", "auto"))
    options["backend"] = chosen
    return start(partial(signed_distance, **options), target, MapSettings.of(options))


def start(mapped: Callable[..., Any], target: ArrayT, settings: MapSettings) -> Prefetched[ArrayT]:
    """Start a map beside what the caller does next.

    Args:
        mapped: makes the map of a target.
        target: torch tensor, numpy array or cupy array.
        settings: how ``mapped`` makes it.
    """
    if _is_on_cuda(target):
        return _on_side_stream(mapped, target, settings)
    return Prefetched(_worker.submit(mapped, target), _unchanged, settings)


def _on_side_stream(
    mapped: Callable[..., torch.Tensor], target: ArrayT, settings: MapSettings
) -> Prefetched[ArrayT]:
    labels, restore = as_tensor(target, "target")
    side = _side_stream(labels.device)
    side.wait_stream(torch.cuda.current_stream(labels.device))
    # Both allocations outlive their use on the other stream: the target's here, the map's in `hand_over`.
    labels.record_stream(side)
    future: Future[torch.Tensor] = Future()
    with torch.cuda.stream(side):
        try:
            future.set_result(mapped(labels))
        except Exception as error:  # not handled: result() raises it, as it would a worker thread's
            future.set_exception(error)
    ready = side.record_event()

    # The memory of another library's array is not torch's to keep: a reference to it does, in the handle.
    kept = None if isinstance(target, torch.Tensor) else target

    def hand_over(maps: torch.Tensor, _kept: object = kept) -> ArrayT:
        consumer = torch.cuda.current_stream(maps.device)
        consumer.wait_event(ready)
        maps.record_stream(consumer)
        handed: ArrayT = restore(maps)
        return handed

    return Prefetched(future, hand_over, settings)


def _is_on_cuda(target: object) -> bool:
    if isinstance(target, torch.Tensor):
        return target.is_cuda
    return type(target).__module__.partition(".")[0] == "cupy"


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _unchanged(maps: ArrayT) -> ArrayT:
    return maps


_worker: ThreadPoolExecutor


def _start_worker() -> None:
    global _worker  # noqa: PLW0603
    _worker = ThreadPoolExecutor(1, thread_name_prefix="fastsdm-prefetch")


_start_worker()  # its thread starts with the first map
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_start_worker)  # threads do not survive a fork
