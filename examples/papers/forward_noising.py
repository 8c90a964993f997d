"""Images that become noise: figure 2 of Higham, Higham & Grindrod, figure 6.1 of Sedykh's thesis, and two slides.

The forward process adds a little noise at each step. It may be walked step by step, the chain, or taken in one leap
from the image to any time: both have the same distribution. How fast the image fades is the choice of the schedule: the
linear one of Ho et al. spends the last third of its steps on what is almost noise, the cosine one does not.

    unidiff reproduce higham-2 thesis-6.1 slides-leap slides-schedules
    python examples/papers/forward_noising.py --run runs/heat_digits
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff.figures.findings import Findings
from unidiff.figures.image_model import ImageModel
from unidiff.figures.script import main
from unidiff.noise import generator_of
from unidiff.plot import save_strip

TIMES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def chain(process: ud.Process, u: Tensor, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """States u_0, ..., u_T of the forward chain, each from the one before.

    u_t = a u_s + sqrt(sigma_t^2 - a^2 sigma_s^2) z with a = alpha_t / alpha_s; for DDPM's neighbouring times a^2 is
    1 - beta_t and the variance beta_t (Higham et al., eq. 2).
    """
    alpha, sigma = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    yield u
    for time in process.native_times() if steps == 0 else torch.linspace(0, 1, steps + 1)[1:].double():
        at = time.reshape(-1, *[1] * len(process.basis.shape))
        new_alpha, new_sigma = process.alpha(at), process.sigma(at)
        a = torch.where(alpha > 0, new_alpha / alpha, 0.0)  # of a mode that has faded, nothing is left to scale
        z = torch.randn(u.shape, generator=generator, dtype=torch.float64)
        u = a * u + (new_sigma**2 - (a * sigma) ** 2).clamp(min=0).sqrt() * z
        alpha, sigma = new_alpha, new_sigma
        yield u


def steps_of(process: ud.Process) -> tuple[int, int]:
    """Argument of `chain` for the process's own table, or 500 equal steps; and the number of steps."""
    table = process.native_times()
    return (500, 500) if table is None else (0, len(table))


def snr(process: ud.Process, u0: Tensor, t: float) -> float:
    """Power of the data in the state at time t over that of the noise, both summed over all values."""
    level = process.level(t, u0)
    power = [torch.as_tensor(part, dtype=u0.dtype).expand_as(u0).square() for part in (level.alpha, level.sigma)]
    return float((power[0] * u0**2).sum() / power[1].sum())


def noise_left(process: ud.Process, u: Tensor, u0: Tensor, t: float) -> Tensor:
    """(u_t - alpha u_0) / sigma, which is standard normal."""
    level = process.level(t, u)
    return (u - level.alpha * u0) / level.sigma


def higham_2(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """One training image along the chain, noise added at every step."""
    process, image = model.process, model.images(model.chosen(1, seed)).double()
    u0 = process.basis.forward(image)
    own, count = steps_of(process)
    states = list(chain(process, u0, own, generator_of(seed)))
    shown = [round(share * count) for share in TIMES]
    decoded = [model.data.decode(process.basis.inverse(states[i]).float()) for i in shown]
    caption = f"The forward chain, {count} steps (Higham, Higham & Grindrod, figure 2)."
    save_strip(decoded, [i / count for i in shown], path, caption)
    z = noise_left(process, states[-1], u0, 1.0).flatten()
    ratio = snr(process, u0, 1.0)
    square, limit = float(z.square().mean()), 5 * math.sqrt(2 / len(z))
    return Findings(
        f"after {count} steps the image has {100 * ratio:.2g} % of the power of the noise, whose variance is "
        f"{square:.2f} of what one leap would add",
        ratio < 0.05 and abs(square - 1) < limit,
        {"steps": count, "snr_at_the_end": ratio, "noise_variance": square, "values": len(z)},
        f"Less than 5 %; and (x_T - alpha x_0) / sigma has the mean square 1, within {limit:.2f}: five standard "
        f"deviations of the mean of {len(z)} squares of normal numbers.",
    )


def thesis_6_1(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """Several images, noised by one leap to each of a few times."""
    process, images = model.process, model.images(model.chosen(6, seed)).double()
    u0, generator = process.basis.forward(images), generator_of(seed)
    states, rows, z = [images], [snr(process, u0, t) for t in TIMES[1:]], []
    for t in TIMES[1:]:
        eps = torch.randn(u0.shape, generator=generator, dtype=torch.float64)
        u = process.perturb(u0, eps, process.level(t, u0))
        z.append(noise_left(process, u, u0, t))
        states.append(process.basis.inverse(u))
    decoded = [model.data.decode(state.float()) for state in states]
    save_strip(decoded, TIMES, path, "Images noised to t = 0, 0.1, ..., 1 (Sedykh's thesis, figure 6.1).")
    square, values = float(torch.stack(z).square().mean()), torch.stack(z).numel()
    limit = 5 * math.sqrt(2 / values)
    falling = all(b < a for a, b in pairwise(rows))
    return Findings(
        f"the signal-to-noise ratio falls from {rows[0]:.2g} at t = 0.1 to {rows[-1]:.2g} at t = 1",
        falling and abs(square - 1) < limit,
        {"times": TIMES[1:], "snr": rows, "noise_variance": square},
        f"It falls at every time, and the noise has variance 1 within {limit:.2f}, five standard deviations.",
    )


def slides_leap(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """The chain step by step and one leap: another noise, the same distribution."""
    process, count = model.process, 100 if quick else 1000
    image = model.images(model.chosen(1, seed)).double()
    u0, (own, steps) = process.basis.forward(image), steps_of(process)
    generator = generator_of(seed)
    shown = {round(share * steps): share for share in TIMES}
    walked, leapt, worst = [], [], 0.0
    many = u0.expand(count, *u0.shape[1:])
    for number, u in enumerate(chain(process, many, own, generator)):
        if number not in shown:
            continue
        t = number / steps
        if number == 0:
            leap = many
        else:
            leap = process.perturb(many, torch.randn(many.shape, generator=generator).double(), process.level(t, many))
            # Means over the walks of each value of z ~ N(0, 1), in units of their standard deviations.
            z = noise_left(process, u, many, t)
            scores = torch.cat([z.mean(0) * count**0.5, (z.square().mean(0) - 1) * (count / 2) ** 0.5])
            worst = max(worst, float(scores.abs().max()))
        for strip, state in ((walked, u), (leapt, leap)):
            strip.append(model.data.decode(process.basis.inverse(state[:1]).float()))
    strip = [torch.cat(pair) for pair in zip(walked, leapt)]
    caption = "One image, noised step by step and in one leap to each time (slides, forward process)."
    save_strip(strip, list(shown.values()), path, caption, rows=[f"{steps} steps", "one leap"])
    tests = 2 * u0.numel() * (len(shown) - 1)
    return Findings(
        f"means and variances of {count} walks are those of the leap: the largest of {tests} deviations is "
        f"{worst:.1f} standard errors",
        worst < 7,
        {"walks": count, "steps": steps, "comparisons": tests, "largest_deviation": worst},
        "The largest deviation is below 7 standard errors. With 100 walks or more a mean of squares is above that with "
        "a probability of exp(-15) at most (Chernoff), one of the deviations in less than 1 of 1,000 cases.",
    )


def slides_schedules(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """The linear and the cosine schedule on the same image with the same noise, T = 1000."""
    image = model.images(model.chosen(1, seed)).double()
    eps = torch.randn(image.shape, generator=generator_of(seed), dtype=torch.float64)
    rows, numbers = [], {}
    entries = torch.arange(1, 1001, dtype=torch.float64) / 1000
    for name, schedule in (("linear", ud.Linear()), ("cosine", ud.Cosine())):
        process = ud.DDPM(1000, schedule)
        states = [image, *(process.perturb(image, eps, process.level(t)) for t in TIMES[1:])]
        rows.append([model.data.decode(state.float()) for state in states])
        bar = process.alpha(entries) ** 2
        numbers[name] = {
            "half": float(entries[bar < 0.5][0]),
            "hundredth": float(entries[bar < 0.01][0]),
            "alpha_bar_at_the_end": float(bar[-1]),
        }
    caption = "Two schedules, the same image and noise (slides, after Nichol & Dhariwal)."
    save_strip([torch.cat(pair) for pair in zip(*rows)], TIMES, path, caption, rows=["linear", "cosine"])
    # Linear: log alpha-bar(t) is about -T (beta_1 t + (beta_T - beta_1) t^2 / 2), which is log 0.01 at t = 0.675.
    # Cosine: cos^2((t + s) / (1 + s) pi / 2) = 0.01 cos^2(s / (1 + s) pi / 2) at t = 0.9357.
    s = 0.008
    root = math.cos(s / (1 + s) * math.pi / 2) / 10
    cosine = (1 + s) * math.acos(root) * 2 / math.pi - s
    b, d = 0.1, 19.9 / 2
    linear = (-b + math.sqrt(b * b - 4 * d * math.log(0.01))) / (2 * d)
    late = {name: value["hundredth"] for name, value in numbers.items()}
    return Findings(
        f"of the data's variance 1 % is left at t = {late['linear']:.3f} (linear) and {late['cosine']:.3f} (cosine)",
        abs(late["linear"] - linear) < 0.005 and abs(late["cosine"] - cosine) <= 0.001,
        numbers,
        f"From the formulas: {linear:.3f}, to first order in beta, and {cosine:.4f}, to the next of 1000 entries.",
    )


if __name__ == "__main__":
    main(__doc__, higham_2, thesis_6_1, slides_leap, slides_schedules)
