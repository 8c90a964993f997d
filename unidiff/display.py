"""How models and results show themselves: a short repr, a picture by `.plot()`, and both in a notebook."""

from __future__ import annotations

import base64
import importlib
import io
from html import escape
from typing import Any

__all__ = ["Displayed", "Pictured"]

# By name: what draws is above what is drawn, and matplotlib takes a second to import.
_DRAWING = "unidiff.plot.show"
_LONG = 200  # characters of a part, such as captions of many words


class Displayed:
    """A base of what has a short repr and a picture, which `unidiff.plot.show` draws."""

    def in_short(self) -> dict[str, Any]:
        """What to say of it, names and values: of a model its parts and the number of its weights."""
        parts = {name: getattr(self, name, None) for name in ("process", "parameterization", "shape", "conditions")}
        said = {
            name: part if len(str(part)) <= _LONG else f"{str(part)[:_LONG]}..." for name, part in parts.items() if part
        }
        if count := sum(weight.numel() for weight in getattr(self, "parameters", list)()):
            said["network"] = f"{type(getattr(self, 'backbone', self)).__name__} of {count:,} weights"
        return said

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value}" for name, value in self.in_short().items())
        return f"{type(self).__name__}({said})"

    def plot(self) -> Any:
        """A picture of it, a matplotlib Figure."""
        return importlib.import_module(_DRAWING).figure(self)


class Pictured(Displayed):
    """A base of results that a notebook shows with their picture; a model has none until it is asked for."""

    def _repr_png_(self) -> bytes | None:
        file = io.BytesIO()
        self.plot().savefig(file, format="png")
        return file.getvalue()

    def _repr_html_(self) -> str:
        """A table of what is said, and the picture: nothing outside the page is needed."""
        picture = self._repr_png_()
        name, said = escape(type(self).__name__), self.in_short().items()
        rows = "".join(f"<tr><th>{escape(title)}</th><td>{escape(str(value))}</td></tr>" for title, value in said)
        code = base64.b64encode(picture or b"").decode()
        image = f'<img alt="{name}" src="data:image/png;base64,{code}">' if picture else ""
        return f"<table><caption>{name}</caption>{rows}</table>{image}"
