"""Conditions of any name: closed forms that know them, networks that take them, and what is said of a wrong one."""

from __future__ import annotations

import math

import pytest
import torch
from mixtures import LABEL, D, U, mixture, tilted_score
from torch import nn

import unidiff as ud
from unidiff.condition.check import null_conditions
from unidiff.errors import ParameterError
from unidiff.parameterization import Prediction

PROCESS = ud.VPSDE()
LEVEL = PROCESS.level(0.3)


class Species(ud.Denoiser):
    """The mixture whose components are the classes of a condition `species`."""

    def __init__(self, process):
        super().__init__()
        self.process, self.shape, self.exact = process, (2,), mixture(process)
        self.conditions = (ud.Label(3, name="species"),)

    def forward(self, u, level, species=None):
        return self.exact(u, level, **({} if species is None else {"label": species}))


def near(found, expected):
    # Some hundred roundings of 2^-53 of numbers below 100.
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


# ---------------------------------------------------------------------------------------------- guidance by name


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_by_any_name_is_the_tilted_score(scale):
    model = Species(PROCESS)
    guided = ud.ClassifierFree(model, scale)
    assert guided.required == {"species": "classifier-free guidance"}
    found = guided(U, LEVEL, species=LABEL)
    near(found.score, tilted_score(U, LEVEL, LABEL, scale))
    if scale in (0.0, 1.0):  # the unconditional and the conditional model themselves
        expected = model(U, LEVEL, species=LABEL if scale else None)
        near(found.x0, expected.x0)
    # Guided by a classifier of the same name: from p(u) at scale 0 to the same tilt.
    classifier = ud.MixtureClassifier(mixture(PROCESS))
    classifier.predicts = "species"
    plain = mixture(PROCESS)
    plain.conditions = ()
    near(ud.ClassifierGuidance(plain, classifier, scale)(U, LEVEL, species=LABEL).score, found.score)


def test_everything_takes_a_condition_by_name():
    # The same mixture under two names: the same numbers, from every function that draws or measures.
    process, label = ud.DDPM(T=50), LABEL.clamp(min=0)
    guided, twin = ud.ClassifierFree(Species(process), 2.5), ud.ClassifierFree(mixture(process), 2.5)
    x = torch.tensor([[-0.5, 0.3], [0.5, -0.2], [0.1, 0.6], [0.2, 0.7]], dtype=D)
    four, sees = {"grid": ud.Uniform(4)}, (ud.inverse.Inpainting((1, 0)), torch.tensor([[0.4]], dtype=D), 0.3)
    tasks = {
        "sample": lambda m, **cond: ud.sample(m, ud.DDIM(), seeds=4, dtype=D, **four, **cond).x,
        "encode": lambda m, **cond: ud.encode(m, x, **four, **cond),
        "posterior": lambda m, **cond: ud.sample(ud.inverse.PiGDM(m, *sees), seeds=4, dtype=D, **four, **cond).x,
        "edit": lambda m, **cond: ud.edit(m, x[0], 0.5, seeds=4, **four, **cond).x,
        "likelihood": lambda m, **cond: ud.log_likelihood(m, x, ud.ExactTrace(), rtol=1, atol=1, **cond).log_prob,
        "bound": lambda m, **cond: ud.variational_bound(m, x, ud.Uniform(4), **cond).terms,
    }
    for task in tasks.values():
        near(task(guided, species=label), task(twin, label=label))
        with pytest.raises(ParameterError, match="needs the condition 'species', a class from 0 to 2"):
            task(guided)


def test_guided_compare_is_that_of_the_tilted_score():
    # Five steps of DDIM on uniform times by hand, u_s = alpha_s x0 + sigma_s eps, from the tilted score.
    model, label = Species(ud.DDPM(T=50)), torch.arange(20) % 3
    process = model.process
    options = {"seeds": 20, "grid": ud.Uniform(1), "followed": 1, "tolerance": 1.0, "most_steps": 8, "species": label}
    comparison = ud.compare(ud.ClassifierFree(model, 3.0), ["ddim"], [5], **options)
    u = process.start(ud.Seeded(range(20)), torch.empty(20, 2, dtype=D))
    levels = [process.level(float(t)) for t in ud.Uniform(5).times(process)[:-1]]
    for t, s in zip(levels, [*levels[1:], None]):
        eps = -t.sigma * tilted_score(u, t, label, 3.0)
        x0 = (u - t.sigma * eps) / t.alpha
        u = x0 if s is None else s.alpha * x0 + s.sigma * eps
    (row,) = comparison.rows
    near(row.x, u[: len(row.x)])
    plain = ud.compare(model, ["ddim"], [5], **options).rows[0]
    assert (row.x - plain.x).abs().max() > 0.1  # it is not silently the plain model


class Product(ud.Denoiser):
    """Two independent mixtures, one for each coordinate, each with a label of its own."""

    def __init__(self, process):
        super().__init__()
        self.process, self.shape = process, (2,)
        self.row = ud.GaussianMixture(process, [[-0.8], [0.7]], 0.04, [0.3, 0.7])
        self.column = ud.GaussianMixture(process, [[-0.5], [0.1], [0.9]], 0.02)
        self.conditions = (ud.Label(2, name="row"), ud.Label(3, name="column"))

    def forward(self, u, level, row=None, column=None):
        said = [{} if label is None else {"label": label} for label in (row, column)]
        parts = [m(u[:, i : i + 1], level, **cond) for i, (m, cond) in enumerate(zip((self.row, self.column), said))]
        return Prediction(torch.cat([p.x0 for p in parts], 1), torch.cat([p.eps for p in parts], 1), level)


def test_two_independent_conditions_factorise_on_a_product_mixture():
    model = Product(PROCESS)
    row, column = torch.tensor([0, 1, 1, 0]), torch.tensor([2, 0, 1, 1])
    # The same density as one mixture of 2 * 3 components, whose label is 3 row + column.
    means = torch.cartesian_prod(torch.tensor([-0.8, 0.7], dtype=D), torch.tensor([-0.5, 0.1, 0.9], dtype=D))
    covariances = torch.diag(torch.tensor([0.04, 0.02], dtype=D)).expand(6, 2, 2)
    joint = ud.GaussianMixture(PROCESS, means, covariances, torch.tensor([0.3, 0.7], dtype=D).repeat_interleave(3))
    near(model(U, LEVEL, row=row, column=column).score, joint(U, LEVEL, label=3 * row + column).score)
    near(model(U, LEVEL).score, joint(U, LEVEL).score)
    # Guided by one of them the other coordinate is as it was; guided by both, each is as if guided alone.
    both = {"row": row, "column": column}
    by_row = ud.ClassifierFree(model, 3.0, names=["row"])(U, LEVEL, **both).score
    by_column = ud.ClassifierFree(model, 3.0, names=["column"])(U, LEVEL, **both).score
    by_both = ud.ClassifierFree(model, 3.0)(U, LEVEL, **both).score
    near(by_both, torch.stack([by_row[:, 0], by_column[:, 1]], 1))
    near(by_row[:, 1], model(U, LEVEL, **both).score[:, 1])
    near(by_column[:, 0], model(U, LEVEL, **both).score[:, 0])
    # A scale for each, one guided model around another, and each coordinate is that of its own mixture.
    nested = ud.ClassifierFree(ud.ClassifierFree(model, 2.0, names=["row"]), 4.0, names=["column"])
    found = nested(U, LEVEL, **both).score
    for i, (part, label, scale) in enumerate(((model.row, row, 2.0), (model.column, column, 4.0))):
        near(found[:, i : i + 1], ud.ClassifierFree(part, scale)(U[:, i : i + 1], LEVEL, label=label).score)
    # Samples too: the first coordinate does not depend on the label of the second, bit for bit.
    draw = lambda **cond: ud.sample(model, ud.DDIM(), ud.Uniform(5), seeds=4, dtype=D, **cond).x  # noqa: E731
    assert torch.equal(draw(**both)[:, 0], draw(row=row, column=column.flip(0))[:, 0])


def test_a_negative_condition_stands_in_place_of_the_null():
    # p(u | n) (p(u | y) / p(u | n))^3: its score is s_n + 3 (s_y - s_n).
    model, others = Species(PROCESS), torch.tensor([2, 2, 0, 1])
    y, n = (model(U, LEVEL, species=label).score for label in (LABEL, others))
    near(ud.ClassifierFree(model, 3.0, {"species": others})(U, LEVEL, species=LABEL).score, n + 3 * (y - n))
    one = model(U, LEVEL, species=torch.full((4,), 1)).score
    away = ud.ClassifierFree(model, 3.0, negative={"species": torch.tensor([1])})
    near(away(U, LEVEL, species=LABEL).score, one + 3 * (y - one))
    x = ud.sample(away, seeds=4, grid=ud.Uniform(3), species=LABEL).x
    parts = ud.sample(away, seeds=4, grid=ud.Uniform(3), batch=2, species=LABEL).x
    torch.testing.assert_close(x, parts)
    with pytest.raises(ParameterError, match=r"negative\.species: got 4 rows for 2 samples"):
        ud.ClassifierFree(model, 3.0, {"species": others})(U[:2], LEVEL, species=LABEL[:2])
    for negative, words in {
        "name": ({"label": others}, r"negative must be among the conditions that guide \(species\), got 'label'"),
        "class": ({"species": torch.tensor([7])}, r"negative\.species must be from 0 to 2, .* got 7"),
    }.values():
        with pytest.raises(ParameterError, match=words):
            ud.ClassifierFree(model, 3.0, negative)
    with pytest.raises(ParameterError, match=r"names must be some of the model's conditions \(species\), got none"):
        ud.ClassifierFree(model, 3.0, names=[])
    with pytest.raises(ParameterError, match="label: the model has no condition of this name; it accepts species"):
        ud.ClassifierFree(model, 3.0, names=["label"])


class Mood(nn.Module):
    """A user's network with a condition of her own, which the library has never heard of."""

    shape = (2,)
    conditions = (ud.Scalar(-1.0, 1.0, name="mood"),)

    def forward(self, x, c, mood):
        return torch.where(mood.isnan(), 0.0, mood)[:, None].expand(x.shape).to(x.dtype)


def test_a_users_network_with_a_condition_of_her_own():
    # It predicts x0 = mood, and 0 without: samples are its mood, guided ones scale times it, to float32's rounding of
    # the last step, x0 itself.
    model, mood = ud.NeuralDenoiser(PROCESS, ud.X0(), Mood()), torch.linspace(-1, 1, 20)
    assert torch.allclose(ud.sample(model, seeds=20, mood=mood).x, mood[:, None].expand(20, 2), atol=1e-5)
    guided = ud.ClassifierFree(model, 2.0)
    assert torch.allclose(ud.sample(guided, seeds=20, mood=mood).x, 2 * mood[:, None].expand(20, 2), atol=1e-5)
    row = ud.compare(guided, ["ddim"], [4], seeds=20, followed=1, tolerance=1.0, most_steps=8, mood=mood).rows[0]
    assert torch.allclose(row.x, 2 * mood[: len(row.x), None].expand(-1, 2).double(), atol=1e-5)
    with pytest.raises(ParameterError, match=r"mood must be from -1 to 1, or NaN \(unconditional\), got 3"):
        ud.sample(model, seeds=1, mood=torch.tensor([3.0]))


# ---------------------------------------------------------------------------------------------- networks

NETWORKS = {
    "UNet": lambda *conditions: ud.UNet((1, 4, 4), 8, (1, 2), 1, attention=(2,), heads=2, conditions=conditions),
    "DiT": lambda *conditions: ud.DiT((1, 4, 4), width=16, depth=1, heads=2, conditions=conditions),
    "MLP": lambda *conditions: ud.MLP((1, 4, 4), 8, 1, conditions=conditions),
}


def randomized(network):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return network.double()


X, C = torch.randn(3, 1, 4, 4, dtype=D, generator=torch.Generator().manual_seed(2)), torch.tensor([9.0, 300.0, 900.0])
VALUES = {
    ud.Label(3): torch.tensor([0, 2, 1]),
    ud.Label(4, name="colour"): torch.tensor([3, 0, 1]),
    ud.Scalar(-2.0, 2.0): torch.tensor([-2.0, 0.1, 2.0], dtype=D),
    ud.Embedding((5,)): torch.randn(3, 5, dtype=D, generator=torch.Generator().manual_seed(3)),
    ud.Image(2, (4, 4)): torch.rand(3, 2, 4, 4, dtype=D, generator=torch.Generator().manual_seed(4)),
    ud.Tokens(6, 9): torch.tensor([[4, 0, 8], [1, -1, -1], [7, 7, 2]]),
    ud.Embedding((6, 5), name="words"): torch.randn(3, 2, 5, dtype=D, generator=torch.Generator().manual_seed(5)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("condition", VALUES, ids=repr)
def test_a_network_takes_each_condition_row_by_row_and_none_is_the_null(name, condition):
    if name == "MLP" and condition.joined:
        with pytest.raises(ParameterError, match="MLP has no way to take"):
            NETWORKS[name](condition)
        return
    network, value = randomized(NETWORKS[name](condition)), VALUES[condition]
    said = network(X, C, **{condition.name: value})
    null = network(X, C, **{condition.name: condition.null(3, X)})
    assert ((said - null).abs().flatten(1).amax(1) > 1e-4).all()
    swapped = network(X, C, **{condition.name: value.roll(1, 0)})
    alone = network(X[1:2], C[1:2], **{condition.name: value[:1]})
    near(swapped[1:2], alone)  # a row sees its own value alone
    assert condition.required or torch.equal(network(X, C), null)
    # The checked values, padded perhaps, are the same ones.
    assert torch.equal(network(X, C, **{condition.name: condition.check(value, 3)}), said)
    # A guided model of it: scale 0 is the null, scale 1 the conditional model.
    model, level = ud.NeuralDenoiser(PROCESS, ud.Eps(), network), PROCESS.level(0.4)
    cond = {condition.name: value}
    near(ud.ClassifierFree(model, 0.0)(X, level, **cond).eps, model(X, level, **null_conditions(cond, model)).eps)
    assert torch.equal(ud.ClassifierFree(model, 1.0)(X, level, **cond).eps, model(X, level, **cond).eps)


@pytest.mark.parametrize("name", ["UNet", "DiT"])
@pytest.mark.parametrize(
    ("short", "long", "value", "fill"),
    [
        (ud.Tokens(3, 9), ud.Tokens(8, 9), torch.tensor([[4, 0, 8], [1, -1, -1], [-1, -1, -1]]), -1),
        (
            ud.Embedding((3, 5)),
            ud.Embedding((8, 5)),
            torch.tensor([1.0, 0.5, 0.0], dtype=D).reshape(3, 1, 1).expand(3, 3, 5),
            0,
        ),
    ],
    ids=["tokens", "embedding"],
)
def test_padding_changes_no_bit(name, short, long, value, fill):
    network = randomized(NETWORKS[name](long))
    whole = torch.full((3, 8, *value.shape[2:]), fill, dtype=value.dtype)
    whole[:, :3] = value
    for some in (value, whole[:, :5], whole):
        found = network(X, C, **{long.name: some})
        assert torch.equal(found, network(X, C, **{long.name: whole}))
    assert torch.equal(found[2:], network(X, C)[2:])  # an empty caption is the null one, exactly
    # What is masked has no weight: a network without these positions is the same function, to rounding.
    less = NETWORKS[name](short).double()
    state = network.state_dict()
    for key in (key for key in state if key.endswith("position")):
        state[key] = state[key][:3]
    less.load_state_dict(state)
    near(less(X, C, **{short.name: value}), found)
    # Nor do the gradients see it: the positions of the padding have none.
    network(X[:2], C[:2], **{long.name: whole[:2]}).square().sum().backward()
    (gradient,) = (weight.grad for key, weight in network.named_parameters() if key.endswith("position"))
    assert gradient[:3].abs().amax(1).min() > 0
    assert torch.equal(gradient[3:], torch.zeros_like(gradient[3:]))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_more_conditions_begins_with_the_same_weights(name):
    # Its own layers come after, or beside: `classes` and Label are one thing, bit for bit.
    torch.manual_seed(0)
    old = NETWORKS[name](ud.Label(3)).state_dict()
    torch.manual_seed(0)
    arguments = {"UNet": {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "heads": 2}}
    arguments |= {"DiT": {"width": 16, "depth": 1, "heads": 2}, "MLP": {"width": 8, "depth": 1}}
    new = getattr(ud, name)((1, 4, 4), classes=3, **arguments[name]).state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[key], new[key]) for key in old)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ud.Label(0), "classes must be an integer from 1 to 1000000, got 0"),
        (
            lambda: ud.Label(2, name="two words"),
            "name must be a name that Python can use as a keyword",
        ),
        (lambda: ud.Label(2, name="seeds"), "name: 'seeds' is an argument of every model"),
        (lambda: ud.Scalar(1.0, 1.0), "high must be a finite number above low = 1, got 1.0"),
        (lambda: ud.Embedding((2, 3, 4)), r"shape must be \(D,\) or \(L, D\), integers >= 1, got \(2, 3, 4\)"),
        (lambda: ud.Tokens(0, 3), "length must be an integer from 1 to 65536, got 0"),
        (
            lambda: ud.Tokens(3, 9).check(torch.zeros(2, 4, dtype=torch.long), 2),
            r"must be integers of shape \(2, ",
        ),
        (lambda: ud.Tokens(3, 9).check(torch.tensor([[9]]), 1), "tokens must be from 0 to 8, .* got 9"),
        (lambda: ud.Embedding((3, 5)).check(torch.zeros(1, 4, 5), 1), r"shape \(1, at most 3, 5\), got .*\(1, 4, 5\)"),
        (lambda: ud.Embedding((2,)).check(torch.full((1, 2), math.nan), 1), "embedding must be finite numbers"),
        (lambda: ud.Named("any").check(torch.zeros(3), 2), "any must be a tensor with one row for each of 2 samples"),
        (lambda: ud.UNet((1, 4, 4), 8, (1,), 1, conditions=(ud.Tokens(2, 2),)), "attention must name a resolution at"),
        (
            lambda: ud.MLP((2,), classes=3, conditions=(ud.Label(2),)),
            "conditions must be conditions of different names",
        ),
        (lambda: ud.MLP((2,), conditions=("label",)), "conditions must be conditions, such as Label"),
        (lambda: ud.AutoGuidance(Species(PROCESS), mixture(PROCESS), 2.0), "its conditions must be the model's"),
    ],
)
def test_mistakes_are_one_clear_error(make, words):
    with pytest.raises(ParameterError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_image_of_no_said_size_has_that_of_the_samples():
    for name in ("UNet", "DiT"):
        network = NETWORKS[name](ud.Image(2, name="grey"))
        assert network.conditions == (ud.Image(2, (4, 4), name="grey"),)
        model = ud.NeuralDenoiser(PROCESS, ud.Eps(), network)
        with pytest.raises(ParameterError, match=r"grey must be floats of shape \(1, 2, 4, 4\), got .*\(1, 2, 8, 8\)"):
            ud.sample(model, seeds=1, grey=torch.zeros(1, 2, 8, 8))


def test_the_old_attribute_of_a_denoiser_is_read():
    model = Species(PROCESS)
    with pytest.warns(DeprecationWarning, match=r"set `conditions` of a Denoiser, as in self.conditions = \(Label"):
        model.classes = 4
    assert (model.classes, model.image) == (4, None)
    assert [condition.name for condition in ud.Counted(model).conditions] == ["species", "label"]


def test_labels_of_a_byte_are_those_of_a_word():
    # The null class is -1, which a byte would hold as 255.
    mixture = ud.GaussianMixture(ud.VPSDE(), [[-1.0, 0.0], [1.0, 0.5]], 0.1)
    network = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((2,), width=8, depth=1, classes=2))
    label = torch.tensor([0, 1, 1])
    for model in (mixture, network, ud.ClassifierFree(mixture, 2.0), ud.ClassifierFree(network, 2.0)):
        x = [ud.sample(model, grid=ud.Uniform(4), shape=(2,), seeds=3, label=y).x for y in (label, label.byte())]
        assert torch.equal(*x)


def test_a_negative_condition_keeps_its_fraction_beside_integers():
    def score(u, t, w):
        return -u + w.reshape(-1, 1).to(u)

    model = ud.FromFunction(ud.VPSDE(), ud.Score(), score, (2,))
    guided = ud.ClassifierFree(model, 3.0, negative={"w": torch.tensor([0.5])})
    x = [
        ud.sample(guided, grid=ud.Uniform(4), seeds=2, w=w).x for w in (torch.tensor([1, 2]), torch.tensor([1.0, 2.0]))
    ]
    assert torch.equal(*x)


def test_wrappers_of_two_models_have_what_both_need():
    plain = ud.GaussianMixture(ud.VPSDE(), [[-1.0, 0.0], [1.0, 0.5]], 0.1)
    guided = ud.ClassifierFree(plain, 2.0)
    cut = ud.DynamicThreshold(plain)
    cut.differentiable = False
    for build in (lambda a, b: ud.Split(a, b, 0.5), lambda a, b: ud.AutoGuidance(a, b, 2.0)):
        assert build(plain, guided).required == guided.required
        assert not build(plain, cut).differentiable
        assert build(plain, plain).differentiable
    other = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((3,), width=8, depth=1, classes=2))
    this = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), ud.MLP((2,), width=8, depth=1, classes=2))
    with pytest.raises(ParameterError, match=r"weaker_model: its shape must be the model's, \(2,\), got \(3,\)"):
        ud.AutoGuidance(this, other, 2.0)


@pytest.mark.parametrize("name", ["grad", "strength", "latent", "known", "amount", "variance"])
def test_keywords_of_the_doors_are_no_names_of_conditions(name):
    with pytest.raises(ParameterError, match="is an argument of every model"):
        ud.Label(3, name=name)
