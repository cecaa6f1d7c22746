"""Other ways to the same map, each called as its documentation advises and in its fastest exact setting.

What is timed: labels in the peer's own container (numpy array, SimpleITK or DIPlib image, GPU array) in,
maps in that container out. Converting from and to a container is not timed; making the mask of each class
of a label map is, because every peer needs it. Peers return a list of K maps and need not stack them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from scipy import ndimage

from benchmarks.measure.cases import MapCase
from benchmarks.measure.contenders import Contender, Prepared, rotating_buffers
from fastsdm import testing
from fastsdm.testing import Array, Tolerance

#: Maurer's filter compares float32 products of squared distances to drop sites: where two are nearly as near,
#: the farther one can stay. On whole volumes this shows at the fifth digit, at spacings that are no integers.
NEAR_TIES = Tolerance(relative=1e-4, voxels=0.0, share_off=1.0)

#: Makes the maps of one sample, one per class, in the peer's container.
SampleRun: TypeAlias = Callable[[], list[Any]]


class Peer(Contender):
    """A way to make plain maps that is not ours, called once per sample.

    Attributes:
        package: that it needs.
        device_types: of the runs it takes part in; a peer that takes part in "cpu" works on the host in all.
    """

    package: ClassVar[str]
    device_types: ClassVar[tuple[str, ...]] = ("cpu",)

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_host = "cpu" in self.device_types

    @classmethod
    def unavailable(cls, device: torch.device) -> str | None:
        """None, or why this peer cannot run beside tensors on `device`."""
        if device.type not in cls.device_types:
            return f"runs on {' and '.join(cls.device_types)}"
        if importlib.util.find_spec(cls.package) is None:
            return f"package {cls.package} is not installed"
        return None

    def sample(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        """Convert one sample `[*S]` to the peer's container; return what is timed."""
        raise NotImplementedError

    def signed(self, map_: Any, inside: Array) -> Array:
        """A map as numpy array with our signs, given the mask it was made of."""
        return np.asarray(map_)

    def prepared(self, case: MapCase, labels: Array, threads: int) -> Prepared:
        copies = 1 if self.on_host else rotating_buffers(labels.nbytes, self.device)
        samples = [[self.sample(case, sample, threads) for sample in labels] for _ in range(copies)]

        def run(round_: int) -> list[list[Any]]:
            return [sample() for sample in samples[round_ % copies]]

        def plain(result: list[list[Any]]) -> Array:
            maps = [
                [self.signed(map_, sample == value) for map_, value in zip(found, case.values, strict=True)]
                for found, sample in zip(result, labels, strict=True)
            ]
            return np.stack([np.stack(each) for each in maps])

        return Prepared(run, plain)


def mask_of(labels: Any, case: MapCase, value: int) -> Any:
    """The mask of a class as 0/1 bytes; a mask case needs no comparison."""
    return labels if case.classes is None else (labels == value).view(labels.dtype)


class ScipyPeer(Peer):
    """Two `distance_transform_edt` and their difference; one thread is all scipy has.

    This is the reference as well, so an absent class is guarded; it is not timed there, as the guard is ours.
    """

    name, package, device_types = "scipy", "scipy", ("cpu", "cuda")

    def sample(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        def signed(inside: Array) -> Array:
            if inside.all() or not inside.any():  # scipy would measure to a voxel that does not exist
                return np.full(inside.shape, -np.inf if inside.any() else np.inf)
            outer = ndimage.distance_transform_edt(~inside, sampling=case.spacing)
            outer -= ndimage.distance_transform_edt(inside, sampling=case.spacing)
            return np.asarray(outer)

        return lambda: [signed(labels == value) for value in case.values]


class OneHotRecipePeer(Peer):
    """The published data-loader recipe: one-hot array in, one map per class out.

    One-hot encoding is not timed.
    """

    name, package = "one_hot2dist", "scipy"

    def sample(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        one_hot = np.stack([labels == value for value in case.values])
        return lambda: [testing.published_map(mask, case.spacing) for mask in one_hot]

    def signed(self, map_: Any, inside: Array) -> Array:
        return np.asarray(map_ - inside, np.float32)  # the recipe moves inside distances towards zero by one


class EdtPeer(Peer):
    """`edt.sdf` of seung-lab, threaded, without a black border."""

    name, package = "edt", "edt"
    handles_absence = True

    def sample(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        edt: Any = import_module("edt")

        def signed(value: int) -> Any:
            mask = mask_of(labels, case, value)
            return edt.sdf(mask, anisotropy=case.spacing, black_border=False, parallel=threads)

        return lambda: [signed(value) for value in case.values]

    def signed(self, map_: Any, inside: Array) -> Array:
        return np.asarray(-map_)


class SimpleITKPeer(Peer):
    """`SignedMaurerDistanceMap` with image spacing and true (not squared) distances.

    Its inside distances run to the object's own border voxels, so only the outside half is comparable.
    """

    name, package = "SimpleITK", "SimpleITK"
    half = "outside"
    tolerance = NEAR_TIES

    def sample(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        sitk: Any = import_module("SimpleITK")
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        image = sitk.GetImageFromArray(labels)
        image.SetSpacing(case.spacing[::-1])

        def signed(value: int) -> Any:
            mask = image if case.classes is None else sitk.Equal(image, value)
            return sitk.SignedMaurerDistanceMap(
                mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
            )

        return lambda: [signed(value) for value in case.values]

    def signed(self, map_: Any, inside: Array) -> Array:
        return np.asarray(import_module("SimpleITK").GetArrayViewFromImage(map_))


class DIPlibPeer(Peer):
    """Two `EuclideanDistanceTransform` of the method "separable" and their difference.

    Seen with version 3.6.1: exact at unit spacing, but off by up to a slice's thickness along some lines at
    spacings like (3, 0.8, 0.8), where the gate refuses it.
    """

    name, package = "DIPlib", "diplib"

    def sample(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        dip: Any = import_module("diplib")
        dip.SetNumberOfThreads(threads)
        image = dip.Image(labels)
        image.SetPixelSize(dip.PixelSize(list(case.spacing[::-1])))

        def signed(value: int) -> Any:
            inside = image == value
            outer = dip.EuclideanDistanceTransform(~inside, border="object", method="separable")
            return outer - dip.EuclideanDistanceTransform(inside, border="object", method="separable")

        return lambda: [signed(value) for value in case.values]


class CupyPeer(Peer):
    """Two transforms of `cupyx.scipy.ndimage` on torch's stream, float32 asked for."""

    name, package, device_types = "CuPy", "cupy", ("cuda",)

    def _transform(self, mask: Any, spacing: tuple[float, ...] | None) -> Any:
        ndimage_of_cupy: Any = import_module("cupyx.scipy.ndimage")
        return ndimage_of_cupy.distance_transform_edt(mask, sampling=spacing, float64_distances=False)

    def sample(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        cupy: Any = import_module("cupy")
        on_device = cupy.asarray(labels)
        # Passing any spacing makes the transform wait for the device; unit spacing need not be passed.
        spacing = None if set(case.spacing) == {1.0} else case.spacing

        def signed(value: int) -> Any:
            inside = on_device == value
            return self._transform(~inside, spacing) - self._transform(inside, spacing)

        def run() -> list[Any]:
            with _cupy_stream(cupy, torch.cuda.current_stream()):
                return [signed(value) for value in case.values]

        return run

    def signed(self, map_: Any, inside: Array) -> Array:
        return np.asarray(map_.get())


def _cupy_stream(cupy: Any, stream: torch.cuda.Stream) -> Any:
    # Older releases of either side lack the protocol; CuPy 14 deprecates the way without it.
    if hasattr(cupy.cuda.Stream, "from_external") and hasattr(stream, "__cuda_stream__"):
        return cupy.cuda.Stream.from_external(stream)
    return cupy.cuda.ExternalStream(stream.cuda_stream)


class CucimPeer(CupyPeer):
    """The same through cuCIM."""

    name, package = "cuCIM", "cucim"

    def _transform(self, mask: Any, spacing: tuple[float, ...] | None) -> Any:
        morphology: Any = import_module("cucim.core.operations.morphology")
        return morphology.distance_transform_edt(mask, sampling=spacing)


PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (ScipyPeer, OneHotRecipePeer, EdtPeer, SimpleITKPeer, DIPlibPeer, CupyPeer, CucimPeer)
}


def peer_contenders(device: torch.device) -> tuple[list[Contender], dict[str, str]]:
    """The peers that run on `device`, and why the others do not."""
    reasons = {name: peer.unavailable(device) for name, peer in PEERS.items()}
    found: list[Contender] = [peer(device) for name, peer in PEERS.items() if reasons[name] is None]
    return found, {name: reason for name, reason in reasons.items() if reason is not None}
