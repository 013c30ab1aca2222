"""What each stage of the pipeline hands to the next: simulation and world, rows, model, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
from ase.calculators.calculator import Calculator

from suite.judge import theory
from suite.judge.errors import Comparison
from suite.judge.matching import Matching
from suite.model.contract import LinearFamily, Recipe
from suite.model.regression import Block, Solution
from suite.model.training import Configurations
from suite.world.cell import Cell, StraightCell
from suite.world.crystal import Crystal, Response, elastic_tensor
from suite.world.curvature import Landscape
from suite.world.dislocation import Dislocation, Loop
from suite.world.elasticity import Line, Stroh, felt_form, rotate, strain_factor, stroh
from suite.world.relaxation import Relaxation, Status


class Solved(NamedTuple):
    """A cell and the reference's equilibrium in it."""

    cell: StraightCell
    equilibrium: Relaxation


@dataclass(frozen=True)
class Simulation:
    """The reference's crystal and the large cell: what neither the training set nor a loss weight can change.

    `energy_per_atom` of the perfect crystal, eV; `landscape`, the energy around the equilibrium of the simulation cell;
    `fault_energy` of the ribbon between partials, eV/Å^2, None for dislocations that do not split.
    """

    crystal: Crystal
    energy_per_atom: float
    response: Response
    dislocation: Dislocation | Loop
    simulation: Cell
    equilibrium: Relaxation
    landscape: Landscape
    fault_energy: float | None

    @property
    def stability(self) -> float:
        """The stability constant c0 of the simulation cell, eV/Å^2."""
        return self.landscape.stability

    @property
    def simulation_energy(self) -> float:
        """Energy of the relaxed simulation cell relative to the perfect crystal, eV."""
        return self.equilibrium.energy - len(self.simulation) * self.energy_per_atom

    @property
    def core_distance(self) -> float:
        """L_D in a0."""
        return self.simulation.core_distance / self.crystal.a0

    @property
    def straight(self) -> Dislocation:
        """The dislocation whose far field counts."""
        return self.dislocation.straight

    @property
    def _stroh(self) -> Stroh:
        return elasticity_of(self.straight, self.response)

    @cached_property
    def line(self) -> Line:
        """The dislocation as a straight line. A prismatic loop is an edge all around, as long as its circumference: its
        energy is 2πR K(edge) ln(R/r) with R of the order of L_D (Hirth and Lothe, chapter 6)."""
        burgers = self.straight.burgers_frame * self.crystal.a0
        return Line(self.straight.frame, burgers, self.simulation.line_length)

    @cached_property
    def felt(self) -> np.ndarray:
        """What the dislocation feels of an error of the stress-strain coefficients: `elasticity.felt_form`, (k, 81)."""
        return felt_form(self._stroh, self.line.burgers, self.line.frame)


@dataclass(frozen=True)
class World(Simulation):
    """Everything that no loss weight can change: a `Simulation`, and one training cell, or two for a loop (a screw and
    an edge dipole), each with its equilibrium.
    """

    trained: tuple[Solved, ...]

    @classmethod
    def of(cls, simulated: Simulation, trained: Sequence[Solved]) -> World:
        """The world of a simulation and its training cells."""
        return cls(**{f.name: getattr(simulated, f.name) for f in fields(Simulation)}, trained=tuple(trained))

    @property
    def training(self) -> tuple[StraightCell, ...]:
        """The training cells."""
        return tuple(solved.cell for solved in self.trained)

    @property
    def training_energies(self) -> tuple[float, ...]:
        """Energies of the relaxed training cells relative to the perfect crystal, eV."""
        return tuple(found.energy - len(cell) * self.energy_per_atom for cell, found in self.trained)

    @property
    def stencil_density(self) -> float:
        """Σ|ρ|²/(3Ω), 1/Å: ‖Dv‖² of a smooth displacement is this times ∫|∇v|² in a cubic crystal."""
        return self.training[0].bond_square / (3 * self.crystal.volume / len(self.crystal.basis))

    @property
    def leverage(self) -> float:
        """S of `theory.elastic_leverage`, Å^4."""
        volume = self.crystal.volume / len(self.crystal.basis)
        kappa = strain_factor(self._stroh, self.line.burgers)
        return theory.elastic_leverage(kappa, self.line.length, volume, self.training[0].bond_square)


@dataclass(frozen=True)
class Rows:
    """The design, without weights: reduced `blocks`, elastic rows, the perfect crystal's row, and labelled sets, one
    for each training cell. A potential that is given has no rows, and nothing to train on."""

    recipe: Recipe
    blocks: dict[str, Block]
    elastic: dict[str, np.ndarray]
    perfect: np.ndarray
    energy_per_atom: float
    train: tuple[Configurations, ...]
    test: tuple[Configurations, ...]
    response: Response

    @cached_property
    def basis(self) -> LinearFamily:
        return self.recipe.build()

    @property
    def functions(self) -> int:
        """How many coefficients there are to fit: none for a potential that is given."""
        return len(self.perfect)


@dataclass(frozen=True)
class Model:
    """A potential: `solution.coefficients` (functions,) of a fitted one, and the energy an atom needs so that its
    perfect crystal has the reference's energy (eV)."""

    solution: Solution
    energy_per_atom: float
    training_rmse: dict[str, float]

    @property
    def coefficients(self) -> np.ndarray:
        return self.solution.coefficients

    def calculator(self, rows: Rows) -> Calculator:
        """ASE calculator of this potential."""
        return rows.basis.calculator(self.coefficients, self.energy_per_atom)


@dataclass(frozen=True)
class Verdict:
    """What is concluded: `numbers` by name (eps_E, geometry_error, balance_spread, ...), and the fields behind them."""

    numbers: dict[str, float]
    matching: Matching
    response: Response
    comparison: Comparison
    limiting_term: str

    @property
    def status(self) -> Status:
        return self.comparison.relaxation.status


def elasticity_of(kind: Dislocation, response: Response) -> Stroh:
    """Stroh's solution for the elastic tensor of `response` in the frame of a straight dislocation."""
    return stroh(rotate(elastic_tensor(response), kind.frame))
