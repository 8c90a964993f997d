"""Prompt-to-prompt: nothing swapped changes no bit, and weights of attention are those of the definition."""

from __future__ import annotations

import pytest
import torch

import unidiff as ud
from unidiff.backbone.context import Attended, CrossAttention
from unidiff.backbone.shared_attention import SharingNetwork
from unidiff.conditioning.captions import Caption
from unidiff.errors import ParameterError

F64 = torch.float64
WORDS = ("a", "big", "red", "green", "three", "five")
CAPTION = Caption(4, WORDS)


def model(process: ud.Process | None = None) -> ud.NeuralDenoiser:
    torch.manual_seed(0)
    network = ud.UNet((1, 4, 4), width=8, multipliers=(1, 2), blocks=1, attention=(4, 2), conditions=(CAPTION,))
    with torch.no_grad():
        for weight in network.parameters():  # layers that are the identity at first do something, too
            weight.add_(0.3 * torch.randn_like(weight))
    return ud.NeuralDenoiser(process or ud.DDPM(20), ud.V(), network.double().eval())


def edit(denoiser, source, edited, **options):
    return ud.prompt_to_prompt(denoiser, source, edited, "ddim", 4, seeds=[3, 8], dtype=F64, **options)


@pytest.mark.parametrize("scale", [None, 2.0])
def test_nothing_swapped_changes_no_bit(scale):
    denoiser = model() if scale is None else ud.ClassifierFree(model(), scale)
    same = edit(denoiser, "a red three", "a red three", until=0.0, self_until=0.0)
    captions = CAPTION.parse("a red three").repeat(4, 1)
    plain = ud.sample(denoiser, "ddim", 4, seeds=[3, 8, 3, 8], dtype=F64, caption=captions)
    assert torch.equal(same.source, plain.x[:2])
    assert torch.equal(same.edited, plain.x[2:])
    assert same.nfe == plain.nfe


def test_nothing_shared_is_a_sample_of_each_caption():
    denoiser = model()
    free = edit(denoiser, "a red three", "a red five", until=1.0, self_until=1.0)
    captions = torch.stack([CAPTION.parse(f"a red {word}") for word in ("three", "three", "five", "five")])
    plain = ud.sample(denoiser, "ddim", 4, seeds=[3, 8, 3, 8], dtype=F64, caption=captions)
    assert torch.equal(torch.cat([free.source, free.edited]), plain.x)
    # What is shared changes the edited samples alone.
    for options in ({"until": 0.0, "self_until": 1.0}, {"until": 1.0, "self_until": 0.0}):
        shared = edit(denoiser, "a red three", "a red five", **options)
        assert torch.equal(shared.source, free.source)
        assert not torch.equal(shared.edited, free.edited)


VIDEO = {"multipliers": (1,), "blocks": 1, "width": 8, "conditions": (CAPTION,)}
NETWORKS = {
    "frames": lambda: ud.UNet((1, 2, 4, 4), factorized=True, attention=(4,), **VIDEO),
    "lines": lambda: ud.UNet((1, 4, 4), axial=True, attention=(4,), **VIDEO),
    "cross-attended": lambda: ud.DiT(
        (1, 4, 4), patch=2, width=8, depth=1, heads=2, conditions=(CAPTION,), block=ud.CrossAttended()
    ),
}


@pytest.mark.parametrize("edited", ["a red five", "a big red five"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_sample_is_that_of_its_caption_alone(name, edited):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    denoiser = ud.NeuralDenoiser(ud.DDPM(20), ud.V(), network.double().eval())
    times = {"until": 0.0, "self_until": 1.0 if name == "cross-attended" else 0.0}
    pair = edit(denoiser, "a red three", edited, emphasis={"five": 2.0}, **times)
    alone = ud.sample(denoiser, "ddim", 4, seeds=[3, 8], dtype=F64, caption=CAPTION.parse("a red three").repeat(2, 1))
    # The batch is another one, and rounds otherwise.
    torch.testing.assert_close(pair.source, alone.x, rtol=1e-9, atol=1e-9)
    if len(edited.split()) == 3:
        pair = edit(denoiser, "a red three", "a red three", **times)
        torch.testing.assert_close(pair.edited, pair.source, rtol=1e-9, atol=1e-9)


def test_no_gradient_reaches_the_first_sample_from_the_second():
    energy = ud.UniversalGuidance(model(), lambda x: x.flatten(1).square().sum(1), 0.5)
    pair = edit(energy, "a red three", "a big red five", until=0.0, self_until=0.0)
    caption = CAPTION.parse("a red three").repeat(2, 1)
    alone = ud.sample(energy, "ddim", 4, seeds=[3, 8], dtype=F64, caption=caption)
    torch.testing.assert_close(pair.source, alone.x, rtol=1e-9, atol=1e-9)
    small = ud.UniversalGuidance(model(), lambda x: x.flatten(1).square().sum(1), 0.5, chunk=2)
    with pytest.raises(ParameterError, match=r"not both samples of each of 2 pairs together\. Pass fewer seeds"):
        edit(small, "a red three", "a red five")


def weights(layer: CrossAttention, h: torch.Tensor, tokens: torch.Tensor, exist: torch.Tensor) -> torch.Tensor:
    """softmax(q k / sqrt(d)) of one row and one head, (N, tokens), in loops."""
    q, k = layer.q(layer.norm(h)), layer.kv(tokens)[:, : h.shape[1]]
    scores = torch.tensor([[float(a @ b) / h.shape[1] ** 0.5 for b in k] for a in q], dtype=F64)
    return scores.masked_fill(~exist, -torch.inf).softmax(-1)


@torch.no_grad()
@pytest.mark.parametrize("places", [None, [[0, -1, 1, 2], [0, 1, -1, -1]]])
def test_weights_by_hand(places):
    torch.manual_seed(1)
    layer = CrossAttention(6, 5, 1).double()
    torch.nn.init.normal_(layer.project.weight)
    h, tokens = torch.randn(4, 3, 6, dtype=F64), torch.randn(4, 4, 5, dtype=F64)
    exist = torch.ones(4, 4, dtype=torch.bool)
    if places is not None:
        exist[:2, 3] = False  # the first captions are shorter
    factors = torch.tensor([[1.0, 1.0, 2.0, 0.5], [1.0, 0.0, 1.0, 1.0]], dtype=F64)
    given = None if places is None else torch.tensor(places)
    network = SharingNetwork(torch.nn.ModuleList([layer]), 2, 0.5, 1.0, given, factors)
    shared = network.network[0]
    for time, active in ((0.6, True), (0.5, False)):
        (own,) = network.shared
        own.active, own.places, own.emphasis = time > own.until, given, factors
        found = shared(h, Attended(tokens, exist))
        for row in range(4):
            w = weights(layer, h[row], tokens[row], exist[row])
            if row >= 2 and active:
                first = weights(layer, h[row - 2], tokens[row - 2], exist[row - 2])
                for place in range(4):
                    taken = place if places is None else places[row - 2][place]
                    if taken >= 0:
                        w[:, place] = first[:, taken]
            if row >= 2:
                w = w * factors[row - 2]
            expected = h[row] + layer.project(w @ layer.kv(tokens[row])[:, 6:])
            # Some hundred roundings of numbers of order 10.
            torch.testing.assert_close(found[row], expected, rtol=1e-12, atol=1e-12)
    assert layer.attend is CrossAttention.attend  # the layer itself is as it was
    assert shared.q.weight is layer.q.weight


def test_words_that_stay_keep_their_weights(monkeypatch):
    made = []

    class Kept(SharingNetwork):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr("unidiff.editing.prompt_to_prompt.SharingNetwork", Kept)
    edit(model(), "a red three", "a big red three", emphasis={"big": 2.0, 0: 0.5})
    places, factors = (row.tolist() for row in made[0].rows)
    assert places == [[0, 1, -1, 2, 3]] * 2
    assert factors == [[1.0, 0.5, 2.0, 1.0, 1.0]] * 2
    # A caption for each seed.
    both = [torch.tensor([[0, 2, 4], [0, 2, 4]]), ["a big red three", "a green five"]]
    two = edit(model(), *both)
    assert made[1].rows[0].tolist() == [[0, 1, -1, 2, 3], [0, 1, 2, 3, 4]]
    alone = edit(model(), "a red three", "a green five")
    torch.testing.assert_close(two.edited[1], alone.edited[1], rtol=1e-9, atol=1e-9)  # the batch rounds otherwise


def test_what_is_refused():
    denoiser = model()
    for options, problem in (
        ({"until": 1.5}, "until must be a time from 0 to 1, got 1.5"),
        ({"emphasis": {"five": 2.0}}, "emphasis: 'five' is no word of the edited caption, nor the place of one"),
        ({"emphasis": {"red": "much"}}, "emphasis of 'red' must be a finite number, got 'much'"),
    ):
        with pytest.raises(ParameterError) as error:
            edit(denoiser, "a red three", "a green three", **options)
        assert problem in str(error.value)
    for options, problem in (
        ({"batch": 2}, "batch: the model has no condition of this name"),
        ({"caption": torch.zeros(2, 3)}, "caption: pass `source` and `edited` instead"),
        ({"emphasis": {"a red": 2.0}}, "emphasis must name one word, got 'a red'"),
        ({"emphasis": {"blue": 2.0}}, "emphasis: 'blue' is not one of its words"),
    ):
        with pytest.raises(ParameterError) as error:
            edit(denoiser, "a red three", "a green three", **options)
        assert problem in str(error.value)
    tokens = ud.Tokens(length=4, vocabulary=6, name="caption")
    network = ud.UNet((1, 4, 4), width=8, multipliers=(1,), blocks=1, attention=(4,), conditions=(tokens,))
    with pytest.raises(ParameterError, match=r"source must be numbers of tokens, \(length,\), got 'a red'"):
        edit(ud.NeuralDenoiser(ud.DDPM(20), ud.V(), network.double()), "a red", "a")
    transformer = ud.DiT((1, 4, 4), patch=2, width=8, depth=1, heads=2, conditions=(CAPTION,)).double()
    with pytest.raises(ParameterError, match="self_until must be 1: the self-attention of DiT is not shared"):
        edit(ud.NeuralDenoiser(ud.DDPM(20), ud.V(), transformer), "a red", "a", self_until=0.5)
    with pytest.raises(ParameterError, match="source must be one caption, or one for each of 2 seeds, got 3"):
        edit(denoiser, ["a", "a", "a"], "a")
    with pytest.raises(ParameterError, match="edited: 'blue' is not one of its words"):
        edit(denoiser, "a red three", "a blue three")
    plain = ud.NeuralDenoiser(ud.VPSDE(), ud.Eps(), ud.UNet((1, 4, 4), width=8, multipliers=(1,), blocks=1))
    with pytest.raises(
        ParameterError, match="must be a model that attends to one caption and nothing else, got nothing"
    ):
        edit(plain, "a", "a")
