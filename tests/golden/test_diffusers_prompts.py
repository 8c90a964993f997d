"""Pipelines of diffusers from text to images, loaded here: the same latents from the same noise and the same prompt.

All in float64, as in test_diffusers_bridge.py. Some pipelines keep masks of attention, embeddings of times or places,
or the noise scales of their scheduler in float32 by name; so 1e-5 is asked for, 100 roundings of float32.
"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from prompted import KINDS, xl
from theirs import COUNT, F64, changed, in_float64  # noqa: F401 (a fixture)
from tiny import refused, unidiff

import unidiff as ud
from unidiff.errors import ParameterError, RunError
from unidiff.interop.diffusers import load, load_grid
from unidiff.noise import Seeded

pytestmark = [
    pytest.mark.slow,  # transformers is imported, which takes seconds
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]


def latents(pipeline: Any, noise: torch.Tensor, side: int, **options: Any) -> torch.Tensor:
    """What a pipeline draws from this noise, not decoded."""
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "height": side, "width": side, **options}
    return pipeline(prompt=["a red cat"] * COUNT, latents=noise, output_type="latent", **options).images


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_latents(tmp_path, kind):
    pipeline = KINDS[kind]().to(F64)
    pipeline.save_pretrained(tmp_path)
    side = 32 if kind == "sana" else 16  # which wants that
    model = load(tmp_path, size=(side, side)).double()
    assert model.shape == (2, side // 2, side // 2)
    noise = Seeded(range(COUNT))(torch.empty(COUNT, *model.shape, dtype=F64))
    started = noise
    options: dict[str, Any] = {"guidance_scale": 2.0}
    if kind == "flux":
        started = pipeline._pack_latents(noise, COUNT, 2, 8, 8)
        options = {"true_cfg_scale": 2.0}
    if kind in ("pixart", "sana"):
        options["use_resolution_binning"] = False
        options["clean_caption"] = False
    negative = {}
    if kind not in ("stable_diffusion", "xl"):  # these lead away from no prompt, the others from one
        options["negative_prompt"] = ["a dog"] * COUNT
        negative["prompt"] = model.conditions[0].parse_negative("a dog")[None]
    theirs = latents(pipeline, started, side, **options)
    if kind == "flux":
        theirs = pipeline._unpack_latents(theirs, side, side, 2)
    prompt = model.conditions[0].parse("a red cat").expand(COUNT, -1)
    solver = ud.Euler() if kind in ("sd3", "flux", "sana") else ud.DDIM()
    grid = load_grid(tmp_path, 4, size=(side, side))
    ours = ud.sample(ud.ClassifierFree(model, 2.0, negative), solver, grid, None, COUNT, dtype=F64, prompt=prompt).x
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    # The prompt is heard: another one gives something else.
    other = model.conditions[0].parse("b").expand(COUNT, -1)
    assert (ud.sample(model, solver, grid, None, COUNT, dtype=F64, prompt=other).x - ours).abs().max() > 1e-3


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "sd"
    KINDS["stable_diffusion"]().save_pretrained(folder)
    return folder


def drawn(folder: Any, name: str, *words: object) -> np.ndarray:
    grid = ("--set", "sampling.grid={type: Uniform, steps: 3}", "--count", 2)
    result = unidiff("sample", folder, *grid, *words, "--array", name, "--out", f"{name}.png")
    assert result.code == 0, result
    return np.load(name)


def test_the_command_takes_prompts(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = drawn(saved, "one.npy", "--prompt", "a cat", "--guidance", 3)
    assert one.shape == (2, 1, 16, 16)
    both = drawn(saved, "both.npy", "--prompt", "a cat", "--prompt", "[b, c]", "--guidance", 3)
    assert both.shape == (4, 1, 16, 16)  # two of each
    assert np.allclose(both[:2], one, atol=1e-5)
    plain = drawn(saved, "plain.npy")
    assert np.array_equal(plain, drawn(saved, "empty.npy", "--prompt", ""))
    away = drawn(saved, "away.npy", "--prompt", "a cat", "--negative", "a dog", "--guidance", 3)
    assert np.abs(away - one).max() > 1e-4
    # Away from nothing is the default.
    assert np.allclose(drawn(saved, "null.npy", "--prompt", "a cat", "--negative", "", "--guidance", 3), one, atol=1e-5)
    assert drawn(saved, "wide.npy", "--set", "size=[16, 32]").shape == (2, 1, 16, 32)


def test_prompts_where_there_are_none(saved, tmp_path):
    assert "--negative a: negative conditions are of classifier-free guidance" in refused(
        "sample", saved, "--prompt", "b", "--negative", "a"
    )
    assert "size must be heights and widths divisible by 2, got (15, 16)" in refused(
        "sample", saved, "--set", "size=[15, 16]"
    )
    assert "--prompt a: this model is unconditional" in refused(
        "sample", "shipped:ddpm_digits", "--prompt", "a", "--out", tmp_path / "x.png"
    )


def test_a_prompt_is_checked(saved):
    prompt = load(saved).conditions[0]
    row = prompt.parse("a cat")
    assert prompt.several("a cat") == ["a cat"]
    assert prompt.several(["a cat", "a dog"]) == ["a cat", "a dog"]
    assert torch.equal(prompt.null(2, row[None])[1], prompt.parse(""))
    for value, problem in ((row, "floats of shape"), (row[None] / 0, "finite"), (row[None].long(), "floats of shape")):
        with pytest.raises(ParameterError, match=problem):
            prompt.check(value, 1)
    with pytest.raises(ParameterError, match="prompt must be a text, got 3"):
        prompt.parse(3)


def test_text_encoders_are_of_one_package(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "sd")
    changed(tmp_path / "sd" / "model_index.json", text_encoder=["os", "system"])
    with pytest.raises(RunError, match=r"its text_encoder is of 'os', and reading it would run the code"):
        load(tmp_path / "sd")


def test_a_refiner_is_told_how_beautiful(tmp_path):
    kind = "StableDiffusionXLImg2ImgPipeline"
    xl(kind, ids=5, requires_aesthetics_score=True).save_pretrained(tmp_path)
    prompt = load(tmp_path).conditions[0]
    assert prompt.parse("a cat")[-5:].tolist() == [16.0, 16.0, 0.0, 0.0, 6.0]
    assert prompt.empty[-5:].tolist() == [16.0, 16.0, 0.0, 0.0, 2.5]
    assert not prompt.empty[:-5].any()  # which SDXL takes for no prompt
