"""A U-Net with control branches: the network itself at first and at scale 0, and what a branch may change."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny import refused

import unidiff as ud
from unidiff.backbone.control import Controlled, add_controls
from unidiff.conditioning.control import controls_of
from unidiff.conditioning.edges import gradient_length
from unidiff.errors import ParameterError, RecipeError
from unidiff.interop.diffusers.architecture import architecture_of
from unidiff.run.origin import _read_start
from unidiff.tasks.generation import GenerationRun
from unidiff.tasks.parts import load_with_parts
from unidiff.tasks.sample_conditions import SampleConditions

F64 = torch.float64
KINDS = {
    "signal": {"shape": (2, 8)},
    "image": {"shape": (1, 8, 8), "attention": (4,), "heads": 2, "patch": 2, "residual_resampling": True},
    "video": {"shape": (1, 3, 4, 4), "factorized": True, "heads": 2},
}


def unet(kind: str = "image") -> ud.UNet:
    """A small one, none of whose weights is zero."""
    torch.manual_seed(0)
    network = ud.UNet(width=4, multipliers=(1, 2), blocks=1, classes=3, **KINDS[kind]).to(F64)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=0.3)
    return network


def controlled(network: ud.UNet, *conditions: ud.Control) -> Controlled:
    """The network with branches that begin as a run does."""
    model = add_controls(copy.deepcopy(network), conditions).to(F64)
    model.load_state_dict(model.weights_from(network.state_dict()))
    return model


def batch(network: ud.UNet, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    x, image = (torch.randn(3, *network.shape, dtype=F64, generator=generator) for _ in range(2))
    return x, torch.tensor([0.0, 40.0, 999.0], dtype=F64), image.clamp(-1, 1), torch.tensor([2, -1, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_at_first_it_is_the_network_and_only_the_zero_convolutions_learn(kind):
    network = unet(kind)
    model = controlled(network, ud.Control(network.shape[0], network.shape[1:]))
    x, c, image, label = batch(network)
    for cond in ({}, {"label": label}):
        assert torch.equal(model(x, c, control=image, **cond), network(x, c, **cond))
    model(x, c, control=image, label=label).square().sum().backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
    # The factors behind the zero convolutions are not zero, those before them get no gradient through them.
    assert learning == {name for name, _ in model.named_parameters() if name.startswith("branches.0.zeros.")}


def test_training_leaves_the_network_as_it_is():
    network = unet()
    model = controlled(network, ud.Control(1, (8, 8)), ud.Control(1, (2, 2), name="small"))
    x, c, image, label = batch(network)
    cond = {"control": image, "small": image[..., ::4, ::4], "label": label}
    trained = [p for p in model.parameters() if p.requires_grad]
    for _ in range(3):
        gradients = torch.autograd.grad((model(x, c, **cond) - x).square().sum(), trained)
        with torch.no_grad():
            for weight, gradient in zip(trained, gradients):
                weight -= 1e-3 * gradient
    before, after = network.state_dict(), model.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    plain = network(x, c, label=label)
    assert not torch.equal(model(x, c, **cond), plain)
    assert torch.equal(Controlled(model.network, [*model.branches], (0, 0))(x, c, **cond), plain)
    # One of scale 0 beside another is as if it were not there.
    first = Controlled(model.network, [model.branches[0]], (0.7,))
    both = Controlled(model.network, [*model.branches], (0.7, 0.0))
    del cond["small"]
    assert torch.equal(both(x, c, small=image[..., ::4, ::4], **cond), first(x, c, **cond))
    # The image is seen now, behind its own zero convolution.
    assert not torch.equal(first(x, c, **cond), first(x, c, **{**cond, "control": -image}))


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_added_to_the_skip_connections_and_behind_the_middle(kind):
    """By hooks that add them as in Zhang et al. 2023, figure 3; and a fresh branch has the maps of the network."""
    network = unet(kind)
    branch = controlled(network, ud.Control(network.shape[0], network.shape[1:])).branches[0]
    x, c, image, label = batch(network)
    with torch.no_grad():
        for zero in branch.zeros:  # the identity, so that a feature is the map itself
            zero.weight.copy_(torch.eye(len(zero.weight), dtype=F64).view_as(zero.weight))
        maps = branch(x, c, image, label=label)
        added = [torch.randn_like(h) for h in maps]
        seen, left = [], list(added[:-1])

        def before(stage, inputs):
            feature = left.pop()
            h, skip = inputs[0].split([inputs[0].shape[1] - feature.shape[1], feature.shape[1]], 1)
            seen.append(skip)
            return torch.cat([h, skip + feature], 1), *inputs[1:]

        # Of a factorized network the attention between frames is behind the stage: the feature comes after it.
        middle = network.up[0][0].register_forward_pre_hook(
            lambda stage, inputs: (torch.cat([inputs[0][:, : added[-1].shape[1]] + added[-1],
                                              inputs[0][:, added[-1].shape[1]:]], 1), *inputs[1:])
        )  # fmt: skip
        hooks = [stage.register_forward_pre_hook(before) for stages in network.up for stage in stages]
        expected = network(x, c, label=label)
        for hook in (middle, *hooks):
            hook.remove()
        assert torch.equal(network.with_features(x, c, added, label=label), expected)
        # A convolution of the identity adds products with zeros, exactly 0.
        assert all(torch.equal(a, b) for a, b in zip(maps, seen[::-1]))


def test_a_run_begins_as_its_start():
    task = ud.load_recipe("control_digits", ["control=[{type: Edges},{type: SuperResolution,factor: 4}]"])
    base = ud.load("shipped:ddpm_digits_classes", device="cpu").denoiser.backbone
    fresh = task.model({}).backbone
    fresh.load_state_dict(_read_start(task, task.sketch(), print)[0])
    assert [condition.name for condition in fresh.conditions] == ["label", "image", "image_2"]
    generator = torch.Generator().manual_seed(0)
    x, label = torch.randn(4, 1, 8, 8, generator=generator), torch.tensor([3, 0, -1, 9])
    c, image = torch.tensor([0.0, 10.0, 400.0, 999.0]), x.clamp(-1, 1)
    with torch.no_grad():
        for cond in ({}, {"label": label}):
            assert torch.equal(fresh(x, c, image=image, image_2=image, **cond), base(x, c, **cond))
    assert not any(p.requires_grad for p in fresh.network.parameters())
    assert all(p.requires_grad for p in fresh.branches.parameters())
    # A run of the same recipe can be the start of another: its weights are taken as they are.
    again = fresh.weights_from(fresh.state_dict())
    assert all(torch.equal(again[name], value) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["start=null"], "control: it changes a trained model. Write its run at `start`"),
        (["train=[up]"], "train: control says what is trained"),
        (["low_rank={rank: 2}"], "control: it cannot be combined with low_rank"),
        (["control=[]"], "control must be an image conditioning, or a list of at least one, got []"),
        (["conditioning={type: Colorization}"], "control: `conditioning` has a condition 'image' too"),
        (["backbone={type: MLP}"], "backbone: MLP has no control branch; use UNet"),
        (["control.threshold=2"], "control.threshold must be a number above 0 and below 1, got 2"),
        (["control={type: Labels}"], "control.type: expected an image conditioning, got Labels"),
        (["control={type: SuperResolution, factor: 3}"], "control.factor must be a divisor of images of 8x8 pixels"),
        (["control=[{type: Edges}, {type: Colorization}]"], "control[1] must be used with images of 3 channels"),
    ],
)
def test_what_a_recipe_cannot_ask_for(changes, message):
    with pytest.raises(RecipeError) as error:
        ud.load_recipe("control_digits", changes)
    assert message in str(error.value)


def test_the_scale_of_the_branches_of_a_run(monkeypatch):
    network = unet()
    model = ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), controlled(network, ud.Control(1, (8, 8), name="image")))
    with torch.no_grad():
        for weight in model.backbone.branches.parameters():
            weight.normal_(std=0.3)
    run = GenerationRun(Path("mine"), ud.load_recipe("control_digits"), None, model, 0, F64)
    monkeypatch.setattr("unidiff.tasks.parts.load_generation", lambda *words, **options: run)
    x, c, image, label = batch(network)
    outputs = {}
    for scale in (0.0, 0.5, 1.0):
        scaled = load_with_parts("mine", SampleConditions(control_scale=(scale,))).model.backbone
        outputs[scale] = scaled(x, c, image=image, label=label)
        assert scaled.branches is not model.backbone.branches  # the run itself is as it was
    assert torch.equal(outputs[0.0], network(x, c, label=label))
    assert torch.equal(outputs[1.0], model.backbone(x, c, image=image, label=label))
    assert not torch.equal(outputs[0.5], outputs[1.0])
    with pytest.raises(ParameterError, match="control_scale must be as many as branches, 1, got 2"):
        load_with_parts("mine", SampleConditions(control_scale=(1.0, 2.0)))


@pytest.mark.parametrize("command", ["sample", "edit", "inpaint", "compare", "evaluate"])
def test_parts_of_a_pipeline_are_not_those_of_a_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = {"edit": ["x.png"], "inpaint": ["x.png", "x.png"]}.get(command, [])
    for option, value, problem in (
        ("--refiner", "sdxl", "is not a pipeline that diffusers saved"),
        ("--control-scale", "0.5", "has no control branch"),
    ):
        said = refused(command, "shipped:ddpm_digits", *words, option, value)
        assert said == f"unidiff: {option} {value}: shipped:ddpm_digits {problem}. Leave it out.\n"


def test_images_that_do_not_fit():
    with pytest.raises(ParameterError, match=r"control must be images whose sizes divide .* \(8, 8\), got \(3, 8\)"):
        unet().control_branch(ud.Control(1, (3, 8)))


def test_guidance_keeps_the_control_and_drops_the_label():
    joint = ud.load_recipe("control_digits").conditions()
    assert joint.dropout == 0.5  # of the label alone
    (control,) = controls_of(ud.Edges(dropout=1.0))
    assert controls_of(None) == ()
    x = torch.zeros(2, 1, 4, 4)
    assert torch.equal(control.conditions(x, None, torch.zeros(2, 1))["image"], -torch.ones_like(x))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_gradient_of_a_ramp_and_of_a_step(rank):
    """Central differences are exact on x -> a x and its smoothing along other axes; at a step they have half of it."""
    axes = torch.meshgrid(*[torch.arange(6.0, dtype=F64)] * rank, indexing="ij")
    slopes = [0.05 * (k + 1) for k in range(rank)]
    ramp = sum(slope * axis for slope, axis in zip(slopes, axes))
    inside = (slice(None), slice(None), *[slice(1, -1)] * rank)
    expected = sum(slope**2 for slope in slopes) ** 0.5
    # Sums of 3 values below 2: some roundings of 2e-16.
    assert (gradient_length(ramp[None, None])[inside] - expected).abs().max() < 1e-14
    step = torch.where(axes[-1] < 3, -1.0, 1.0)[None, None]
    edges = ud.Edges(threshold=0.49).measure(step, step[:, :0])
    assert torch.equal(edges > 0, ((axes[-1] == 2) | (axes[-1] == 3))[None, None])
    assert bool((ud.Edges(threshold=0.51).measure(step, step[:, :0]) == -1).all())


def test_what_diffusers_has_is_the_network_without_its_branches():
    with pytest.raises(ParameterError, match=r"no equivalent of Controlled.*Export the run of its `start`"):
        architecture_of(controlled(unet(), ud.Control(1, (8, 8))))
