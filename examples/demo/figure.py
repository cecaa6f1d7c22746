"""The demo's figure: labels, their distance map, what was learnt, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from examples.demo.training import Costs, Step
from fastsdm.cli.figure import STYLE, Array, Plane, Scale, add_colour_bar, draw_distance
from fastsdm.data import LabelledVolume

_LABEL_COLOURS = {1: "#ff9a1f", 2: "#35c9ff"}
_SHOWN = 2
_RUN = 5
_PLANE = Plane((1.0, 1.0))


def write_figure(
    path: Path,
    volume: LabelledVolume,
    maps: Array,
    prediction: Array,
    slab: tuple[slice, ...],
    scores: list[float],
    steps: list[Step],
    costs: Costs,
) -> None:
    """Draw and save the figure as PNG.

    Args:
        path: where to.
        volume: image and labels.
        maps: ``[K, *S]``.
        prediction: labels that the network gave for ``slab``.
        slab: which part of the volume that is.
        scores: Dice coefficient of each class but the background, on the slab.
        steps: of the training.
        costs: of a step.
    """
    middle = prediction.shape[2] // 2
    inner = (*slab[:2], slab[2].start + middle)
    labels = volume.labels[inner].T
    crop = _surroundings(labels > 0)
    image, distance = volume.image[inner].T[crop], maps[_SHOWN][inner].T[crop]
    with rc_context(STYLE):
        figure = Figure(figsize=(10.5, 7.0), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
        parts: Any = figure.subfigures(2, 1, height_ratios=(1.75, 1))
        anatomy = parts[0].subplots(1, 3)
        loss_axes, cost_axes = parts[1].subplots(1, 2, width_ratios=(1.25, 1))

        _draw_labels(anatomy[0], image, labels[crop])
        anatomy[0].set_title(f"a  {volume.name} and its labels", loc="left")
        for value, colour in _LABEL_COLOURS.items():
            name = volume.label_names[value]
            anatomy[0].text(0.02, 0.10 - 0.04 * value, name, color=colour, transform=anatomy[0].transAxes)
        scale = Scale.of([distance])
        shown = draw_distance(anatomy[1], distance, _PLANE, scale)
        anatomy[1].set_title(f"b  signed distance to {volume.label_names[_SHOWN]} (mm)", loc="left")
        add_colour_bar(anatomy[1].inset_axes((1.03, 0, 0.045, 1)), shown, scale, "")
        _draw_labels(anatomy[2], image, prediction[:, :, middle].T[crop])
        named = zip(volume.label_names[1:], scores, strict=True)
        dice = ", ".join(f"{name.split()[0]} {score:.2f}" for name, score in named)
        anatomy[2].set_title(f"c  after {len(steps)} steps: Dice {dice}", loc="left")
        for axes in anatomy:
            axes.set_xticks([])
            axes.set_yticks([])
        _draw_losses(loss_axes, steps)
        _draw_costs(cost_axes, costs)
        figure.savefig(path, format="png")


def _surroundings(inside: Array, margin: int = 12) -> tuple[slice, ...]:
    return tuple(
        slice(max(int(at.min()) - margin, 0), int(at.max()) + margin + 1) for at in np.nonzero(inside)
    )


def _draw_labels(axes: Axes, image: Array, labels: Array) -> None:
    _PLANE.show(axes, image, cmap="gray", interpolation="bilinear")
    for value, colour in _LABEL_COLOURS.items():
        _PLANE.contour(axes, (labels >= value).astype(np.float32), [0.5], colors=colour, linewidths=0.9)


def _draw_losses(axes: Axes, steps: list[Step]) -> None:
    twin = axes.twinx()
    drawn = (
        (axes, [step.dice for step in steps], "Dice loss", "#1b4f9c"),
        (twin, [step.boundary for step in steps], "boundary loss (mm)", "#b5451b"),
    )
    numbers = np.arange(1, len(steps) + 1)
    for place, values, name, colour in drawn:
        place.plot(numbers, values, color=colour, linewidth=0.8, alpha=0.4)
        place.plot(numbers, _running_mean(values), color=colour, linewidth=1.8)
        place.set_ylabel(name, color=colour)
    axes.set_ylim(0, 1)
    axes.set_xlabel("training step")
    axes.set_title(
        f"d  losses on randomly deformed patches; thick: mean of the last {_RUN} steps", loc="left"
    )
    axes.margins(x=0.01)
    axes.grid(axis="y", linewidth=0.3, color="0.85")


def _running_mean(values: list[float]) -> list[float]:
    return [float(np.mean(values[max(0, end - _RUN) : end])) for end in range(1, len(values) + 1)]


def _draw_costs(axes: Axes, costs: Costs) -> None:
    rows: list[tuple[str, float, float]] = [
        ("fastsdm", costs.map_fastsdm, costs.share_fastsdm),
        ("scipy recipe", costs.map_scipy, costs.share_scipy),
    ]
    style: dict[str, Any] = {"height": 0.5, "edgecolor": "none"}
    end = costs.rest + max(made for _, made, _ in rows)
    for place, (_, made, share) in enumerate(rows):
        axes.barh(place, costs.rest, color="0.78", label="network, losses" if place == 0 else None, **style)
        axes.barh(
            place,
            made,
            left=costs.rest,
            color="#b5451b",
            label="distance map" if place == 0 else None,
            **style,
        )
        axes.text(costs.rest + made + 0.015 * end, place, f"map {share:.1%}", va="center")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_xlim(0, end * 1.2)
    axes.set_ylim(-0.6, 2.1)
    axes.set_xlabel("median time of a training step (s)")
    axes.set_title("e  what the map costs in a step", loc="left")
    axes.legend(loc="upper left", frameon=False, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
