"""Old names that this release still accepts: public names, and parameters of constructors."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from unidiff.errors import require

__all__ = ["RENAMED", "STRINGS", "class_of_string", "renamed", "renamed_attribute", "renamed_parameters"]

T = TypeVar("T")

# Old public name -> new public name.
RENAMED: dict[str, str] = {
    "Codec": "Autoencoder",
    "Data": "Dataset",
    "Heat": "InverseHeat",
    "RandomHoles": "RandomMasks",
    "Sigma2": "EpsilonWeighting",
    "Simple": "UniformWeighting",
    "Start": "InitialCondition",
    "Trace": "DivergenceEstimator",
    "Recipe": "Generation",
    "Classifying": "ClassifierTask",
    "Coding": "AutoencoderTask",
    "Comparing": "SolverComparison",
    "Evolving": "HeatFlow",
    "load_classifying": "load_recipe",
    "load_coding": "load_recipe",
    "load_evolving": "load_recipe",
}
# Base class -> old string -> the class below it that the string stood for.
STRINGS: dict[str, dict[str, str]] = {
    "Discretization": {"spectral": "Spectral", "fd": "FiniteDifferences"},
    "NoiseSpectrum": {"white": "WhiteNoise", "gradient": "GaussianFreeField", "data": "DataSpectrum"},
}


def renamed(**parameters: str) -> Callable[[type[T]], type[T]]:
    """Decorate a class so that it accepts old names of its parameters, in Python with a warning and as recipe keys.

    Args:
        **parameters: Old name = "new name".
    """

    def decorate(cls: type[T]) -> type[T]:
        plain: Callable[..., None] = vars(cls)["__init__"]

        @functools.wraps(plain)
        def init(self: T, *args: Any, **values: Any) -> None:
            for old in parameters.keys() & values.keys():
                notice = f"{cls.__name__}: the parameter {old!r} is now called {parameters[old]!r}."
                warnings.warn(notice, DeprecationWarning, stacklevel=2)
                values[parameters[old]] = values.pop(old)
            plain(self, *args, **values)

        for name, value in (("__init__", init), ("_renamed", parameters)):
            setattr(cls, name, value)
        return cls

    return decorate


def class_of_string(owner: object, parameter: str, base: Any, stacklevel: int = 5) -> None:
    """For `__post_init__`: replace an old string by an object of its class below `base`, with a DeprecationWarning."""
    if isinstance(value := getattr(owner, parameter), str):
        classes = {cls.__name__: cls for cls in base.__subclasses__()}
        new = STRINGS[base.__name__].get(value, "")
        require(new in classes, parameter, value, " or ".join(f"{name}()" for name in classes))
        notice = f"{type(owner).__name__}: {parameter}={value!r} is now {parameter}={new}()."
        warnings.warn(notice, DeprecationWarning, stacklevel=stacklevel)
        object.__setattr__(owner, parameter, classes[new]())


def renamed_attribute(old: str, new: str) -> Any:
    """The old name of an attribute or a method: reads the new one, with a DeprecationWarning."""

    def read(self: object) -> Any:
        warnings.warn(f"{type(self).__name__}.{old} is now called {new}.", DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    return property(read)


def renamed_parameters(cls: type) -> Mapping[str, str]:
    """Old name -> new name of the parameters of a class."""
    parameters: Mapping[str, str] = vars(cls).get("_renamed", {})
    return parameters
