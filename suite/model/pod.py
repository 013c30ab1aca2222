"""POD: linear models on proper orthogonal descriptors, by `compute pod/global` and `pair_style pod` of LAMMPS.

Nguyen, Rohskopf, J. Comput. Phys. 480, 112030 (2023); Nguyen, Phys. Rev. B 107, 144103 (2023). LAMMPS finds the radial
functions by a principal component analysis each time it reads the files: those of the largest eigenvalues are well
determined, those of the smallest are rounding, and may differ between builds of LAMMPS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Annotated, ClassVar

import numpy as np
from ase import Atoms
from pydantic import Field

from suite.model.lammps_family import ROWS, LammpsFamily, Settings, numbers
from suite.records import Positive

Degree = Annotated[int, Field(strict=True, ge=0)]
NumberOfFunctions = Annotated[int, Field(strict=True, ge=0)]
BESSEL_PARAMETERS = 3  # fixed in LAMMPS: snapshots are 3 bessel_polynomial_degree + inverse_polynomial_degree
FOUR_BODY_ANGLES = (1, 2, 4, 7, 11, 16, 23)  # by degree
MOST_THREE, MOST_FOUR = 12, 6  # degrees
# `pair_style pod` of LAMMPS 22Jul2025 keeps coefficients of one atom in memory that is made for its neighbours, and
# writes beyond the end where these are few: the process aborts. No atom of a crystal has fewer.
FEWEST_NEIGHBOURS = 4


class PodSettings(Settings):
    """POD in LAMMPS' terms, those of its parameter file. `cutoff` is rcut and `inner_cutoff` rin, Å: no two atoms may
    come that close. The radial functions of all orders are the first ones of one set, the principal components of
    3 `bessel_polynomial_degree` + `inverse_polynomial_degree` snapshots; angular degrees and numbers of radial
    functions must not increase with the order. Orders from five on are products of three- and four-body functions."""

    cutoff: Positive
    inner_cutoff: Positive = 1.0
    bessel_polynomial_degree: Annotated[int, Field(strict=True, ge=1, le=30)] = 4
    inverse_polynomial_degree: Annotated[int, Field(strict=True, ge=1, le=30)] = 8
    twobody_number_radial_basis_functions: Annotated[int, Field(strict=True, ge=1)] = 8
    threebody_number_radial_basis_functions: NumberOfFunctions = 6
    threebody_angular_degree: Annotated[int, Field(strict=True, ge=0, le=MOST_THREE)] = 5
    fourbody_number_radial_basis_functions: NumberOfFunctions = 4
    fourbody_angular_degree: Annotated[int, Field(strict=True, ge=0, le=MOST_FOUR)] = 3
    fivebody_number_radial_basis_functions: NumberOfFunctions = 0
    fivebody_angular_degree: Degree = 0
    sixbody_number_radial_basis_functions: NumberOfFunctions = 0
    sixbody_angular_degree: Degree = 0
    sevenbody_number_radial_basis_functions: NumberOfFunctions = 0
    sevenbody_angular_degree: Degree = 0

    def conflicts(self, species: Sequence[str]) -> Iterator[tuple[str, str]]:
        """See `Settings`."""
        if self.inner_cutoff >= self.cutoff:
            yield "inner_cutoff", f"{self.inner_cutoff:g} Å is not below the cutoff, {self.cutoff:g} Å"
        snapshots = BESSEL_PARAMETERS * self.bessel_polynomial_degree + self.inverse_polynomial_degree
        for order in ("two", "three"):
            key = f"{order}body_number_radial_basis_functions"
            if getattr(self, key) > snapshots:
                yield (
                    key,
                    f"{getattr(self, key)}, and {snapshots} snapshots have no more components: 3 "
                    "bessel_polynomial_degree + inverse_polynomial_degree",
                )
        lower = {"four": "three", "five": "four", "six": "four", "seven": "four"}
        for order, other in lower.items():
            for quantity in ("number_radial_basis_functions", "angular_degree"):
                key, limit = f"{order}body_{quantity}", f"{other}body_{quantity}"
                if getattr(self, key) > getattr(self, limit):
                    yield key, f"{getattr(self, key)} is more than {limit}, {getattr(self, limit)}"
        degree, functions = self.threebody_angular_degree, sum(self.counts(species))
        products = len(species) * self.threebody_number_radial_basis_functions * comb(degree + 3, 3)
        if products + functions > 3 * FEWEST_NEIGHBOURS * functions:
            yield (
                "threebody_angular_degree",
                f"LAMMPS would write beyond its memory where an atom has {FEWEST_NEIGHBOURS} neighbours: the "
                f"{products} angular functions must not be more than {3 * FEWEST_NEIGHBOURS - 1} times the "
                f"{functions} functions of an element with up to three neighbours. Lower the degree, or add others",
            )

    def counts(self, species: Sequence[str]) -> tuple[int, int, int]:
        """Functions of an element that are products of one, two and three neighbours."""
        n = len(species)
        return (
            n * self.twobody_number_radial_basis_functions,
            n * (n + 1) // 2 * self.threebody_number_radial_basis_functions * (self.threebody_angular_degree + 1),
            n
            * (n + 1)
            * (n + 2)
            // 6
            * self.fourbody_number_radial_basis_functions
            * FOUR_BODY_ANGLES[self.fourbody_angular_degree],
        )

    def functions(self, species: Sequence[str]) -> int:
        """See `Settings`."""
        return len(species) * sum(self.counts(species))


@dataclass(frozen=True)
class PodSpec:
    """What a process needs to build the family again."""

    species: tuple[str, ...]
    settings: PodSettings

    def build(self) -> Pod:
        """The family; raises `ImpossibleFamily`."""
        return Pod(self.species, self.settings)


class Pod(LammpsFamily):
    """The family of POD models with these `settings`; see `contract.LinearFamily`. Raises `ImpossibleFamily`."""

    title: ClassVar[str] = "POD"

    def __init__(self, species: Sequence[str], settings: PodSettings) -> None:
        super().__init__(species, settings)
        self.settings = settings

    @cached_property
    def per_element(self) -> int:  # type: ignore[override]
        """Functions of an element: what LAMMPS counts, without the constant."""
        lonely = Atoms(self.species[:1], cell=np.eye(3) * 4 * self.cutoff, pbc=True)
        engine = self._engine(self.compute_of_rows())
        try:
            engine.calculate(lonely)
            return engine.array(ROWS).shape[1] // len(self.species) - 1
        finally:
            engine.close()

    @property
    def orders(self) -> np.ndarray:
        """Number of neighbours that each function multiplies, (functions,); 0 from five-body functions on."""
        known = np.repeat([1, 2, 3], self.settings.counts(self.species))
        return np.tile(np.pad(known, (0, self.per_element - len(known))), len(self.species))

    def descriptor_files(self) -> dict[str, str]:
        """`potential_param.pod`."""
        values = self.settings.model_dump()
        lines = {
            "species": " ".join(self.species),
            "pbc": "1 1 1",
            "rin": f"{values.pop('inner_cutoff'):.17g}",
            "rcut": f"{values.pop('cutoff'):.17g}",
            "number_of_environment_clusters": "1",
            "number_of_principal_components": "1",
            # always there, and no column: LAMMPS' arrays have a place for it in any case
            "onebody": "1",
            **{key: str(value) for key, value in values.items()},
        }
        text = "\n".join([f"# {self.title}, dislobench; units metal", *(f"{k} {v}" for k, v in lines.items())])
        return {"potential_param.pod": text + "\n"}

    def compute_of_rows(self) -> str:
        """See `LammpsFamily`."""
        return f'pod/global potential_param.pod "" {" ".join(self.species)}'

    def compute_of_sites(self) -> str:
        """See `LammpsFamily`."""
        return f'pod/atom potential_param.pod "" {" ".join(self.species)}'

    def columns(self) -> np.ndarray:
        """All but the first one of every element, which counts its atoms."""
        every = np.arange(len(self.species) * (self.per_element + 1)).reshape(len(self.species), -1)
        return every[:, 1:].ravel()

    def files(self, coefficients: np.ndarray, energy_per_atom: float) -> dict[str, str]:
        """`potential_param.pod`, and `potential_coeff.pod` with `energy_per_atom` as its one-body terms."""
        blocks = self._blocks(coefficients)
        every = np.column_stack([np.full(len(blocks), energy_per_atom), blocks]).ravel()
        text = "\n".join([f"model_coefficients: {every.size} 0 0", *numbers(every)])
        return {**self.descriptor_files(), "potential_coeff.pod": text + "\n"}

    def pair_commands(self) -> list[str]:
        """See `LammpsFamily`."""
        return [
            "pair_style pod",
            f"pair_coeff * * potential_param.pod potential_coeff.pod {' '.join(self.species)}",
        ]
