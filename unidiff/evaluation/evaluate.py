"""How good samples are: all measures of several sets of them, beside the same measures of real data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unidiff._version import __version__
from unidiff.arguments import plain_arguments
from unidiff.data.base import Dataset
from unidiff.errors import ParameterError, require, require_whole
from unidiff.evaluation.bootstrap import mean_of
from unidiff.evaluation.class_measures import class_histogram, classifier_score
from unidiff.evaluation.distances import Estimate
from unidiff.evaluation.frechet import frechet_bias, frechet_distance
from unidiff.evaluation.image_measures import laplacian
from unidiff.evaluation.kernel import KernelTarget
from unidiff.evaluation.manifold import ManifoldTarget
from unidiff.evaluation.memorization import memorization, nearest
from unidiff.evaluation.network import FeatureNetwork, Features, load_features
from unidiff.evaluation.real import RealData, Rows, real_data
from unidiff.evaluation.scores import Evaluation, Scores
from unidiff.memory import LOWER_BATCH, enough_memory
from unidiff.text import rows_of

__all__ = ["Evaluator", "as_saved", "evaluate", "feature_network"]

_BATCH = 500
_FEWEST = 20  # samples
_MOST_VALUES = 1024  # of a sample that is its own features
_ENOUGH = 10  # samples for each feature, from which on the bias is a series worth its first term
_NEIGHBOURS, _BALL = 3, 5  # Kynkaanniemi et al. 2019, section 3; Naeem et al. 2020, section 5
_IMAGE = 3  # axes of one sample from which on its values are pixels in [-1, 1]


@plain_arguments
@enough_memory(LOWER_BATCH)
def evaluate(
    samples: Tensor | Mapping[str, Tensor],
    data: Dataset | RealData,
    *,
    features: str | FeatureNetwork | Callable[[Tensor], Tensor] | None = None,
    split: str = "test",
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | bool | None = None,
) -> Evaluation:
    """Measure sets of samples against real data, and real data beside them: the floor that perfect samples reach.

    All arithmetic is in float64. Samples of images are clamped to [-1, 1] and rounded to 8 bits first, as if saved.
    See docs/evaluation.md for each measure; numbers of different features, counts or references do not compare.

    Args:
        samples: (N, *shape) with N at least 20, or several such sets by name.
        data: What they are samples of; its reference, floor and training data are chosen by `real_data`.
        features: A shipped network, "digits", "mnist" or "photos"; "pixels" for the values themselves, at most 1024 of
            them; a classifier; a function from samples to features (N, F). None for the shipped network of the data, or
            the values of data that are not images.
        split: Of the reference, "test" or "train".
        seed: Of the choice of real data.
        device: Of the features' network.
        progress: Called with (sets done, sets in all).

    Raises:
        ParameterError: If an argument is out of range, samples have another shape than the data, or there are no
            features for these data.
    """
    sets = {"samples": samples} if isinstance(samples, Tensor) else dict(samples)
    require(len(sets) > 0, "samples", samples, "at least one set of samples")
    for name, x in sets.items():
        require(len(x) >= _FEWEST, f"samples[{name!r}]", tuple(x.shape), f"at least {_FEWEST} samples (N, *shape)")
    require_whole("seed", seed, 0, 2**40)
    if isinstance(data, RealData):
        real = data
    else:
        feature_network(features, data.images.features, data.decoded_shape, device)  # an error before any data are read
        real = real_data(data, max(map(len, sets.values())), split=split, seed=seed)
    for name, x in sets.items():
        require(
            tuple(x.shape[1:]) == real.shape, f"samples[{name!r}]", tuple(x.shape), f"of shape {rows_of(real.shape)}"
        )
    evaluator, rows = Evaluator(real, feature_network(features, real.features, real.shape, device)), []
    for done, (name, x) in enumerate(sets.items()):
        if callable(progress):
            progress(done, len(sets))
        rows.append(evaluator.scores(name, x))
    if callable(progress):
        progress(len(sets), len(sets))
    return evaluator.evaluation(rows)


class _Network(NamedTuple):
    """Features, however they come: a function of batches, and what results say of them."""

    of: Callable[[Iterable[Tensor]], Features]
    facts: dict[str, Any]


def feature_network(features: Any, shipped: str, shape: tuple[int, ...], device: str) -> _Network:
    """The features of `evaluate`; a ParameterError if there are none for samples of this shape.

    Args:
        features: As for `evaluate`.
        shipped: Name of the shipped network of the data; empty if there is none.
        shape: Shape of one sample.
        device: Of a shipped network.
    """
    size = math.prod(shape)
    if features is None:
        features = shipped or ("pixels" if len(shape) < _IMAGE else None)
    if features is None:
        problem = f"there is no shipped network for samples of shape {tuple(shape)}"
        pixels = ", or 'pixels'" if size <= _MOST_VALUES else ""
        raise ParameterError("features", f"{problem}. Name the run of a classifier of such data{pixels}.")
    if features == "pixels":
        allowed = f"a classifier's run for samples of more than {_MOST_VALUES} values (these have {size})"
        require(size <= _MOST_VALUES, "features", features, allowed)
        return _function(lambda x: x.flatten(1), {"network": "pixels", "digest": None, "shape": list(shape)})
    network = load_features(features, device=device) if isinstance(features, str) else features
    if isinstance(network, FeatureNetwork):
        network.check(shape)
        return _Network(network.of, {**network.facts(), "resized": tuple(shape) != network.shape})
    name = getattr(network, "__qualname__", type(network).__qualname__)
    return _function(network, {"network": name, "digest": None, "shape": list(shape)})


def _function(function: Callable[[Tensor], Tensor], facts: dict[str, Any]) -> _Network:
    def of(batches: Iterable[Tensor]) -> Features:
        return Features(torch.cat([torch.as_tensor(function(x)).detach().cpu().double() for x in batches]))

    return _Network(of, facts)


class Evaluator:
    """Real data and features, with all that depends on the reference computed once; see `evaluate`.

    Args:
        real: The real data.
        network: Features of samples, from `feature_network`.
    """

    def __init__(self, real: RealData, network: _Network) -> None:
        self._real, self._network = real, network
        self._reference = network.of(map(as_saved, real.reference))
        values = self._reference.values
        self._kernel = KernelTarget(values)
        # As many data as samples, evenly from all: balls that the data fill more densely are smaller, and miss samples.
        count = min(len(values), len(real.floor))
        self._balls = values[torch.arange(count) * len(values) // count]
        self._manifold = ManifoldTarget(self._balls, k=_NEIGHBOURS, balls=_BALL)
        held_out = None if real.train is None else real.held_out
        self._held_out = None if held_out is None else self._nearest(_stacked(held_out[0]))

    def _nearest(self, x: Tensor) -> Any:
        assert self._real.train is not None
        return nearest(x, map(as_saved, self._real.train.all_batches()))

    def scores(self, name: str, x: Tensor, more: Mapping[str, Estimate] | None = None, **kept: Any) -> Scores:
        """The measures of samples, (N, *shape), and `more` of them; `cost` and `facts` are kept as they are.

        Samples that are not finite are not measured.
        """
        x = x.detach().cpu()
        if not bool(x.isfinite().all()):
            return Scores(name, len(x), {}, **kept)
        x = as_saved(x)
        copies = {} if self._held_out is None else {"memorization": memorization(self._nearest(x), self._held_out)}
        return self._measured(name, x.split(_BATCH), copies | dict(more or {}), **kept)

    def _measured(self, name: str, batches: Iterable[Tensor], more: Mapping[str, Estimate], **kept: Any) -> Scores:
        sharp: list[Tensor] = []

        def looked_at() -> Iterable[Tensor]:
            for x in batches:
                if x.ndim > 2:
                    sharp.append(laplacian(x))
                yield x

        found, reference = self._network.of(looked_at()), self._reference
        measures = {"frechet": frechet_distance(found.values, reference.values)}
        if min(len(found.values), len(reference.values)) >= _ENOUGH * found.values.shape[1]:
            measures["frechet_corrected"] = frechet_distance(found.values, reference.values, corrected=True)
        measures["kernel"] = self._kernel.distance(found.values)
        pairs = self._manifold.precision_recall(found.values), self._manifold.density_coverage(found.values)
        measures |= {field: value for pair in pairs for field, value in pair._asdict().items()}
        histogram = None
        if found.probabilities is not None and reference.probabilities is not None:
            measures["classifier_score"] = classifier_score(found.probabilities)
            measures["confidence"] = mean_of(found.probabilities.max(1).values)
            histogram = class_histogram(found.probabilities, reference.probabilities)
        measures |= more
        if sharp:
            measures["sharpness"] = mean_of(torch.cat(sharp))
        return Scores(name, len(found.values), measures, histogram, **kept)

    def floor(self) -> Scores:
        """The measures of real data; their distance from the training data is that of other held-out data."""
        real, copies = self._real, {}
        if self._held_out is not None and real.held_out is not None:
            copies["memorization"] = memorization(self._nearest(_stacked(real.held_out[1])), self._held_out)
        return self._measured("real data", map(as_saved, real.floor), copies)

    def evaluation(self, rows: Iterable[Scores], notes: Iterable[str] = (), **facts: Any) -> Evaluation:
        """The rows with the floor, and all that the numbers depend on."""
        rows, values = tuple(rows), self._reference.values
        size = values.shape[1]
        broken = [
            f"{row.name} has samples that are not finite, so it is not measured." for row in rows if not row.measures
        ]
        counts = sorted({row.count for row in rows})
        bias = {str(count): frechet_bias(values.T.cov().reshape(size, size), count, len(values)) for count in counts}
        shared = {
            **self._real.facts(),
            "features": {**self._network.facts, "size": size},
            "frechet_bias": bias,
            "neighbours": {"precision_recall": _NEIGHBOURS, "density_coverage": _BALL, "reference": len(self._balls)},
            "samples_as": "clamped to [-1, 1], 8 bits" if len(self._real.shape) >= _IMAGE else "unchanged",
            "dtype": "float64",
            "unidiff": __version__,
        }
        return Evaluation(rows, self.floor(), shared | facts, (*notes, *broken))


def as_saved(x: Tensor) -> Tensor:
    """Images as an 8-bit file would hold them, (N, *shape) float32; other samples as they are."""
    if x.ndim <= _IMAGE:
        return x.float()
    return x.float().clamp(-1, 1).add(1).mul(127.5).round().div(127.5).sub(1)


def _stacked(rows: Rows) -> Tensor:
    return torch.cat([*map(as_saved, rows)])
