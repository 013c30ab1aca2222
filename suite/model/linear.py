"""Sums of calculators with coefficients to be fitted: E = Σ_k c_k E_k + e per atom.

Any potential that is linear in some of its parameters can be trained, weighed and tuned so. In a spec:
`model.backend = "linear"` and `model.calculator = "module:function"`, where the function returns a list of ASE
calculators with energies and forces. Rows cost one force call of every calculator: for dozens of functions, not for
thousands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from suite import plugins
from suite.model.contract import LinearFamily, hash_of
from suite.world.calculators import UnusableReference
from suite.world.modules import import_beside
from suite.world.reference import others_code


@dataclass(frozen=True)
class LinearSpec:
    """Dotted name of the function that returns the calculators, and its `arguments`."""

    name: str
    arguments: Mapping[str, Any]

    def __hash__(self) -> int:
        return hash_of(self.name, self.arguments)

    def build(self) -> Combination:
        """The family; raises `UnusableReference` when the function fails or returns something else."""
        module, _, attribute = self.name.partition(":")
        with others_code(f"the functions of {self.name!r}"):
            functions = list(getattr(import_beside(module), attribute)(**self.arguments))
        strangers = [type(f).__name__ for f in functions if not callable(getattr(f, "get_potential_energy", None))]
        if strangers or not functions:
            found = f"a {strangers[0]}" if strangers else "an empty list"
            raise UnusableReference(f"{self.name!r} gives {found}; it must return a list of ASE calculators")
        return Combination(functions, self)


@dataclass(frozen=True)
class BroughtSpec:
    """A family that an installed package brings: the `name` of its entry point, and what it is called with."""

    name: str
    species: tuple[str, ...]
    arguments: Mapping[str, Any]

    def __hash__(self) -> int:
        return hash_of(self.name, self.species, self.arguments)

    def build(self) -> LinearFamily:
        """The family; raises `UnusableReference` when the package fails or returns something else."""
        make = plugins.load(plugins.BACKENDS, self.name)
        what = plugins.told(plugins.BACKENDS, self.name)
        with others_code(f"the {what}"):
            family = make(species=self.species, **self.arguments)
        wanted = ("site_values", "energy_and_force_rows", "calculator", "save")
        if missing := [name for name in wanted if not callable(getattr(family, name, None))]:
            raise UnusableReference(
                f"{what} gives a {type(family).__name__} without {', '.join(missing)}: see suite.model.contract"
            )
        return cast(LinearFamily, family)


class Combination:
    """The family of all sums of the calculators `functions`; see `contract.LinearFamily`."""

    def __init__(self, functions: Sequence[Calculator], recipe: LinearSpec | None = None) -> None:
        self.functions, self._recipe = functions, recipe

    def __len__(self) -> int:
        return len(self.functions)

    @property
    def orders(self) -> np.ndarray:
        """Zeros (functions,): how many neighbours they multiply is not known."""
        return np.zeros(len(self), dtype=np.int64)

    def site_values(self, atoms: Atoms) -> np.ndarray:
        """Energies (functions,), eV."""
        return np.array([float(each.get_potential_energy(atoms)) for each in self.functions])

    def energy_and_force_rows(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Energies (functions,), eV, and forces (3n, functions), eV/Å."""
        forces = [each.get_forces(atoms).ravel() for each in self.functions]
        return self.site_values(atoms), np.column_stack(forces)

    def calculator(self, coefficients: np.ndarray, energy_per_atom: float = 0.0) -> SumCalculator:
        """The sum with these `coefficients` (functions,)."""
        return SumCalculator(self.functions, coefficients, energy_per_atom)

    def save(self, coefficients: np.ndarray, energy_per_atom: float, folder: Path) -> list[Path]:
        """Write `potential.json`, which `saved` reads."""
        if self._recipe is None:
            return []
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "potential.json"
        content = {
            "functions": self._recipe.name,
            "arguments": dict(self._recipe.arguments),
            "coefficients": coefficients.tolist(),
            "energy_per_atom": energy_per_atom,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")
        return [path]


def saved(potential: str) -> SumCalculator:
    """The sum in the file `potential` that a run has exported: for `model.backend = "calculator"`.

    Raises `OSError` and `ValueError` on a file that cannot be read, `UnusableReference` when its functions cannot be
    built.
    """
    content = json.loads(Path(potential).read_text())
    family = LinearSpec(content["functions"], content["arguments"]).build()
    return family.calculator(np.array(content["coefficients"]), content["energy_per_atom"])


class SumCalculator(Calculator):
    """ASE calculator (energy, forces) of Σ_k c_k E_k + e per atom, with the c_k that are not zero."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, functions: Sequence[Calculator], coefficients: np.ndarray, energy_per_atom: float) -> None:
        super().__init__()
        if coefficients.shape != (len(functions),):
            raise UnusableReference(f"{len(functions)} coefficients expected, got shape {coefficients.shape}")
        self.terms = [(float(c), each) for c, each in zip(coefficients, functions, strict=True) if c != 0]
        self.energy_per_atom = energy_per_atom

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        energy, forces = len(self.atoms) * self.energy_per_atom, np.zeros((len(self.atoms), 3))
        for coefficient, each in self.terms:
            forces += coefficient * each.get_forces(self.atoms)
            energy += coefficient * float(each.get_potential_energy(self.atoms))
        self.results = {"energy": energy, "forces": forces}
