"""What a loss can see of a potential: one record for each observable.

A new observable is an entry here and its rows: those of configurations and derivatives of the energy density
are made in `suite.model.rows`. Keys of a spec, ranges of weight studies, and the page of keys follow from the entry.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Observable:
    """An observable of the loss.

    `short` stands for it in names of runs. `on` and `weight` are defaults of `[observables]` and `[weights]`; `ratio`
    is the default range of its weight over that of the forces in a weight study, None for the forces themselves;
    `order` of the derivative of the energy density, 0 for what is not elastic; `balance` is its term in the paper's
    balance, if it has one.
    """

    name: str
    short: str
    on: bool
    weight: float
    ratio: tuple[float, float] | None
    order: int = 0
    balance: str = ""


OBSERVABLES: dict[str, Observable] = {
    entry.name: entry
    for entry in (
        Observable("energy", "E", True, 50.0, (1e-3, 1e4), balance="balance_E"),
        Observable("force", "F", True, 10.0, None, balance="balance_F"),
        Observable("stress", "S", False, 10.0, (1e-3, 1e5), order=1),
        Observable("virial1", "V1", True, 10.0, (1e-3, 1e5), order=2, balance="balance_V1"),
        Observable("virial2", "V2", True, 1.0, (1e-5, 1e3), order=3),
    )
}
ELASTIC = tuple(entry.name for entry in sorted(OBSERVABLES.values(), key=lambda entry: entry.order) if entry.order)
RATIOS = tuple(entry.name for entry in OBSERVABLES.values() if entry.ratio is not None)


def block_name(observable: str, amplitude: float) -> str:
    """Name of the block of an observable over the configurations of an amplitude (Å)."""
    return f"{observable}@{amplitude:g}"


def block_parts(name: str) -> tuple[str, str]:
    """Observable and amplitude (in words, "" where there is none) of a block."""
    observable, _, amplitude = name.partition("@")
    return observable, amplitude
