"""Every variable that a run store may hold, by group: dimensions, unit, kind and meaning.

A new variable is one line in `GROUPS`; a new dimension of fixed length is one entry in `LENGTHS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

EV = "eV"
ANGSTROM = "Å"
FORCE = "eV/Å"
DENSITY = "eV/Å^3"
NONE = "1"  # dimensionless, and labels such as atomic numbers


@dataclass(frozen=True)
class Variable:
    """One entry of the schema: named dimensions, unit, numpy dtype name and one phrase."""

    dims: tuple[str, ...]
    unit: str
    dtype: str
    meaning: str


class SchemaError(ValueError):
    """A dataset breaks the schema; `violations` holds one sentence per break."""

    def __init__(self, group: str, violations: Iterable[str]) -> None:
        self.group = group
        self.violations = tuple(violations)
        super().__init__("\n".join(f"{group}: {sentence}" for sentence in self.violations))


def _real(dims: str, unit: str, meaning: str) -> Variable:
    return Variable(tuple(dims.split()), unit, "float64", meaning)


def _whole(dims: str, meaning: str) -> Variable:
    return Variable(tuple(dims.split()), NONE, "int64", meaning)


LENGTHS: dict[str, int] = {
    "xyz": 3,
    "vector": 3,
    "plane": 2,
    "end": 2,
    **dict.fromkeys("ijklmn", 3),
}
"""Length of each dimension that physics fixes; every other dimension is free."""

_CELL: dict[str, Variable] = {
    "reference": _real("atom xyz", ANGSTROM, "perfect-crystal positions"),
    "predictor": _real("atom xyz", ANGSTROM, "displacement of the predictor"),
    "relaxed": _real("atom xyz", ANGSTROM, "displacement at the reference equilibrium"),
    "relaxed_model": _real("atom xyz", ANGSTROM, "displacement at the model equilibrium"),
    "forces": _real("atom xyz", FORCE, "model forces at the reference equilibrium"),
    "energy_atom": _real("atom", EV, "energy per atom of the reference at its equilibrium"),
    "energy_atom_model": _real("atom", EV, "energy per atom of the model at its equilibrium"),
    "error_atom": _real("atom", ANGSTROM, "bond-strain error per atom"),
    "error_linear_atom": _real("atom", ANGSTROM, "bond-strain error per atom predicted by linear response"),
    "cell": _real("vector xyz", ANGSTROM, "deformed periodic cell, one vector per row"),
    "cell_perfect": _real("vector xyz", ANGSTROM, "perfect periodic cell, one vector per row"),
    "species": _whole("atom", "atomic numbers"),
    "sublattice": _whole("atom", "sublattice index"),
    "bonds": _whole("bond end", "atom indices of the bonds in the stencil"),
    "core_position": _real("core plane", ANGSTROM, "nominal core positions"),
    "core_burgers": _real("core xyz", ANGSTROM, "Burgers vector of each core"),
    "core_found": _real("core plane", ANGSTROM, "core positions found after relaxation"),
    "loop_centre": _real("xyz", ANGSTROM, "centre of a loop before relaxation"),
    "loop_radius": _real("", ANGSTROM, "radius of a loop before relaxation"),
    "loop_line": _real("point xyz", ANGSTROM, "open circuits of a relaxed loop, from its centre"),
    "loop_line_model": _real("point_model xyz", ANGSTROM, "open circuits of the model's relaxed loop"),
    "force_history": _real("call", FORCE, "largest force at each reference call"),
    "force_history_model": _real("call_model", FORCE, "largest force at each model call"),
}

GROUPS: dict[str, dict[str, Variable]] = {
    "crystal": {
        "a0": _real("", ANGSTROM, "equilibrium lattice constant of the reference"),
        "energy_per_atom": _real("", EV, "energy per atom of the perfect crystal"),
        "stress": _real("i j", DENSITY, "first derivative of the Cauchy-Born density, reference"),
        "stress_model": _real("i j", DENSITY, "first derivative of the Cauchy-Born density, model"),
        "dW2": _real("i j k l", DENSITY, "second derivative of the Cauchy-Born density, reference"),
        "dW2_model": _real("i j k l", DENSITY, "second derivative of the Cauchy-Born density, model"),
        "dW3": _real("i j k l m n", DENSITY, "third derivative of the Cauchy-Born density, reference"),
        "dW3_model": _real("i j k l m n", DENSITY, "third derivative of the Cauchy-Born density, model"),
    },
    "simulation": dict(_CELL),
    "training": dict(_CELL),
    "training_2": dict(_CELL),
    "model": {
        # Labels of the functions go into a JSON attribute: zarr 3 has no stable string arrays.
        "coefficients": _real("function", EV, "coefficient of each basis function"),
        "order": _whole("function", "correlation order of each basis function"),
    },
    "matching": {
        "energy_reference": _real("config", EV, "reference energy of each test configuration"),
        "energy_model": _real("config", EV, "model energy of each test configuration"),
        "force_reference": _real("component", FORCE, "reference force components"),
        "force_model": _real("component", FORCE, "model force components"),
        "force_config": _whole("component", "configuration that each force component belongs to"),
        "amplitude": _real("config", ANGSTROM, "rattling amplitude of each test configuration"),
        "dual_norm": _real("config", FORCE, "dual norm of the force error per configuration"),
    },
}


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check(group: str, dataset: xr.Dataset) -> None:
    """Compare every variable of `dataset`, coordinates included, with the schema of `group`.

    Any subset of the variables of a group is a valid dataset. Only the kind of the dtype is checked:
    float32 is accepted for float64, an integer is not.

    Raises SchemaError with all violations at once: unknown group or variable, other dimensions
    or another order of them, another dtype kind, a fixed dimension of another length.
    """
    if group not in GROUPS:
        known = ", ".join(GROUPS)
        raise SchemaError(group, [f"no such group{_nearest(group, GROUPS)}; groups are {known}; see store.schema"])
    found = []
    for key, array in dataset.variables.items():
        name = str(key)
        wanted = GROUPS[group].get(name)
        if wanted is None:
            found.append(f"{name}: unknown variable{_nearest(name, GROUPS[group])}; declare it in store.schema.GROUPS")
            continue
        if tuple(array.dims) != wanted.dims:
            found.append(f"{name}: dims are {tuple(array.dims)}, the schema says {wanted.dims}")
        if array.dtype.kind != np.dtype(wanted.dtype).kind:
            found.append(f"{name}: dtype is {array.dtype}, the schema says {wanted.dtype}")
    for dim, length in dataset.sizes.items():
        fixed = LENGTHS.get(str(dim), length)
        if length != fixed:
            users = ", ".join(str(k) for k, v in dataset.variables.items() if dim in v.dims)
            found.append(f"{users}: dimension {dim!r} has length {length}, it must be {fixed}")
    if found:
        raise SchemaError(group, found)


def annotate(group: str, dataset: xr.Dataset) -> xr.Dataset:
    """Return a shallow copy of `dataset` whose variables carry `units` and `long_name`.

    Other attributes are kept. Raises SchemaError where `check` does.
    """
    check(group, dataset)
    result = dataset.copy()
    for name, array in result.variables.items():
        entry = GROUPS[group][str(name)]
        array.attrs = {**array.attrs, "units": entry.unit, "long_name": entry.meaning}
    return result


def describe() -> str:
    """Return the schema as one Markdown table, a row per variable, in the order of `GROUPS`."""
    lines = ["| group | variable | dims | unit | dtype | meaning |", "|---|---|---|---|---|---|"]
    for group, variables in GROUPS.items():
        for name, entry in variables.items():
            dims = ", ".join(entry.dims) or "scalar"
            lines.append(f"| {group} | `{name}` | {dims} | {entry.unit} | {entry.dtype} | {entry.meaning} |")
    return "\n".join(lines) + "\n"
