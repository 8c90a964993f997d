"""The interface of every condition."""

from __future__ import annotations

import keyword
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unidiff.arguments import PlainArguments
from unidiff.errors import ParameterError, require
from unidiff.tensors import described

__all__ = ["NULL", "Condition", "Named", "named", "require_distinct"]

NULL = -1
# Keywords of `sample`, `compare` and the rest, and arguments of the models' methods: no condition can have such a name.
_TAKEN = """
self denoiser model models solver solvers grid shape seeds dtype device batch keep progress u x x0 c t s level levels
noise uniform nfes reference_data fresh_data features followed tolerance most_steps trace rtol atol draws grad strength
latent known amount variance
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Condition(PlainArguments, ABC):
    """A named input of a model beside the noisy state: a tensor with one row per sample.

    A condition enters the U-Net and the DiT in one way, if at all: as a vector that is added to the noise embedding
    (`added`), as channels joined to the noisy image (`joined`), or as tokens that every pixel attends to (`attended`).

    Args:
        name: Its keyword, as in `ud.sample(model, NAME=...)`.
    """

    name: str = field(kw_only=True)

    declared: ClassVar[bool] = True  # by who built the network, not found in a signature
    guides: ClassVar[bool] = True  # whether classifier-free guidance leads away from its null unless told otherwise
    file_shape: ClassVar[tuple[int, ...] | None] = None  # of an image whose file may stand for a value; None: no file

    def __post_init__(self) -> None:
        fits = isinstance(self.name, str) and self.name.isidentifier() and not keyword.iskeyword(self.name)
        require(fits and not self.name.startswith("_"), "name", self.name, "a name that Python can use as a keyword")
        if self.name in _TAKEN:
            raise ParameterError("name", f"{self.name!r} is an argument of every model; choose another name")

    @property
    def words(self) -> str:
        """What its values are, for messages."""
        return "one row for each sample"

    @property
    def required(self) -> bool:
        """Whether a model must be given it; otherwise a missing condition is the null one."""
        return False

    @abstractmethod
    def null(self, count: int, like: Tensor) -> Tensor:
        """The null condition, "nothing is said", from which classifier-free guidance extrapolates.

        Args:
            count: Rows, B.
            like: A tensor on the same device; where the shape of a value is not fixed, a value of this condition.
        """

    @abstractmethod
    def check(self, value: Tensor, count: int) -> Tensor:
        """The values as the model takes them, (count, ...); on the host, once for a run.

        Raises:
            ParameterError: If they are not `count` values of this condition.
        """

    def parse(self, value: Any) -> Tensor:
        """One value of this condition, without the batch axis, of what a recipe or an option has: numbers, or words.

        Raises:
            ValueError: If it is no number, and no nested list of numbers (nor words, of a condition that has some).
        """
        if isinstance(value, str):
            raise ValueError(f"{value!r} is not a number")
        parsed: Tensor = torch.tensor(value)
        if self.null(1, parsed[None]).is_floating_point():
            return parsed.float()
        return parsed if parsed.numel() else parsed.long()  # an empty list, which torch takes for floats

    def parse_negative(self, value: Any) -> Tensor:
        """As `parse`, of a value that guidance leads away from; some models pass it on in another way."""
        return self.parse(value)

    def several(self, value: Any) -> list[Any]:
        """The values for samples in turn, each to be parsed, of a list of more axes than a value has; or the one value.

        A value of unknown axes is one. Text has one axis, that of its words.
        """
        axes = _axes(value)
        one = self.null(1, torch.zeros([1] * (1 + axes))).ndim - 1
        return list(value) if isinstance(value, (list, tuple)) and value and axes > one else [value]

    def check_in_loop(self, value: Tensor, count: int) -> None:
        """What of `check` needs no wait for a device, for a network that is called directly: all of it on the CPU."""
        if value.device.type == "cpu" and not torch.compiler.is_compiling():
            self.check(value, count)

    def padded(self, value: Tensor) -> Tensor:
        """The values at their full length, where they may be shorter; as they are, by default."""
        return value

    def added(self, width: int) -> nn.Module | None:
        """A layer from values to vectors (B, width) that are added to the noise embedding; None by default."""
        return None

    @property
    def joined(self) -> int:
        """Channels that are joined to the noisy image; 0 by default."""
        return 0

    def attended(self, width: int) -> nn.Module | None:
        """A layer from values to tokens (B, L, width) and which of them exist, (B, L) bool; None by default."""
        return None


@dataclass(frozen=True)
class Named(Condition):
    """A condition of which nothing but the name is known, as of a network that names it in its signature.

    Its null is 0, or -1 for integers.

    Args:
        name: Its keyword.
    """

    name: str = "condition"

    declared: ClassVar[bool] = False

    def null(self, count: int, like: Tensor) -> Tensor:
        """Zeros, or -1 for integers, of the shape and dtype of `like`."""
        fill = 0 if like.is_floating_point() or like.is_complex() or like.dtype == torch.bool else NULL
        return torch.full_like(like[:1], fill).expand(count, *like.shape[1:])

    def check(self, value: Tensor, count: int) -> Tensor:
        """Any tensor of `count` rows."""
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != count:
            got = described(value)
            raise ParameterError(self.name, f"must be a tensor with one row for each of {count} samples, got {got}")
        return value


def _axes(value: Any) -> int:
    """Axes of nested lists, those of the first item of each; 1 of text."""
    axes = 0
    while isinstance(value, (list, tuple)) and value:
        axes, value = axes + 1, value[0]
    return axes + isinstance(value, (str, list, tuple))


def named(conditions: Iterable[Condition] | None, name: str) -> Condition | None:
    """The condition of this name; None if there is none."""
    return next((condition for condition in conditions or () if condition.name == name), None)


def require_distinct(conditions: Sequence[Condition], parameter: str = "conditions") -> None:
    """Raise a ParameterError unless these are conditions, all of different names."""
    for condition in conditions:
        fits = all(hasattr(condition, part) for part in ("name", "null", "check"))
        require(fits, parameter, condition, "conditions, such as Label(10)")
    names = [condition.name for condition in conditions]
    require(len(set(names)) == len(names), parameter, ", ".join(names), "conditions of different names")
