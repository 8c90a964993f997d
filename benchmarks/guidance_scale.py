"""What does guidance buy, and what does it cost? Agreement with the class and diversity within it, over the scale.

For each guidance scale the same seeds are drawn of every class of a conditional run, and the script prints, plots and
writes, beside the same figures for test images of the data:

- agreement: the share of samples that a classifier, which had no part in making them, takes for the class asked for,
- diversity: the mean distance |x - x'| of two different samples of a class, averaged over the classes, in units of that
  of test images. Its standard error, by classes, stands beside it.

    python benchmarks/guidance_scale.py runs/ddpm_mnist_classes_cpu --picture docs/images/guidance_scale.png

The classifier of MNIST is that of benchmarks/mnist_classifier.py (about two minutes of training, once). For other data
`--judge RUN` names a run of `unidiff run classifier_..._noisy`, asked at the least noise that it knows. `--classifier
RUN` guides by that classifier's gradients instead; the judge should then be another one. Pixels are clipped to [-1, 1].
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import mnist_classifier
import torch
from torch import Tensor

import unidiff as ud
from unidiff import plot
from unidiff.data.base import OpenDataset
from unidiff.errors import UnidiffError
from unidiff.run.load import draw
from unidiff.words import in_words

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


@torch.no_grad()
def classes_of(judge: Path | None, cache: Path | None, x: Tensor) -> Tensor:
    """The class of each image, (N,), as the judge sees it."""
    if judge is None:
        network = mnist_classifier.classifier(cache or mnist_classifier.default_cache(), 0)
        return mnist_classifier.probabilities(network, x.clamp(-1, 1)).argmax(1)
    classifier = ud.load_classifier(judge, device="cpu")
    process = classifier.process
    level = process.level(process.t_min)
    states = (level.alpha * process.basis.forward(part).to(x.dtype) for part in x.split(500))
    return torch.cat([classifier(u, level).argmax(1) for u in states])


def diversity(x: Tensor, label: Tensor, classes: int) -> tuple[float, float]:
    """Mean distance of two samples of a class, and its standard error over the classes."""
    each = torch.stack([torch.pdist(x[label == k].flatten(1).double()).mean() for k in range(classes)])
    return float(each.mean()), float(each.std() / math.sqrt(classes))


def real(source: OpenDataset, count: int, classes: int) -> tuple[Tensor, Tensor]:
    """Up to `count` test images of each class, and their labels."""
    assert source.labels is not None
    rows = torch.cat([(source.labels == k).nonzero()[:count, 0] for k in range(classes)])
    return source.batch(rows), source.labels[rows]


def measure(options: argparse.Namespace) -> dict[str, object]:
    run = ud.load(options.run)
    judge = None if options.classifier is None else ud.load_classifier(options.classifier)
    classes = run.denoiser.classes if judge is None else judge.classes
    if classes is None:
        raise UnidiffError(f"{options.run}: not conditioned on classes. Train a recipe with `conditioning: Labels`.")
    if options.judge is None and run.recipe.data.shape != (1, 28, 28):
        raise UnidiffError(f"{options.run}: these are no images of 28x28 pixels. Name a classifier with --judge.")
    label = torch.arange(classes).repeat_interleave(options.count)
    solver, grid = ud.ExponentialAdams(), ud.Tapered(options.steps)
    sampling = replace(run.recipe.sampling, count=len(label), solver=solver, grid=grid)
    truth, true_label = real(run.recipe.data.open("test"), options.count, classes)
    unit, spread = diversity(truth, true_label, classes)
    agreement = (classes_of(options.judge, options.cache, truth) == true_label).double().mean().item()
    rows = [{"scale": None, "agreement": agreement, "diversity": 1.0, "error": spread / unit}]
    print(f"{'scale':>6} {'agreement':>10} {'diversity':>10} {'error':>7}")
    print(f"{'real':>6} {agreement:>10.4f} {1:>10.3f} {spread / unit:>7.3f}", flush=True)
    for scale in options.scales:
        start = time.perf_counter()
        model = run.denoiser
        guided = ud.ClassifierFree(model, scale) if judge is None else ud.ClassifierGuidance(model, judge, scale)
        x = draw(guided, sampling, run.recipe.data, run.precision, label=label).x.cpu().clamp(-1, 1)
        agreement = (classes_of(options.judge, options.cache, x) == label).double().mean().item()
        found, spread = diversity(x, label, classes)
        rows.append({"scale": scale, "agreement": agreement, "diversity": found / unit, "error": spread / unit})
        print(f"{scale:>6g} {agreement:>10.4f} {found / unit:>10.3f} {spread / unit:>7.3f}", flush=True)
        print(f"  {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    about = f"{Path(options.run).name}, {options.count} samples of each class"
    about = f"{about}, {in_words(sampling.solver)} in {options.steps} steps"
    picture(rows, classes * options.count, about, options.picture)
    return {"run": str(options.run), "count": options.count, "steps": options.steps, "rows": rows}


def picture(rows: list[dict], samples: int, about: str, path: Path) -> None:
    """Draw both numbers over the scale, with their standard errors; the first row is that of test images."""
    real, *drawn = rows
    shares = [row["agreement"] for row in drawn]
    errors = {
        "agreement": [math.sqrt(share * (1 - share) / samples) for share in shares],  # of a share
        "diversity": [row["error"] for row in drawn],
    }
    titles = {"agreement": "Is it the class asked for?", "diversity": "How different are its samples?"}
    graphs = [
        plot.Graph(
            title,
            "guidance scale",
            name,
            [("samples", [row["scale"] for row in drawn], [row[name] for row in drawn], errors[name])],
            levels=[("test images", real[name])],
        )
        for name, title in titles.items()
    ]
    plot.save_graphs(graphs, path, f"{about}. Diversity: mean distance within a class; test images are 1.")


def main() -> None:
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run directory of a conditional recipe")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES, help=f"{SCALES}")
    parser.add_argument("--count", type=int, default=50, help="samples of each class (50)")
    parser.add_argument("--steps", type=int, default=20, help="steps of the solver (20)")
    parser.add_argument("--judge", type=Path, help="a run of a noise-aware classifier, in place of that of MNIST")
    parser.add_argument("--classifier", type=Path, help="guide by this classifier's gradients")
    parser.add_argument("--cache", type=Path, help="where the weights of the MNIST classifier are kept")
    parser.add_argument("--picture", type=Path, default=Path("guidance_scale.png"), metavar="FILE.png")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write the figures here, too")
    options = parser.parse_args()
    try:
        result = measure(options)
    except UnidiffError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
