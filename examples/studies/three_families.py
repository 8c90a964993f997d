"""A diffusion model, a VAE and a GAN, each trained for the same CPU seconds: quality, diversity, and what samples cost.

All three are perceptrons of about 190,000 parameters or less on 8x8 digits, plain and not tuned. The VAE has 16 latents
and a Gaussian decoder whose variance is learned (one number); its samples are the decoder's means. The GAN has the
non-saturating loss of Goodfellow et al. 2014.

    python examples/studies/three_families.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unidiff as ud
from unidiff.figures.equal_seconds import steps_in
from unidiff.figures.study import QUALITIES, Row, Study, Table, main, qualities
from unidiff.plot import save_dots

DATA = ud.data.Digits()
LATENTS, WIDTH, BATCH = 16, 192, 64
Sampler = Callable[[int, int], Tensor]  # (count, seed) -> images


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    layers = [nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, outputs)]
    return nn.Sequential(*layers)


def batches(images: Tensor, seconds: float, seed: int) -> Iterator[Tensor]:
    """Random batches, flat, until the CPU seconds are spent."""
    generator, started = torch.Generator().manual_seed(seed), time.process_time()
    while time.process_time() - started < seconds:
        yield images[torch.randint(len(images), (BATCH,), generator=generator)].flatten(1)


def vae(images: Tensor, seconds: float, seed: int) -> tuple[dict[str, Sampler], int]:
    """Kingma & Welling 2014: the evidence lower bound with a Gaussian decoder."""
    encoder, decoder, log_variance = perceptron(64, 2 * LATENTS), perceptron(LATENTS, 64), nn.Parameter(torch.zeros(()))
    parameters = [*encoder.parameters(), *decoder.parameters(), log_variance]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    for x in batches(images, seconds, seed):
        mean, log_std = encoder(x).chunk(2, dim=1)
        z = mean + log_std.exp() * torch.randn_like(mean)
        error = ((decoder(z) - x).square() / log_variance.exp() + log_variance).sum(1) / 2
        kl = ((mean.square() + (2 * log_std).exp() - 1) / 2 - log_std).sum(1)
        optimizer.zero_grad()
        (error + kl).mean().backward()
        optimizer.step()
    return {"VAE": _from_normal(decoder)}, sum(parameter.numel() for parameter in parameters)


def gan(images: Tensor, seconds: float, seed: int) -> tuple[dict[str, Sampler], int]:
    """Goodfellow et al. 2014, with the non-saturating loss of the generator."""
    generator = nn.Sequential(*perceptron(LATENTS, 64), nn.Tanh())
    critic = perceptron(64, 1)
    both = [torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (generator, critic)]
    for x in batches(images, seconds, seed):
        z = torch.randn(len(x), LATENTS)
        both[0].zero_grad()
        F.softplus(-critic(generator(z))).mean().backward()
        both[0].step()
        both[1].zero_grad()
        (F.softplus(critic(generator(z).detach())) + F.softplus(-critic(x))).mean().backward()
        both[1].step()
    count = sum(parameter.numel() for net in (generator, critic) for parameter in net.parameters())
    return {"GAN": _from_normal(generator)}, count


def _from_normal(decoder: nn.Module) -> Sampler:
    @torch.no_grad()
    def draw(count: int, seed: int) -> Tensor:
        z = torch.randn(count, LATENTS, generator=torch.Generator().manual_seed(seed))
        images: Tensor = decoder(z).reshape(count, *DATA.shape)
        return images

    return draw


def diffusion(images: Tensor, seconds: float, seed: int) -> tuple[dict[str, Sampler], int]:
    """A DDPM that predicts the image, sampled in 10 and in 50 steps."""

    def trained(steps: int) -> ud.NeuralDenoiser:
        torch.manual_seed(seed)
        model = ud.NeuralDenoiser(ud.DDPM(), ud.X0(), ud.MLP(DATA.shape, width=112, depth=3))
        settings = ud.Training(steps, batch=BATCH, lr=3e-3, warmup=20, ema=0.99, precision="fp32", tensorboard=False)
        return ud.train(model, images, ud.Denoising(), settings, seed=seed)

    model = trained(steps_in(seconds, trained))

    def sampler(steps: int) -> Sampler:
        return lambda count, first: (
            ud.sample(model, ud.DDIM(), ud.Uniform(steps), DATA.shape, range(count * first, count * (first + 1))).x
        )

    size = sum(parameter.numel() for parameter in model.backbone.parameters())
    return {f"diffusion, {steps} steps": sampler(steps) for steps in (10, 50)}, size


def measure(seed: int, quick: bool) -> Iterator[Row]:
    """All three, one after the other, then their samples."""
    seconds, count = (0.2, 40) if quick else (7.5, 300)
    source = DATA.open()
    images = source.batch(torch.arange(len(source)))
    samplers: dict[str, Sampler] = {}
    own: dict[str, dict[str, float]] = {}
    for train in (diffusion, vae, gan):
        torch.manual_seed(seed)
        made, size = train(images, seconds, seed)
        samplers |= made
        own |= {name: {"parameters": size} for name in made}
    samples = {}
    for name, sampler in samplers.items():
        started = time.process_time()
        samples[name] = sampler(count, seed)
        own[name]["ms per 1,000 samples"] = 1e6 * (time.process_time() - started) / count
    for name, row in qualities(samples, DATA, seed, (*QUALITIES, "coverage")).items():
        yield row._replace(numbers={**row.numbers, **own.get(name, {})})


def draw(table: Table, path: Path) -> None:
    """Quality, diversity, and the logarithm of the cost of samples."""
    names = {"frechet": "Frechet distance", "precision": "precision (quality)", "recall": "recall (diversity)"}
    dots = [table.dots(name, title, "real data") for name, title in names.items()]
    cost = table.dots("ms per 1,000 samples", "log10 of CPU ms per 1,000 samples")
    cases = [(label, math.log10(value), error / value / math.log(10)) for label, value, error in cost.cases]
    caption = "Three families, trained for equal CPU seconds on 8x8 digits. Dashed: real data."
    save_dots([*dots, cost._replace(cases=cases)], path, caption)


STUDY = Study(
    "three_families",
    "At equal seconds of training, how do diffusion, a VAE and a GAN differ in quality, diversity and cost?",
    "slides of Sanchez Garcia & Soto Vicente 2024, comparison of generative models",
    measure,
    draw,
)

if __name__ == "__main__":
    main(__doc__, STUDY)
