"""What models and results print, and their pictures: short, self-contained, of what they hold."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import unidiff as ud
from unidiff.plot.show import figure

MIXTURE = ud.GaussianMixture(ud.VPSDE(), [[-0.5, 0.0], [0.5, 0.1]], 0.01)
IMAGES = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.UNet((1, 8, 8), width=8, multipliers=(1,), blocks=1, classes=2))


@pytest.fixture(autouse=True, scope="module")
def no_layout():
    """The layout, which test_plot.py holds, takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unidiff.plot.figure._LAYOUT", None)
        yield


@pytest.fixture(scope="module")
def results():
    interval, square = ud.pde.Interval(16), ud.pde.Rectangle((8, 8))
    times = torch.linspace(0, 0.1, 4).double()
    return {
        "Solution(samples=5, shape=(2,), steps=4, nfe=4, path=3 states)": ud.sample(MIXTURE, grid=4, seeds=5, keep=3),
        "Comparison(samples=20, DDIM @ Tapered=2: ": ud.compare(MIXTURE, ["ddim"], [2, 4], seeds=20),
        "Flow(domain=Interval(": ud.pde.evolve(interval, interval.field(lambda x: torch.cos(3 * x) + x), times),
        "Flow(domain=Rectangle(": ud.pde.evolve(square, square.field(lambda x, y: torch.cos(3 * x) + y), times),
    }


def test_a_repr_is_a_line(results):
    for begin, result in results.items():
        assert repr(result).startswith(begin)
        assert len(repr(result)) < 200
        assert "tensor(" not in repr(result)
    assert repr(MIXTURE).startswith("GaussianMixture(process=VPSDE(")
    weights = sum(weight.numel() for weight in IMAGES.parameters())
    assert repr(IMAGES).startswith("NeuralDenoiser(process=VPSDE(")
    assert repr(IMAGES).endswith(f"network=UNet of {weights:,} weights)")


@pytest.mark.slow  # a second or more
def test_a_notebook_shows_a_table_and_a_picture(results):
    for result in results.values():
        page = result._repr_html_()
        picture = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', page)[1])
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"
        assert all(f"<th>{name}</th>" in page for name in map(str, result.in_short()))
    assert not hasattr(MIXTURE, "_repr_html_")  # which would draw samples without being asked


def test_a_plot_is_a_figure_of_what_is_there(results):
    solution, comparison, line, square = (result.plot() for result in results.values())
    assert all(isinstance(drawn, Figure) for drawn in (solution, comparison, line, square))
    assert len(solution.axes) == len(next(iter(results.values())).path)
    points = solution.axes[-1].collections[0].get_offsets()
    assert torch.allclose(torch.as_tensor(points.data), next(iter(results.values())).x.double(), atol=1e-6)
    assert [ax.get_title() for ax in comparison.axes] == [
        "How far from the true flow?",
        "How far from the true distribution?",
    ]
    flow = results["Flow(domain=Interval("]
    drawn = torch.as_tensor(line.axes[0].lines[-1].get_ydata())
    assert torch.equal(drawn, flow.values[-1])
    assert torch.equal(torch.as_tensor(line.axes[1].lines[0].get_ydata()), flow.r)
    assert len(square.axes) == 5


def test_a_model_draws_samples_when_asked():
    assert len(MIXTURE.plot().axes[0].collections[0].get_offsets()) == 500
    assert len(IMAGES.plot().images) == 1
    with pytest.raises(TypeError, match="Uniform has no picture"):
        figure(ud.Uniform(3))


def test_a_run_and_a_recipe():
    run = ud.load("shipped:ddpm_digits")
    assert repr(run).startswith("GenerationRun(directory=")
    assert len(repr(run)) < 500
    assert "<th>step</th>" in run._repr_html_()
    assert repr(run.recipe) == "<Generation: the training of a generative model>"
    assert "process:\n  type: DDPM" in run.recipe._repr_html_()


def test_an_array_of_a_solution_is_its_samples():
    x = torch.arange(6.0).reshape(2, 3)
    array = np.asarray(ud.Solution(x, torch.linspace(1, 0, 3), 2))
    assert array.dtype == np.float32
    assert (array == x.numpy()).all()


def test_an_evaluation_prints_as_a_table():
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    found = ud.evaluate({"noise": x}, ud.data.Ring(count=200))
    assert repr(found).startswith("Evaluation(noise; reference: Ring")
    assert str(found).splitlines()[0].split() == ["real", "data", "noise"]
    assert "Frechet distance" in found._repr_html_()


def test_a_long_list_of_words_is_cut_in_a_repr():
    caption = ud.Caption(4, word_list=tuple(f"word{number}" for number in range(300)))
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((2,), width=8, depth=1, conditions=(caption,)))
    assert "Caption(name='caption', length=4" in repr(model)
    assert repr(model).endswith(" weights)")
    assert len(repr(model)) < 500
