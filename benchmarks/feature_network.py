"""Do the features of a classifier see what is wrong with images: noise, blur, missing classes?

Prints the Frechet distance of training images, with one thing wrong in each set, to the test images. NETWORK is a
shipped network or the run of a classifier, which --save writes as it is shipped, and whose digest is printed then.

    python benchmarks/feature_network.py NETWORK [--data DATA] [--images 1000] [--save FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import unidiff as ud
from unidiff.evaluation.evaluate import as_saved
from unidiff.evaluation.frechet import fitted_frechet
from unidiff.evaluation.network import SHIPPED, FeatureNetwork, fine_details, save_features

BLUR = 0.7  # standard deviation in pixels
SCALED = 2000  # training images over which each shipped feature has a standard deviation of 1


def sets(source: ud.data.OpenDataset, count: int) -> dict[str, Tensor]:
    """Training images, (count, *shape), as they are and with one thing wrong."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(source), generator=generator)
    assert source.labels is not None
    labels = source.labels[order]
    classes, basis = int(labels.max()) + 1, ud.DCT(tuple(source.shape[1:]))
    x, others = source.batch(order[:count]), source.batch(order[count : 2 * count])
    found = {"real": x, "other real images": others}
    for noise in (0.05, 0.1, 0.2):
        found[f"noise of {noise:g}"] = x + noise * torch.randn(x.shape, generator=generator)
    damping = (-0.5 * BLUR**2 * basis.eigenvalues()).exp().float()
    found[f"blur of {BLUR:g} pixels"] = basis.inverse(basis.forward(x) * damping)
    for kept in (classes - 1, classes // 2):
        found[f"{kept} of {classes} classes"] = source.batch(order[labels < kept][:count])
    return found


def save(run: ud.Run, path: Path) -> str:
    """Write the network of a run as it is shipped; returns its digest."""
    source, network = run.recipe.data.open(), run.model.backbone
    rows = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:SCALED]
    batches = [source.batch(part) for part in rows.split(500)]
    arguments = {**run.recipe.network.arguments, "shape": list(network.shape), "classes": network.classes}
    return save_features(run.model, arguments, path, batches)


def main() -> None:
    """Print the Frechet distance of each set, or the digest of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--data", default="cifar10-jpg", help="folder of images in classes")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--save", type=Path)
    given = parser.parse_args()
    if given.network in SHIPPED:
        network = ud.evaluation.load_features(given.network)
    else:
        run = ud.load(given.network)
        if given.save is not None:
            print(save(run, given.save))
            return
        network = FeatureNetwork(given.network, run.digest, run.model)
    data = ud.data.ImageFolder(given.data)
    test = data.open("test")
    assert test.labels is not None
    reference, probabilities = network(test.batch(torch.arange(len(test))))
    assert probabilities is not None
    accuracy = float((probabilities.argmax(1) == test.labels).double().mean())
    print(f"{given.images} images of each set, {len(test)} test images, of which {accuracy:.1%} are classified rightly")
    for name, x in sets(data.open(), given.images).items():
        values = network(as_saved(x)).values
        distance = ud.evaluation.frechet_distance(values, reference)
        line = f"{name:20} {distance.value:8.2f} +- {distance.error:.2f}"
        if network.scale is not None:
            own = values.shape[1] - fine_details(x[:1]).shape[1]
            line += f"   without the details {fitted_frechet(values[:, :own], reference[:, :own]):.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    with torch.no_grad():
        main()
