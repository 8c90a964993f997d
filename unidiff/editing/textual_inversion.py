"""Textual inversion: a new word of a trained model, whose vector is all that is learned."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unidiff.arguments import plain_arguments
from unidiff.denoiser import NeuralDenoiser
from unidiff.errors import ParameterError

__all__ = ["add_word"]


@plain_arguments
def add_word(denoiser: NeuralDenoiser, word: str, like: str) -> NeuralDenoiser:
    """The same model with another word, to be learned from images (textual inversion, Gal et al. 2023, eq. 2).

    The word has a vector of its own beside those of the others, which begins as that of a similar word. It is the only
    weight of the new model that is trained, by `ud.train` with captions that use the word: the model keeps what it
    knows, and the word can be used together with all others. The given model stays as it is.

    Args:
        denoiser: A model with a condition of words, `Captions` in its recipe.
        word: The new word, lowercase and without spaces; it is the last one of the new model's `word_list`.
        like: The word whose vector it begins with.

    Returns:
        A model whose condition has one word more. With other words its predictions are those of the given one, bit for
        bit.

    Raises:
        ParameterError: If the model has no words, knows this one or not the other, or its network has no one table of
            vectors of the words.
    """
    known: list[Any] = [own for own in denoiser.conditions or () if hasattr(own, "word_list")]
    if len(known) != 1:
        raise ParameterError("denoiser", f"must be a model with one condition of words, got {len(known)} of them")
    (condition,) = known
    if len(word.split()) != 1 or word != word.lower():
        raise ParameterError("word", f"must be one lowercase word, got {word!r}")
    if word in condition.word_list:
        raise ParameterError("word", f"{word!r} is one of the model's words already. Choose another one.")
    if like not in condition.word_list:
        raise ParameterError("like", f"{like!r} is not one of the model's words, {', '.join(condition.word_list)}")
    model: Any = copy.deepcopy(denoiser).requires_grad_(False)
    network: Any = model.backbone
    name = _table_of(network, condition)
    parent, _, attribute = name.rpartition(".")
    owner = network.get_submodule(parent)
    setattr(owner, attribute, _Longer(getattr(owner, attribute), condition.word_list.index(like)))
    longer = replace(condition, word_list=(*condition.word_list, word))
    for owner in (model, network):
        owner.conditions = tuple(longer if own.name == condition.name else own for own in owner.conditions)
    twin: NeuralDenoiser = model
    return twin


def _table_of(network: nn.Module, condition: Any) -> str:
    """The name of the layer with the vectors of the words."""
    layers = dict(network.named_modules())
    own = [
        f"{name}.{attribute}.token"
        for name, layer in layers.items()
        if (attribute := getattr(layer, "attended", {}).get(condition.name)) is not None
    ]
    count = len(condition.word_list)
    # A network of another package has no such layers; its table is known by its length.
    tables = own or [name for name, layer in layers.items() if getattr(layer, "num_embeddings", None) == count]
    if len(tables) != 1:
        raise ParameterError("denoiser", f"must have one table of vectors of its {count} words, got {len(tables)}")
    return tables[0]


class _Longer(nn.Module):
    """A table of vectors with one row more, which begins as one of the others."""

    def __init__(self, table: Any, like: int) -> None:
        super().__init__()
        self.table = table
        self.new = nn.Parameter(table.weight[like : like + 1].detach().clone())

    @property
    def num_embeddings(self) -> int:
        """Rows, as of an `nn.Embedding`."""
        return len(self.table.weight) + 1

    @property
    def weight(self) -> Tensor:
        """All rows."""
        return torch.cat([self.table.weight, self.new])

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight)
