"""Families of models whose rows LAMMPS computes, and whose calculators LAMMPS evaluates from potential files.

A member says how its descriptors are computed (`compute` commands), how a model is written (texts of files), and how
LAMMPS reads it (`pair_style` and `pair_coeff`). Blocks of columns belong to elements, in the order of `species`; each
element has the same number of functions. The constant e is the first coefficient of every element.

An engine of rows is made anew for each configuration: `compute snap` cannot begin a second run, neighbour lists of an
old engine would let rounding depend on what was computed before, and 10 ms do not count beside the rows of some hundred
atoms. Values at strained primitive cells take one engine, whose cell is changed: every such run begins with new lists.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from pydantic import ValidationError

from store.faults import BadInput
from suite.records import Record, sentence_of
from suite.world.calculators import NotFinite
from suite.world.lammps_calculator import FittedLammpsCalculator

ROWS = "rows"  # the compute that makes them
INCLUDED = "in.potential"


class ImpossibleFamily(BadInput, ValueError):
    """Settings that do not describe a family; LAMMPS itself would end the process."""


class Settings(Record, ABC):
    """`model.arguments` of a family: a record of its own. Its cutoff is the largest distance, Å, that interacts."""

    cutoff: float

    def conflicts(self, species: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Keys and sentences of what the settings say together and no family can be."""
        yield from ()

    @abstractmethod
    def functions(self, species: Sequence[str]) -> int:
        """How many functions there are, or at least."""


def wrong_settings(
    record: type[Settings], arguments: dict[str, object], species: Sequence[str]
) -> tuple[Settings | None, list[tuple[str, str]]]:
    """The settings that `arguments` give, None if they give none, and keys and sentences of all that is wrong."""
    try:
        settings = record.model_validate(arguments)
    except ValidationError as error:
        found = []
        for item in error.errors():
            path = tuple(str(part) for part in item["loc"])
            found.append((path[0], sentence_of(item, path, record)))
        return None, list(dict.fromkeys(found))
    return settings, list(settings.conflicts(species))


class LammpsFamily(ABC):
    """A family of models of `species` with a compute of LAMMPS; see `contract.LinearFamily`.

    Raises `ImpossibleFamily`.
    """

    title: ClassVar[str]

    def __init__(self, species: Sequence[str], settings: Settings) -> None:
        conflicts = "; ".join(f"{key}: {sentence}" for key, sentence in settings.conflicts(species))
        if conflicts:
            raise ImpossibleFamily(conflicts)
        self.species, self.cutoff = list(species), settings.cutoff
        self._strained: FittedLammpsCalculator | None = None

    # --- what a member says ---

    @property
    @abstractmethod
    def per_element(self) -> int:
        """Functions of an element."""

    @property
    @abstractmethod
    def orders(self) -> np.ndarray:
        """Number of neighbours that each function multiplies, (functions,); 0 where functions mix numbers."""

    @abstractmethod
    def compute_of_rows(self) -> str:
        """Style and arguments of the compute of a global array: energies first, then forces of x, y, z by atom."""

    @abstractmethod
    def compute_of_sites(self) -> str:
        """Style and arguments of the compute of an array per atom: the functions of its own element."""

    @abstractmethod
    def columns(self) -> np.ndarray:
        """Columns of the functions in the global array, (functions,)."""

    @abstractmethod
    def files(self, coefficients: np.ndarray, energy_per_atom: float) -> dict[str, str]:
        """Texts of a model's files by name; those of the descriptors alone come first in `descriptor_files`."""

    @abstractmethod
    def pair_commands(self) -> list[str]:
        """LAMMPS commands that read these files."""

    def descriptor_files(self) -> dict[str, str]:
        """Texts of files that the computes read, by name."""
        return {}

    # --- the contract ---

    def __len__(self) -> int:
        return len(self.species) * self.per_element

    def site_values(self, atoms: Atoms) -> np.ndarray:
        """Energies for unit coefficients, (functions,), eV."""
        if self._strained is None:
            self._strained = self._engine(self.compute_of_sites())
        self._strained.forget_lists()
        self._strained.calculate(atoms)
        values = self._strained.array(ROWS, per_atom=True)
        kinds = [atomic_numbers[symbol] for symbol in self.species]
        return np.concatenate([values[atoms.numbers == kind].sum(axis=0) for kind in kinds])

    def energy_and_force_rows(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """`site_values`, and forces (3n, functions) for unit coefficients, eV/Å."""
        engine = self._engine(self.compute_of_rows())
        try:
            engine.calculate(atoms)
            found = engine.array(ROWS)
        finally:
            engine.close()
        values = found[: 1 + 3 * len(atoms), self.columns()]
        if not np.isfinite(values).all():
            raise NotFinite("the functions are not finite: atoms have met")
        forces = values[1:].reshape(len(atoms), 3, -1)
        if not np.array_equal(engine.rotation, np.eye(3)):
            forces = np.einsum("nbk,ba->nak", forces, engine.rotation)
        return values[0], forces.reshape(3 * len(atoms), -1)

    def calculator(self, coefficients: np.ndarray, energy_per_atom: float = 0.0) -> FittedLammpsCalculator:
        """Energy, forces, stress of the model, by LAMMPS from the files that `save` writes."""
        files = self.files(coefficients, energy_per_atom)
        return FittedLammpsCalculator(self.pair_commands(), self.species, self.cutoff, files)

    def save(self, coefficients: np.ndarray, energy_per_atom: float, folder: Path) -> list[Path]:
        """Write the files that LAMMPS reads, and `in.potential` with the commands for it."""
        folder.mkdir(parents=True, exist_ok=True)
        types = ", ".join(f"{k} = {symbol}" for k, symbol in enumerate(self.species, start=1))
        commands = "\n".join([f"# {self.title}; units metal; atom types: {types}", *self.pair_commands()])
        written = []
        for name, text in {**self.files(coefficients, energy_per_atom), INCLUDED: commands + "\n"}.items():
            written.append(folder / name)
            written[-1].write_text(text, encoding="ascii")
        return written

    # --- LAMMPS ---

    def _engine(self, compute: str) -> FittedLammpsCalculator:
        commands = [f"pair_style zero {self.cutoff:.17g}", "pair_coeff * *", f"compute {ROWS} all {compute}"]
        return FittedLammpsCalculator(commands, self.species, self.cutoff, self.descriptor_files())

    def _blocks(self, coefficients: np.ndarray) -> np.ndarray:
        """Coefficients by element, (species, functions of an element)."""
        if coefficients.shape != (len(self),):
            raise ImpossibleFamily(f"{len(self)} coefficients expected, got shape {coefficients.shape}")
        return coefficients.reshape(len(self.species), -1)


def numbers(values: Sequence[float] | np.ndarray) -> list[str]:
    """Numbers as text, to the last bit."""
    return [f"{value:.17g}" for value in values]
