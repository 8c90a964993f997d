"""MM-DiT: its joint attention against the formula in float64, what padding changes (nothing), and its start."""

from __future__ import annotations

import pytest
import torch
from random_networks import near, randomized
from torch import nn
from torch.nn import functional as F

import unidiff as ud
from unidiff.backbone.context import Attended
from unidiff.backbone.dit_blocks import AdaLNZeroBlock, BlockSettings
from unidiff.backbone.mmdit import JointBlock
from unidiff.errors import ParameterError

D = torch.float64
WORDS = ud.Tokens(8, 9)
X, C = torch.randn(3, 1, 4, 4, dtype=D, generator=torch.Generator().manual_seed(2)), torch.tensor([9.0, 300.0, 900.0])
CAPTION = torch.tensor([[4, 0, 8], [1, -1, -1], [-1, -1, -1]])


def made(*more: ud.Condition, words: ud.Condition = WORDS) -> ud.MMDiT:
    return ud.MMDiT((1, 4, 4), width=8, depth=2, heads=2, conditions=(words, *more))


def test_padding_changes_no_bit():
    network = randomized(made())
    whole = F.pad(CAPTION, (0, 5), value=-1)
    found = network(X, C, tokens=whole)
    for some in (CAPTION, whole[:, :5]):
        assert torch.equal(network(X, C, tokens=some), found)
    assert torch.equal(found[2:], network(X, C)[2:])  # an empty caption is the null one, exactly
    assert ((found - network(X, C)).abs().flatten(1).amax(1) > 1e-4).tolist() == [True, True, False]
    # What is masked has no weight: a network without these positions is the same function, to rounding.
    short, state = made(words=ud.Tokens(3, 9)).double(), network.state_dict()
    (key,) = (key for key in state if key.endswith("position"))
    state[key] = state[key][:3]
    short.load_state_dict(state)
    near(short(X, C, tokens=CAPTION), found)
    network(X[:2], C[:2], tokens=whole[:2]).square().sum().backward()
    gradient = network.get_parameter(key).grad
    assert gradient[:3].abs().amax(1).min() > 0
    assert torch.equal(gradient[3:], torch.zeros_like(gradient[3:]))


def test_at_first_no_word_reaches_the_patches():
    """The gates are 0: both streams pass as they are, and any map of the patches is that of a network without text."""
    network = made()
    entry = network._entered(X.float(), C, {"tokens": CAPTION})
    h, text = torch.randn(3, 4, 8), entry.context
    for block in network.blocks:
        out, tokens = block(h, text, entry.e)
        assert torch.equal(out, h)
        assert torch.equal(tokens.tokens, text.tokens)
    assert torch.equal(network(X.float(), C, tokens=CAPTION), torch.zeros(3, 1, 4, 4))
    nn.init.normal_(network.head.weight)
    out = network(X.float(), C, tokens=CAPTION)
    assert out.abs().max() > 0.1
    assert torch.equal(out, network(X.float(), C, tokens=CAPTION.roll(1, 0)))
    # A gate that has moved lets them in.
    nn.init.normal_(network.blocks[0].image.modulation.bias)
    assert not torch.equal(network(X.float(), C, tokens=CAPTION), network(X.float(), C, tokens=CAPTION.roll(1, 0)))


def test_a_block_is_the_formula():
    """One sample of three patches and two words, of which the second does not exist, one head after the other."""
    block = randomized(JointBlock(8, 2))
    h, words, e = (torch.randn(n, 8, dtype=D, generator=torch.Generator().manual_seed(n)) for n in (3, 2, 1))
    exist = torch.tensor([[True, False]])
    found, text = block(h[None], Attended(words[None], exist), e)
    streams = {block.image: h, block.text: words}
    modulations = {s: (s.modulation.weight @ e[0] + s.modulation.bias).split(8) for s in streams}
    parts = []
    for stream, tokens in streams.items():
        shift, scale, *_ = modulations[stream]
        z = F.layer_norm(tokens, (8,), eps=1e-6) * (1 + scale) + shift
        parts.append((z @ stream.qkv.weight.T + stream.qkv.bias).split(8, dim=1))
    q, k, v = (torch.cat([own, other]) for own, other in zip(*parts))
    columns = []
    for part in torch.arange(8).split(4):
        weights = torch.exp(q[:, part] @ k[:4, part].T / 2)  # the first four tokens exist
        columns.append(weights / weights.sum(1, keepdim=True) @ v[:4, part])
    averages = torch.cat(columns, 1).split([3, 2])
    for stream, tokens, average, out in zip(streams, (h, words), averages, (found[0], text.tokens[0])):
        _, _, g1, b2, s2, g2 = modulations[stream]
        expected = tokens + g1 * (average @ stream.project.weight.T + stream.project.bias)
        inner, _, outer = stream.mlp
        z = F.layer_norm(expected, (8,), eps=1e-6) * (1 + s2) + b2
        hidden = F.gelu(z @ inner.weight.T + inner.bias, approximate="tanh")
        near(out, expected + g2 * (hidden @ outer.weight.T + outer.bias))


def test_with_equal_weights_both_streams_are_one_block_of_a_dit():
    single = randomized(AdaLNZeroBlock(BlockSettings(8, 2, ud.SoftmaxAttention())))
    joint = JointBlock(8, 2).double()
    names = {"inner": "mlp.0", "outer": "mlp.2"}
    state = {
        f"{names.get(n.split('.')[0], n.split('.')[0])}.{n.split('.')[1]}": w for n, w in single.state_dict().items()
    }
    for stream in (joint.image, joint.text):
        stream.load_state_dict(state)
    h, words, e = torch.randn(2, 3, 8, dtype=D), torch.randn(2, 4, 8, dtype=D), torch.randn(2, 8, dtype=D)
    found, text = joint(h, Attended(words, torch.ones(2, 4, dtype=torch.bool)), e)
    near(torch.cat([found, text.tokens], 1), single(torch.cat([h, words], 1), e))


VALUES = {
    ud.Label(3): torch.tensor([0, 2, 1]),
    ud.Embedding((5,)): torch.randn(3, 5, dtype=D, generator=torch.Generator().manual_seed(3)),
    ud.Image(2, (4, 4)): torch.rand(3, 2, 4, 4, dtype=D, generator=torch.Generator().manual_seed(4)),
}


@pytest.mark.parametrize("condition", VALUES, ids=repr)
def test_other_conditions_enter_row_by_row(condition):
    network, value = randomized(made(condition)), VALUES[condition]
    cond = {condition.name: value, "tokens": CAPTION}
    out = network(X, C, **cond)
    null = network(X, C, **{**cond, condition.name: condition.null(3, X)})
    assert ((out - null).abs().flatten(1).amax(1) > 1e-4).all()
    near(network(X[1:2], C[1:2], **{name: rows[1:2] for name, rows in cond.items()}), out[1:2])


def test_every_weight_is_trained_and_words_are_of_any_sequence():
    vectors = ud.Embedding((4, 5), name="vectors")
    network = randomized(made(words=vectors))
    value = torch.randn(3, 4, 5, dtype=D)
    network(X, C, vectors=value).square().sum().backward()
    # But for the queries of the words in the last block, for which nothing is asked: the first third of q, k, v.
    last = [network.blocks[-1].text.qkv.weight, network.blocks[-1].text.qkv.bias]
    for weight in network.parameters():
        thirds = weight.grad.chunk(3) if len(weight) == 24 else [weight.grad]
        unused = sum(1 for part in thirds if part.abs().max() == 0)
        assert unused == (1 if any(weight is own for own in last) else 0)
    model, level = ud.NeuralDenoiser(ud.FlowMatching(), ud.Velocity(), network), ud.FlowMatching().level(0.4)
    scaled = ud.ClassifierFree(model, 1.0)(X, level, vectors=value)
    assert torch.equal(scaled.eps, model(X, level, vectors=value).eps)


def test_without_words_it_is_one_clear_error():
    for conditions in ((), (ud.Label(3),)):
        with pytest.raises(ParameterError, match=r"conditions: MMDiT needs captions, or another .* without, use DiT"):
            ud.MMDiT((1, 4, 4), width=8, depth=1, heads=1, conditions=conditions)
    with pytest.raises(
        ParameterError, match="patch: images of 4x4 pixels cannot be cut into patches of 3x3; use 1, 2, 4"
    ):
        ud.MMDiT((1, 4, 4), patch=3, conditions=(WORDS,))
