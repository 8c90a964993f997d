"""Pictures: real files of the right size, with what they show where it belongs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from unidiff import plot
from unidiff.plot import diagrams


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
    # 3 columns, each 8 pixels 8 times enlarged and a gap of 2; a caption under two rows; at least 320 wide.
    assert picture.shape == (2 * 66 + 2 + 18 + 8, 320, 3)
    left = (320 - (3 * 66 + 2)) // 2
    for i in range(5):
        y, x = 2 + i // 3 * 66, left + 2 + i % 3 * 66
        square = picture[y : y + 64, x : x + 64]
        assert (square == round(255 * i / 4)).all()
    assert (picture[68:134, left + 2 + 2 * 66 : left + 2 + 3 * 66] == 255).all()  # the sixth place is empty
    caption = picture[134:]
    assert (caption < 128).sum() > 100
    assert (picture[:, :left] == 255)[:134].all()


def test_a_long_caption_is_wrapped_and_a_second_line_stands_by_itself(tmp_path):
    heights = []
    for caption in ("short", "short\nNote", "word " * 60):
        plot.save_samples(levels(1), tmp_path / "x.png", caption)
        heights.append(pixels(tmp_path / "x.png").shape[0])
    assert heights[1] == heights[0] + 18
    assert heights[2] >= heights[0] + 5 * 18


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
    assert (pixels(tmp_path / "x.png")[10, 160] == (255, 0, 0)).all()
    assert pixels(tmp_path / "x.png").shape[0] == 64 + 4 + 18 + 8  # large images are not enlarged


def test_values_that_are_no_colours(tmp_path):
    x = torch.stack([torch.full((1, 8, 8), v) for v in (-9.0, 9.0, math.nan, math.inf)])
    plot.save_samples(x, tmp_path / "x.png", "out of range")
    picture = pixels(tmp_path / "x.png")
    left = (320 - (2 * 58 + 2)) // 2
    shown = [picture[30 + 58 * (i // 2), left + 30 + 58 * (i % 2), 0] for i in range(4)]
    assert shown == [0, 255, 128, 255]
    plot.save_strip([x, x], [1.0, 0.0], tmp_path / "strip.png", "out of range")


def test_a_strip_has_a_row_per_sample_and_a_column_per_time(tmp_path):
    states = [torch.stack([torch.full((1, 8, 8), a), torch.full((1, 8, 8), b)]) for a, b in ((-1.0, 1.0), (0.0, -1.0))]
    plot.save_strip(states, [1.0, 0.0], tmp_path / "x.png", "c")
    picture = pixels(tmp_path / "x.png")
    left = (320 - (2 * 58 + 2)) // 2
    shown = [[picture[30 + 58 * row, left + 30 + 58 * column, 0] for column in range(2)] for row in range(2)]
    assert shown == [[0, 128], [255, 0]]


def test_an_animation_goes_through_all_states_and_rests(tmp_path):
    states = [torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    plot.save_animation(states, tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as gif:
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
        assert picture.size == (768, 480)
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_curves_stand_in_panels_side_by_side(tmp_path):
    falling = plot.Curve("a", "a, order 1", [5, 10, 20], [0.1, 0.05, 0.025], [0.0, 0.0, 0.0])
    noisy = plot.Curve("b", "b", [5, 10, 20], [0.1, -0.001, math.nan], [0.01, 0.002, 0.002])
    one, two = plot.Panel("left", "y", [falling], None, ""), plot.Panel("right", "y", [falling, noisy], 0.01, "floor")
    for panels in ([one], [one, two]):
        plot.save_curves(panels, "x", tmp_path / "x.png", "a caption")
        with Image.open(tmp_path / "x.png") as picture:
            assert picture.size == (720 * len(panels), 624)
            blue, orange = ((31, 119, 180), (255, 127, 14))  # the first two colours of matplotlib
            seen = np.asarray(picture.convert("RGB")).reshape(-1, 3)
            assert (seen == blue).all(1).sum() > 100 * len(panels)
            assert ((seen == orange).all(1).sum() > 100) == (len(panels) == 2)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 40, 40), (2,), (5,)])
def test_a_table_has_a_row_per_solver_and_a_column_per_count(tmp_path, shape):
    x = torch.rand(300, *shape)
    cells = [[None, (x, "7"), (x, "")], [(x, ""), None, (x, "")]]
    plot.save_table(cells, ["DDIM @ Uniform", "B"], ["5", "10", "true flow"], tmp_path / "x.png", "a caption")
    picture = pixels_of(tmp_path / "x.png")
    assert picture.shape == (480, 732, 3)  # 120 dots an inch; 1.7 inches a row and 0.6, 1.5 a column and 1.6
    inked = [[part(picture, row, column).std() > 5 for column in range(3)] for row in range(2)]
    assert inked == [[False, True, True], [True, False, True]]


def part(picture, row, column):
    """The middle of a cell: labels stand on the left, the caption below."""
    rows, columns = np.array_split(np.arange(20, 430), 2), np.array_split(np.arange(130, 732), 3)
    return picture[rows[row][60:150]][:, columns[column][50:150]]


def pixels_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_labels_of_an_axis_do_not_touch():
    assert diagrams._apart([5, 10, 20, 50, 100] * 3 + [9, 19, 49, 99]) == [5, 10, 20, 50, 100]
    assert diagrams._apart([19, 20, 19, 5, 100]) == [5, 19, 100]  # the one that is there more often
    assert diagrams._apart([7, 7]) == [7]
    assert diagrams._apart([]) == []


def ink(image):
    """Where a curve was drawn: pixels that are blue, not grey."""
    return (image[..., 2] - image[..., 0]) > 60


def test_a_signal_is_a_curve_above_its_spectrum(tmp_path):
    n = torch.arange(64)
    wave = torch.sin(2 * torch.pi * 8 * n / 64) * 0.5
    plot.save_samples(torch.stack([wave, 0 * wave])[:, None], tmp_path / "x.png", "two signals")
    picture = pixels(tmp_path / "x.png")
    height, width = 144, 192  # a curve of 88 pixels and a spectrum of 56
    first, second = (ink(picture[2 : 2 + height, 2 + left : 2 + left + width]) for left in (0, width + 2))
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
        assert part(np.asarray(Image.open(tmp_path / "table.png").convert("RGB")).astype(int), 0, 0).std() > 0


def test_a_volume_is_a_row_of_slices_and_a_trajectory_shows_the_middle_one(tmp_path):
    """Slice d of sample n has the grey value (4 n + d) / 7: a row per sample, a column per slice."""
    x = (torch.arange(8).reshape(2, 1, 4, 1, 1) / 3.5 - 1).expand(2, 1, 4, 8, 8)
    plot.save_samples(x, tmp_path / "x.png", "c")
    picture = pixels(tmp_path / "x.png")
    left = (max(320, 4 * 66 + 2) - (4 * 66 + 2)) // 2
    shown = [[picture[30 + 66 * row, left + 30 + 66 * column, 0] for column in range(4)] for row in range(2)]
    assert shown == [[round(255 * (4 * row + column) / 7) for column in range(4)] for row in range(2)]
    plot.save_strip([x, -x], [1.0, 0.0], tmp_path / "strip.png", "c")
    picture, left = pixels(tmp_path / "strip.png"), (320 - (2 * 66 + 2)) // 2
    shown = [[picture[30 + 66 * row, left + 30 + 66 * column, 0] for column in range(2)] for row in range(2)]
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
        y, x = np.nonzero((pixels(tmp_path / "dots.png") == (31, 119, 180)).all(2))  # tab:blue
        lines = np.split(x, np.nonzero(np.diff(y) > 1)[0] + 1)  # one above the other
        centres = [line.mean() for line in lines]
        assert len(lines) == 3
        # Beside another diagram the mean of two dots, which are as far apart in every line.
        assert (centres[2] - centres[1]) / (centres[1] - centres[0]) == pytest.approx(2, abs=0.05)
        spread = [line.std() for line in lines]
        assert (max(spread) < 6) if count == 1 else (min(spread) > 100)
