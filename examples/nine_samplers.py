"""One model, nine samplers.

A diffusion model does not say how to draw from it. Its score defines a flow and a family of stochastic equations with
the same marginals; a sampler is a way to integrate one of them. Here nine of them start from the same noise, with the
same number of evaluations of the same model.

First the exact mixture, where the truth is known: eight Gaussians on a circle, whose score is a formula. Then, if a run
directory is given, a trained network.

    python examples/nine_samplers.py
    python examples/nine_samplers.py --run runs/ncsn_digits
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import unidiff as ud
from unidiff.plot import save_table

NINE: dict[str, ud.Solver] = {
    "Ancestral": ud.Ancestral(),
    "Euler-Maruyama": ud.EulerMaruyama(),
    "reverse diffusion": ud.ReverseDiffusion(),
    "predictor-corrector": ud.PredictorCorrector(snr=0.05),
    "DDIM": ud.DDIM(),
    "probability flow, RK4": ud.ProbabilityFlow(method="rk4"),
    "EDM, Heun": ud.EDMStochastic(churn=0.0),
    "DPM-Solver++ 3M": ud.DPMSolver(3),
    "exponential Adams": ud.ExponentialAdams(),
}


def main() -> None:
    """Draw nine times from one exact model, and from a trained one if it is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run directory of images")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    # The exact model. A VP-SDE forgets its data by t = 1, so every sampler starts from pure noise.
    ring = ud.data.Ring()
    model = ud.GaussianMixture(ud.VPSDE(), ring.means, ring.std**2)
    samples = draw(model, arguments.count, arguments.evaluations)

    # How far is the nearest of the eight centres? For a sample of the ring itself |x - centre| is std times a Rayleigh
    # variable, of mean std sqrt(pi / 2).
    truth = ring.std * (torch.pi / 2) ** 0.5
    print(f"mean distance to the nearest centre, {arguments.evaluations} evaluations")
    print(f"  {'the ring itself':24s} {truth:.4f}")
    distance = {}
    for name, x in samples.items():
        distance[name] = float((x[:, None] - model.means).norm(dim=-1).min(1).values.mean())
        print(f"  {name:24s} {distance[name]:.4f}")
    save(
        samples, arguments.out / "nine_samplers_ring.png", f"One exact model, {arguments.evaluations} evaluations each"
    )

    # The claim: at equal cost a method of high order on the flow is nearest to the truth, and the stochastic methods of
    # first order still carry noise.
    assert abs(distance["exponential Adams"] - truth) < 0.1 * truth
    assert abs(distance["exponential Adams"] - truth) < abs(distance["Euler-Maruyama"] - truth)

    if arguments.run:
        pictures = draw(ud.load(arguments.run).denoiser, 9, arguments.evaluations)
        title = f"One network ({arguments.run.name}), {arguments.evaluations} evaluations each, the same nine seeds"
        save(pictures, arguments.out / "nine_samplers_digits.png", title)


def draw(model: ud.Denoiser, count: int, evaluations: int) -> dict[str, torch.Tensor]:
    """Samples of all nine, at most `evaluations` each."""
    samples = {}
    for name, solver in NINE.items():
        of_two, of_three = (ud.sample(model, solver, ud.Karras(steps)).nfe for steps in (2, 3))
        steps = evaluations // (of_three - of_two)
        samples[name] = ud.sample(model, solver, ud.Karras(steps), seeds=count).x
    return samples


def save(samples: dict[str, torch.Tensor], path: Path, title: str) -> None:
    """Nine panels."""
    cells = [(x, name) for name, x in samples.items()]
    save_table([cells[:3], cells[3:6], cells[6:]], [""] * 3, [""] * 3, path, title)


if __name__ == "__main__":
    main()
