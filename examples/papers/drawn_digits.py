"""Data and samples: figures 1, 3 and 4 of Higham, Higham & Grindrod, and figure 6.2 of Sedykh's thesis.

Images of the data; nine noises on their way to nine images; 500 samples sorted into classes by a network that was
trained on real images only and never saw the model; a page of samples. What counts as a digit: an image of whose class
that network is as sure as of 99 of 100 held-out digits, and to which a training image is as near as to 99 of 100.

    unidiff reproduce higham-1 higham-3 higham-4 thesis-6.2
    python examples/papers/drawn_digits.py --run runs/ddpm_mnist_cpu --quick
"""

from __future__ import annotations

from pathlib import Path

import torch

from unidiff.figures.findings import Findings
from unidiff.figures.image_model import ImageModel
from unidiff.figures.script import main
from unidiff.plot import save_samples, save_strip, save_table

COLUMNS = 25  # of sorted samples


def higham_1(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """64 images of the training data, and how often each class is among them."""
    rows = model.chosen(64, seed)
    images, labels = model.data.decode(model.images(rows)), model.source.labels
    save_samples(images, path, f"{len(rows)} images of {model.source.name} (Higham, Higham & Grindrod, figure 1).")
    if labels is None or labels.ndim > 1:
        return Findings(f"{len(rows)} images; the data have no classes", True, {"images": len(rows)}, "")
    shares = labels.bincount().double() / len(labels)
    counts = labels[rows].bincount(minlength=len(shares))
    expected = len(rows) * shares
    chi_square = float(((counts - expected).square() / expected)[expected > 0].sum())
    degrees = int((shares > 0).sum()) - 1
    # Drawn without replacement the statistic has the mean degrees (N - n) / (N - 1), less than that of chi-square.
    limit = degrees + 5 * (2 * degrees) ** 0.5
    return Findings(
        f"{int((counts > 0).sum())} of {degrees + 1} classes among {len(rows)} images; "
        f"chi-square {chi_square:.1f} on {degrees} degrees of freedom",
        chi_square < limit,
        {"images": len(rows), "counts": counts.tolist(), "chi_square": chi_square, "degrees": degrees},
        f"Chi-square is below {limit:.1f}, five standard deviations above its mean: the sample is representative.",
    )


def higham_3(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """Nine noises at t = 1 on their way to nine images."""
    solution = model.draw(9, *model.sampler(quick), seed=seed, keep=10)
    caption = "Nine noises, denoised: t from 1 to 0 (Higham, Higham & Grindrod, figure 3)."
    save_strip([state.u for state in solution.path], [state.t for state in solution.path], path, caption)
    recognised = model.judge.recognised(solution.x)
    count = int(recognised.sum())
    return Findings(
        f"{count} of 9 are digits",
        count >= 8,
        {
            "digits": count,
            "confidence": model.judge.probabilities(solution.x).max(1).values.tolist(),
            "classes": model.judge.classes(solution.x).tolist(),
            "evaluations": solution.nfe,
        },
        "At least 8 of 9. Of nine real images 8 are in 98.7 % of cases, if 98 in 100 meet both conditions.",
    )


def higham_4(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """Many samples, sorted into classes by the judge."""
    count = 100 if quick else 500
    solution = model.draw(count, *model.sampler(quick), seed=seed)
    judge = model.judge
    classes, histogram = judge.classes(solution.x), judge.histogram(solution.x)
    blank, rows = torch.ones(1, *model.data.decoded_shape), []
    for own in range(len(histogram.counts)):
        x = solution.x[classes == own]
        rows += [x, blank.expand(-len(x) % COLUMNS, *blank.shape[1:])]
    caption = f"{count} samples, sorted by a classifier of real images (Higham, Higham & Grindrod, figure 4)."
    words = ", ".join(f"{own}: {number}" for own, number in enumerate(histogram.counts))
    save_samples(torch.cat(rows), path, f"{caption}\n{words}.", COLUMNS)
    digits = int(judge.recognised(solution.x).sum())
    least = count / 2
    return Findings(
        f"{count} samples in {sum(number > 0 for number in histogram.counts)} classes, "
        f"{min(histogram.counts)} to {max(histogram.counts)} in each; {digits} are digits; "
        f"chi-square against the data {histogram.chi_square:.1f}, p = {histogram.p_value:.2g}",
        min(histogram.counts) > 0 and digits > least,
        {
            "samples": count,
            "counts": histogram.counts,
            "held_out_counts": histogram.expected,
            "chi_square": histogram.chi_square,
            "degrees": histogram.degrees,
            "p_value": histogram.p_value,
            "digits": digits,
            "evaluations": solution.nfe,
        },
        f"Every class occurs: of ten classes of one size, one would be missing once in {0.1 / 0.9**count:.0e} cases.",
    )


def thesis_6_2(model: ImageModel, path: Path, *, quick: bool, seed: int) -> Findings:
    """Samples beside images of the data."""
    count = 9 if quick else 36
    solution = model.draw(count, *model.sampler(quick), seed=seed)
    real = model.data.decode(model.images(model.chosen(count, seed)))
    if quick:
        cells = [[(solution.x, "samples"), (real, "data")]]
        save_table(cells, [""], ["", ""], path, "Samples of the model (Sedykh's thesis, figure 6.2), and data.")
    else:
        save_samples(solution.x, path, "Samples of the model (Sedykh's thesis, figure 6.2).")
    sure = {name: model.judge.probabilities(x).max(1).values for name, x in (("samples", solution.x), ("data", real))}
    digits = int(model.judge.recognised(solution.x).sum())
    means = {name: float(value.mean()) for name, value in sure.items()}
    return Findings(
        f"{digits} of {count} are digits; mean confidence of the judge {means['samples']:.3f}, "
        f"{means['data']:.3f} of real images",
        digits > count / 2,
        {"digits": digits, "samples": count, "confidence": means, "evaluations": solution.nfe},
        "More than half are digits.",
    )


if __name__ == "__main__":
    main(__doc__, higham_1, higham_3, higham_4, thesis_6_2)
