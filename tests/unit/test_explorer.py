"""The explorer: its pictures are the library's, its errors those of `ud.compare`, its mistakes sentences."""

from __future__ import annotations

import asyncio

import pytest
import torch
from tiny import refused
from torch import distributions

import unidiff as ud
from unidiff.app import gradio as extra
from unidiff.app import heat, noise, ring, samples, serve
from unidiff.app.choices import DEFAULT, Method, draws_noise, eta_of, grids
from unidiff.app.page import answered
from unidiff.app.picture import picture
from unidiff.errors import ParameterError, RunError
from unidiff.tasks.generation import load_generation


@pytest.fixture(scope="module")
def digits():
    return samples.Explored(load_generation("shipped:ddpm_digits", device="cpu"))


def test_samples_are_those_of_the_library(digits):
    request = samples.Request(Method("DDIM", "Karras", 4, 0.5), seed=3, count=2)
    drawn = samples.draw(digits, request)
    model = digits.run.denoiser
    assert torch.equal(drawn.solution.x, ud.sample(model, ud.DDIM(0.5), ud.Karras(4), seeds=[3, 4]).x)
    assert drawn.random
    assert samples.error_of(digits, request, drawn)[0] is None
    assert "DDIM(eta=0.5) @ Karras: 4 steps, 4 evaluations" in drawn.words()


def test_guided_samples_are_those_of_the_library():
    explored = samples.Explored(load_generation("shipped:ddpm_digits_classes", device="cpu"))
    drawn = samples.draw(explored, samples.Request(Method(steps=3), count=2, classes=(7, 1), guidance=2.0))
    guided = ud.ClassifierFree(explored.run.denoiser, 2.0)
    assert torch.equal(drawn.solution.x, ud.sample(guided, grid=3, seeds=2, label=torch.tensor([7, 1])).x)


@pytest.mark.slow  # 6 s: the flow of a network, twice
def test_the_error_is_that_of_compare(digits, monkeypatch):
    monkeypatch.setattr(samples, "MOST_STEPS", 32)
    options = {"tolerance": samples.TOLERANCE, "most_steps": 32, "dtype": torch.float32, "batch": 20}
    (row,) = ud.compare(digits.run.denoiser, "ddim@uniform", [4], seeds=20, **options).rows
    request = samples.Request(Method("DDIM", "Uniform", 4), count=20)
    error, words = samples.error_of(digits, request, samples.draw(digits, request))
    assert error == row.rms
    assert f"{error:.2e}" in words


def test_noise_is_that_of_the_process(digits):
    state, model = noise.noised(digits, 5, 0.4, seed=2), digits.run.denoiser
    x0 = ud.data.Digits().open("test").batch(torch.tensor([5]))
    level = model.process.level(0.4)
    u = level.alpha * x0 + level.sigma * ud.Seeded([2])(x0)
    assert torch.equal(state.x0, x0)
    torch.testing.assert_close(state.u, u, rtol=1e-6, atol=1e-6)  # float32
    torch.testing.assert_close(state.x0_hat, model(state.u, level).x0.detach(), rtol=1e-5, atol=1e-5)
    assert noise.noised(digits, 5, 0.0).level.time == model.process.t_min
    with pytest.raises(ParameterError, match="index must be an integer from 0 to 296, got 297"):
        noise.noised(digits, 297, 0.4)


def test_the_score_of_the_ring_is_the_gradient_of_its_density():
    exact, points = ring.model("VP-SDE"), torch.tensor([[0.3, -0.8], [0.0, 0.7]], dtype=torch.float64)
    level, data = exact.process.level(0.3), ud.data.Ring()
    means = level.alpha * torch.as_tensor(data.means, dtype=torch.float64)
    variance = (level.alpha * data.std) ** 2 + level.sigma**2
    each = distributions.MultivariateNormal(means, variance * torch.eye(2, dtype=torch.float64))
    u = points.clone().requires_grad_()
    each.log_prob(u[:, None]).logsumexp(1).sum().backward()
    torch.testing.assert_close(ring.score_field(exact, 0.3, points), u.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.slow  # a second or more
def test_paths_of_the_ring_are_those_of_the_library():
    drawn = ring.paths("flow matching", Method("Heun", "Uniform", 6), seed=1, count=3)
    model = ring.model("flow matching")
    x = ud.sample(model, ud.Heun(), ud.Uniform(6), seeds=range(1, 4), dtype=torch.float64).x
    assert torch.equal(drawn.solution.x, x)
    assert len(drawn.solution.path) == 7
    # Heun's order is 2: with 4 times the steps the error is a sixteenth, and a quarter of it at the very least.
    assert ring.paths("flow matching", Method("Heun", "Uniform", 24), seed=1, count=3).error < drawn.error / 4


def test_the_heat_equation_multiplies_each_mode_by_its_factor():
    flow = heat.solve("a step", -3)
    domain, a = flow.domain, flow.modes[0]
    decayed = domain.to_values(a * torch.exp(-domain.eigenvalues * 1e-3))
    # Each of the 256 modes is exact to rounding: 1e-12 of a field of size 1.
    torch.testing.assert_close(heat.field(flow, renormalised=False)[1], decayed, rtol=0, atol=1e-12)
    energy = (domain.eigenvalues * flow.modes**2).sum(-1)
    torch.testing.assert_close(energy, flow.R.expand_as(energy), rtol=1e-12, atol=0)
    assert "mode" in heat.words(flow).lower()


def test_only_what_a_process_allows_can_be_chosen():
    assert "Native" in grids(ud.DDPM())
    assert "Native" not in grids(ud.VPSDE())
    assert eta_of("DDIM") == 0
    assert eta_of("Heun") is None
    assert not draws_noise(Method("DDIM").spec(ud.VPSDE()), ud.VPSDE(), (2,))
    assert draws_noise(Method("DDIM", DEFAULT, 5, 1.0).spec(ud.VPSDE()), ud.VPSDE(), (2,))
    with pytest.raises(ParameterError, match=r"solver must be one of AdamsBashforth, .*, got 'DIM'"):
        Method("DIM").spec(ud.VPSDE())


@pytest.mark.slow  # a second or more
def test_a_mistake_is_a_sentence_on_the_page():
    @answered
    def draw(steps):
        yield picture(heat.figures(heat.solve("a peak", -2)), "heat")
        Method(steps=steps).spec(ud.VPSDE())

    first, second = draw(0)
    assert first.startswith('<div class="picture">')
    assert first.count('<img src="data:image/png;base64,') == 4
    assert second == '<p role="alert">steps must be an integer from 1 to 1000000, got 0</p>'


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_this_machine_is_a_loopback(host):
    assert serve.is_loopback(host)


def test_it_listens_to_this_machine_alone():
    with serve.listen("localhost", 0) as server:
        assert serve.address(server).startswith("http://127.0.0.1:")
        port = server.getsockname()[1]
        with pytest.raises(RunError, match=rf"--port {port}: Address already in use. Choose another one"):
            serve.listen("127.0.0.1", port)
    with pytest.raises(ParameterError, match="--port must be an integer from 0 to 65535, got 70000"):
        serve.listen("127.0.0.1", 70000)
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org"):
        with pytest.raises(ParameterError, match="--host must be a loopback address"):
            serve.listen(host, 0)


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1:7860", 200), ("[::1]:80", 200), ("evil.example:7860", 403)])
def test_it_answers_to_names_of_this_machine_alone(host, status):
    sent = []

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(b"host", host.encode())]}
    asyncio.run(serve.Guarded(inner)(scope, None, send))
    assert sent[0]["status"] == status
    if status == 200:
        assert b"connect-src 'self'" in dict(sent[0]["headers"])[b"content-security-policy"]


def test_the_command_says_what_is_wrong(monkeypatch):
    assert "--host must be a loopback address" in refused("app", "--host", "0.0.0.0")
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    assert "pip install 'unidiff-diffusion[app]'" in refused("app", "--port", "0")
