"""Do other networks, on other data, rank samples as `unidiff evaluate` does?

A ladder of sample sets is ranked: the models that come with unidiff at few and many evaluations, one of them with
disturbed weights, and real training digits, as many of each class.

- By `evaluate`: the shipped features, the first half of the test digits as the reference.
- By two judges that were held back: a fully connected and a convolutional network, trained here (seconds) on that first
  half alone, which neither the models nor the shipped network have seen; the reference is the other half.

Prints the measures of all, and the rank correlations of the sets with their significance; a minute on one core.

    python benchmarks/held_back_judge.py [--count 150] [--nfe 3 5 10 30] [--models ddpm_digits ...]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

import unidiff as ud
from unidiff.evaluation.real import Rows
from unidiff.objective.cross_entropy import CrossEntropy

MODELS = "ddpm_digits", "ncsn_digits", "heat_digits", "ddpm_digits_classes"
MEASURES = "frechet", "confidence", "recall"
JUDGES = {
    "fully connected": lambda: ud.MLPEncoder((1, 8, 8), width=128, depth=2, classes=10),
    "convolutional": lambda: ud.UNetEncoder((1, 8, 8), width=16, multipliers=(1, 2), blocks=2, classes=10),
}
DISTURBANCE = 0.15  # of each weight, as a share of the standard deviation of its tensor


def halves() -> tuple[Tensor, Tensor]:
    """Row numbers of the test digits, half of them at random, and the others."""
    order = torch.randperm(297, generator=torch.Generator().manual_seed(0))
    return order[:149].sort().values, order[149:].sort().values


def real(reference: Tensor, count: int) -> ud.evaluation.RealData:
    """Test digits of these row numbers as the reference; training digits, as many of each class, as the floor."""
    found = ud.evaluation.real_data(ud.data.Digits(), count, classes=torch.arange(10))
    return replace(found, reference=Rows(found.reference.source, reference), train=None, held_out=None)


def train_judge(name: str, rows: Tensor, steps: int = 500, seed: int = 1) -> ud.evaluation.FeatureNetwork:
    """A judge, trained on the test digits of these row numbers, as they are and shifted by one pixel."""
    test = ud.data.Digits().open("test")
    x, labels = test.batch(rows), test.labels[rows]
    shifts = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    shifted = torch.cat([x.roll(shift, (2, 3)) for shift in shifts])
    settings = ud.Training(steps=steps, batch=64, lr=2e-3, warmup=50, weight_decay=0.05, ema=0.99, precision="fp32")
    objective = CrossEntropy(times=ud.LogitNormal(mean=-3.0, std=1.0))
    judge = ud.NeuralClassifier(ud.FlowMatching(), JUDGES[name]())
    data = shifted, labels.repeat(len(shifts))
    trained = ud.train(judge, data, objective, settings, conditioning=ud.Labels(dropout=0.0), seed=seed)
    return ud.evaluation.FeatureNetwork(name, "", trained)


def disturbed(run: ud.Run, share: float = DISTURBANCE) -> ud.Run:
    """The run with noise on its weights."""
    run, generator = copy.deepcopy(run), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in run.denoiser.parameters():
            if weight.ndim > 1:
                weight += share * weight.std() * torch.randn(weight.shape, generator=generator)
    return run


def ladder(runs: Mapping[str, ud.Run], nfes: Sequence[int], count: int) -> dict[str, Tensor]:
    """The sets of samples, by name: DDIM at each number of evaluations."""
    sets = {}
    for name, run in runs.items():
        for nfe in nfes:
            grid = ud.ArcLength(nfe) if run.denoiser.process.basis.shape else ud.Tapered(nfe)
            sampling = ud.Sampling(ud.DDIM(), grid, count=count)
            sets[f"{name}, {nfe}"] = run.sample(sampling, **run.conditioned(count).in_turn(count)).x
            print(f"drawn: {name}, {nfe} evaluations", flush=True)
    return sets


def scores(
    sets: Mapping[str, Tensor], network: ud.evaluation.FeatureNetwork | None, rows: Tensor
) -> dict[str, dict[str, float]]:
    """The measures of each set and of the real data, by name."""
    count = min(map(len, sets.values()))
    found = ud.evaluate(sets, real(rows, count), features=network)
    return {row.name: {name: row.measures[name].value for name in MEASURES} for row in (found.floor, *found.rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=150, help="samples of each set")
    parser.add_argument("--nfe", type=int, nargs="+", default=[3, 5, 10, 30])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    options = parser.parse_args()
    known, held_back = halves()
    runs = {name: ud.load(f"shipped:{name}", device="cpu") for name in options.models}
    runs["disturbed"] = disturbed(runs[options.models[0]])
    sets, test = ladder(runs, options.nfe, options.count), ud.data.Digits().open("test")
    found = {"evaluate": scores(sets, None, known)}
    for name in JUDGES:
        judge = train_judge(name, known)
        right = judge(test.batch(held_back)).probabilities.argmax(1) == test.labels[held_back]
        print(f"{name}: {right.double().mean():.1%} of the other half of the test digits are classified rightly")
        found[name] = scores(sets, judge, held_back)
    own = found["evaluate"]
    names = sorted(own, key=lambda name: own[name]["frechet"])
    print("\n| samples |" + "".join(f" {key}: {judge} |" for key in MEASURES for judge in found))
    print("|---|" + "---|" * len(MEASURES) * len(found))
    for name in names:
        print(f"| {name} |" + "".join(f" {rows[name][key]:.3f} |" for key in MEASURES for rows in found.values()))
    print()
    for judge in JUDGES:
        for key in MEASURES:
            pair = [own[name][key] for name in names], [found[judge][name][key] for name in names]
            (rho, p_rho), (tau, p_tau) = spearmanr(*pair), kendalltau(*pair)
            numbers = f"Spearman {rho:.2f} (p = {p_rho:.1g}), Kendall {tau:.2f} (p = {p_tau:.1g})"
            print(f"{key}, {judge}: {numbers}, {len(names)} sets")


if __name__ == "__main__":
    main()
