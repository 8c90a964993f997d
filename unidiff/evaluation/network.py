"""The networks in whose features samples are compared: classifiers of real data, shipped or trained by the user."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import interpolate

from unidiff.arguments import plain_arguments
from unidiff.backbone.encoder import Encoder, UNetEncoder
from unidiff.classifier import NeuralClassifier
from unidiff.errors import DataError, ParameterError, require
from unidiff.files import digest, whole_file
from unidiff.noise import global_states_kept
from unidiff.process.flow import FlowMatching
from unidiff.process.level import scale_by
from unidiff.reading import read_tensors

__all__ = ["SHIPPED", "FeatureNetwork", "Features", "fine_details", "load_features", "save_features"]

# Name -> SHA-256 of its file. Each was trained by the recipe features_NAME, on the train split of real data only.
SHIPPED = {
    "digits": "sha256:a4af4c3b6ee1d60897c0011e1cea4d67506613db3e895c41b7d6f377ba329751",
    "mnist": "sha256:8b2da253888c5b33ffe3332d9f0bcd5e7d3216f0c553d237662f30f698e25365",
    "photos": "sha256:37c9ccf336e3f846e6fdf6dbe6f1cd108a969b5984c6cf05c4f0a0714b193a15",
}
_FOLDER = Path(__file__).parent / "networks"
_BATCH = 500
_SCALE = "feature_scale"  # a tensor of the file, beside the weights, if the features are not the network's alone


class Features(NamedTuple):
    """What a network says of samples.

    Attributes:
        values: Features, (N, F) float64 on the CPU.
        probabilities: Of each class, (N, K) float64; None if nothing is classified.
    """

    values: Tensor
    probabilities: Tensor | None = None


def fine_details(x: Tensor) -> Tensor:
    """Root mean squares of the finest details of images with even sides, (B, C, H, W): (B, 3 C).

    The details are the coefficients of Haar's three wavelets on blocks of 2 x 2 pixels: differences along one axis, the
    other, and both, each of them half of a sum of four values. They are orthonormal, so that noise of variance s^2 adds
    s^2 to every mean square.
    """
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    waves = torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2
    return waves.square().mean((2, 3)).sqrt()


@dataclass(frozen=True, eq=False)
class FeatureNetwork:
    """A classifier of clean samples, with the features that its network has for comparing them; see `Encoder`.

    Attributes:
        name: What it is called in results.
        digest: SHA-256 of its weights, as "sha256:...".
        classifier: The network, and the process whose smallest time it is evaluated at.
        scale: What the features are divided by, (F,), the last of which are then the `fine_details` of the images: a
            network that was trained on classes is blind to them. None for the network's features alone, as they are.
    """

    name: str
    digest: str
    classifier: NeuralClassifier
    scale: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the samples that it takes; None if unknown."""
        return self.classifier.shape

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise a ParameterError for samples of a shape that cannot be resized to the network's."""
        own = self.shape
        if own is None or tuple(shape) == own or (len(shape) == len(own) == 3 and shape[0] == own[0]):
            return
        problem = f"{self.name} takes samples of shape {own}, and these are {tuple(shape)}"
        raise ParameterError("features", f"{problem}. Train a classifier of such data, and name its run.")

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Features:
        """Of samples in pixels, (N, *shape); images of another size are resized (bilinear, antialiased)."""
        return self.of(x.split(_BATCH))

    @torch.no_grad()
    def of(self, batches: Iterable[Tensor]) -> Features:
        """Of samples that come in batches."""
        model = self.classifier
        network = cast(Encoder, model.backbone)
        process, weight = model.process, next(model.parameters())
        level = process.level(process.t_min)
        scale = 1.0 if process.basis.shape else 1 / (level.alpha**2 + level.sigma**2) ** 0.5
        values, probabilities = [], []
        for batch in batches:
            x = self._resized(batch.to(weight.device, weight.dtype))
            u = scale_by(scale, scale_by(level.alpha, process.basis.forward(x)))
            pixels = process.basis.inverse(u).to(weight.dtype)
            logits, found = network.with_features(pixels, model.noise_condition.batch(level, u).to(weight.dtype))
            values.append(found.flatten(1) if self.scale is None else torch.cat([found.flatten(1), fine_details(x)], 1))
            probabilities.append(logits.softmax(1))
        found = torch.cat(values).cpu().double()
        found = found if self.scale is None else found / self.scale
        return Features(found, torch.cat(probabilities).cpu().double())

    def _resized(self, x: Tensor) -> Tensor:
        self.check(tuple(x.shape[1:]))
        if self.shape is None or tuple(x.shape[1:]) == self.shape:
            return x
        return interpolate(x, self.shape[1:], mode="bilinear", align_corners=False, antialias=True)

    def facts(self) -> dict[str, Any]:
        """What results say of it."""
        return {"network": self.name, "digest": self.digest, "shape": self.shape and list(self.shape)}


@plain_arguments
def load_features(name: str, *, device: str = "cpu") -> FeatureNetwork:
    """A feature network that comes with unidiff; its file is verified by its digest.

    Args:
        name: "digits" (scikit-learn's 8x8), "mnist" or "photos" (32x32, in colour).
        device: Where it is loaded.

    Raises:
        ParameterError: If there is no such network.
        DataError: If its file is not the one that was shipped.
    """
    require(name in SHIPPED, "name", name, " or ".join(map(repr, SHIPPED)))
    return _load(name, device)


@cache
@global_states_kept()  # the network draws fresh weights before it gets those of the file
def _load(name: str, device: str) -> FeatureNetwork:
    path = _FOLDER / f"{name}.safetensors"
    if (found := digest(path)) != SHIPPED[name]:
        raise DataError(f"{path} has the digest {found}, and {SHIPPED[name]} was shipped. Install unidiff again.")
    weights = read_tensors(path)
    scale = weights.pop(_SCALE, None)
    with safe_open(path, "pt") as file:
        arguments = json.loads(file.metadata()["arguments"])
    network = UNetEncoder(**arguments)
    network.load_state_dict({key: value.float() for key, value in weights.items()})
    classifier = NeuralClassifier(FlowMatching(), network).to(device).eval().requires_grad_(False)
    return FeatureNetwork(f"unidiff's {name}", found, classifier, None if scale is None else scale.double())


def save_features(
    classifier: NeuralClassifier, arguments: dict[str, Any], path: Path, data: Iterable[Tensor] = ()
) -> str:
    """Write the network of a run of a recipe features_NAME as it is shipped, in float16; returns the digest.

    Args:
        classifier: The trained classifier.
        arguments: Of its `UNetEncoder`.
        path: The file.
        data: Batches of images, over which the features then have a standard deviation of 1, with the details of the
            images among them; none for the network's features alone.
    """
    from safetensors.torch import save_file

    weights = {key: value.half().contiguous() for key, value in classifier.backbone.state_dict().items()}
    if batches := [*data]:
        own = FeatureNetwork(path.stem, "", classifier).of(batches).values.std(0)
        weights[_SCALE] = torch.cat([own, torch.cat([fine_details(x) for x in batches]).std(0)]).float()
    with whole_file(path) as partial:
        save_file(weights, partial, {"arguments": json.dumps(arguments)})
    return digest(path)
