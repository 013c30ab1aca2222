"""What a force call costs: on one core, of several potentials in turns, so that all see the same machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from threadpoolctl import threadpool_limits

ROUNDS = 5
STEP = 0.003  # Å; a step of a relaxation: neighbour lists with a skin are kept, as they are there
MOST_SECONDS = 60.0  # of one potential: a slow one is measured in fewer rounds


def force_costs(potentials: Mapping[str, Calculator], atoms: Atoms, seed: int = 0) -> dict[str, float]:
    """Cost of a force call on one core by name, µs for each atom: the fastest of five calls at moved `atoms`.

    Potentials take turns. The first call of each, which builds what is kept from call to call, does not count.
    """
    generator = np.random.default_rng(seed)
    measured = {name: atoms.copy() for name in potentials}
    fastest, spent = dict.fromkeys(potentials, np.inf), dict.fromkeys(potentials, 0.0)
    with _one_core():
        for index in range(ROUNDS + 1):
            moved = atoms.positions + STEP * generator.uniform(-1, 1, size=atoms.positions.shape)
            for name, calculator in potentials.items():
                if index > 1 and spent[name] > MOST_SECONDS:
                    continue
                copy = measured[name]
                copy.positions[:] = moved
                copy.calc = calculator
                begun = time.perf_counter()
                copy.get_forces()
                taken = time.perf_counter() - begun
                spent[name] += taken
                if index > 0:
                    fastest[name] = min(fastest[name], taken)
    return {name: 1e6 * taken / len(atoms) for name, taken in fastest.items()}


@contextmanager
def _one_core() -> Iterator[None]:
    """Libraries use one thread: BLAS, OpenMP, and PyTorch where it is loaded."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 1
    with threadpool_limits(limits=1):
        if torch is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
