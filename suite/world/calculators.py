"""What the calculators of all potentials share: how they fail, and how pieces of work take one along."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

from ase.calculators.calculator import Calculator

from store.faults import BadInput, FailedOutcome


class UnusableReference(BadInput, ValueError):
    """A reference potential that does not exist, cannot be built, or was given an impossible geometry."""


class NotFinite(FailedOutcome, FloatingPointError):
    """A potential gave an energy or a force that is not finite, or cannot be evaluated because atoms have met."""


class FailedEngine(FailedOutcome, RuntimeError):
    """LAMMPS has stopped with an error."""


@dataclass(frozen=True)
class Portable:
    """A calculator that pieces of work can take with them, perhaps to other processes.

    An engine remembers its neighbour lists, and with them the order of its sums: the last digits of a result depend on
    what was computed before. `fresh` therefore makes a new copy for every piece, whoever computes it. A calculator that
    cannot be pickled has no copies and stays in its process: `workers` then is 1.
    """

    pickled: bytes | None
    original: Calculator | None

    @classmethod
    def of(cls, calculator: Calculator) -> Portable:
        """What the copies of `calculator` are made from."""
        from joblib.externals.loky.backend.reduction import dumps  # takes classes of a user's script along

        try:
            return cls(bytes(dumps(calculator)), None)
        except (pickle.PicklingError, TypeError, AttributeError):  # what pickle raises, by the reason
            return cls(None, calculator)

    def fresh(self) -> Calculator:
        """A calculator that has computed nothing yet, or the original where that cannot be."""
        if self.pickled is not None:
            return pickle.loads(self.pickled)
        assert self.original is not None
        return self.original

    def workers(self, wanted: int | None) -> int | None:
        """How many processes may work with it, of those `wanted`."""
        return wanted if self.pickled is not None else 1
