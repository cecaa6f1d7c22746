"""Other ways to the same map, each called as its documentation advises and in its fastest exact setting.

What is timed: labels in the peer's own container (numpy array, SimpleITK or DIPlib image, GPU array) in,
maps in that container out. Converting from and to a container is not timed; making the mask of each class
of a label map is, because every peer needs it. Peers return a list of K maps and need not stack them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from scipy import ndimage

from benchmarks.measure.cases import MapCase
from benchmarks.measure.gate import Half
from fastsdm._backends.cupy_bridge import cupy_stream
from fastsdm.testing import Array, Tolerance

#: What float32 makes of a few roundings in a row; ours, which are held to two, are not held to this.
ROUNDED = Tolerance(relative=2e-6, voxels=0.0, share_off=1.0)
#: Maurer's filter compares float32 products of squared distances to drop sites: where two are nearly as near,
#: the farther one can stay. On whole volumes this shows at the fifth digit, at spacings that are no integers.
NEAR_TIES = Tolerance(relative=1e-4, voxels=0.0, share_off=1.0)

_ON_CPU: tuple[str, ...] = ("cpu",)
_ON_CUDA: tuple[str, ...] = ("cuda",)
_EVERYWHERE = _ON_CPU + _ON_CUDA

#: Maps of one sample, one per class, in the peer's container.
Maps: TypeAlias = list[Any]
SampleRun: TypeAlias = Callable[[], Maps]


class Peer(Protocol):
    """A way to make plain maps that is not ours."""

    name: str
    package: str
    #: Device types of the runs it takes part in; a peer that takes part in "cpu" works on the host in all.
    device_types: tuple[str, ...]
    half: Half
    tolerance: Tolerance
    #: Whether an absent class gets an infinite distance; where not, such cases are left out.
    knows_absence: bool

    def prepared(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        """What is timed: the maps of one sample `[*S]`, already converted to the peer's container."""

    def plain(self, map_: Any, inside: Array) -> Array:
        """A map as numpy array with our signs, given the mask it was made of."""


def unavailable(peer: Peer, device: torch.device) -> str | None:
    """None, or why `peer` cannot run beside tensors on `device`."""
    if device.type not in peer.device_types:
        return f"runs on {' and '.join(peer.device_types)}"
    if importlib.util.find_spec(peer.package) is None:
        return f"package {peer.package} is not installed"
    return None


def mask_of(labels: Any, case: MapCase, value: int) -> Any:
    """The mask of a class as 0/1 bytes; a mask case needs no comparison."""
    return labels if case.classes is None else (labels == value).view(labels.dtype)


class ScipyPeer:
    """Two `distance_transform_edt` and their difference; one thread is all scipy has.

    This is the reference as well, so an absent class is guarded; it is not timed there, as the guard is ours.
    """

    name, package, device_types = "scipy", "scipy", _EVERYWHERE
    half: Half = "signed"
    tolerance = ROUNDED
    knows_absence = False

    def prepared(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        def signed(inside: Array) -> Array:
            if inside.all() or not inside.any():  # scipy would measure to a voxel that is not there
                return np.full(inside.shape, -np.inf if inside.any() else np.inf)
            outer = ndimage.distance_transform_edt(~inside, sampling=case.spacing)
            outer -= ndimage.distance_transform_edt(inside, sampling=case.spacing)
            return np.asarray(outer)

        return lambda: [signed(labels == value) for value in case.values]

    def plain(self, map_: Any, inside: Array) -> Array:
        return np.asarray(map_)


class OneHotRecipePeer:
    """The published data-loader recipe, from its description: one-hot array in, one map per class out.

    Kervadec et al., Medical Image Analysis 67, 2021, doi:10.1016/j.media.2020.101851. One-hot encoding is not
    timed. An absent class keeps its zeros.
    """

    name, package, device_types = "one_hot2dist", "scipy", _ON_CPU
    half: Half = "signed"
    tolerance = ROUNDED
    knows_absence = False

    def prepared(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        one_hot = np.stack([labels == value for value in case.values])
        return lambda: list(one_hot_distance_maps(one_hot, case.spacing))

    def plain(self, map_: Any, inside: Array) -> Array:
        return np.asarray(map_ - inside, np.float32)  # the recipe moves inside distances towards zero by one


def one_hot_distance_maps(one_hot: Array, spacing: tuple[float, ...]) -> Array:
    """`d_out` outside and `-(d_in - 1)` inside for each channel of a boolean `[K, *S]`, float32."""
    maps = np.zeros(one_hot.shape, np.float32)
    for k, positive in enumerate(one_hot):
        if positive.any():
            negative = ~positive
            outer = ndimage.distance_transform_edt(negative, sampling=spacing) * negative
            inner = (ndimage.distance_transform_edt(positive, sampling=spacing) - 1) * positive
            maps[k] = outer - inner
    return maps


class EdtPeer:
    """`edt.sdf` of seung-lab, threaded, without a black border."""

    name, package, device_types = "edt", "edt", _ON_CPU
    half: Half = "signed"
    tolerance = ROUNDED
    knows_absence = True

    def prepared(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        edt: Any = import_module("edt")

        def signed(value: int) -> Any:
            mask = mask_of(labels, case, value)
            return edt.sdf(mask, anisotropy=case.spacing, black_border=False, parallel=threads)

        return lambda: [signed(value) for value in case.values]

    def plain(self, map_: Any, inside: Array) -> Array:
        return np.asarray(-map_)


class SimpleITKPeer:
    """`SignedMaurerDistanceMap` with image spacing and true (not squared) distances.

    Its inside distances run to the object's own border voxels, so only the outside half is comparable.
    """

    name, package, device_types = "SimpleITK", "SimpleITK", _ON_CPU
    half: Half = "outside"
    tolerance = NEAR_TIES
    knows_absence = False

    def prepared(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
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

    def plain(self, map_: Any, inside: Array) -> Array:
        sitk: Any = import_module("SimpleITK")

        return np.asarray(sitk.GetArrayViewFromImage(map_))


class DIPlibPeer:
    """Two `EuclideanDistanceTransform` of the method "separable" and their difference.

    Seen with version 3.6.1: exact at unit spacing, but off by up to a slice's thickness along some lines at
    spacings like (3, 0.8, 0.8), where the gate refuses it.
    """

    name, package, device_types = "DIPlib", "diplib", _ON_CPU
    half: Half = "signed"
    tolerance = ROUNDED
    knows_absence = False

    def prepared(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        dip: Any = import_module("diplib")

        dip.SetNumberOfThreads(threads)
        image = dip.Image(labels)
        image.SetPixelSize(dip.PixelSize(list(case.spacing[::-1])))

        def signed(value: int) -> Any:
            inside = image == value
            outer = dip.EuclideanDistanceTransform(~inside, border="object", method="separable")
            return outer - dip.EuclideanDistanceTransform(inside, border="object", method="separable")

        return lambda: [signed(value) for value in case.values]

    def plain(self, map_: Any, inside: Array) -> Array:
        return np.asarray(map_)


class CupyPeer:
    """Two transforms of `cupyx.scipy.ndimage` on torch's stream, float32 asked for."""

    name, package, device_types = "CuPy", "cupy", _ON_CUDA
    half: Half = "signed"
    tolerance = ROUNDED
    knows_absence = False

    def _transform(self, mask: Any, spacing: tuple[float, ...] | None) -> Any:
        ndimage_of_cupy: Any = import_module("cupyx.scipy.ndimage")
        return ndimage_of_cupy.distance_transform_edt(mask, sampling=spacing, float64_distances=False)

    def prepared(self, case: MapCase, labels: Array, threads: int) -> SampleRun:
        cupy: Any = import_module("cupy")

        on_device = cupy.asarray(labels)
        # Any spacing makes them wait for the device; unit spacing need not be said.
        spacing = None if set(case.spacing) == {1.0} else case.spacing

        def signed(value: int) -> Any:
            inside = on_device == value
            return self._transform(~inside, spacing) - self._transform(inside, spacing)

        def run() -> Maps:
            with cupy_stream(cupy, torch.cuda.current_stream()):
                return [signed(value) for value in case.values]

        return run

    def plain(self, map_: Any, inside: Array) -> Array:
        return np.asarray(map_.get())


class CucimPeer(CupyPeer):
    """The same through cuCIM."""

    name, package = "cuCIM", "cucim"

    def _transform(self, mask: Any, spacing: tuple[float, ...] | None) -> Any:
        morphology: Any = import_module("cucim.core.operations.morphology")
        return morphology.distance_transform_edt(mask, sampling=spacing)


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        ScipyPeer(),
        OneHotRecipePeer(),
        EdtPeer(),
        SimpleITKPeer(),
        DIPlibPeer(),
        CupyPeer(),
        CucimPeer(),
    )
}
