"""Pictures: real files of the right size, with what they show where it belongs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

import unidiff as ud
from unidiff import plot
from unidiff.errors import ParameterError
from unidiff.plot import axes
from unidiff.plot.sheet import _LINE as LINE
from unidiff.words import in_words


def pixels(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGB"
        return np.asarray(picture).astype(int)


def levels(count, channels=1, size=8):
    """Images of one grey level each, from black to white."""
    return torch.linspace(-1, 1, count).reshape(-1, 1, 1, 1).expand(count, channels, size, size)


def test_a_grid_shows_every_sample_in_its_place(tmp_path):
    plot.save_samples(levels(5), tmp_path / "grid.png", "five grey squares")
    picture = pixels(tmp_path / "grid.png")
    # 3 columns, each 8 pixels 12 times enlarged and a gap of 2; a caption under two rows; at least 480 wide.
    assert picture.shape == (2 * 98 + 2 + LINE + 10, 480, 3)
    left = (480 - (3 * 98 + 2)) // 2
    for i in range(5):
        y, x = 2 + i // 3 * 98, left + 2 + i % 3 * 98
        square = picture[y : y + 96, x : x + 96]
        assert (square == round(255 * i / 4)).all()
    assert (picture[100:198, left + 2 + 2 * 98 : left + 2 + 3 * 98] == 255).all()  # the sixth place is empty
    caption = picture[198:]
    assert (caption < 128).sum() > 100
    assert (picture[:, :left] == 255)[:198].all()


def test_a_small_image_is_enlarged_pixel_by_pixel(tmp_path):
    """Each pixel is a square of one grey: nothing is seen that is not in the data."""
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    figure = plot.save_samples(x, None)
    plot.save_samples(x, tmp_path / "x.png")
    squares = pixels(tmp_path / "x.png")[2:98, 192:288, 0].reshape(8, 12, 8, 12)
    assert (squares == squares[:, :1, :, :1]).all()
    assert (squares[:, 0, :, 0] == ((x[0, 0] + 1) * 127.5).round().int().numpy()).all()
    assert figure.get_size_inches().tolist() == [480 / 128, 100 / 128]


def test_a_long_caption_is_wrapped_and_a_second_line_stands_by_itself(tmp_path):
    heights = []
    for caption in ("short", "short\nNote", "word " * 60):
        plot.save_samples(levels(1), tmp_path / "x.png", caption)
        heights.append(pixels(tmp_path / "x.png").shape[0])
    assert heights[1] == heights[0] + LINE
    assert heights[2] >= heights[0] + 4 * LINE


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_channels_and_samples(tmp_path, channels, count):
    x = levels(count, channels).clone()
    plot.save_samples(x, tmp_path / "x.png", "caption")
    plot.save_strip([x, x], [1.0, 0.0], tmp_path / "strip.png", "caption")
    plot.save_animation([3 * x, x], tmp_path / "x.gif")
    for name in ("x.png", "strip.png"):
        assert pixels(tmp_path / name).shape[2] == 3


def test_colours_are_colours(tmp_path):
    red = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1).expand(1, 3, 64, 48)
    plot.save_samples(red, tmp_path / "x.png", "red")
    assert (pixels(tmp_path / "x.png")[10, 240] == (255, 0, 0)).all()
    assert pixels(tmp_path / "x.png").shape[0] == 64 + 4 + LINE + 10  # large images are not enlarged


def test_values_that_are_no_colours(tmp_path):
    x = torch.stack([torch.full((1, 8, 8), v) for v in (-9.0, 9.0, math.nan, math.inf)])
    plot.save_samples(x, tmp_path / "x.png", "out of range")
    picture = pixels(tmp_path / "x.png")
    left = (480 - (2 * 98 + 2)) // 2
    shown = [picture[30 + 98 * (i // 2), left + 30 + 98 * (i % 2), 0] for i in range(4)]
    assert shown == [0, 255, 128, 255]
    plot.save_strip([x, x], [1.0, 0.0], tmp_path / "strip.png", "out of range")


def test_a_strip_has_a_row_per_sample_and_a_column_per_time(tmp_path):
    states = [torch.stack([torch.full((1, 8, 8), a), torch.full((1, 8, 8), b)]) for a, b in ((-1.0, 1.0), (0.0, -1.0))]
    plot.save_strip(states, [1.0, 0.0], tmp_path / "x.png", "c")
    picture = pixels(tmp_path / "x.png")
    left, top = (480 - (2 * 98 + 2)) // 2, LINE + 6
    shown = [[picture[top + 30 + 98 * row, left + 30 + 98 * column, 0] for column in range(2)] for row in range(2)]
    assert shown == [[0, 128], [255, 0]]
    # The times stand above their columns.
    figure = plot.save_strip(states, [1.0, 0.25], None, "c")
    words = {text.get_text(): text.get_position() for text in figure.texts}
    assert [words[t][0] * 480 for t in ("t = 1.00", "t = 0.25")] == [left + 49.5, left + 148.5]
    assert (picture[:top, left : left + 98] < 128).sum() > 30


def test_an_animation_goes_through_all_states_and_rests(tmp_path):
    states = [torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    plot.save_animation(states, tmp_path / "x.gif", [1.0, 0.7, 0.5, 0.2, 0.0])
    with Image.open(tmp_path / "x.gif") as gif:
        words = []
        for frame in range(5):
            gif.seek(frame)
            words.append(np.asarray(gif.convert("L"))[198:])
        # Each frame has its own time below.
        assert all((one < 128).sum() > 20 for one in words)
        assert len({one.tobytes() for one in words}) == 5
        assert gif.format == "GIF"
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0
        gif.seek(4)
        assert gif.info["duration"] == 2000
    assert [path.name for path in tmp_path.iterdir()] == ["x.gif"]


@pytest.mark.cases(1)
@pytest.mark.parametrize("shape", [(2,), (1,), (5,)])
@pytest.mark.parametrize("count", [1, 50])
def test_points_and_other_data(tmp_path, shape, count):
    x = torch.randn(count, *shape)
    plot.save_samples(x, tmp_path / "x.png", "a caption that says what this is, and goes on for a while\nand a note")
    plot.save_strip([x, x, x], [1.0, 0.5, 0.0], tmp_path / "strip.png", "caption")
    for name in ("x.png", "strip.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 200
            assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize("losses", [[1.0, 0.5, 0.1], [0.7], [0.5, -0.2]])
def test_the_loss_curve(tmp_path, losses):
    plot.save_loss_curve(range(1, len(losses) + 1), losses, tmp_path / "loss.png", "title")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (921, 576)  # 4.8 x 3 inches of 192 dots
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_curves_stand_in_panels_side_by_side(tmp_path):
    falling = plot.Curve("a", "a, order 1", [5, 10, 20], [0.1, 0.05, 0.025], [0.0, 0.0, 0.0])
    noisy = plot.Curve("b", "b", [5, 10, 20], [0.1, -0.001, math.nan], [0.01, 0.002, 0.002])
    one, two = plot.Panel("left", "y", [falling], None, ""), plot.Panel("right", "y", [falling, noisy], 0.01, "floor")
    for panels in ([one], [one, two]):
        plot.save_curves(panels, "x", tmp_path / "x.png", "a caption")
        with Image.open(tmp_path / "x.png") as picture:
            assert abs(picture.width - 192 * (4.8 if len(panels) == 1 else 7.2)) <= 1
            blue, vermilion = ((0, 114, 178), (213, 94, 0))  # the first two of Okabe and Ito
            seen = np.asarray(picture.convert("RGB")).reshape(-1, 3)
            assert (seen == blue).all(1).sum() > 100 * len(panels)
            assert ((seen == vermilion).all(1).sum() > 100) == (len(panels) == 2)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 40, 40), (2,), (5,)])
def test_a_table_has_a_row_per_solver_and_a_column_per_count(tmp_path, shape):
    x = torch.rand(300, *shape)
    cells = [[None, (x, "7"), (x, "")], [(x, ""), None, (x, "")]]
    plot.save_table(cells, ["DDIM @ Uniform", "B"], ["5", "10", "true flow"], tmp_path / "x.png", "a caption")
    picture = pixels(tmp_path / "x.png")
    inked = [[part(picture, row, column).std() > 5 for column in range(3)] for row in range(2)]
    assert inked == [[False, True, True], [True, False, True]]


def part(picture, row, column):
    """The middle of a cell of a table of two rows and three columns: names on the left, the caption below."""
    left, size = 70, picture.shape[1] - 70
    y, x = picture.shape[0] * (1 + 2 * row) // 4, left + size * (1 + 2 * column) // 6
    return picture[y - 30 : y + 30, x - 30 : x + 30]


def test_labels_of_an_axis_do_not_touch():
    assert axes.apart([5, 10, 20, 50, 100] * 3 + [9, 19, 49, 99]) == [5, 10, 20, 50, 100]
    assert axes.apart([19, 20, 19, 5, 100]) == [5, 19, 100]  # the one that is there more often
    assert axes.apart([7, 7]) == [7]
    assert axes.apart([]) == []


def ink(image):
    """Where a curve was drawn: pixels that are blue, not grey."""
    return (image[..., 2] - image[..., 0]) > 60


def test_round_numbers_on_a_logarithmic_axis():
    assert axes.log_ticks(0.4, 0.7) == pytest.approx([0.5, 0.7]) or len(axes.log_ticks(0.4, 0.7)) >= 2
    assert axes.log_ticks(18, 110) == pytest.approx([20, 50, 100])
    assert axes.log_ticks(1e-9, 10) == pytest.approx([1e-9, 1e-7, 1e-5, 1e-3, 1e-1, 10])
    assert axes.log_ticks(0.031, 0.032) == [0.031, 0.032]


def test_ticks_are_at_the_data():
    graphs = [
        plot.Graph("", "scale", "y", [("a", x, x)], scale) for x, scale in (([0, 1, 2, 4, 16], ""), ([5, 9, 50], "x"))
    ]
    graphs.append(plot.Graph("", "t", "y", [("a", range(100), range(100))]))
    figure = plot.save_graphs(graphs, None)
    assert [ax.get_xticks().tolist() for ax in figure.axes[:2]] == [[0, 1, 2, 4, 16], [5, 9, 50]]
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["5", "9", "50"]
    assert len(figure.axes[2].get_xticks()) < 12


BAND = plot.Panel(
    "distribution", "distance",
    [plot.Curve(n, n, [5, 10, 20], [y, 1e-3, 1e-3], [2e-3, 2e-3, 2e-3]) for n, y in (("a", 0.1), ("b", 1e-3))],
    4e-3, "as good as true",
)  # fmt: skip


def test_what_cannot_be_told_from_the_reference_is_hollow_in_a_band_below_it():
    figure = plot.save_curves([BAND], "x", None)
    (ax,) = figure.axes
    low, high = ax.get_ylim()
    assert low < 4e-3 < high
    assert "as good as true" in [text.get_text() for text in ax.texts]
    lanes = {line.get_color(): line for line in ax.get_lines() if line.get_fillstyle() == "none"}
    assert {color: line.get_xdata().tolist() for color, line in lanes.items()} == {
        plot.COLOURS[0]: [10, 20],
        plot.COLOURS[1]: [5, 10, 20],
    }
    heights = [set(line.get_ydata()) for line in lanes.values()]
    assert all(len(one) == 1 and low < min(one) < 4e-3 for one in heights)
    assert heights[0] != heights[1]  # each has a height of its own
    assert min(ax.get_yticks()) >= 4e-3  # which is no number


@pytest.mark.parametrize("floor", [math.inf, math.nan])
def test_a_reference_that_is_no_number_is_no_band(floor):
    """That of a reference flow that did not settle; the curves are drawn as without one."""
    falling = plot.Curve("a", "a", [5, 10, 20], [0.1, 0.01, 0.001], [0.0, 0.0, 0.0])
    (ax,) = plot.save_curves([plot.Panel("flow", "rms", [falling], floor, "the reference")], "x", None).axes
    assert ax.get_lines()[0].get_ydata().tolist() == falling.y
    assert ax.get_ylim() == pytest.approx((0.001 / 1.5, 0.13))
    assert not ax.texts


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_figure_is_the_same_bytes(tmp_path, kind):
    """Also where a library writes the date, or names parts at random."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / f"x.{kind}"
        assert plot.save_curves([BAND], "x", str(path), "caption").axes
        assert plot.save_samples(levels(2), path.with_stem("y")).texts == []
    for name in ("x", "y"):
        one, other = ((tmp_path / folder / f"{name}.{kind}").read_bytes() for folder in ("a", "b"))
        assert one == other
        assert one[:4] == {"png": b"\x89PNG", "svg": b"<?xm", "pdf": b"%PDF"}[kind]


def test_other_formats_are_written_beside_the_file(tmp_path):
    with plot.also_as(["svg", "png"]):
        plot.save_samples(levels(2), tmp_path / "x.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.png", "x.svg"]
    with pytest.raises(ParameterError, match="format must be one of png, svg, pdf, got 'jpg'"), plot.also_as(["jpg"]):
        pass
    with pytest.raises(ParameterError, match=r"must be the name of a \.png, \.svg or \.pdf file, got '.*x\.jpg'"):
        plot.save_samples(levels(2), tmp_path / "x.jpg")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_formula_is_mathematics_and_other_text_is_not():
    graph = plot.Graph("$t$", plot.Formula(r"$\phi_1$"), "a $b", [("$x$", [1, 2], [3, 4])], levels=[("level", 3.5)])
    figure = plot.save_graphs([graph], None)
    (ax,) = figure.axes
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == (r"\$t\$", r"$\phi_1$", r"a \$b")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [r"\$x\$", "level"]


def test_fields_have_axes_an_outline_a_scale_and_names():
    u = torch.linspace(-1, 1, 30).reshape(6, 5).double()
    u[3:, 3:] = math.nan
    figure = plot.save_fields(
        [[(u, "t = 0"), (u / 2, "t = 1")], [(u, "t = 0")]], [(2.0, 1.0)] * 2, None, "c", ["L", "M"]
    )
    first, second, *_ = figure.axes
    assert (first.get_xlim(), first.get_ylim()) == ((0, 2), (0, 1))
    assert first.get_images()[0].norm.vmax == second.get_images()[0].norm.vmax == 1  # one scale in a row
    assert first.get_ylabel().startswith("L\n")
    assert sum(len(ax.collections) > 0 for ax in figure.axes[:3]) == 3  # outlines
    assert [ax.get_ylabel() for ax in figure.axes[4:]] == ["$u$", "$u$"]


def test_a_signal_is_a_curve_above_its_spectrum(tmp_path):
    n = torch.arange(64)
    wave = torch.sin(2 * torch.pi * 8 * n / 64) * 0.5
    plot.save_samples(torch.stack([wave, 0 * wave])[:, None], tmp_path / "x.png", "two signals")
    picture = pixels(tmp_path / "x.png")
    height, width = 144, 192  # a curve of 88 pixels and a spectrum of 56
    first, second = (ink(picture[2 : 2 + height, 2 + left : 2 + left + width]) for left in (45, 45 + width + 2))
    rows = np.nonzero(first[:88].any(1))[0]
    assert abs(rows.min() - (44 - 21)) <= 1  # half of the reach of 42 pixels up and down
    assert abs(rows.max() - (44 + 21)) <= 1
    columns = np.nonzero(first[88:120].any(0))[0]  # the line of the spectrum: of 33 numbers the eighth after the first
    assert abs(columns.mean() - (1 + 8 / 32 * (width - 3))) <= 1
    assert np.nonzero(second[:88].any(1))[0].tolist() in ([43, 44], [43], [44], [44, 45])


@pytest.mark.slow  # 1 s: many figures
def test_signals_of_any_size(tmp_path):
    for shape in ((1, 1), (2, 3), (5, 700)):
        x = 5 * torch.randn(3, *shape)
        plot.save_samples(x, tmp_path / "x.png", "c")
        plot.save_strip([x, x], [1.0, 0.0], tmp_path / "strip.png", "c")
        plot.save_animation([x, x / 2], tmp_path / "x.gif")
        plot.save_table([[(x, ""), None]], ["row"], ["a", "b"], tmp_path / "table.png", "c")
        assert pixels(tmp_path / "x.png").std() > 5
        assert pixels(tmp_path / "table.png").std() > 5


def test_a_volume_is_a_row_of_slices_and_a_trajectory_shows_the_middle_one(tmp_path):
    """Slice d of sample n has the grey value (4 n + d) / 7: a row per sample, a column per slice."""
    x = (torch.arange(8).reshape(2, 1, 4, 1, 1) / 3.5 - 1).expand(2, 1, 4, 8, 8)
    plot.save_samples(x, tmp_path / "x.png", "c")
    picture = pixels(tmp_path / "x.png")
    left = (480 - (4 * 98 + 2)) // 2
    shown = [[picture[30 + 98 * row, left + 30 + 98 * column, 0] for column in range(4)] for row in range(2)]
    assert shown == [[round(255 * (4 * row + column) / 7) for column in range(4)] for row in range(2)]
    plot.save_strip([x, -x], [1.0, 0.0], tmp_path / "strip.png", "c")
    picture, left = pixels(tmp_path / "strip.png")[LINE + 6 :], (480 - (2 * 98 + 2)) // 2
    shown = [[picture[30 + 98 * row, left + 30 + 98 * column, 0] for column in range(2)] for row in range(2)]
    assert shown == [[round(255 * 2 / 7), round(255 * 5 / 7)], [round(255 * 6 / 7), round(255 / 7)]]
    plot.save_table([[(x, "")]], ["row"], ["column"], tmp_path / "table.png", "c")
    # Of many slices, eight at equal distances, the first and the last among them.
    x = torch.linspace(-1, 1, 36).reshape(1, 1, 36, 1, 1).expand(1, 1, 36, 64, 64)
    plot.save_samples(x, tmp_path / "x.png", "c")
    assert [pixels(tmp_path / "x.png")[30, 30 + 66 * column, 0] for column in (0, 7)] == [0, 255]


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 8, 8), 4), ((1, 28, 28), 25), ((3, 40, 24), 7), ((2, 32), 5), ((3, 70, 70), 1)]
)
def test_samples_are_cut_out_of_their_figure_as_they_were_drawn(tmp_path, shape, count):
    x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plot.save_samples(x, tmp_path / "grid.png", "a caption of the figure, which makes it as wide as its words")
    with Image.open(tmp_path / "grid.png") as sheet:
        cut = plot.cut_samples(sheet, shape, count, 6)
        assert plot.cut_samples(sheet, (1, 9, 9), count + 20, 6) is None
    drawn = plot.sample_images(x[:6])
    assert [image.tobytes() for image in cut] == [image.tobytes() for image in drawn]
    assert cut[0].size == drawn[0].size


def test_a_dot_stands_at_its_value_in_the_line_of_its_case(tmp_path):
    diagram = plot.Dots("a diagram", [("one", 1.0, 0.0), ("two", 2.0, 0.0), ("$three", 4.0, 0.0)], 3.0)
    for count in (1, 2):
        plot.save_dots([diagram] * count, tmp_path / "dots.png", "dots")
        y, x = np.nonzero((pixels(tmp_path / "dots.png") == (0, 114, 178)).all(2))  # the first of COLOURS
        lines = np.split(x, np.nonzero(np.diff(y) > 1)[0] + 1)  # one above the other
        centres = [line.mean() for line in lines]
        assert len(lines) == 3
        # Beside another diagram the mean of two dots, which are as far apart in every line.
        assert (centres[2] - centres[1]) / (centres[1] - centres[0]) == pytest.approx(2, abs=0.05)
        spread = [line.std() for line in lines]
        assert (max(spread) < 6) if count == 1 else (min(spread) > 100)


def test_a_caption_names_a_part_in_words():
    said = {
        "DDIM, eta 0.5": ud.DDIM(0.5),
        "DPM Solver, order 3": ud.DPMSolver(3),
        "Exponential Adams, order 4": ud.ExponentialAdams(),
        "Tapered, 50 steps": ud.Tapered(50),
        "Native": ud.Native(),
        "Ring": ud.data.Ring(),
        "Polygon, 3 vertices, cells 48, modes 120": ud.pde.Polygon(((0, 0), (2, 0), (2, 2)), 48, 120),
        "Renormalized Heat, shape 8 x 8, blur max 3": ud.RenormalizedHeat((8, 8), 3.0),
        "Interval, cells 64, sides 1": ud.pde.Interval(64),
    }
    assert {in_words(part): part for part in said.values()} == said


@pytest.mark.parametrize(
    ("solver", "grid", "caption"),
    [
        (ud.Ancestral(0.0), ud.Native(), "Ancestral, variance interpolation 0, on the Native grid of 500 steps"),
        (ud.DDIM(), ud.Karras(1, rho=5), "DDIM, on the Karras grid (rho 5) of 1 step"),
        (ud.Euler(), ud.FixedGrid((0.5,)), "Euler, on the Fixed grid (interior 0.5) of 3 steps"),
        (ud.Euler(), None, "Euler, on the Tapered grid of 50 steps"),
    ],
)
def test_how_samples_were_drawn_is_said_in_words(solver, grid, caption):
    assert ud.Sampling(solver, grid, seed=7).in_words(ud.DDPM(500)) == f"{caption}; seeds from 7"


def test_samples_are_cut_out_of_figures_of_older_runs():
    """Which enlarged 28x28 pixels by 2 instead of 3, and were 320 dots wide at least."""
    sheet = Image.new("RGB", (320, 3 * 58 + 2 + 26), "white")
    for i in range(7):
        sheet.paste(
            (30 * i,) * 3, (x := (320 - 3 * 58 - 2) // 2 + 2 + i % 3 * 58, y := 2 + i // 3 * 58, x + 56, y + 56)
        )
    cut = plot.cut_samples(sheet, (1, 28, 28), 7, 5)
    assert [image.getcolors() for image in cut] == [[(56 * 56, (30 * i,) * 3)] for i in range(5)]
