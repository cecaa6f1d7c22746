"""A worker thread with a queue and locks, which cost less than a pool of concurrent.futures."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import torch

from fastsdm._warn import keep_for_later, warn_caller


class Job:
    """A call made by the worker thread, or by ``result`` if the worker has not begun it."""

    __slots__ = ("_call", "_claim", "_done", "_error", "_process", "_result", "_target", "_warnings")

    def __init__(self, call: Callable[[Any], Any], target: object) -> None:
        self._call: Callable[[Any], Any] | None = call
        self._target: object = target
        self._result: Any = None
        self._error: BaseException | None = None
        self._warnings: list[str] = []
        self._process = _process
        self._claim = threading.Lock()
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        """Make the call, unless another thread does or did."""
        if not self._claim.acquire(blocking=False):
            return
        self._process = _process
        call, target = self._call, self._target
        self._call = self._target = None  # the target may be freed as soon as the map is made
        assert call is not None
        try:
            self._result = call(target)
        except BaseException as error:  # not handled: result() raises it
            self._error = error
        self._done.release()

    def run_beside(self) -> None:
        """Make the call on the worker thread; :meth:`result` gives its warnings."""
        keep_for_later(self._warnings)
        self.run()

    def result(self) -> Any:
        """Wait for the call, and return or raise what it did.

        Raises:
            RuntimeError: the parent process began the call before it forked this one, so it cannot end here.
        """
        if torch.is_inference_mode_enabled():  # such a map could not be used in training
            with torch.inference_mode(False):
                self.run()
        else:
            self.run()
        if self._process is not _process and self._done.locked():  # it would wait forever
            raise RuntimeError(
                "prefetch: this process was forked while the map was being made, and does not get it; "
                "call prefetch in the process that needs the map"
            )
        with self._done:
            pass
        while self._warnings:
            warn_caller(self._warnings.pop())
        if self._error is not None:
            raise self._error
        return self._result


_jobs: SimpleQueue[Job | None] = SimpleQueue()
_thread: threading.Thread | None = None
_starting = threading.Lock()
_process = object()  # identifies this process; cheaper than os.getpid


def submit(call: Callable[[Any], Any], target: object) -> Job:
    """Queue ``call(target)`` for the worker thread, which makes the calls in order."""
    job = Job(call, target)
    if _thread is None:
        _start()
    _jobs.put(job)
    return job


def _start() -> None:
    global _thread  # noqa: PLW0603
    with _starting:
        if _thread is not None:  # another caller has started it
            return
        thread = threading.Thread(target=_work, args=(_jobs,), name="fastsdm-prefetch", daemon=True)
        thread.start()
        _thread = thread


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job.run_beside()
        del job  # free its map now, not at the next job


def _stop() -> None:
    """End the thread before the interpreter ends; it may be computing a map."""
    if _thread is not None:
        _jobs.put(None)
        _thread.join()


def _forget() -> None:
    """Start anew in a forked child: threads do not survive a fork, and one may have held a lock."""
    global _jobs, _process, _starting, _thread
    _jobs, _process, _starting, _thread = SimpleQueue(), object(), threading.Lock(), None


atexit.register(_stop)
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget)
