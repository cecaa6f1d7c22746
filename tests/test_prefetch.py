"""The map beside the forward pass: same values, errors at result(), threads, forks and streams."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue

import numpy as np
import pytest
import torch

import fastsdm
from fastsdm import _worker, testing
from fastsdm._backends import registry
from fastsdm.losses import BoundaryLoss

SETTINGS = {
    "classes": 3,
    "spacing": (2.0, 0.9, 0.9),
    "convention": "midline",
    "empty": "max",
    "max_distance": 4.0,
    "dtype": torch.float64,
    "backend": "scipy",
}


def labels() -> np.ndarray:
    return testing.shells((14, 15, 16), classes=3)


def test_map_is_the_one_of_a_plain_call() -> None:
    got, expected = fastsdm.prefetch(labels(), **SETTINGS), fastsdm.signed_distance(labels(), **SETTINGS)
    np.testing.assert_array_equal(got.result(), expected, strict=True)
    flat = testing.blobs((20, 30), sigma=3)
    expected = fastsdm.signed_distance(flat, spatial_dims=2)
    assert np.array_equal(fastsdm.prefetch(flat, spatial_dims=2).result(), expected)


def test_result_keeps_the_kind_of_the_target_and_is_the_same_every_time() -> None:
    pending = fastsdm.prefetch(torch.from_numpy(labels()))
    assert isinstance(pending.result(), torch.Tensor)
    assert pending.result() is pending.result()
    assert isinstance(fastsdm.prefetch(labels()).result(), np.ndarray)


def test_call_returns_before_the_map_is_made(monkeypatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    made_by = []

    scipy = type(registry.get("scipy"))
    without_waiting = scipy.signed_distance

    def waiting(*arguments):
        made_by.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(60)
        return without_waiting(*arguments)

    monkeypatch.setattr(scipy, "signed_distance", waiting)
    pending = fastsdm.prefetch(labels(), backend="scipy")
    assert begun.wait(60)
    go_on.set()  # never reached if the call above waited for the map
    pending.result()
    assert made_by[0].startswith("fastsdm-prefetch")


@pytest.mark.parametrize(
    ("target", "settings", "error"),
    [
        (np.zeros((4, 4, 4)), {"spacing": -1.0}, ValueError),
        (np.zeros((4, 4, 4)), {"empty": "raise"}, ValueError),
        (np.zeros((4, 4, 4)), {"backend": "cucim"}, fastsdm.BackendUnavailableError),
        ([[1]], {}, TypeError),
    ],
)
def test_errors_surface_at_result_every_time(target, settings, error) -> None:
    pending = fastsdm.prefetch(target, **settings)
    for _ in range(2):
        with pytest.raises(error):
            pending.result()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_distance": "far"}, TypeError, "max_distance: must be None or a number, got str"),
        ({"max_distance": [3.0]}, TypeError, "max_distance: must be None or a number, got list"),
        ({"max_distance": 10**400}, ValueError, "max_distance: must be at most"),
        ({"spacing": []}, ValueError, r"spacing: must hold one number per spatial axis, got shape \(0,\)"),
    ],
)
def test_settings_that_no_map_has_are_named_at_once(settings, error, message) -> None:
    with pytest.raises(error, match=message):
        fastsdm.prefetch(np.zeros((4, 4, 4)), **settings)


@pytest.fixture
def busy_worker():
    """Keep the worker thread from beginning anything else."""
    begun, go_on = threading.Event(), threading.Event()
    job = _worker.submit(lambda target: (begun.set(), go_on.wait(60)), None)
    assert begun.wait(60)
    yield
    go_on.set()
    job.result()


def test_a_map_that_is_wanted_before_it_was_begun_is_made_by_who_wants_it(busy_worker, monkeypatch) -> None:
    made_by = []
    scipy = type(registry.get("scipy"))
    made = scipy.signed_distance
    monkeypatch.setattr(
        scipy, "signed_distance", lambda *a: (made_by.append(threading.current_thread()), made(*a))[1]
    )
    target = torch.from_numpy(labels())
    pending = fastsdm.prefetch(target, backend="scipy")
    with torch.inference_mode():  # its tensors are of no use in a training step
        maps = pending.result()
    assert not maps.is_inference()
    assert pending.result() is maps
    assert torch.equal(torch.as_tensor(maps), fastsdm.signed_distance(target))
    assert made_by == [threading.current_thread()]
    with pytest.raises(TypeError, match="target"):
        fastsdm.prefetch([[1]]).result()


def test_many_threads_that_want_the_same_map_get_it_once(monkeypatch) -> None:
    calls = []
    jobs = [_worker.submit(lambda target: calls.append(target) or object(), number) for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: [job.result() for job in jobs], range(8)))
    assert sorted(calls) == list(range(200))
    assert all(result == results[0] for result in results)


def test_the_target_is_freed_when_its_map_is_made() -> None:
    array = labels()
    alive = weakref.ref(array)
    pending = fastsdm.prefetch(array)
    del array
    pending.result()
    assert alive() is None


def test_a_process_ends_while_its_map_is_made() -> None:
    script = (
        "import numpy, fastsdm\n"
        "pending = fastsdm.prefetch(numpy.eye(700, dtype='uint8'), spatial_dims=2, backend='scipy')\n"
        "more = [fastsdm.prefetch(numpy.ones((3, 3), 'uint8'), spatial_dims=2) for _ in range(3)]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""


def test_threads_that_call_at_once_share_one_worker(monkeypatch) -> None:
    started = []

    class SlowThread(threading.Thread):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            started.append(self)
            time.sleep(0.05)  # long enough for the other callers to find no worker

    monkeypatch.setattr(_worker, "_thread", None)
    monkeypatch.setattr(_worker, "_jobs", SimpleQueue())
    callers = 4
    together = threading.Barrier(callers)
    with ThreadPoolExecutor(callers) as pool:
        made = list(pool.map(lambda _: together.wait() >= 0, range(callers)))  # its threads are there now
        assert all(made)
        monkeypatch.setattr(threading, "Thread", SlowThread)
        results = pool.map(
            lambda _: together.wait() >= 0 and fastsdm.prefetch(labels()).result(), range(callers)
        )
        assert all(maps.shape == labels().shape for maps in results)
    try:
        assert len(started) == 1
    finally:
        for _ in started:
            _worker._jobs.put(None)
        for thread in started:
            thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_in_the_middle_of_a_map_is_told_instead_of_waiting() -> None:
    script = """
import os, signal, threading
import torch
torch.set_num_threads(1)
from fastsdm import _worker
begun, forked = threading.Event(), threading.Event()
job = _worker.submit(lambda _: (begun.set(), forked.wait()), None)
behind = _worker.submit(lambda target: target, 2)
begun.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)  # ends a child that waits
    assert behind.result() == 2
    try:
        job.result()
    except RuntimeError as error:
        os._exit(0 if "prefetch: this process was forked" in str(error) else 1)
    os._exit(2)
forked.set()
assert job.result() == (None, True)
assert behind.result() == 2
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", script], timeout=120, check=True)


def test_worker_goes_on_after_an_error() -> None:
    fastsdm.prefetch([[1]])
    assert fastsdm.prefetch(labels()).result().shape == labels().shape


def test_choice_of_backend_is_the_one_in_force_at_the_call(monkeypatch) -> None:
    asked = []
    select = registry.select
    monkeypatch.setattr(registry, "select", lambda name, device: asked.append(name) or select(name, device))
    with fastsdm.use_backend("scipy"):
        pending = fastsdm.prefetch(labels())
    pending.result()
    assert asked == ["scipy"]


def test_loss_takes_the_handle() -> None:
    target = torch.from_numpy(labels())[None]
    prediction = torch.rand(1, 3, 14, 15, 16)
    maps = fastsdm.prefetch(target, classes=3, empty="zero")
    loss = BoundaryLoss()
    torch.testing.assert_close(loss(prediction, target, distance_map=maps), loss(prediction, target))


def _prefetch_in_child(queue) -> None:
    queue.put(float(fastsdm.prefetch(labels()).result().sum()))


def test_works_in_a_forked_child_of_a_process_that_used_it() -> None:
    expected = float(fastsdm.prefetch(labels()).result().sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_prefetch_in_child, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=60) == expected
    finally:
        child.kill()
        child.join()


def test_streams_and_lifetimes_as_asked_for_on_cuda(monkeypatch) -> None:
    """With stand-ins for torch's streams; what real ones make of it only a GPU shows."""
    log: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            log.append(f"{self.name} waits for {other.name}")

        def record_event(self) -> str:
            log.append(f"event on {self.name}")
            return "event"

        def wait_event(self, event: str) -> None:
            log.append(f"{self.name} waits for {event}")

    streams = [Stream("main")]

    @contextmanager
    def on(stream: Stream):
        streams.append(stream)
        yield
        streams.pop()

    def mapped(target: torch.Tensor, **settings) -> torch.Tensor:
        log.append(f"map on {streams[-1].name}")
        return target.float()

    module = sys.modules["fastsdm._prefetch"]
    monkeypatch.setattr(module, "_is_on_cuda", lambda target: True)
    monkeypatch.setattr(module, "_side_stream", lambda device: Stream("side"))
    monkeypatch.setattr(module, "signed_distance", mapped)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams[-1])
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(
        torch.Tensor,
        "record_stream",
        lambda tensor, stream: log.append(f"{tensor.dtype} lives for {stream.name}"),
    )
    pending = fastsdm.prefetch(torch.from_numpy(labels()))
    assert log == ["side waits for main", "torch.int64 lives for side", "map on side", "event on side"]
    log.clear()
    with on(Stream("consumer")):
        pending.result()
        pending.result()
    assert log == ["consumer waits for event", "torch.float32 lives for consumer"], "once a stream"
    with on(Stream("another")):
        pending.result()
    assert log[2:] == ["another waits for event", "torch.float32 lives for another"]

    # Another library's array lives as long as the handle: torch's allocator knows nothing of it.
    array = labels()
    alive = weakref.ref(array)
    handle = fastsdm.prefetch(array)
    del array
    assert alive() is not None
    del handle
    assert alive() is None


def python_calls(run) -> int:
    """How many Python functions run on this thread."""
    count = 0

    def counted(frame, event, argument):
        nonlocal count
        count += event == "call"

    run()  # what is made once is made
    sys.setprofile(counted)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def test_the_hand_over_is_a_few_calls(monkeypatch) -> None:
    """Host time is what a step waits for: on a GPU the map itself takes as long as a few of these."""
    target = torch.from_numpy(labels())
    inline = python_calls(lambda: fastsdm.signed_distance(target))

    def done() -> None:
        pending = fastsdm.prefetch(target)
        _worker.submit(lambda _: None, None)  # jobs are begun in order
        while not pending._finished.__self__._claim.locked():
            pass
        pending.result()

    assert python_calls(done) <= 25
    assert python_calls(lambda: fastsdm.prefetch(target).result()) <= inline + 25

    class Stream:
        def wait_stream(self, other: object) -> None: ...
        def wait_event(self, event: object) -> None: ...
        def record_event(self) -> None: ...

    side, main = Stream(), Stream()
    module = sys.modules["fastsdm._prefetch"]
    monkeypatch.setattr(module, "_is_on_cuda", lambda target: True)
    monkeypatch.setattr(module, "_side_stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    assert python_calls(lambda: fastsdm.prefetch(target).result()) <= inline + 35


@pytest.mark.gpu
def test_cuda_map_is_ordered_after_the_target_and_before_the_consumer() -> None:
    device = torch.device("cuda")
    expected = fastsdm.signed_distance(torch.from_numpy(labels()), backend="scipy")
    for consumer in (torch.cuda.current_stream(), torch.cuda.Stream()):
        target = torch.zeros(labels().shape, dtype=torch.int64, device=device)
        source = torch.from_numpy(labels()).to(device)
        torch.cuda._sleep(50_000_000)  # the copy below is not done when the map is asked for
        target.copy_(source)
        pending = fastsdm.prefetch(target)
        del target
        torch.full((14, 15, 16), -7, device=device)  # would take the target's memory, were it given back
        with torch.cuda.stream(consumer):
            got = pending.result().clone()
            del pending
            torch.full((14, 15, 16), torch.nan, device=device)
        consumer.synchronize()
        torch.testing.assert_close(got.cpu(), expected)


@pytest.mark.gpu
def test_cuda_call_does_not_wait_for_the_device() -> None:
    target = torch.from_numpy(labels()).cuda()
    fastsdm.prefetch(target).result()
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)
    fastsdm.prefetch(target).result()
    assert not torch.cuda.current_stream().query()


@pytest.mark.gpu
def test_cuda_errors_surface_at_result() -> None:
    target = torch.zeros(4, 4, 4, dtype=torch.uint8, device="cuda")
    pending = fastsdm.prefetch(target, empty="raise")
    with pytest.raises(ValueError, match="empty"):
        pending.result()
