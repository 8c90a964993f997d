"""Contrastive models: the optimum of InfoNCE is the log density ratio, and its gradient guides to a caption."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from contrast import AttributePairs
from torch.distributions import Categorical, MultivariateNormal

import unidiff as ud
from unidiff.backbone.pair import PairEncoder
from unidiff.backbone.text import TextTransformer
from unidiff.errors import ParameterError
from unidiff.objective.contrastive import InfoNCE

D = torch.float64
FLOW = ud.FlowMatching()


# ---------------------------------------------------------------------------------------------- the optimum


class Table(ud.ContrastiveModel):
    """F of states that are whole numbers, and of labels, from a table."""

    process, conditions = FLOW, (ud.Label(3),)

    def __init__(self, rows, columns):
        super().__init__()
        self.f = torch.nn.Parameter(torch.zeros(rows, columns, dtype=D))

    def similarities(self, u, level, *, label):
        return self.f[(u[:, 0] / level.alpha[:, 0]).round().long()][:, label]


def expected_loss(model, joint, pairs):
    """The mean InfoNCE over all batches of so many independent pairs with the probabilities of `joint`."""
    cells = [*product(range(joint.shape[0]), range(joint.shape[1]))]
    total, level = torch.zeros((), dtype=D), FLOW.level(torch.full((pairs,), 0.25, dtype=D), torch.zeros(pairs, 1))
    for batch in product(cells, repeat=pairs):
        x, y = torch.tensor(batch).unbind(1)
        losses = InfoNCE().losses(model, x[:, None].double(), torch.zeros(pairs, 1, dtype=D), level, label=y)
        total = total + joint[x, y].prod() * losses.mean()
    return total


WIDE = torch.tensor([[0.30, 0.05, 0.15], [0.10, 0.25, 0.15]], dtype=D)
SMALL = torch.tensor([[0.40, 0.15], [0.10, 0.35]], dtype=D)


def log_ratio(joint):
    return (joint / (joint.sum(1, keepdim=True) * joint.sum(0))).log()


@pytest.mark.parametrize(("joint", "pairs"), [(WIDE, 2), (SMALL, 3)], ids=["2 pairs", "3 pairs"])
def test_the_optimum_of_infonce_is_the_log_density_ratio(joint, pairs):
    model = Table(*joint.shape)
    model.f.data = log_ratio(joint) + 1.7  # up to a number
    loss = expected_loss(model, joint, pairs)
    (gradient,) = torch.autograd.grad(loss, model.f)
    # Sums of 6^2 or 4^3 products of numbers below 1: 64 * 2^-53 = 7e-15. The loss is convex in f, so it is least here.
    assert gradient.abs().max() < 1e-14
    # Any other table is worse: here by a term of a row, which the loss one way alone would not see.
    model.f.data = model.f.data + torch.tensor([[0.5], [0.0]], dtype=D)
    assert expected_loss(model, joint, pairs) > loss + 1e-3


def test_minimised_from_zero_a_table_becomes_the_log_density_ratio():
    model = Table(2, 2)
    for _ in range(6):  # steps of Newton, which double the number of right digits
        (gradient,) = torch.autograd.grad(expected_loss(model, SMALL, 2), model.f, create_graph=True)
        rows = [torch.autograd.grad(g, model.f, retain_graph=True)[0].flatten() for g in gradient.flatten()]
        # The loss does not change with a number added to f: the Hessian is singular in that one direction.
        step = torch.linalg.pinv(torch.stack(rows), rtol=1e-6) @ gradient.detach().flatten()
        model.f.data -= step.reshape(2, 2)
    assert step.abs().max() < 1e-12
    # f is off by the rounding of the gradient, 16 * 2^-53, over the curvature, above 0.01; it began with a mean of 0.
    found, expected = model.f.detach(), log_ratio(SMALL)
    torch.testing.assert_close(found, expected - (expected - found).mean(), rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------- guidance

# Four components: a digit (0 or 1) in a colour (0 or 1). Captions: digit 0, digit 1, colour 0, colour 1, both 1.
MEANS = torch.tensor([[-0.6, 0.3], [0.5, -0.2], [0.1, 0.7], [0.4, 0.6]], dtype=D)
COVARIANCES = torch.tensor(
    [
        [[0.05, 0.02], [0.02, 0.04]],
        [[0.1, -0.03], [-0.03, 0.02]],
        [[0.03, 0.0], [0.0, 0.06]],
        [[0.04, 0.01], [0.01, 0.05]],
    ]
).to(D)
WEIGHTS = torch.tensor([0.4, 0.15, 0.25, 0.2], dtype=D)
MEMBERS = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 1]], dtype=torch.bool)
CAPTION = torch.tensor([0, 1, 2, 3, 4])
U = torch.randn(5, 2, dtype=D, generator=torch.Generator().manual_seed(0))


class Unconditional(ud.Denoiser):
    """The mixture without a condition."""

    conditions = ()

    def __init__(self, process):
        super().__init__()
        self.process, self.exact = process, ud.GaussianMixture(process, MEANS, COVARIANCES, WEIGHTS)

    def forward(self, u, level, **cond):
        assert not cond
        return self.exact(u, level)


def pairs(process):
    return AttributePairs(ud.GaussianMixture(process, MEANS, COVARIANCES, WEIGHTS), MEMBERS, WEIGHTS)


def tilted_score(u, level, caption, scale):
    """The gradient of log [p(u) (p(u | caption) / p(u))^scale], densities written with torch.distributions."""
    u = u.clone().requires_grad_()
    noisy = MultivariateNormal(
        level.alpha * MEANS, level.alpha**2 * COVARIANCES + level.sigma**2 * torch.eye(2, dtype=D)
    )
    joint = noisy.log_prob(u[:, None]) + Categorical(WEIGHTS).logits
    inside = joint.masked_fill(~MEMBERS[caption], -torch.inf).logsumexp(1)
    whole = joint.logsumexp(1)
    return torch.autograd.grad((whole + scale * (inside - whole)).sum(), u)[0]


@pytest.mark.parametrize("process", [ud.VPSDE(), ud.DDPM(T=50), ud.FlowMatching(), ud.EDM()], ids=repr)
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_clip_guidance_is_the_tilted_score_of_attributes(process, scale):
    model = ud.CLIPGuidance(Unconditional(process), pairs(process), scale, chunk=2)
    for t in (0.02, 0.3, 0.9):
        level = process.level(max(t, process.t_min))
        u = (level.alpha**2 + level.sigma**2) ** 0.5 * U
        found = model(u, level, label=CAPTION)
        # As for classifier guidance: some hundred roundings, and the score is divided by sigma.
        expected = tilted_score(u, level, CAPTION, scale)
        torch.testing.assert_close(found.score, expected, rtol=1e-9, atol=1e-9 / level.sigma)
        torch.testing.assert_close(level.alpha * found.x0 + level.sigma * found.eps, u, rtol=1e-12, atol=1e-12)


def test_at_scale_1_it_is_the_mixture_of_what_the_caption_fits():
    process = ud.VPSDE()
    level = process.level(0.4)
    found = ud.CLIPGuidance(Unconditional(process), pairs(process), 1.0)(U, level, label=CAPTION)
    for row, members in enumerate(MEMBERS):
        weights = WEIGHTS[members] / WEIGHTS[members].sum()
        part = ud.GaussianMixture(process, MEANS[members], COVARIANCES[members], weights)
        torch.testing.assert_close(found.x0[row], part(U[row : row + 1], level).x0[0], rtol=1e-9, atol=1e-9)
    # A row without a caption is not guided.
    none = ud.CLIPGuidance(Unconditional(process), pairs(process), 3.0)(U, level, label=torch.tensor([0, -1, 2, -1, 4]))
    torch.testing.assert_close(none.x0[1::2], Unconditional(process)(U, level).x0[1::2], rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------- the networks

CAPTIONS = ud.Caption(4, ("a", "red", "three"))


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    network = ud.ContrastiveUNet((3, 8, 8), size=6, width=8, text_width=8, heads=2, conditions=(CAPTIONS,))
    for weight in network.parameters():  # layers that begin at zero too
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return ud.NeuralContrastive(ud.VPSDE(), network.double())


def test_similarities_are_inner_products_of_unit_vectors(encoder):
    u, level = (
        torch.randn(3, 3, 8, 8, dtype=D),
        ud.VPSDE().level(torch.tensor([0.1, 0.5, 0.9], dtype=D), torch.zeros(3, 3, 8, 8)),
    )
    caption = torch.tensor([[0, 1, -1, -1], [0, 1, 2, -1], [-1, -1, -1, -1]])
    with torch.no_grad():
        image, text = encoder.images(u, level), encoder.texts(caption=caption)
        # Sums of 6 products of numbers up to sqrt(s) = 3.8: some 100 roundings of 2^-53.
        torch.testing.assert_close(image.square().sum(1), torch.ones(3, dtype=D), rtol=0, atol=1e-14)
        torch.testing.assert_close(text.square().sum(1), torch.ones(3, dtype=D), rtol=0, atol=1e-14)
        every = encoder.similarities(u, level, caption=caption)
        torch.testing.assert_close(every, encoder.scale * image @ text.T, rtol=0, atol=1e-12)
        torch.testing.assert_close(encoder.similarity(u, level, caption=caption), every.diagonal(), rtol=0, atol=1e-12)
        # The order of words counts, what pads them does not, and the noise is known.
        swapped = encoder.texts(caption=caption[:, [1, 0, 2, 3]])
        assert (swapped - text)[:2].abs().amax(1).min() > 1e-6
        assert torch.equal(encoder.texts(caption=caption[:1, :2]), encoder.texts(caption=caption[:1]))
        assert (encoder.images(u, ud.VPSDE().level(0.5)) - image)[[0, 2]].abs().max() > 1e-6


def test_networks_of_ones_own():
    class Mean(torch.nn.Module):
        def forward(self, x, c=None):
            return x.flatten(1)[:, :3]

    class Words(torch.nn.Module):
        def forward(self, caption):
            return caption[:, :3].double()

    model = ud.NeuralContrastive(ud.VPSDE(), PairEncoder((3, 2), Mean(), Words(), (CAPTIONS,)))
    u = torch.tensor([[[1.0, 0], [0, 0], [0, 0]], [[0, 2], [0, 0], [0, 0]]], dtype=D)
    found = model.similarities(u, ud.VPSDE().level(0.5), caption=torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0]]))
    torch.testing.assert_close(found / model.scale.double(), torch.eye(2, dtype=D), rtol=0, atol=1e-6)  # s is float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ud.ContrastiveUNet((3, 8, 8)), "conditions must be captions, .* got none"),
        (lambda: ud.ContrastiveUNet((3, 8, 8), conditions=(ud.Label(3),)), "conditions must be captions, .* got Label"),
        (
            lambda: ud.ContrastiveUNet((3, 8, 8), heads=3, conditions=(CAPTIONS,)),
            "heads must be a divisor of text_width 64",
        ),
        (lambda: TextTransformer((CAPTIONS,), 4, 8, 2, 1)(), "caption must be up to 4 integers .* got none"),
        (lambda: ud.CLIPGuidance(Unconditional(ud.EDM()), pairs(ud.VPSDE()), 1.0), "encoder: its process must be the"),
    ],
)
def test_what_does_not_fit_is_one_message(make, message):
    with pytest.raises(ParameterError, match=message):
        make()
