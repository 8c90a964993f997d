"""Textual inversion: the vector of a new word of a linear model is that of least squares, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import unidiff as ud
from unidiff.data.captioned import CaptionedSource
from unidiff.errors import ParameterError

F64 = torch.float64
WORDS = ("a", "red", "three")
CAPTION = ud.Caption(3, WORDS)


class Linear(nn.Module):
    """x0 = M (sum of the vectors of the words), whatever the noisy state is."""

    def __init__(self):
        super().__init__()
        self.conditions = (CAPTION,)
        self.words = nn.Embedding(len(WORDS), 2, dtype=F64)
        self.matrix = nn.Parameter(torch.tensor([[1.0, 0.2], [-0.3, 0.8], [0.5, 0.5]], dtype=F64))

    def forward(self, x, c, caption):
        return (self.words(caption.clamp(min=0)) * (caption >= 0)[..., None]).sum(1) @ self.matrix.T


def test_the_word_of_a_linear_model_is_that_of_least_squares():
    torch.manual_seed(0)
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.X0(), Linear())
    model.conditions, model.shape = (CAPTION,), (3,)
    longer = ud.add_word(model, "new", like="red")
    x0, caption = torch.tensor([[0.75, -0.5, 0.25]], dtype=F64), torch.tensor([[0, 3, 2]])
    assert longer.conditions[0].parse("a new three").tolist() == [0, 3, 2]
    source = CaptionedSource(x0, caption, "one image", "")
    # A step of gradient descent on |x0 - M e|^2 / 3 maps the error by 1 - 2 lr / 3 M^T M. Its eigenvalues are 0.66 and
    # 0.43 at lr = 0.6: 0.66^100 = 1e-18.
    settings = ud.Training(
        steps=100, batch=1, lr=0.6, lr_final=1.0, ema=0.0, precision="fp32", clip=None, tensorboard=False,
        optimizer=torch.optim.SGD,
    )  # fmt: skip
    objective = ud.Denoising(weighting=ud.UniformWeighting())
    trained = ud.train(longer, source, objective, settings, conditioning=ud.Captions(0.0))
    network, others = trained.backbone, model.backbone
    rest = x0[0] - others.matrix @ (others.words.weight[0] + others.words.weight[2])
    expected = torch.linalg.lstsq(others.matrix.detach(), rest.detach()[:, None]).solution[:, 0]
    # Data and loss are in float32: its gradient is off by some roundings of 6e-8, and so is where it vanishes.
    torch.testing.assert_close(network.words.new[0].detach(), expected, rtol=5e-7, atol=5e-7)
    assert torch.equal(network.words.table.weight, others.words.weight)
    assert torch.equal(network.matrix, others.matrix)


def test_other_words_change_no_bit_and_one_vector_is_trained():
    torch.manual_seed(0)
    network = ud.UNet((1, 4, 4), width=8, multipliers=(1, 2), blocks=1, attention=(4,), conditions=(CAPTION,))
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2)
    model = ud.NeuralDenoiser(ud.DDPM(20), ud.V(), network.eval())
    longer = ud.add_word(model, "blue", like="red")
    trained = [(name, weight.numel()) for name, weight in longer.named_parameters() if weight.requires_grad]
    assert [count for _, count in trained] == [32]
    old = torch.tensor([[0, 1, 2], [0, 2, -1]])
    draw = {"solver": "ddim", "grid": 3, "seeds": 2}
    before = ud.sample(model, **draw, caption=old).x
    assert torch.equal(ud.sample(longer, **draw, caption=old).x, before)
    said = torch.tensor([[0, 3, 2], [0, 2, -1]])  # at first the new word is the one that it is like
    assert torch.equal(ud.sample(longer, **draw, caption=said).x, before)
    source = CaptionedSource(torch.rand(8, 1, 4, 4) * 2 - 1, said.repeat(4, 1), "images", "")
    settings = ud.Training(steps=2, batch=4, lr=1e-2, ema=0.0, precision="fp32", tensorboard=False)
    learned = ud.train(longer, source, ud.Denoising(), settings, conditioning=ud.Captions(0.0))
    assert torch.equal(ud.sample(learned, **draw, caption=old).x, before)
    assert not torch.equal(ud.sample(learned, **draw, caption=said).x, before)
    assert torch.equal(ud.sample(model, **draw, caption=old).x, before)


def test_a_second_word_and_classes_of_the_same_number():
    conditions = (CAPTION, ud.Label(len(WORDS)))
    network = ud.UNet((1, 4, 4), width=8, multipliers=(1,), blocks=1, attention=(4,), conditions=conditions)
    model = ud.NeuralDenoiser(ud.DDPM(20), ud.V(), network.eval())
    two = ud.add_word(ud.add_word(model, "blue", like="red"), "dark", like="blue")
    assert [weight.numel() for weight in two.parameters() if weight.requires_grad] == [32]  # of the last word
    assert two.conditions[0].word_list == (*WORDS, "blue", "dark")
    said = {"label": torch.tensor([1]), "caption": torch.tensor([[0, 4, 2]])}
    same = {"label": torch.tensor([1]), "caption": torch.tensor([[0, 1, 2]])}
    assert torch.equal(ud.sample(two, "ddim", 3, **said).x, ud.sample(model, "ddim", 3, **same).x)


def test_what_is_refused():
    network = ud.UNet((1, 4, 4), width=8, multipliers=(1,), blocks=1, attention=(4,), conditions=(CAPTION,))
    model = ud.NeuralDenoiser(ud.DDPM(20), ud.V(), network)
    for word, like, problem in (
        ("red", "a", "word: 'red' is one of the model's words already"),
        ("two words", "red", "word must be one lowercase word, got 'two words'"),
        ("blue", "green", "like: 'green' is not one of the model's words, a, red, three"),
    ):
        with pytest.raises(ParameterError) as error:
            ud.add_word(model, word, like)
        assert problem in str(error.value)
    plain = ud.NeuralDenoiser(ud.VPSDE(), ud.Eps(), ud.UNet((1, 4, 4), width=8, multipliers=(1,), blocks=1))
    with pytest.raises(ParameterError, match="must be a model with one condition of words, got 0 of them"):
        ud.add_word(plain, "blue", "red")
    with pytest.raises(ParameterError, match=r"got an object of ClassifierFree\. Pass the model in it"):
        ud.add_word(ud.ClassifierFree(model, 2.0), "blue", "red")
