"""Four processes, no network: which samplers draw the data, and which one does not.

Let the data be the 1,500 digits of 8x8 pixels, and nothing else. Then E[x_0 | x_t], what a perfect network would
answer, is a softmax over 1,500 images, and a sampler can be judged without any doubt about training: it must draw each
image as often as any other.

The renormalised heat equation (Higham, Higham & Grindrod, eq. 20-21) makes two processes of images and noise. In the
mean-field one, `RenormalizedHeat`, all images are rescaled by one factor; the state is linear in the image, and every
sampler of the library is right on it. In the other, `PerSampleHeat`, each image is rescaled by its own factor, so that
each keeps its own gradient energy; m(t, x_0) is not linear. The deterministic sampler then needs E[m_s | x_t]. To put
E[x_0 | x_t] into m instead (the plug-in: what one would do with a network that predicts the image) draws the images
perfectly and some of them far too often. Smaller steps do not help.

    python examples/heat_exact_posterior.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import unidiff as ud
from unidiff.plot import save_table

BLURS = (1.5, 3.0)  # pixels


def main() -> None:
    """Draw in each way, print the table, assert who is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--images", type=int, default=1500, help="the first of the digits, which are the data")
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    count, source = arguments.count, ud.data.Digits().open()
    assert source.labels is not None
    data, digit_of = source.batch(torch.arange(arguments.images)), source.labels[: arguments.images]
    truth = torch.bincount(digit_of, minlength=10) / len(data)

    samples = {"VP": ud.sample(ud.Empirical(ud.CosineVP(), data), ud.DDIM(), ud.Uniform(50), seeds=count).x}
    for blur in BLURS:
        linear = ud.RenormalizedHeat((8, 8), blur).fit([data])
        posterior = ud.PerSamplePosterior(ud.PerSampleHeat(linear), data)
        model, grid = ud.Empirical(linear, data), ud.ArcLength(50)
        samples[f"mean-field, blur {blur}"] = ud.sample(model, ud.DDIM(), grid, seeds=count).x
        samples[f"per sample, E[m_s | x_t], blur {blur}"] = ud.PosteriorDDIM().sample(posterior, grid, seeds=count)
        samples[f"per sample, velocity, blur {blur}"] = ud.VelocityFlow().sample(posterior, grid, seeds=count)
        samples[f"per sample, plug-in, blur {blur}"] = ud.PlugIn().sample(posterior, grid, seeds=count)
    samples["per sample, plug-in, blur 3.0, 200 steps"] = ud.PlugIn().sample(posterior, ud.ArcLength(200), seeds=count)

    print(f"{count} samples; classes of the data have shares {truth.min():.3f} to {truth.max():.3f}")
    print(f"  {'':40} farthest   class shares     worst, in      energy distance")
    print(f"  {'':40} from data  least  most     standard errors")
    cells, distances, worst = [], {}, {}
    for name, x in samples.items():
        near = torch.cdist(x.flatten(1).double(), data.flatten(1).double()).min(1)
        shares = torch.bincount(digit_of[near.indices], minlength=10) / count
        worst[name] = float(((shares - truth) / (truth * (1 - truth) / count).sqrt()).abs().max())
        distances[name] = ud.evaluation.energy_distance(x, data)
        value, error = distances[name]
        print(f"  {name:40} {near.values.max():8.1e}  {shares.min():5.3f}  {shares.max():5.3f}", end="")
        print(f"  {worst[name]:14.1f}     {value:+.4f} +- {error:.4f}")
        cells.append((x, name))
        # Every method ends at images of the data: this alone shows nothing.
        assert near.values.max() < 1e-3

    # The claims. In 10 classes one share is off by 4 standard errors with a probability of 6e-4.
    for name, value in distances.items():
        if "plug-in" not in name:
            assert value.value < 0.01, name
            assert worst[name] < 4, name
    for name in ("per sample, plug-in, blur 3.0", "per sample, plug-in, blur 3.0, 200 steps"):
        assert distances[name].value > 0.05
        assert worst[name] > 8
    assert worst["per sample, plug-in, blur 1.5"] > 6

    title = "All are digits of the data. The plug-in draws some of them far too often, at any number of steps."
    save_table([cells[:5], cells[5:]], [""] * 2, [""] * 5, arguments.out / "heat_exact_posterior.png", title)


if __name__ == "__main__":
    main()
