"""The public names: lazily imported, in namespaces, and the old names for one release."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import unidiff as ud
from unidiff.lazy import exports
from unidiff.recipe.registry import PUBLIC


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Digits", ud.data.Digits),
        ("Domain", ud.pde.Domain),
        ("energy_distance", ud.evaluation.energy_distance),
        ("Posterior", ud.inverse.Posterior),
        ("Heat", ud.InverseHeat),
        ("Codec", ud.codec.Autoencoder),
        ("Start", ud.pde.InitialCondition),
        ("Trace", ud.DivergenceEstimator),
    ],
)
def test_an_old_name_is_the_new_object_with_a_notice(old: str, new: object) -> None:
    with pytest.warns(DeprecationWarning, match=rf"unidiff\.{old} is now unidiff\.") as caught:
        assert getattr(ud, old) is new
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("owner", "old", "new"),
    [
        (ud.inverse.HeatBlur((2, 3), 0.7), "left", "left_singular_basis"),
        (ud.pde.SpectralCutoff(), "kept", "resolved_modes"),
        (ud.pde.GradientModes(ud.pde.Interval(4)), "place", "embed"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_old_attribute_is_the_new_one_with_a_notice(owner: object, old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"\.{old} is now called {new}") as caught:
        assert getattr(owner, old) == getattr(owner, new)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ud.RenormalizedHeat((4, 4), noise="white").noise, ud.WhiteNoise()),
        (lambda: ud.RenormalizedHeat((4, 4), noise="gradient").noise, ud.GaussianFreeField()),
        (lambda: ud.RenormalizedHeat((4, 4), noise="data").noise, ud.DataSpectrum()),
        (lambda: ud.pde.Interval(4, 1.0, "spectral").discretization, ud.pde.Spectral()),
        (lambda: ud.pde.Box((2, 2, 2), kind="fd").discretization, ud.pde.FiniteDifferences()),
    ],
)
def test_an_old_string_is_the_object_of_its_class_with_a_notice(make, expected) -> None:
    with pytest.warns(DeprecationWarning, match=rf"='\w+' is now \w+={type(expected).__name__}\(\)") as caught:
        assert make() == expected
    assert {notice.filename for notice in caught} == {__file__}


def test_recipes_resolve_names_over_all_namespaces_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PUBLIC.find("digits", ud.data.Dataset) is ud.data.Digits
        assert PUBLIC.find("Heat", ud.Process) is ud.InverseHeat
        assert PUBLIC.find("Posterior", ud.inverse.Posterior) is ud.inverse.Posterior


def test_import_leaves_torch_out() -> None:
    code = "import sys, unidiff; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("package", ["", *ud.NAMESPACES])
def test_no_module_hides_a_public_name(package):
    # Importing a module sets it as an attribute of its package, in front of a function of the same name.
    folder = Path(ud.__file__).parent / package
    names = exports(str(folder / "__init__.py"))
    assert not {path.stem for path in folder.iterdir()} & set(names)
