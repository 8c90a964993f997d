"""Prompt-to-prompt: a sample of another caption that keeps where the sample of the first one attended to what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unidiff.arguments import plain_arguments
from unidiff.backbone.shared_attention import SharingNetwork
from unidiff.batching import Progress
from unidiff.condition.base import NULL
from unidiff.condition.check import check_conditions
from unidiff.denoiser import Denoiser
from unidiff.errors import ParameterError, require
from unidiff.grid import Grid
from unidiff.noise import seeds_of
from unidiff.solver.base import Solver
from unidiff.solver.sample import DEFAULT_SOLVER, sample

__all__ = ["PromptEdit", "prompt_to_prompt"]


@dataclass(frozen=True)
class PromptEdit:
    """Samples of two captions from the same noise.

    Attributes:
        source: Samples of the first caption, (B, *shape).
        edited: Samples of the second caption, with attention of the first, (B, *shape).
        nfe: Evaluations of the denoiser, each of both samples.
    """

    source: Tensor
    edited: Tensor
    nfe: int


@plain_arguments
def prompt_to_prompt(
    denoiser: Denoiser,
    source: str | Tensor | Sequence[str],
    edited: str | Tensor | Sequence[str],
    solver: Solver | str = DEFAULT_SOLVER,
    grid: Grid | str | int | None = None,
    seeds: int | Sequence[int] = 1,
    *,
    until: float = 0.8,
    self_until: float = 1.0,
    emphasis: Mapping[str | int, float] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: Progress | bool | None = None,
    **cond: Tensor,
) -> PromptEdit:
    """Samples of a caption, and of an edited caption that keep their composition (Hertz et al. 2022, algorithm 1).

    Both are drawn together from the same noise. While t > until, the edited sample attends to its words with the
    weights softmax(Q K^T / sqrt(d)) of the other one, and only the values are its own. With as many words each word
    takes the weights of the word in its place (their "word swap"); else words in both captions do, and new ones keep
    their own weights ("adding a new phrase"). Weights times a factor are their "attention re-weighting". At times near
    1 the composition is laid down, near 0 the details.

    Args:
        denoiser: A model that attends to one caption and nothing else; guided ones too.
        source: The caption of the first samples: words, or the numbers of tokens, (length,). Or one for each seed: a
            list of words, or tokens (B, length), padded with -1.
        edited: The caption of the edited ones, likewise.
        solver: The method; see `sample`.
        grid: The times; see `sample`.
        seeds: One seed per pair, or their number.
        until: Weights of cross-attention are shared at times above this, from 0 to 1; 1 shares nothing.
        self_until: Weights of the self-attention of a U-Net, likewise.
        emphasis: Factors of the weights of some words of the edited caption: by the word, or by its place from 0.
        device: Where the states live; the denoiser must be there too.
        dtype: Floating type of the states.
        progress: Called with (steps done, steps in all) after each step; True draws a bar.
        **cond: Other conditions, each (B, ...), the same for both.

    Raises:
        ParameterError: If the model does not attend to one caption, or a word or a time is wrong.
    """
    for name, time in (("until", until), ("self_until", self_until)):
        require(0 <= time <= 1, name, time, "a time from 0 to 1")
    condition = _caption_of(denoiser)
    seeds = [*seeds_of(seeds)]
    pairs = len(seeds)
    first = _captions(condition, "source", source, pairs)
    second = _captions(condition, "edited", edited, pairs)
    if condition.name in cond:
        raise ParameterError(condition.name, "pass `source` and `edited` instead")
    places = _places(first, second, condition.length)
    factors = _factors(condition, second, emphasis or {})

    def wrapped(network: nn.Module) -> nn.Module:
        return SharingNetwork(network, pairs, until, self_until, places, factors)

    captions = pad_sequence([*first, *second], batch_first=True, padding_value=NULL)
    cond = check_conditions({**cond, condition.name: captions[:pairs]}, denoiser, pairs, "cpu")
    both = {name: torch.cat([value, value]) for name, value in cond.items()} | {condition.name: captions}
    options: dict[str, Any] = {**both, "seeds": seeds * 2, "device": device, "dtype": dtype, "progress": progress}
    drawn = sample(denoiser.with_networks(wrapped), solver, grid, **options)
    return PromptEdit(drawn.x[:pairs], drawn.x[pairs:], drawn.nfe)


def _caption_of(denoiser: Denoiser) -> Any:
    """The condition that is a caption; a ParameterError unless it is the only one that the model attends to."""
    attended = [condition for condition in denoiser.conditions or () if condition.attended(2) is not None]
    if len(attended) == 1 and hasattr(attended[0], "vocabulary"):
        return attended[0]
    names = " and ".join(condition.name for condition in attended) or "nothing"
    raise ParameterError("denoiser", f"must be a model that attends to one caption and nothing else, got {names}")


def _captions(condition: Any, name: str, given: str | Tensor | Sequence[str], count: int) -> list[Tensor]:
    """The tokens of each of `count` captions, (number of tokens,)."""
    one = isinstance(given, str) or (isinstance(given, Tensor) and given.ndim < 2)
    values = [given] * count if one else [*given]
    if len(values) != count:
        raise ParameterError(name, f"must be one caption, or one for each of {count} seeds, got {len(values)}")
    captions = []
    for value in values:
        tokens = _parsed(condition, name, value.tolist() if isinstance(value, Tensor) else value)
        captions.append(tokens[tokens != NULL])
    return captions


def _parsed(condition: Any, name: str, value: Any) -> Tensor:
    """The tokens of a caption or of a word, padded; errors are those of the argument `name`."""
    try:
        tokens: Tensor = condition.check(condition.parse(value)[None], 1)[0]
    except ParameterError as error:
        raise ParameterError(name, error.problem) from error
    except (ValueError, TypeError):
        raise ParameterError(name, f"must be numbers of tokens, (length,), got {value!r}") from None
    return tokens


def _places(first: list[Tensor], second: list[Tensor], length: int) -> Tensor | None:
    """From tokens of second contexts to those of first ones, (B, 1 + length), or None; see `SharingNetwork`."""
    if all(len(one) == len(other) for one, other in zip(first, second)):
        return None
    places = torch.full((len(first), 1 + length), -1)
    for row, one, other in zip(places, first, second):
        if len(one) == len(other):
            row.copy_(torch.arange(1 + length))
            continue
        row[0] = 0  # what stands before each caption
        for block in SequenceMatcher(None, one.tolist(), other.tolist(), autojunk=False).get_matching_blocks():
            row[1 + block.b : 1 + block.b + block.size] = torch.arange(1 + block.a, 1 + block.a + block.size)
    return places


def _factors(condition: Any, captions: list[Tensor], emphasis: Mapping[str | int, float]) -> Tensor | None:
    """The factors of the weights of the contexts of captions, (B, 1 + length); None for 1."""
    factors = torch.ones(len(captions), 1 + condition.length, dtype=torch.float64)
    for word, factor in emphasis.items():
        real = isinstance(factor, (int, float)) and abs(factor) < float("inf")
        require(real, f"emphasis of {word!r}", factor, "a finite number")
        if isinstance(word, str) and len(word.split()) != 1:
            raise ParameterError("emphasis", f"must name one word, got {word!r}")
        said = _parsed(condition, "emphasis", word)[0] if isinstance(word, str) else None
        for row, tokens in zip(factors, captions):
            chosen: Any = torch.arange(len(tokens)) == word if said is None else tokens == said
            if not chosen.any():
                raise ParameterError("emphasis", f"{word!r} is no word of the edited caption, nor the place of one")
            row[1 : 1 + len(tokens)][chosen] = factor
    return factors if emphasis else None
