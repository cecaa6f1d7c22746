"""``fastsdm view``: the figure shows the object in true proportions, and bad input is one line."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

import fastsdm
from fastsdm import testing
from fastsdm.cli import slices
from fastsdm.cli.figure import Plane, Scale


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that the command makes."""
    figures: list[Figure] = []
    real = slices.figure

    def kept(*arguments) -> Figure:
        figures.append(real(*arguments))
        return figures[-1]

    monkeypatch.setattr(slices, "figure", kept)
    return figures


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    """A block of 6 x 8 x 4 voxels of label 2 beside one voxel of label 1."""
    labels = np.zeros((20, 24, 16), np.uint8)
    labels[7:13, 8:16, 6:10] = 2
    labels[0, 0, 0] = 1
    np.save(tmp_path / "blob.npy", labels)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "blob.nii")
    return tmp_path / "blob.npy"


def panels(figure: Figure) -> list:
    return [axes for axes in figure.axes if axes.get_xlabel()]


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_writes_the_format_asked_for(command, blob: Path, suffix: str) -> None:
    out = blob.with_name(f"figure{suffix}")
    done = command("view", blob, "-o", out, "--label", "2")
    assert done.exit_code == 0
    assert "blob.npy (label 2) cut at voxel 10, 12, 8; distances from -1.5" in done.stdout
    assert out.read_bytes()[:5] in (b"\x89PNG\r", b"%PDF-", b"<?xml")


def test_the_picture_holds_colour(command, blob: Path) -> None:
    command("view", blob, "-o", blob.with_name("f.png"), "--label", "2")
    picture = imread(blob.with_name("f.png"))[..., :3]
    spread = picture.max(axis=-1) - picture.min(axis=-1)
    assert (spread > 0.3).mean() > 0.1


def test_slices_show_the_map_in_true_proportions(command, blob: Path, drawn) -> None:
    assert (
        command("view", blob.with_name("blob.nii"), "-o", blob.with_name("f.png"), "--label", "2").exit_code
        == 0
    )
    shown = panels(drawn[0])
    assert [axes.get_xlabel() for axes in shown] == [
        "posterior to anterior",
        "left to right",
        "left to right",
    ]
    width, height = drawn[0].get_size_inches()
    for axes in shown:
        box, x, y = axes.get_position(), axes.get_xlim(), axes.get_ylim()
        assert box.width * width / (x[1] - x[0]) == pytest.approx(
            box.height * height / (y[1] - y[0]), rel=1e-3
        )
    labels = np.load(blob)
    distance = fastsdm.signed_distance(labels == 2, spacing=(1, 2, 3), convention="midline")
    image = shown[0].images[0]
    left, _, bottom, _ = image.get_extent()
    j, k = round((left + 1) / 2), round((bottom + 1.5) / 3)
    rows, columns = image.get_array().shape
    np.testing.assert_allclose(image.get_array(), distance[10, j : j + columns, k : k + rows].T, rtol=1e-6)


def test_array_rows_run_down_the_page(command, blob: Path, drawn) -> None:
    command("view", blob, "-o", blob.with_name("f.png"), "--label", "2", "--at", "8,9,7")
    for axes in panels(drawn[0]):
        low, high = axes.get_ylim()
        assert low > high
    assert [axes.get_title("left") for axes in panels(drawn[0])] == [
        "axis 0 at 8",
        "axis 1 at 9",
        "axis 2 at 7",
    ]


def test_a_cut_beside_the_object_is_inside_the_figure(command, blob: Path, drawn) -> None:
    assert (
        command("view", blob, "-o", blob.with_name("f.png"), "--label", "2", "--at", "0,0,0").exit_code == 0
    )
    assert panels(drawn[0])[0].get_ylim()[1] <= 0


def test_contours_are_drawn_over_an_image(command, blob: Path, drawn) -> None:
    image = testing.noise((20, 24, 16)).astype(np.float32)
    np.save(blob.with_name("image.npy"), image)
    out = blob.with_name("f.png")
    done = command("view", blob, "-o", out, "--label", "2", "--image", blob.with_name("image.npy"))
    assert done.exit_code == 0
    assert set(np.unique(panels(drawn[0])[0].images[0].get_array())) == {0.0, 1.0}


def test_two_dimensions_make_one_panel(command, tmp_path: Path, drawn) -> None:
    np.save(tmp_path / "flat.npy", testing.blobs((30, 40), sigma=4))
    assert command("view", tmp_path / "flat.npy", "-o", tmp_path / "f.png", "--spacing", "2,1").exit_code == 0
    (axes,) = panels(drawn[0])
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "axis 1",
        "axis 0",
    )


@pytest.mark.parametrize("suffix", [".npy", ".nii"])
@pytest.mark.parametrize("shape", [(4, 200, 200), (200, 200, 5), (400, 6, 6), (40, 6, 300), (60, 60, 60)])
def test_texts_do_not_cross(command, tmp_path: Path, drawn, shape: tuple[int, ...], suffix: str) -> None:
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(n // 4, -(n // 4)) for n in shape)] = 1
    if suffix == ".npy":
        np.save(tmp_path / "a.npy", labels)
    else:
        image = nibabel.Nifti1Image(labels, np.eye(4))
        image.header.set_xyzt_units("mm")
        image.to_filename(tmp_path / "a.nii")
    done = command("view", tmp_path / f"a{suffix}", "-o", tmp_path / "f.png")
    assert done.exit_code == 0, done.stderr
    page, canvas = drawn[0], FigureCanvasAgg(drawn[0])
    canvas.draw()  # places the texts
    boxes = {f"{n} {text.get_text()}": text.get_window_extent() for n, text in enumerate(texts(page))}
    for name, box in boxes.items():
        assert page.bbox.x0 <= box.x0 < box.x1 <= page.bbox.x1, name
        assert page.bbox.y0 <= box.y0 < box.y1 <= page.bbox.y1, name
    for (one, box), (other, its) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(its), (one, other)


def texts(page: Figure) -> list[Text]:
    """Titles, names of axes, and the numbers of the ticks within their axis."""
    found: list[Text] = []
    for axes in page.axes:
        found += [child for child in axes.get_children() if isinstance(child, Text)]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    return [text for text in found if text.get_visible() and text.get_text()]


def test_the_cut_is_in_the_middle_of_the_widest_slices(command, tmp_path: Path) -> None:
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[3:10, 5:20, 30:39] = 1
    np.save(tmp_path / "a.npy", labels)
    assert "cut at voxel 6, 12, 34" in command("view", tmp_path / "a.npy", "-o", tmp_path / "f.png").stdout


@pytest.mark.parametrize("over_image", [False, True])
def test_the_boundary_has_one_colour_in_slices_and_colour_bar(
    command, blob: Path, drawn, over_image: bool
) -> None:
    np.save(blob.with_name("image.npy"), testing.noise((20, 24, 16)).astype(np.float32))
    image = ["--image", blob.with_name("image.npy")] if over_image else []
    command("view", blob, "-o", blob.with_name("f.png"), "--label", "2", *image)
    colours = {
        to_hex(lines.get_edgecolor()[0])
        for axes in panels(drawn[0])
        for lines in axes.collections
        if isinstance(lines, ContourSet) and list(lines.levels) == [0.0]
    }
    bar = next(axes for axes in drawn[0].axes if axes not in panels(drawn[0]))
    zero = next(line for line in bar.lines if list(line.get_ydata()) == [0.0, 0.0])
    assert colours == {to_hex(zero.get_color())}


def test_the_title_is_what_was_given_and_no_file_name_is_drawn(command, blob: Path, drawn) -> None:
    command("view", blob, "-o", blob.with_name("f.svg"), "--label", "2", "--title", "Left atrium")
    command("view", blob, "-o", blob.with_name("g.svg"), "--label", "2")
    assert [figure.get_suptitle() for figure in drawn] == ["Left atrium", ""]
    for figure in drawn:
        assert not any("blob" in text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("suffix", [".npy", ".nii"])
def test_units_are_drawn_only_where_they_are_known(command, blob: Path, drawn, suffix: str) -> None:
    image = nibabel.Nifti1Image(np.load(blob), np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, blob.with_name("blob.nii"))
    command("view", blob.with_suffix(suffix), "-o", blob.with_name("f.png"), "--label", "2")
    bar = next(axes for axes in drawn[0].axes if axes not in panels(drawn[0]))
    known = "mm" if suffix == ".nii" else "voxels"
    assert bar.get_ylabel() == f"signed distance ({known})"
    assert all(axes.get_xlabel().endswith(f"({known})") for axes in panels(drawn[0]))


@pytest.mark.parametrize("shape", [(20, 24, 1), (1, 20, 24), (20, 1, 24)])
@pytest.mark.parametrize("suffix", [".npy", ".nii"])
def test_a_volume_of_one_slice_is_drawn_as_that_slice(
    command, tmp_path: Path, drawn, shape: tuple[int, ...], suffix: str
) -> None:
    labels = np.zeros((20, 24), np.uint8)
    labels[5:12, 6:15] = 1
    volume = labels.reshape(shape)
    path = tmp_path / f"one{suffix}"
    if suffix == ".npy":
        np.save(path, volume)
    else:
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    assert command("view", path, "-o", tmp_path / "f.png").exit_code == 0
    (axes,) = panels(drawn[0])
    flat = shape.index(1)
    assert axes.get_title("left") == f"axis {flat} at 0"
    expected = fastsdm.signed_distance(labels, spatial_dims=2, convention="midline")
    drawn_map = axes.images[0].get_array()
    assert {drawn_map.min(), drawn_map.max()} <= set(np.unique(expected))
    assert drawn_map.min() == expected.min()


def test_ticks_of_a_cut_beside_the_object_differ(command, blob: Path, drawn) -> None:
    command("view", blob, "-o", blob.with_name("f.png"), "--label", "2", "--at", "0,0,0")
    drawn[0].canvas.draw()
    bar = next(axes for axes in drawn[0].axes if axes not in panels(drawn[0]))
    low, high = bar.get_ylim()
    shown = [
        label.get_text()
        for label, at in zip(bar.get_yticklabels(), bar.get_yticks(), strict=True)
        if low <= at <= high
    ]
    assert len(shown) > 3
    assert len(set(shown)) == len(shown)
    assert not any(text.lstrip("\u2212-") == "0" and text != "0" for text in shown)


def test_zero_level_lies_between_the_voxels() -> None:
    mask = np.zeros((1, 9), bool)
    mask[0, :4] = True
    distance = np.repeat(
        fastsdm.signed_distance(mask, spatial_dims=2, spacing=0.5, convention="midline"), 5, axis=0
    )
    axes = Figure().add_subplot()
    Plane((0.5, 0.5)).contour(axes, distance, [0.0])
    (line,) = axes.collections[0].get_paths()
    np.testing.assert_allclose(line.vertices[:, 0], 1.75)


@pytest.mark.parametrize("extent", [(-10.5, 70.0), (-70.0, 10.5), (-3.0, 3.0), (-0.02, 0.9), (-1.0, 400.0)])
def test_levels_are_multiples_of_one_round_step(extent) -> None:
    scale = Scale.of([np.array(extent)])
    step = min(map(abs, scale.levels))
    assert 0.0 not in scale.levels
    assert 4 <= len(scale.levels) <= 28
    assert f"{step:e}"[0] in "125"
    np.testing.assert_allclose(
        np.diff([*scale.levels, 0.0] if max(scale.levels) < 0 else sorted([*scale.levels, 0.0])), step
    )
    assert extent[0] < min(scale.levels)
    assert max(scale.levels) < extent[1]
    assert scale.norm.vmin == -scale.norm.vmax == -max(map(abs, extent))


def test_a_limit_ends_colours_and_levels_alike_on_both_sides() -> None:
    scale = Scale.of([np.array([-30.0, 70.0])], limit=10)
    assert (scale.norm.vmin, scale.norm.vmax) == (-10, 10)
    assert (min(scale.levels), max(scale.levels)) == (-10, 10)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("blob.npy", "-o", "f.jpeg"), 2, "f.jpeg: the name must end in one of .png, .pdf, .svg"),
        (("blob.npy", "-o", "taken.png"), 2, "exists already; --force overwrites it"),
        (("blob.npy", "-o", "link.png", "--force"), 2, "blob.npy by another name, which is never replaced"),
        (("blob.npy", "-o", "f.png", "--at", "1,2"), 2, "--at: must be a voxel of the volume of shape (20,"),
        (("blob.npy", "-o", "f.png", "--at", "1,2,16"), 2, "--at: must be a voxel"),
        (("blob.npy", "-o", "f.png", "--at", "a,b,c"), 2, "--at: must be a voxel"),
        (("blob.npy", "-o", "f.png", "--limit", "0"), 2, "--limit: must be positive and finite, got 0"),
        (("blob.npy", "-o", "f.png", "--image", "full.npy"), 2, "--image: must have the shape of the labels"),
        (("blob.npy", "-o", "f.png", "--image", "none.npy"), 2, "none.npy: there is no such file"),
        (("blob.npy", "-o", "f.png", "--spacing", "-1"), 2, "--spacing: must be positive"),
        (("blob.npy", "-o", "f.png", "--backend", "cupy"), 2, "backend 'cupy' is unavailable"),
        (("blob.npy", "-o", "f.png", "--label", "9"), 1, "nothing to draw, label 9 is absent"),
        (("full.npy", "-o", "f.png"), 1, "nothing to draw, the mask fills the volume"),
        (("line.npy", "-o", "f.png"), 1, "needs two axes of more than one voxel, got shape (1, 1, 9)"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    command, blob: Path, arguments, code: int, message: str
) -> None:
    np.save(blob.with_name("full.npy"), np.ones((4, 4, 4), np.uint8))
    np.save(blob.with_name("line.npy"), np.ones((1, 1, 9), np.uint8))
    blob.with_name("taken.png").write_text("precious")
    blob.with_name("link.png").symlink_to(blob)
    before = set(blob.parent.iterdir())
    paths = [blob.parent / part if "." in part and part[0].isalpha() else part for part in arguments]
    done = command("view", *paths)
    assert done.exit_code == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert set(blob.parent.iterdir()) == before
    assert blob.with_name("taken.png").read_text() == "precious"
