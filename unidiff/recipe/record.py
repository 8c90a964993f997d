"""What every recipe can do, whatever it is a recipe of: be written down again, whole."""

from __future__ import annotations

from typing import Any, ClassVar

from unidiff.recipe.save import to_plain
from unidiff.recipe.yaml_tree import write_yaml

__all__ = ["Record"]


class Record:
    """A frozen dataclass whose parameters are the top-level keys of a recipe file."""

    is_record: ClassVar[bool] = True  # also below an abstract base: a mapping without `type`

    def to_dict(self) -> dict[str, Any]:
        """Every parameter with its value, defaults included, as plain values."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    def to_yaml(self) -> str:
        """The resolved recipe as a file's text; reading that file gives an equal recipe."""
        return write_yaml(self.to_dict())
