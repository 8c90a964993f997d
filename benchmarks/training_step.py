"""What a training step costs: `ud.train` against a bare loop over the same network, batch and optimiser.

The bare loop draws a batch, times and noise from one generator, and takes a step of fused AdamW: no average of the
weights, no norm of the gradient. Beside it a loop that clips and averages too, as ours does.

    python benchmarks/training_step.py --repeats 9
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
from rows import Row, compare, machine, profile, show
from torch import Tensor, nn

import unidiff as ud

PROCESS = ud.DDPM()
BATCH = 128


def data(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(4096, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def bare(network: nn.Module, x: Tensor, batch: int, steps: int, *, whole: bool) -> float:
    """Seconds of the loop by hand after its first step; with `whole` it clips the gradient and averages the weights."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    levels = PROCESS.level(PROCESS.native_times(), torch.empty(1000, *[1] * (x.ndim - 1)))
    alpha, sigma = levels.alpha, levels.sigma
    average = copy.deepcopy(network).requires_grad_(False)
    pairs = list(average.parameters()), list(network.parameters())
    generator = torch.Generator().manual_seed(0)
    start = 0.0
    for step in range(steps + 1):
        if step == 1:
            start = time.process_time()
        x0 = x[torch.randint(len(x), (batch,), generator=generator)]
        t = torch.randint(1000, (batch,), generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        output = network(alpha[t] * x0 + sigma[t] * eps, (t + 1).to(x0.dtype))
        (output - eps).square().mean().backward()
        if whole:
            nn.utils.clip_grad_norm_(pairs[1], 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        if whole:
            with torch.no_grad():
                torch._foreach_lerp_(*pairs, 0.001)
    return time.process_time() - start


def ours(network: nn.Module, x: Tensor, batch: int, steps: int) -> float:
    """Seconds of `ud.train` after its first step."""
    training = ud.Training(steps + 1, batch=batch, lr=1e-3, lr_final=1.0, precision="fp32")
    model = ud.NeuralDenoiser(PROCESS, ud.Eps(), network)
    times: list[float] = []
    ud.train(model, x, ud.Denoising(), training, on_step=lambda progress: times.append(time.process_time()))
    return times[-1] - times[0]


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...], int, int, float]]:
    """Name -> network, shape of a sample, batch, steps, and the goal of the ratio."""
    torch.manual_seed(0)
    return {
        "MLP, 2-D": (ud.MLP((2,)), (2,), BATCH, 100, 1.15),
        "U-Net, 8x8": (ud.UNet((1, 8, 8), width=32, multipliers=(1, 2), blocks=1), (1, 8, 8), 32, 5, 1.01),
    }


def measure(repeats: int) -> list[Row]:
    """The rows of this benchmark."""
    torch.set_num_threads(1)
    rows = []
    for name, (network, shape, batch, steps, goal) in networks().items():
        x = data(shape)
        for words, whole in (("a bare loop", False), ("one that clips and averages", True)):
            rows.append(
                compare(
                    f"training step, {name}, to {words}",
                    lambda: ours(network, x, batch, steps),  # noqa: B023 (called at once)
                    lambda: bare(network, x, batch, steps, whole=whole),  # noqa: B023
                    goal,
                    repeats,
                    steps=steps,
                    clock=None,
                )
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="how often each pair is timed (default 9)")
    parser.add_argument("--profile", choices=networks(), help="print where the library spends its time instead")
    arguments = parser.parse_args()
    if arguments.profile:
        torch.set_num_threads(1)
        network, shape, batch, steps, _ = networks()[arguments.profile]
        x = data(shape)
        profile(lambda: ours(network, x, batch, steps))
        return
    show(measure(arguments.repeats))
    print(machine())


if __name__ == "__main__":
    main()
