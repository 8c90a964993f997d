"""Linear attention, and the designs of a DiT's blocks, against their formulas in float64."""

from __future__ import annotations

import pytest
import torch
from random_networks import near, randomized
from torch.nn import functional as F

import unidiff as ud
from unidiff.backbone.dit_blocks import BlockSettings
from unidiff.errors import ParameterError
from unidiff.interop.dit import dit_to_diffusers

D = torch.float64
TINY = {"width": 8, "depth": 2, "heads": 2, "classes": 3}
DESIGNS = {
    design.__name__: design for design in (ud.AdaLN, ud.AdaLNSingle, ud.AdaLNZero, ud.CrossAttended, ud.InContext)
}
X, C = torch.randn(3, 1, 4, 4, dtype=D, generator=torch.Generator().manual_seed(2)), torch.tensor([9.0, 300.0, 900.0])
LABEL = torch.tensor([0, 2, 1])


# ---------------------------------------------------------------------------------------------- linear attention


def test_linear_attention_is_the_quadratic_sum():
    q, k, v = torch.randn(3, 2, 3, 7, 5, dtype=D, generator=torch.Generator().manual_seed(0))
    q[0, 0, 0] = -1.0  # a query without a positive feature
    weights = torch.einsum("bhid,bhjd->bhij", q.clamp(min=0), k.clamp(min=0))
    total = weights.sum(-1, keepdim=True)
    share = weights / total.masked_fill(total == 0, 1.0)
    found = ud.LinearAttention().average(q, k, v)
    near(found, torch.einsum("bhij,bhjd->bhid", share, v))
    assert torch.equal(found[0, 0, 0], torch.zeros(5, dtype=D))
    # Averages: of equal values they are that value, where there is a weight.
    near(ud.LinearAttention().average(q, k, torch.ones_like(v)), (total > 0).to(D).expand(2, 3, 7, 5))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    near(ud.LinearAttention().average(*(z[:, :, order] for z in (q, k, v))), found[:, :, order])
    near(ud.LinearAttention().average(q, k[:, :, order], v[:, :, order]), found)


def test_linear_attention_has_finite_gradients_also_without_a_weight():
    q, k, v = (
        z.clone().requires_grad_() for z in torch.randn(3, 1, 1, 3, 2, generator=torch.Generator().manual_seed(0))
    )
    ud.LinearAttention().average(q - 10, k, v).sum().backward()
    assert all(torch.equal(z.grad, torch.zeros_like(z)) for z in (q, k, v))
    double = [z.detach().double().requires_grad_() for z in (q, k.abs() + 0.1, v)]
    assert torch.autograd.gradgradcheck(ud.LinearAttention().average, double)
    halves = (torch.full((1, 1, 9, 2), 100.0, dtype=torch.float16) for _ in range(3))  # whose sums overflow a half
    assert torch.equal(ud.LinearAttention().average(*halves), torch.full((1, 1, 9, 2), 100.0, dtype=torch.float16))


def test_a_network_of_linear_attention_differs_in_attention_alone():
    linear = randomized(ud.DiT((1, 4, 4), **TINY, attention=ud.LinearAttention()))
    softmax = ud.DiT((1, 4, 4), **TINY).double()
    softmax.load_state_dict(linear.state_dict())
    assert (linear(X, C, label=LABEL) - softmax(X, C, label=LABEL)).abs().max() > 1e-3
    block, h, e = linear.blocks[0], torch.randn(2, 4, 8, dtype=D), torch.randn(2, 8, dtype=D)
    softmax.blocks[0].attention = ud.LinearAttention()
    near(softmax.blocks[0](h, e), block(h, e))
    order = torch.tensor([2, 0, 3, 1])  # without positions patches may change places
    near(block(h[:, order], e), block(h, e)[:, order])


# ---------------------------------------------------------------------------------------------- designs of blocks


@pytest.mark.parametrize("name", DESIGNS)
def test_a_block_sees_noise_level_and_class(name):
    network = randomized(ud.DiT((1, 4, 4), **TINY, block=DESIGNS[name]()))
    entries, context = network.embedding(C, {"label": LABEL}), None
    tokens = network.design.entered(torch.randn(3, 4, 8, dtype=D), entries)
    for block in network.blocks:
        seen = entries if network.shared is None else network.shared(entries)
        out = block(tokens, seen, network.grid, context)[:, :4]  # the patches
        sources = (network.embedding.inner.weight, network.embedding.label.weight)
        for gradient in torch.autograd.grad(out.square().sum(), sources, retain_graph=True):
            assert gradient.abs().max() > 1e-6
    # Row by row, and no class is the null class, exactly.
    out = network(X, C, label=LABEL)
    near(network(X[1:2], C[1:2], label=LABEL[1:2]), out[1:2])
    assert torch.equal(network(X, C), network(X, C, label=torch.full((3,), -1)))


@pytest.mark.parametrize("name", ["AdaLNSingle", "AdaLNZero"])
def test_gated_blocks_are_the_identity_at_first(name):
    network = ud.DiT((1, 4, 4), **TINY, block=DESIGNS[name](), conditions=(ud.Tokens(3, 5),))
    e = network.embedding(C, {"label": LABEL})
    seen, h = e if network.shared is None else network.shared(e), torch.randn(3, 4, 8)
    context = network.context({"tokens": torch.tensor([[1, 2, -1]] * 3)})
    assert all(torch.equal(block(h, seen, network.grid, context), h) for block in network.blocks)


def layer_norm(h, norm=None):
    h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    return h if norm is None else h * norm.weight + norm.bias


def branches(block):
    """Both branches of a block, attention over all tokens and a perceptron, as functions of normalized tokens."""

    def attention(z):
        q, k, v = (z @ block.qkv.weight.T + block.qkv.bias).split(8, dim=1)
        columns = []
        for part in torch.arange(8).split(4):
            columns.append(torch.softmax(q[:, part] @ k[:, part].T / 2, 1) @ v[:, part])
        return torch.cat(columns, 1) @ block.project.weight.T + block.project.bias

    def perceptron(z):
        z = F.gelu(z @ block.inner.weight.T + block.inner.bias, approximate="tanh")
        return z @ block.outer.weight.T + block.outer.bias

    return attention, perceptron


@pytest.mark.parametrize("name", ["AdaLN", "InContext", "CrossAttended"])
def test_a_block_is_its_formula(name):
    """One sample, written out from Peebles & Xie 2023, section 3.2."""
    block = randomized(DESIGNS[name]().block(BlockSettings(8, 2, ud.SoftmaxAttention())))
    h = torch.randn(5, 8, dtype=D, generator=torch.Generator().manual_seed(1))
    vectors = torch.randn(2, 8, dtype=D, generator=torch.Generator().manual_seed(2))
    attention, perceptron = branches(block)
    e = vectors[:1] if name == "AdaLN" else vectors[None]
    found = block(h[None], e)[0]
    if name == "AdaLN":
        b1, s1, b2, s2 = (block.modulation.weight @ vectors[0] + block.modulation.bias).split(8)
        expected = h + attention(layer_norm(h) * (1 + s1) + b1)
        expected = expected + perceptron(layer_norm(expected) * (1 + s2) + b2)
    else:
        expected = h + attention(layer_norm(h, block.norm1))
        if name == "CrossAttended":
            cross = block.cross
            z = (expected - expected.mean(-1, keepdim=True)) / (
                expected.var(-1, keepdim=True, correction=0) + cross.norm.eps
            ).sqrt()
            q = (z * cross.norm.weight + cross.norm.bias) @ cross.q.weight.T + cross.q.bias
            k, v = (vectors @ cross.kv.weight.T + cross.kv.bias).split(8, dim=1)
            heads = [torch.softmax(q[:, i] @ k[:, i].T / 2, 1) @ v[:, i] for i in torch.arange(8).split(4)]
            expected = expected + torch.cat(heads, 1) @ cross.project.weight.T + cross.project.bias
        expected = expected + perceptron(layer_norm(expected, block.norm2))
    near(found, expected)


def test_in_context_the_conditions_are_tokens_behind_the_patches():
    network = randomized(ud.DiT((1, 4, 4), **TINY, block=ud.InContext()))
    e = network.embedding(C, {"label": LABEL})
    assert e.shape == (3, 2, 8)  # noise level and class
    h = network.stem(X).flatten(2).transpose(1, 2) + network.positions
    h = torch.cat([h, e], 1)
    for block in network.blocks:
        h = block(h, e)
    patches = network.head(layer_norm(h[:, :4], network.norm))
    near(network(X, C, label=LABEL), F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (2, 2)), 2))


def test_adaln_single_is_adaln_zero_with_one_matrix_and_its_own_offsets():
    single = randomized(ud.DiT((1, 4, 4), **TINY, block=ud.AdaLNSingle()))
    zero = ud.DiT((1, 4, 4), **TINY).double()
    state = single.state_dict()
    weight, bias = state.pop("shared.weight"), state.pop("shared.bias")
    for i in range(2):
        state[f"blocks.{i}.modulation.weight"] = weight
        state[f"blocks.{i}.modulation.bias"] = bias + state.pop(f"blocks.{i}.table").flatten()
    zero.load_state_dict(state)
    near(zero(X, C, label=LABEL), single(X, C, label=LABEL))


@pytest.mark.cases(1)
@pytest.mark.parametrize(("size", "width", "depth"), [("S", 384, 12), ("XL", 1152, 28)])
def test_what_adaln_single_saves(size, width, depth):
    """D (6 w^2 + 6 w) weights become 6 w^2 + 6 w + 6 w D: for XL 214,983,936 fewer of 674.8 million."""
    with torch.device("meta"):
        counts = {
            design: sum(
                p.numel()
                for p in ud.DiT((4, 32, 32), size, 2, classes=1000, learned_variance=True, block=design()).parameters()
            )
            for design in (ud.AdaLNZero, ud.AdaLNSingle, ud.AdaLN, ud.InContext, ud.CrossAttended)
        }
    own, shared = depth * (6 * width**2 + 6 * width), 6 * width**2 + 6 * width + 6 * width * depth
    assert counts[ud.AdaLNZero] - counts[ud.AdaLNSingle] == own - shared
    assert counts[ud.AdaLNZero] - counts[ud.AdaLN] == depth * 2 * (width**2 + width)
    assert size != "XL" or (counts[ud.AdaLNZero], own - shared) == (674_834_720, 214_983_936)


def test_captions_are_attended_to_in_every_design():
    caption = torch.tensor([[1, 2, -1], [0, -1, -1], [-1, -1, -1]])
    for design in DESIGNS.values():
        network = randomized(ud.DiT((1, 4, 4), **TINY, block=design(), conditions=(ud.Tokens(3, 5),)))
        out, null = network(X, C, label=LABEL, tokens=caption), network(X, C, label=LABEL)
        assert ((out - null).abs().flatten(1).amax(1) > 1e-5).tolist() == [True, True, False]
        assert torch.equal(network(X, C, label=LABEL, tokens=caption[:, :2]), out)  # padding changes no bit


def test_what_does_not_fit_is_one_clear_error():
    with pytest.raises(ParameterError, match=r"axial: InContext\(\) appends tokens, which are on no axis"):
        ud.DiT((1, 4, 4), **TINY, axial=True, block=ud.InContext())
    for own in ({"block": ud.AdaLN()}, {"attention": ud.LinearAttention()}):
        with pytest.raises(ParameterError, match=r"DiTTransformer2DModel has \w+\(\) only, got (AdaLN|LinearAtt)"):
            dit_to_diffusers(ud.DiT((1, 4, 4), **TINY, **own))
