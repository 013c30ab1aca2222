"""SNAP and quadratic SNAP: linear models on bispectrum components, by `compute snap` and `pair_style snap` of LAMMPS.

Thompson, Swiler, Trott, Foiles, Tucker, J. Comput. Phys. 285, 316 (2015); quadratic: Wood, Thompson, J. Chem. Phys.
148, 241721 (2018). A density for each element (`chemflag`; Cusentino, Wood, Thompson, J. Phys. Chem. A 124, 5456, 2020)
is left out: with two elements the forces of `pair_style snap` in LAMMPS 22Jul2025 are then not the gradient of its
energy, by a quarter and more for general coefficients, while those of `compute snap` are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from suite.model.lammps_family import LammpsFamily, Settings, numbers
from suite.records import NotNegative, Number, Positive, Switch

MOST_BAND = 20  # twojmax; 770 + components, of which many are zero to rounding


class SnapSettings(Settings):
    """SNAP in LAMMPS' terms. `cutoff` is that of two atoms with the largest of the `radii`: rcutfac = cutoff / 2 max R.

    Atoms i and j see each other within rcutfac (R_i + R_j). `radii` (default 0.5) and `element_weights` (default 1,
    0.5, ...) have an entry for each of material.species. `quadratic` adds the products of two components. `sinner` and
    `dinner`, Å by element, are midpoint and half width of the inner switching function. The outer one is always on:
    without it forces jump at the cutoff."""

    cutoff: Positive
    twojmax: Annotated[int, Field(strict=True, ge=0, le=MOST_BAND)] = 8
    quadratic: Switch = False
    radii: tuple[Positive, ...] = ()
    element_weights: tuple[Number, ...] = ()
    rfac0: Annotated[Positive, Field(le=1)] = 0.99363
    rmin0: NotNegative = 0.0
    bzero: Switch = True
    bnorm: Switch = False
    sinner: tuple[Positive, ...] = ()
    dinner: tuple[Positive, ...] = ()

    def conflicts(self, species: Sequence[str]) -> Iterator[tuple[str, str]]:
        """See `Settings`."""
        for key in ("radii", "element_weights", "sinner", "dinner"):
            values = getattr(self, key)
            if values and len(values) != len(species):
                yield key, f"{len(values)} values for {len(species)} species: {', '.join(species)}"
        if bool(self.sinner) != bool(self.dinner):
            yield "dinner" if self.sinner else "sinner", "is missing: the inner switching function needs both"
        if self.rmin0 >= self.cutoff:
            yield "rmin0", f"{self.rmin0:g} Å is not below the cutoff, {self.cutoff:g} Å"
        weights = self.element_weights
        if len(species) > 1 and weights and len(set(weights)) == 1 and len(set(self.radii)) <= 1:
            yield (
                "element_weights",
                f"all are {weights[0]:g}, and neighbours of every element look alike: make them differ, or the radii",
            )

    @property
    def components(self) -> int:
        """Bispectrum components of an atom: (j1, j2, j) with j2 <= j1 <= j <= twojmax of LAMMPS."""
        half, odd = divmod(self.twojmax, 2)
        m = half + 1
        return m * (m + 1) * (m + 2) // 3 if odd else m * (m + 1) * (2 * m + 1) // 6

    @property
    def per_element(self) -> int:
        """Functions of an element."""
        n = self.components
        return n + n * (n + 1) // 2 if self.quadratic else n

    def functions(self, species: Sequence[str]) -> int:
        """See `Settings`."""
        return len(species) * self.per_element


@dataclass(frozen=True)
class SnapSpec:
    """What a process needs to build the family again."""

    species: tuple[str, ...]
    settings: SnapSettings

    def build(self) -> Snap:
        """The family; raises `ImpossibleFamily`."""
        return Snap(self.species, self.settings)


class Snap(LammpsFamily):
    """The family of SNAP models with these `settings`; see `contract.LinearFamily`. Raises `ImpossibleFamily`."""

    title: ClassVar[str] = "SNAP"

    def __init__(self, species: Sequence[str], settings: SnapSettings) -> None:
        super().__init__(species, settings)
        self.settings = settings
        self._radii = settings.radii or (0.5,) * len(species)
        self._weights = settings.element_weights or tuple(0.5**k for k in range(len(species)))
        self._factor = settings.cutoff / (2 * max(self._radii))

    @property
    def per_element(self) -> int:
        """Functions of an element."""
        return self.settings.per_element

    @property
    def orders(self) -> np.ndarray:
        """Zeros (functions,): each component mixes products of one, two and three neighbours."""
        return np.zeros(len(self), dtype=np.int64)

    def _arguments(self) -> str:
        own = self.settings
        words = [*numbers([self._factor, own.rfac0]), str(own.twojmax), *numbers(self._radii), *numbers(self._weights)]
        words += ["rmin0", f"{own.rmin0:.17g}", "bzeroflag", f"{own.bzero:d}", "quadraticflag", f"{own.quadratic:d}"]
        words += ["bnormflag", f"{own.bnorm:d}"]
        if own.sinner:
            words += ["switchinnerflag", "1", "sinner", *numbers(own.sinner), "dinner", *numbers(own.dinner)]
        return " ".join(words)

    def compute_of_rows(self) -> str:
        """See `LammpsFamily`."""
        return f"snap {self._arguments()} bikflag 0"

    def compute_of_sites(self) -> str:
        """See `LammpsFamily`."""
        return f"sna/atom {self._arguments()}"

    def columns(self) -> np.ndarray:
        """All but the last one, which holds the energy and forces of the pair style."""
        return np.arange(len(self))

    def files(self, coefficients: np.ndarray, energy_per_atom: float) -> dict[str, str]:
        """`potential.snapcoeff`, whose constants are `energy_per_atom`, and `potential.snapparam`."""
        own = self.settings
        lines = [f"# {self.title}, dislobench; units metal", f"{len(self.species)} {self.per_element + 1}"]
        for symbol, radius, weight, block in zip(
            self.species, self._radii, self._weights, self._blocks(coefficients), strict=True
        ):
            lines += [f"{symbol} {radius:.17g} {weight:.17g}", *numbers([energy_per_atom, *block])]
        parameters = {
            "rcutfac": f"{self._factor:.17g}",
            "twojmax": str(own.twojmax),
            "rfac0": f"{own.rfac0:.17g}",
            "rmin0": f"{own.rmin0:.17g}",
            "switchflag": "1",
            "bzeroflag": f"{own.bzero:d}",
            "quadraticflag": f"{own.quadratic:d}",
            "bnormflag": f"{own.bnorm:d}",
        }
        if own.sinner:
            parameters |= {
                "switchinnerflag": "1",
                "sinner": " ".join(numbers(own.sinner)),
                "dinner": " ".join(numbers(own.dinner)),
            }
        text = "\n".join([lines[0], *(f"{key} {value}" for key, value in parameters.items())])
        return {"potential.snapcoeff": "\n".join(lines) + "\n", "potential.snapparam": text + "\n"}

    def pair_commands(self) -> list[str]:
        """See `LammpsFamily`."""
        return [
            "pair_style snap",
            f"pair_coeff * * potential.snapcoeff potential.snapparam {' '.join(self.species)}",
        ]
