"""Bits per dimension of 8x8 digits: schedules by objectives, as in the tables of Nichol & Dhariwal 2021, in miniature.

    python benchmarks/bound.py --steps 800 --seeds 3

A perceptron that predicts V, on scikit-learn's digits with their 17 grey values, T = 200; the bound of 297 test images
along the native grid. L_simple has the large variance and the decoder of Ho et al.'s program; the others have learned
theirs. A mean over trainings with different seeds, and its standard error. One thread.
"""

from __future__ import annotations

import argparse
import math
import time

import torch

import unidiff as ud

T, LEVELS = 200, 17
SCHEDULES = {"linear": ud.Linear(1e-4 * 1000 / T, 0.02 * 1000 / T), "cosine": ud.Cosine()}
OBJECTIVES = {
    "simple": ud.Denoising(ud.EpsilonWeighting()),
    "hybrid": ud.Hybrid(ud.EpsilonWeighting(), levels=LEVELS),
    "vlb": ud.VLB(LEVELS),
    "vlb, importance": ud.VLB(LEVELS, times=ud.ImportanceSampled()),
}


def gaussian(train: torch.Tensor, test: torch.Tensor) -> float:
    """Bits per dimension of a Gaussian fitted to the data with noise over their bins."""
    width, generator = 2 / (LEVELS - 1), torch.Generator().manual_seed(0)
    filled = [x.flatten(1) + width * (torch.rand(x.flatten(1).shape, generator=generator) - 0.5) for x in (train, test)]
    fitted = torch.distributions.MultivariateNormal(filled[0].mean(0), filled[0].T.cov())
    return -(float(fitted.log_prob(filled[1]).mean()) / test[0].numel() + math.log(width)) / math.log(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--count", type=int, default=297, help="test images")
    parser.add_argument("--schedules", nargs="+", choices=[*SCHEDULES], default=[*SCHEDULES])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = ud.data.Digits()
    train, test = (source.batch(torch.arange(len(source))) for source in (data.open(), data.open("test")))
    test = test[: arguments.count]
    settings = ud.Training(
        steps=arguments.steps, batch=128, lr=1e-3, ema=0.995, precision="fp32", tensorboard=False, log_every=10**6
    )
    print(f"{len(train)} and {len(test)} images, a Gaussian fit {gaussian(train, test):.3f} bits per dimension")
    for schedule in arguments.schedules:
        rule = SCHEDULES[schedule]
        for name, objective in OBJECTIVES.items():
            started, bits, learned = time.process_time(), [], objective.learns_variance
            for seed in range(arguments.seeds):
                torch.manual_seed(seed)
                net = ud.MLP(data.shape, width=arguments.width, depth=3, learned_variance=learned)
                model = ud.NeuralDenoiser(ud.DDPM(T, rule), ud.V(), net)
                model = ud.train(model, data.open(), objective, settings, seed=seed)
                kind = {"decoder_variance": None} if learned else {"variance": 1.0, "decoder_variance": 0.0}
                bound = ud.variational_bound(model, test, ud.Native(), levels=LEVELS, batch=1000, **kind)
                bits.append(bound.bits.mean)
            mean, error = torch.tensor(bits).mean(), torch.tensor(bits).std() / len(bits) ** 0.5
            seconds = (time.process_time() - started) / arguments.seeds
            print(f"{schedule:8}{name:17}{mean:7.3f} +- {error:.3f}{seconds:7.0f} s", flush=True)


if __name__ == "__main__":
    main()
