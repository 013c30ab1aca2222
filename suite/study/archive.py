"""Between the pipeline's records and datasets: what a run keeps, and what the cache keeps to go on from.

`run_groups` follows `store.schema`. The cache's groups hold only what cannot be rebuilt in a moment: cells are built
again from the spec, relaxed displacements and the Hessian are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.sparse import csr_array

from suite.model.regression import Block
from suite.model.training import Configurations
from suite.pipeline import Model, Rows, Verdict, World, basis_of, dislocation_of, make_cells
from suite.spec import Spec
from suite.world.cell import Cell
from suite.world.crystal import LATTICES, Crystal, Response, elastic_tensor
from suite.world.dislocation import find_cores
from suite.world.elasticity import rotate, stroh
from suite.world.relaxation import Relaxation, Status


def dataset(**arrays: tuple[tuple[str, ...], Any]) -> xr.Dataset:
    """Dataset from `name=(dims, values)`."""
    return xr.Dataset({name: (dims, np.asarray(values)) for name, (dims, values) in arrays.items()})


# --- what a run keeps ---------------------------------------------------------------------------------------------

_ATOM = ("atom", "xyz")


def _cell_group(cell: Cell, equilibrium: Relaxation) -> dict[str, tuple[tuple[str, ...], Any]]:
    found = find_cores(cell.circuits, equilibrium.displacement, 1.5 * cell.a0)
    return {
        "reference": (_ATOM, cell.reference),
        "predictor": (_ATOM, cell.predictor),
        "relaxed": (_ATOM, equilibrium.displacement),
        "cell": (("vector", "xyz"), cell.vectors),
        "cell_perfect": (("vector", "xyz"), cell.vectors_perfect),
        "species": (("atom",), cell.numbers.astype(np.int64)),
        "sublattice": (("atom",), cell.sublattice.astype(np.int64)),
        "bonds": (("bond", "end"), cell.bonds.astype(np.int64)),
        "core_position": (("core", "plane"), cell.cores),
        "core_burgers": (("core", "xyz"), cell.burgers),
        "core_found": (("core", "plane"), np.array([core.position for core in found]).reshape(-1, 2)),
        "force_history": (("call",), equilibrium.history),
    }


def run_groups(world: World, rows: Rows, model: Model, verdict: Verdict) -> dict[str, xr.Dataset]:
    """Everything one needs to redraw every figure and to difference two runs; see `store.schema`."""
    cell, comparison = world.simulation, verdict.comparison
    error = comparison.relaxation.displacement - world.equilibrium.displacement
    tensors = {
        "stress": (("i", "j"), world.response.d1),
        "dW2": (("i", "j", "k", "l"), world.response.d2),
        "dW3": (("i", "j", "k", "l", "m", "n"), world.response.d3),
        "stress_model": (("i", "j"), verdict.response.d1),
        "dW2_model": (("i", "j", "k", "l"), verdict.response.d2),
        "dW3_model": (("i", "j", "k", "l", "m", "n"), verdict.response.d3),
    }
    test = rows.test
    components = test.forces[0].size
    return {
        "crystal": dataset(a0=((), world.crystal.a0), energy_per_atom=((), world.energy_per_atom), **tensors),
        "simulation": dataset(
            **_cell_group(cell, world.equilibrium),
            relaxed_model=(_ATOM, comparison.relaxation.displacement),
            forces=(_ATOM, comparison.model_forces_at_reference),
            error_atom=(("atom",), cell.strain_per_atom(error)),
            error_linear_atom=(("atom",), cell.strain_per_atom(comparison.linear_displacement)),
            force_history_model=(("call_model",), comparison.relaxation.history),
        ),
        "training": dataset(**_cell_group(world.training, world.training_equilibrium)),
        "model": dataset(
            coefficients=(("function",), model.coefficients),
            order=(("function",), rows.ace.orders.astype(np.int64)),
        ),
        "matching": dataset(
            energy_reference=(("config",), test.energies),
            energy_model=(("config",), verdict.matching.energies),
            force_reference=(("component",), test.forces.ravel()),
            force_model=(("component",), verdict.matching.forces.ravel()),
            force_config=(("component",), np.repeat(np.arange(len(test), dtype=np.int64), components)),
            amplitude=(("config",), test.amplitudes),
            dual_norm=(("config",), verdict.matching.dual_norms),
        ),
    }


# --- what the cache keeps -----------------------------------------------------------------------------------------


def _relaxation_group(result: Relaxation) -> xr.Dataset:
    return dataset(
        displacement=(_ATOM, result.displacement),
        energy=((), result.energy),
        forces=(_ATOM, result.forces),
        history=(("call",), result.history),
        shifts=(("core", "plane"), result.shifts),
    )


def _relaxation(group: xr.Dataset) -> Relaxation:
    return Relaxation(
        Status.CONVERGED,  # nothing else is ever cached
        group["displacement"].values,
        float(group["energy"]),
        group["forces"].values,
        group["history"].values,
        group["shifts"].values,
    )


def world_groups(world: World) -> dict[str, xr.Dataset]:
    """The parts of a world that took time."""
    matrix = world.hessian.tocsr()
    return {
        "crystal": dataset(
            a0=((), world.crystal.a0),
            energy_per_atom=((), world.energy_per_atom),
            d1=(("a", "b"), world.response.d1.reshape(3, 3)),
            d2=(("c",), world.response.d2.ravel()),
            d3=(("d",), world.response.d3.ravel()),
            stability=((), world.stability),
        ),
        "training": _relaxation_group(world.training_equilibrium),
        "simulation": _relaxation_group(world.equilibrium),
        "hessian": dataset(
            data=(("entry",), matrix.data),
            indices=(("entry",), matrix.indices.astype(np.int64)),
            indptr=(("row",), matrix.indptr.astype(np.int64)),
        ),
    }


def world_from(spec: Spec, groups: Any) -> World:
    """The world of `spec` from its cached groups (a DataTree or mapping of datasets)."""
    crystal_group = groups["crystal"]
    crystal = Crystal(LATTICES[spec.material.lattice], spec.material.species, float(crystal_group["a0"]))
    reference = Response(
        crystal_group["d1"].values,
        crystal_group["d2"].values.reshape((3,) * 4),
        crystal_group["d3"].values.reshape((3,) * 6),
    )
    kind = dislocation_of(spec)
    elasticity = stroh(rotate(elastic_tensor(reference), kind.frame))
    training, simulation = make_cells(spec, crystal, elasticity)
    entries = groups["hessian"]
    size = 3 * len(simulation)
    matrix = csr_array(
        (entries["data"].values, entries["indices"].values, entries["indptr"].values), shape=(size, size)
    )
    return World(
        crystal,
        float(crystal_group["energy_per_atom"]),
        reference,
        kind,
        elasticity,
        training,
        _relaxation(groups["training"]),
        simulation,
        _relaxation(groups["simulation"]),
        matrix,
        float(crystal_group["stability"]),
    )


def _configurations_group(found: Configurations) -> xr.Dataset:
    return dataset(
        displacements=(("config", *_ATOM), found.displacements),
        amplitudes=(("config",), found.amplitudes),
        energies=(("config",), found.energies),
        forces=(("config", *_ATOM), found.forces),
    )


def _configurations(group: Any) -> Configurations:
    return Configurations(*(group[name].values for name in ("displacements", "amplitudes", "energies", "forces")))


def rows_groups(rows: Rows) -> dict[str, xr.Dataset]:
    """Reduced blocks (zarr names have no '@': they are numbered, see `block_names`), elastic rows, configurations."""
    groups = {
        f"block_{index}": dataset(
            triangle=(("row", "column"), block.triangle),
            rows=((), block.rows),
            target_sum=((), block.target_sum),
        )
        for index, block in enumerate(rows.blocks.values())
    }
    groups["rows"] = dataset(
        perfect=(("function",), rows.perfect),
        energy_per_atom=((), rows.energy_per_atom),
        **{name: ((f"{name}_row", "function"), values) for name, values in rows.elastic.items()},
    )
    groups["train"] = _configurations_group(rows.train)
    groups["test"] = _configurations_group(rows.test)
    return groups


def block_names(rows: Rows) -> list[str]:
    return list(rows.blocks)


def rows_from(spec: Spec, groups: Any, names: list[str]) -> Rows:
    """Rows of `spec` from their cached groups."""
    blocks = {
        name: Block(
            groups[f"block_{index}"]["triangle"].values,
            int(groups[f"block_{index}"]["rows"]),
            float(groups[f"block_{index}"]["target_sum"]),
        )
        for index, name in enumerate(names)
    }
    group = groups["rows"]
    return Rows(
        basis_of(spec),
        blocks,
        {name: group[name].values for name in ("stress", "virial1", "virial2")},
        group["perfect"].values,
        float(group["energy_per_atom"]),
        _configurations(groups["train"]),
        _configurations(groups["test"]),
    )
