"""Runs that build on runs: their start, what of them is trained, the teacher of their objective."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny import DIGITS, RING, equal, metrics, refused, unidiff, write

import unidiff as ud
from unidiff.errors import ParameterError
from unidiff.run.origin import trained_names
from unidiff.run.records import Report
from unidiff.tasks import generation
from unidiff.training.checkpoint import Checkpoints
from unidiff.training.loop import Interrupted


@pytest.fixture(autouse=True, scope="module")
def no_figures():
    """Without the samples and figures of a report, which are most of the time of a small run and have their tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "report_generation", lambda task, model, session: Report(*session.trained()))
        patch.setattr("unidiff.plot.save_loss_curve", lambda *args: None)
        yield


class Silent:
    def notice(self, text):
        pass

    def progress(self, *args):
        pass


def changed(recipe: dict[str, Any], **keys: Any) -> dict[str, Any]:
    training = {**recipe["training"], **keys.pop("training", {})}
    return {**recipe, "training": training, **keys}


def ran(folder: Path, recipe: dict[str, Any], name: str) -> Path:
    result = unidiff("run", write(folder, recipe, f"{name}.yaml"), "--out", folder / name)
    assert result.code == 0, result.err
    return folder / name


def weights(run: Path) -> list[dict[str, torch.Tensor]]:
    """The weights in training and their average."""
    saved = Checkpoints(run / "checkpoints").load(print)
    return [dict(saved.model), dict(saved.ema)]


def manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run to build on, which no test changes."""
    return ran(tmp_path_factory.mktemp("first"), RING, "first")


def no_data(monkeypatch):
    monkeypatch.setattr(ud.data.Ring, "open", lambda *args: pytest.fail("the data were read"))


# --- start ---


def test_a_start_without_learning_draws_the_samples_of_the_run(first, tmp_path):
    # float32 has nothing between 0 and 1e-45: with this learning rate no step changes a weight.
    run = ran(tmp_path, changed(RING, start=str(first), seed=5, training={"lr": 1e-300}), "again")
    average = weights(first)[1]
    assert all(equal(state, average) for state in weights(run))
    assert not equal(average, weights(first)[0])
    assert torch.equal(ud.load(run).sample().x, ud.load(first).sample().x)
    assert manifest(run)["start"]["path"] == str(first)
    assert manifest(run)["start"]["step"] == 8
    assert manifest(run)["start"]["digest"] == manifest(run)["kept"]["start.safetensors"]
    kept = safetensors.torch.load_file(run / "start.safetensors")
    assert equal(kept, average)


@pytest.mark.slow  # 8 s: imports diffusers, trains a U-Net twice
def test_a_start_from_a_folder_of_diffusers(tmp_path):
    pytest.importorskip("diffusers")
    from unidiff.interop import diffusers
    from unidiff.interop.diffusers.weights import read_weights

    recipe = changed(DIGITS, training={"steps": 1, "preview_every": 0, "tensorboard": False})
    run = ran(tmp_path, changed(recipe, backbone={**DIGITS["backbone"], "groups": 4}), "digits")
    pipeline, expected = tmp_path / "pipeline", weights(run)[1]
    assert unidiff("export", run, pipeline).code == 0
    task = ud.load(run).recipe
    assert equal(read_weights(pipeline, task.sketch()), expected)
    tuned = changed(task.to_dict(), start=str(pipeline), training={"lr": 1e-300})
    assert equal(weights(ran(tmp_path, tuned, "tuned"))[1], expected)
    tuned["backbone"]["width"] = 16
    assert "of another shape: " in refused("run", write(tmp_path, tuned), "--out", tmp_path / "x")

    shutil.rmtree(pipeline / "unidiff")  # what is left is a pipeline that diffusers may have trained
    theirs, network = diffusers.load(pipeline), task.network.build(shape=(1, 8, 8)).eval()
    found = read_weights(pipeline, task.sketch())
    assert equal(found, read_weights(pipeline / "unet", task.sketch()))
    network.load_state_dict(found)
    ours = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), network, ud.TableIndex(50))  # diffusers counts times from 0
    x, level = torch.randn(2, 1, 8, 8), ours.process.level(0.5)
    # Both round a network of about 20 layers in another order: sqrt(20 * 72) 2^-24 = 2e-6 of values of order 1.
    with torch.no_grad():
        torch.testing.assert_close(ours(x, level).eps, theirs(x, level).eps, rtol=1e-4, atol=1e-4)
    (pipeline / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "the weights are missing" in refused(
        "run", write(tmp_path, {**task.to_dict(), "start": str(pipeline)}), "--out", tmp_path / "x"
    )


def test_what_cannot_be_started_from(first, tmp_path, monkeypatch):
    recipe, out = write(tmp_path, RING), tmp_path / "out"
    no_data(monkeypatch)

    def said(*changes: str) -> str:
        message = refused("run", recipe, "--out", out, *(word for change in changes for word in ("--set", change)))
        assert not out.exists()
        return message

    assert "start: nowhere: neither a run directory nor a folder that diffusers saved" in said("start=nowhere")
    (tmp_path / "config.json").write_text("{}")
    assert "diffusers has no equivalent of MLP" in said(f"start={tmp_path}")
    assert "of another shape: blocks.0.embed.bias (16,) (here (8,))" in said(f"start={first}", "backbone.width=8")
    message = said(f"start={first}", "backbone.depth=2")
    assert "missing: blocks.1.norm1.weight, blocks.1.norm1.bias, blocks.1.linear1.weight and 7 more" in message
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    (tmp_path / "empty" / "recipe.yaml").write_text("")
    assert "start: " in (message := said(f"start={tmp_path / 'empty'}"))
    assert "no checkpoint yet" in message
    assert "expected a string or null" in said("start=[a]")


def test_another_model_of_the_same_weights_is_noted(first, tmp_path):
    result = unidiff(
        "run", write(tmp_path, changed(RING, start=str(first), parameterization="V")), "--out", tmp_path / "v"
    )
    assert result.code == 0
    assert "was trained as another model: parameterization.type was 'Eps', is 'V'" in result.err


# --- train ---


def test_the_rest_is_frozen_bit_for_bit(first, tmp_path):
    names = ["head", "*.norm?.bias"]
    run = ran(
        tmp_path, changed(RING, start=str(first), train=names, training={"weight_decay": 0.5, "ema": 0.9}), "part"
    )
    begin = weights(first)[1]
    trained = {"head.weight", "head.bias", "blocks.0.norm1.bias", "blocks.0.norm2.bias"} & begin.keys()
    assert len(trained) > 2
    for state in weights(run):
        assert {name for name in state if not torch.equal(state[name], begin[name])} == trained
    assert manifest(run)["trained"] == sum(begin[name].numel() for name in trained)
    assert "frozen" in unidiff("run", run / "recipe.yaml", "--resume").out


def test_running_statistics_of_a_frozen_layer_are_frozen():
    class Network(torch.nn.Module):
        shape = (2,)

        def __init__(self):
            super().__init__()
            self.frozen, self.free = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)

        def forward(self, x, c):
            return self.free(self.frozen(x))

    network = Network()
    network.frozen.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    model = ud.NeuralDenoiser(ud.VPSDE(), ud.V(), network)
    model = ud.train(model, ud.data.Ring(count=100).open(), ud.Denoising(), ud.Training(3, batch=10, weight_decay=0.1))
    for after in (network.state_dict(), model.backbone.state_dict()):
        same = {name for name in before if torch.equal(before[name], after[name])}
        assert same == {name for name in before if name.startswith("frozen")}


def test_names_of_parts():
    network = ud.MLP((2,), width=8, depth=2)
    assert trained_names(network, ["blocks.1", "head.bias"]) == {
        *(name for name, _ in network.named_parameters() if name.startswith("blocks.1.")),
        "head.bias",
    }
    assert trained_names(network, ["*"]) == {name for name, _ in network.named_parameters()}
    assert trained_names(network, ["bl*"]) == {n for n, _ in network.named_parameters() if n.startswith("blocks.")}
    with pytest.raises(ParameterError, match=r"'block' matches no parameter of the network\. Did you mean 'blocks'\?"):
        trained_names(network, ["head", "block"])
    with pytest.raises(ParameterError, match="train must be null, or a list of at least one name, got "):
        trained_names(network, [])


@pytest.mark.parametrize("key", ["backbone", pytest.param("codec", marks=pytest.mark.slow)])  # imports diffusers
def test_a_wrong_name_is_shown_in_the_recipe(key, tmp_path):
    recipe = changed(DIGITS, train=["decoder"])
    if key == "codec":
        pytest.importorskip("diffusers")
        recipe = {name: DIGITS[name] for name in ("data", "training")} | {"codec": {"type": "AutoencoderTiny"}}
        recipe["train"] = ["model.dekoder"]
        assert "Did you mean 'model.decoder'?" in refused("check", write(tmp_path, recipe))
        return
    message = refused("check", write(tmp_path, recipe))
    assert "train: 'decoder' matches no parameter of the network" in message
    assert message.rstrip().endswith("^")


# --- teacher ---


TAUGHT = changed(RING, objective={"type": "Distillation"})


def test_a_student_begins_at_its_teacher_and_stays(first, tmp_path):
    run = ran(tmp_path, changed(TAUGHT, start=str(first), teacher=str(first)), "student")
    # Eps -> (x0, eps) -> Eps is exact: loss and gradient are 0, and Adam's step of a gradient 0 is 0.
    assert [line["loss"] for line in metrics(run)] == [0.0, 0.0, 0.0]
    assert all(equal(state, weights(first)[1]) for state in weights(run))
    assert manifest(run)["teacher"]["path"] == str(first)


@pytest.mark.slow  # 60 steps; the everyday test of learning is the one above, at the optimum
def test_a_student_learns_from_another_start(first, tmp_path):
    run = ran(tmp_path, changed(TAUGHT, teacher=str(first), training={"steps": 60, "log_every": 20}), "student")
    losses = [line["loss"] for line in metrics(run)]
    assert losses[-1] < losses[0] / 3


def test_teachers_that_do_not_fit(first, tmp_path, monkeypatch):
    no_data(monkeypatch)

    def said(recipe: dict[str, Any]) -> str:
        message = refused("run", write(tmp_path, recipe), "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return message

    with_teacher = changed(TAUGHT, teacher=str(first))
    assert "teacher: Distillation needs one" in said(TAUGHT)
    assert "teacher: Denoising needs none. Leave it out." in said(changed(RING, teacher=str(first)))
    assert "teacher: nowhere: not a run directory" in said(changed(TAUGHT, teacher="nowhere"))
    assert f"teacher: {first}: its process must be the model's" in said(
        changed(with_teacher, process={"type": "DDPM", "T": 60})
    )
    classifier = Path(__file__).parents[1] / "data" / "before" / "runs" / "classifier"
    assert "does not generate samples" in said(changed(TAUGHT, teacher=str(classifier)))
    points = {"type": "ArrayFile", "path": str(tmp_path / "points.npy")}
    np.save(tmp_path / "points.npy", np.zeros((20, 3), dtype="float32"))
    assert "its shape must be the model's, (3,), got (2,)" in said(changed(with_teacher, data=points))


# --- resumed ---


def stopped(recipe: dict[str, Any], folder: Path, step: int) -> None:
    """A run that is interrupted after a step; after step 0 without a checkpoint, as by a kill."""
    asked = iter(range(1, 100))
    with pytest.raises(Interrupted):
        ud.load_recipe(write(folder, recipe)).run(folder / "run", Silent(), stop=lambda: next(asked) >= max(step, 1))
    if step == 0:
        shutil.rmtree(folder / "run" / "checkpoints" / "step-00000001")


@pytest.mark.slow  # a second or more
@pytest.mark.parametrize("step", [0, 4])
def test_resumed_is_whole_without_the_run_that_it_started_from(step, first, tmp_path):
    shutil.copytree(first, tmp_path / "begin")
    recipe = changed(RING, start=str(tmp_path / "begin"), train=["head"], training={"weight_decay": 0.1})
    whole = ran(tmp_path, recipe, "whole")
    stopped(recipe, tmp_path, step)
    shutil.rmtree(tmp_path / "begin")
    result = unidiff("run", tmp_path / "run" / "recipe.yaml", "--resume")
    assert result.code == 0, result.err
    assert all(map(equal, weights(tmp_path / "run"), weights(whole)))
    assert metrics(tmp_path / "run") == metrics(whole)
    assert manifest(tmp_path / "run")["start"] == manifest(whole)["start"]
    ud.load(tmp_path / "run")


def test_a_start_that_was_damaged_is_an_error(first, tmp_path):
    stopped(changed(RING, start=str(first)), tmp_path, 4)
    (tmp_path / "run" / "start.safetensors").write_bytes(b"x")
    message = refused("run", tmp_path / "run" / "recipe.yaml", "--resume")
    assert "start.safetensors: the file is missing or has changed since training" in message


@pytest.mark.slow  # a second or more
def test_resumed_with_its_teacher_and_not_with_another(first, tmp_path):
    shutil.copytree(first, tmp_path / "teacher")
    recipe = changed(TAUGHT, teacher=str(tmp_path / "teacher"))
    whole = ran(tmp_path, recipe, "whole")
    stopped(recipe, tmp_path, 4)
    other = ran(tmp_path, changed(RING, seed=3), "other")
    shutil.move(tmp_path / "teacher", tmp_path / "aside")
    resume = "run", tmp_path / "run" / "recipe.yaml", "--resume"
    assert "teacher: " in (message := refused(*resume))
    assert "not a run directory" in message
    shutil.copytree(other, tmp_path / "teacher")
    assert "it has changed since this run began (sha256:" in refused(*resume)
    shutil.rmtree(tmp_path / "teacher")
    shutil.move(tmp_path / "aside", tmp_path / "teacher")
    assert unidiff(*resume).code == 0
    assert all(map(equal, weights(tmp_path / "run"), weights(whole)))
    shutil.rmtree(tmp_path / "teacher")
    assert torch.equal(ud.load(tmp_path / "run").sample().x, ud.load(whole).sample().x)  # the directory is enough


# --- check ---

WRONG = {
    "start": ("lora_digits", ["start=shipped:heat_digits"], "missing: embedding.label.weight"),
    "teacher": ("distilled_digits", ["teacher=shipped:ddpm_digits"], "its process must be the model's"),
    "data": ("ddpm_digits", ["data={type: ImageFolder, root: flat, size: 8}"], "data.root: "),
    "control": ("control_digits", ["control={type: SuperResolution, factor: 3}"], "control.factor must be a divisor"),
    "captions": ("contrastive_digits", ["data=Digits"], "data: Digits(size=8) has no captions"),
    "stages": ("start.yaml", [], "stages[0]: the first stage has none before it"),
}


@pytest.mark.cases(2)
@pytest.mark.parametrize("mistake", WRONG)
def test_check_says_what_run_says(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat").mkdir()
    write(tmp_path, {"stages": [{"run": "shipped:ddpm_digits", "conditioning": "Edges"}]}, "start.yaml")
    recipe, changes, expected = WRONG[mistake]
    words = [recipe, *(word for change in changes for word in ("--set", change))]
    assert expected in (said := refused("check", *words))
    assert refused("run", *words, "--out", "run") == said


def test_check_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = "data={type: ImageFolder, root: nowhere, size: 8, channels: 1}"
    result = unidiff("check", "ddpm_digits", "--set", folder)
    assert result.code == 0
    assert "not checked: data.root: 'nowhere' does not exist" in result.out
    assert "data.root: 'nowhere' does not exist" in refused("run", "ddpm_digits", "--set", folder)
    said = "data.root: 'nowhere' does not exist"
    assert said in json.loads(unidiff("check", "ddpm_digits", "--set", folder, "--json").out)["absent"]
