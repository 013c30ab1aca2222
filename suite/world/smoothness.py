"""How smooth a potential is: jumps along a path of random displacements, and whether the crystal has third derivatives.

Jumps are looked for with one-sided cubic polynomials through four forces to the left and four to the right of the
middle of an interval: where both are the same curve, they agree there to fourth order. What counts is by how much they
disagree more than in the intervals around. For the energy that is a change within 1.25e-3 Å that the forces on both
sides do not explain: the step of a published function is one also where a table has made a steep slope of it. For the
force and its derivative the place where the forces disagree most is sampled again, down to intervals of 2.4e-6 Å, so
that a jump stays and everything else goes to zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from suite.world.crystal import STEP, Crystal

# Å; standard deviations of displacements: of rattles and strains around a dislocation, and of large rattles
NEAR, FAR = 0.2, 0.5
INTERVAL = 1.25e-3  # Å; far below what an atom moves in a relaxation, and above the spacing of fine tables
AROUND, OUTSTANDING = 20, 5  # intervals on each side that are compared, and how much more than them counts
FINER, ZOOMS = 8, 3  # how much smaller the next intervals are, and how often there are next ones
COARSER = 4  # so much longer intervals tell a step of the energy from a kink of the force
REACH = 4  # intervals; a jump spoils the polynomials of so many on each side
# Smaller ones are noise of rounding and count as zero: energy in eV, force in eV/Å, its derivative in eV/Å^2
FLOORS = (1e-8, 1e-5, 1e-2)
# Larger ones are felt: by energies (eV), relaxations (eV/Å), Hessians (eV/Å^2), and by eps_V2 (relative)
FELT = (1e-5, 1e-3, 0.5)
FELT_THIRD = 1e-2
_LEFT, _RIGHT = np.arange(-3.5, 0), np.arange(0.5, 4)  # places of four forces on each side, steps from the middle

Jumps = tuple[float, float, float]


@dataclass(frozen=True)
class Smoothness:
    """Largest jumps of the energy (eV), the force (eV/Å) and its derivative (eV/Å^2) along a path of random
    displacements up to 0.2 Å, `near`, and up to 0.5 Å, `far`; zero for those below `FLOORS`. The relative change
    `third` of third derivatives by strain when the step is halved.
    """

    near: Jumps
    far: Jumps
    third: float


def grade(near: Jumps, third: float) -> str:
    """In a word: what of a potential can be trusted near the crystal, by its jumps `near` and the change `third`."""
    for size, felt, word in zip(near, FELT, ("energy jumps", "forces jump", "forces have kinks"), strict=True):
        if size > felt:
            return word
    return "smooth" if third < FELT_THIRD else "no third derivatives"


def smoothness(crystal: Crystal, calculator: Calculator) -> Smoothness:
    """How smooth `calculator` is in `crystal`."""
    near, far = jumps(crystal, calculator)
    return Smoothness(near, far, third_derivative_change(crystal, calculator))


def jumps(crystal: Crystal, calculator: Calculator, seed: int = 0) -> tuple[Jumps, Jumps]:
    """Largest jumps along a straight path through the perfect crystal on which all atoms of a cell of 2 x 2 x 2
    primitive units move, from random displacements with a standard deviation of -0.5 Å to 0.5 Å: within 0.2 Å, and of
    the whole path.

    The force is the derivative of the cell's energy by the standard deviation: a jump of the force of one bond is one
    of about the same size.
    """
    atoms = crystal.deformed(np.eye(3)).repeat((2, 2, 2))
    home = atoms.positions.copy()
    direction = np.random.default_rng(seed).standard_normal(home.shape)
    direction -= direction.mean(axis=0)
    direction /= np.sqrt((direction**2).mean())

    def sampled(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies, forces = np.empty((2, len(places)))
        for index, place in enumerate(places):
            atoms.positions = home + place * direction
            calculator.calculate(atoms, ["energy", "forces"], all_changes)
            energies[index] = calculator.results["energy"]
            forces[index] = (calculator.results["forces"] * direction).sum()
        return energies, forces

    places = np.linspace(-FAR, FAR, round(2 * FAR / INTERVAL) + 1)
    middles = (places[:-1] + places[1:]) / 2
    energies, forces = sampled(places)
    steps, breaks, _ = (_standing_out(each) for each in _disagreement(energies, forces, INTERVAL))
    coarser = [
        _standing_out(_disagreement(energies[first::COARSER], forces[first::COARSER], COARSER * INTERVAL)[0])
        for first in range(COARSER)
    ]
    near = np.abs(middles) < NEAR
    found: list[Jumps] = []
    for part in (near, ~near):
        energy = float(steps[part].max())
        # a kink of the force leaves 16 times as much in the energy with intervals four times as long; a step that a
        # table has made a steep slope of, up to 4 times
        longer = max(float(each[part[first::COARSER][: len(each)]].max()) for first, each in enumerate(coarser))
        energy = energy if longer < 2 * COARSER * energy else 0.0
        middle, step = middles[int(np.argmax(np.where(part, breaks, -np.inf)))], INTERVAL
        sizes = []
        for _ in range(ZOOMS):
            step /= FINER
            around = middle + step * np.arange(-REACH * FINER - 3, REACH * FINER + 4)
            disagreement = _disagreement(*sampled(around), step)
            middle = around[int(np.argmax(disagreement[1]))] + step / 2
            sizes.append(float(disagreement[1].max()))
        force = sizes[-1] if sizes[-2] < FINER / 2 * sizes[-1] else 0.0  # a kink leaves 8 times less
        derivative = float(disagreement[2].max())
        energy = energy if energy > force * INTERVAL else 0.0  # else it is what the jump of the force leaves
        found.append(_above_floors((energy, force, derivative)))
    inner, outer = found
    return inner, (max(inner[0], outer[0]), max(inner[1], outer[1]), max(inner[2], outer[2]))


def _above_floors(sizes: Jumps) -> Jumps:
    energy, force, derivative = (s if s > floor else 0.0 for s, floor in zip(sizes, FLOORS, strict=True))
    return energy, force, derivative


def _standing_out(values: np.ndarray) -> np.ndarray:
    """`values` less a multiple of the median of those around."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(values, AROUND, mode="reflect"), 2 * AROUND + 1)
    return values - OUTSTANDING * np.median(around, axis=1)


def _disagreement(energies: np.ndarray, forces: np.ndarray, step: float) -> list[np.ndarray]:
    """By how much both sides disagree at the middle of every interval: in the energy, the force and its derivative;
    zero in the three intervals at each end."""
    windows = np.lib.stride_tricks.sliding_window_view(forces, 8)
    # coefficients of both cubics in steps from the middle: 1, x, x², x³
    left = windows[:, :4] @ np.linalg.inv(np.vander(_LEFT, increasing=True)).T
    right = windows[:, 4:] @ np.linalg.inv(np.vander(_RIGHT, increasing=True)).T
    halves = 0.5 ** np.arange(1, 5) / np.arange(1, 5)  # ∫ of x^k from 0 to 1/2
    signs = (-1.0) ** np.arange(4)
    work = step * (left @ (halves * signs) + right @ halves)
    energy = np.diff(energies)[3:-3] + work
    found = (energy, right[:, 0] - left[:, 0], (right[:, 1] - left[:, 1]) / step)
    return [np.pad(np.abs(each), 3) for each in found]


def third_derivative_change(crystal: Crystal, calculator: Calculator, step: float = STEP) -> float:
    """Largest change of a central third difference of the energy when the step 2 `step` is halved, over three strains
    of the perfect crystal, in units of the largest third derivative of the three.

    A smooth potential has 1e-5 to 1e-3, by truncation. Where it is one or more, there is no third derivative.
    """
    mixed = np.array([[0.5, 0.4, -0.2], [0.4, -0.3, 0.5], [-0.2, 0.5, 0.1]])
    changes, sizes = [], []
    for strain in (np.diag([1.0, 0, 0]), np.eye(3) / np.sqrt(3), mixed):
        energies = {}
        for k in (-4, -2, -1, 1, 2, 4):
            atoms = crystal.deformed(np.eye(3) + k * step * strain)
            atoms.calc = calculator
            energies[k] = float(atoms.get_potential_energy())
        fine, coarse = (
            (energies[2 * n] - 2 * energies[n] + 2 * energies[-n] - energies[-2 * n]) / (2 * (n * step) ** 3)
            for n in (1, 2)
        )
        changes.append(abs(fine - coarse))
        sizes.append(abs(fine))
    return float(max(changes) / max(sizes))
