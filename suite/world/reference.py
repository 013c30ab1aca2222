"""References by name, as ASE calculators.

A reference is named in the spec in one of four ways: a name of the catalogue (`W_zhou04`), a name that an installed
package brings (`suite.plugins`), a KIM model (`kim:EAM_Dynamo_...`), or the dotted path of any ASE calculator
(`mymodule:MyCalculator`).
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ase.calculators.calculator import Calculator

from store.faults import Fault
from suite import plugins
from suite.world.calculators import UnusableReference
from suite.world.catalogue import CATALOGUE
from suite.world.lammps_calculator import LammpsCalculator
from suite.world.modules import import_beside, names_file

# specs name `suite.world.reference:LammpsCalculator`
__all__ = [
    "LammpsCalculator",
    "UnusableReference",
    "build_reference",
    "is_calculator",
    "is_code",
    "missing_kim",
    "others_code",
    "unknown_reference",
]


def unknown_reference(name: str) -> str | None:
    """Why `name` cannot name a reference, or None when it can; nothing is imported."""
    if name in CATALOGUE or name in plugins.installed(plugins.REFERENCES) or name.startswith("kim:"):
        return None
    module, _, attribute = name.partition(":")
    if attribute and all(part.isidentifier() for part in [*module.split("."), attribute]):
        return None
    every = [*CATALOGUE, *plugins.installed(plugins.REFERENCES)]
    close = difflib.get_close_matches(name, every, n=1, cutoff=0.4)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    if names_file(name):
        return (
            f"{name!r} is a file, and a reference is a name: LAMMPS reads potential files, with reference = "
            '"suite.world.reference:LammpsCalculator" and its commands in [material.arguments]; docs/own-material.md '
            "shows it"
        )
    return (
        f"{name!r} is not one of the {len(every)} reference potentials{hint}; `dislobench list --references` names "
        "them, for others write 'kim:MODEL' or 'module:callable'"
    )


def missing_kim(name: str) -> str | None:
    """Why `name` is a KIM model that cannot be used here, or None; nothing is imported."""
    if not name.startswith("kim:") or importlib.util.find_spec("kimpy"):
        return None
    return (
        f"{name!r} needs the KIM API: install the system packages libkim-api-dev and openkim-models, then "
        "`pip install kimpy`"
    )


def is_code(name: str) -> bool:
    """Is `name` a dotted path, which `build_reference` imports and calls?"""
    return name not in CATALOGUE and not name.startswith("kim:") and ":" in name


@contextmanager
def others_code(what: str) -> Iterator[None]:
    """Other people's code may raise anything; inside, it becomes `UnusableReference`: `what` cannot be built."""
    try:
        yield
    except Fault:
        raise
    except (Exception, SystemExit) as error:
        raise UnusableReference(f"cannot build {what}: {type(error).__name__}: {error}") from error


def is_calculator(found: Any) -> bool:
    """Is `found` an ASE calculator, and no class of calculators?"""
    return not isinstance(found, type) and callable(getattr(found, "get_potential_energy", None))


def build_reference(name: str, arguments: Mapping[str, Any] | None = None) -> Calculator:
    """ASE calculator of the reference `name`, with keyword `arguments` for a dotted path or a KIM model.

    Raises `UnusableReference` when the name is unknown, KIM is not installed, or what a dotted path names cannot be
    imported, fails, or is no calculator. A dotted path is code, and is executed here.
    """
    if problem := unknown_reference(name):
        raise UnusableReference(problem)
    arguments = dict(arguments or {})
    if name in CATALOGUE:
        if arguments:
            raise UnusableReference(f"{name!r} of the catalogue takes no arguments, got {arguments}")
        return CATALOGUE[name].build()
    if problem := missing_kim(name):
        raise UnusableReference(problem)
    if name.startswith("kim:"):
        from ase.calculators.kim import KIM

        return KIM(name.removeprefix("kim:"), **arguments)
    module, _, attribute = name.partition(":")
    with others_code(f"the calculator {name!r}"):
        if name in plugins.installed(plugins.REFERENCES):
            calculator = plugins.load(plugins.REFERENCES, name)(**arguments)
        else:
            calculator = getattr(import_beside(module), attribute)(**arguments)
    if not is_calculator(calculator):
        kind = f"the class {calculator.__name__}" if isinstance(calculator, type) else f"a {type(calculator).__name__}"
        raise UnusableReference(
            f"{name!r} gives {kind}, and not an ASE calculator: name a class of calculators, or a function that "
            "returns a calculator"
        )
    return calculator
