"""How much like real digits are generated ones? A classifier that has seen only real MNIST is asked.

A small convolutional network is trained on the 60,000 training images of MNIST (about two minutes on one core; only
once, for the weights are kept), and its accuracy on the 10,000 test images is printed. Then, with --samples, it
looks at generated images and the script prints, beside the same figures for 1,000 real test images:

- mean confidence: the mean over images of the largest class probability,
- sure: the share of images whose largest probability is above 0.9,
- the histogram of the classes found, which shows digits that are missing.

For images that are digits, these figures say how clearly, and whether all ten appear. They do not say whether the
images are varied within a class, or copies of training images. Nor do they recognise what is no digit: the network has
never been shown anything else, and calls Gaussian noise an 8 with a mean confidence of 0.9999. So read the histogram
beside the confidence, and look at the images.

    python benchmarks/mnist_classifier.py --samples samples.npy --json result.json

The samples are float32 (N, 1, 28, 28) in [-1, 1]; other sizes, such as 32x32, are resized to 28x28 (bilinear,
antialiased). MNIST is found under UNIDIFF_DATA, or downloaded. Accuracy depends a little on the machine's arithmetic:
bfloat16 is used for training where the processor has it, float32 for every figure that is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.data import TensorSource
from unidiff.data.mnist import MNIST
from unidiff.errors import DataError, UnidiffError

EPOCHS = 3
BATCH = 128
RATE = 4e-3
SHIFT = 2  # pixels, in each direction


def network() -> nn.Sequential:
    """(B, 1, 28, 28) in [-1, 1] -> (B, 10) logits."""

    def block(inside: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]

    layers = [*block(1, 16), *block(16, 16), nn.MaxPool2d(2), *block(16, 48), nn.MaxPool2d(2), *block(48, 96)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(384, 10))


def shifted(images: Tensor, random: torch.Generator) -> Tensor:
    """Move each image by whole pixels, up to SHIFT in each direction; black comes in at the edges."""
    count, _, height, width = images.shape
    padded = F.pad(images, (SHIFT,) * 4, value=-1.0)
    corner = torch.randint(2 * SHIFT + 1, (2, count, 1, 1), generator=random)
    rows, columns = corner[0] + torch.arange(height).view(1, -1, 1), corner[1] + torch.arange(width).view(1, 1, -1)
    return padded[torch.arange(count).view(-1, 1, 1), 0, rows, columns].unsqueeze(1)


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16; elsewhere it is emulated, and slower than float32."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def train(source: TensorSource, seed: int) -> nn.Sequential:
    """Train on real training images with a one-cycle learning rate."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    total = EPOCHS * (len(source) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=total, pct_start=0.2)
    half = has_bfloat16()
    started = spoken = time.monotonic()
    assert source.labels is not None
    for epoch in range(EPOCHS):
        order = torch.randperm(len(source), generator=random)
        for start in range(0, len(source) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            images = shifted(source.batch(chosen), random).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), source.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if time.monotonic() - spoken > 10:
                spoken = time.monotonic()
                say(f"epoch {epoch + 1} of {EPOCHS}, image {start}, loss {loss.item():.3f}, {spoken - started:.0f} s")
    say(f"trained in {time.monotonic() - started:.0f} s ({'bfloat16' if half else 'float32'})")
    return model


@torch.no_grad()
def probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """(N, 1, 28, 28) in [-1, 1] -> (N, 10), in float32."""
    model.eval()
    return torch.cat([model(part).softmax(dim=1) for part in images.split(500)])


def figures(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """What the classifier thinks of these images."""
    confidence, classes = probabilities(model, images).max(dim=1)
    return {
        "count": len(images),
        "mean_confidence": round(confidence.mean().item(), 4),
        "sure": round((confidence > 0.9).float().mean().item(), 4),
        "histogram": classes.bincount(minlength=10).tolist(),
    }


def samples(path: Path) -> Tensor:
    """Read generated images, (N, 1, H, W) or (N, H, W) in [-1, 1], and bring them to 28x28."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"--samples: {path} cannot be read as a .npy file ({error}).") from error
    values = values[:, None] if values.ndim == 3 else values
    if values.ndim != 4 or values.shape[1] != 1 or values.dtype.kind != "f" or not len(values):
        raise DataError(
            f"--samples: {path} holds {values.dtype} values of shape {values.shape}; (N, 1, H, W) float32 is needed."
        )
    images = torch.from_numpy(values.astype(np.float32))
    if not images.isfinite().all():
        raise DataError(f"--samples: {path} holds NaN or infinity.")
    outside = (images.abs() > 1).float().mean().item()
    if outside > 0:
        say(f"{outside:.1%} of the sample pixels lie outside [-1, 1] and are clamped")
    images = images.clamp(-1, 1)
    if images.shape[-2:] == (28, 28):
        return images
    return F.interpolate(images, size=(28, 28), mode="bilinear", align_corners=False, antialias=True)


def classifier(cache: Path, seed: int) -> nn.Module:
    """The trained network, from the cache if it is there, else trained and put there."""
    model = network()
    if cache.exists():
        try:
            model.load_state_dict(load_file(cache))
        except (SafetensorError, RuntimeError) as error:
            raise DataError(f"--cache: {cache} does not hold this network's weights ({error}). Delete it.") from error
        say(f"weights read from {cache}")
        return model
    model = train(MNIST().open("train"), seed)
    cache.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cache.with_name(f"{cache.name}.{os.getpid()}")  # renamed when complete: no half file is left behind
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, unfinished)
    os.replace(unfinished, cache)
    say(f"weights written to {cache}")
    return model


def say(text: str) -> None:
    """Progress goes to stderr, so that stdout holds results only."""
    print(text, file=sys.stderr, flush=True)


def default_cache() -> Path:
    import pooch

    return Path(pooch.os_cache("unidiff")) / "mnist_classifier.safetensors"


def main() -> None:
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=Path, metavar="FILE.npy", help="generated images to look at")
    parser.add_argument("--cache", type=Path, default=None, help=f"where the weights are kept ({default_cache()})")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write the figures here, too")
    parser.add_argument("--seed", type=int, default=0, help="of the classifier's training (0)")
    arguments = parser.parse_args()

    try:
        generated = None if arguments.samples is None else samples(arguments.samples)  # before minutes of training
        test = MNIST().open("test")
        model = classifier(arguments.cache or default_cache(), arguments.seed)
    except UnidiffError as error:
        say(f"error: {error}")
        sys.exit(2)
    real = test.batch(torch.arange(len(test)))
    assert test.labels is not None
    accuracy = (probabilities(model, real).argmax(dim=1) == test.labels).double().mean().item()
    print(f"accuracy on {len(test)} real test images: {accuracy:.4f}")
    result: dict[str, Any] = {"test_accuracy": accuracy, "data": test.checksum}
    # The first and the second half of the test set were written by different people: draw from all of it.
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:1000]
    rows = {"real": figures(model, real[chosen])}
    if generated is not None:
        rows = {"samples": figures(model, generated), **rows}
    print(
        f"{'':9}{'count':>6}  {'mean confidence':>15}  {'sure (> 0.9)':>12}  {'  '.join(f'{d:>4}' for d in range(10))}"
    )
    for name, row in rows.items():
        bars = "  ".join(f"{n:>4}" for n in row["histogram"])
        print(f"{name:9}{row['count']:>6}  {row['mean_confidence']:>15.4f}  {row['sure']:>12.4f}  {bars}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({**result, **rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
