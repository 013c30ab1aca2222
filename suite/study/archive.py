"""Converts the pipeline's records to datasets and back: what a run stores, and what the cache stores.

`run_groups` follows `store.schema`. The cache's groups hold only what cannot be rebuilt in a moment: cells are built
again from the spec, relaxed displacements and the Hessian are read.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.sparse import csr_array

from suite.judge.oracle import Oracle, Scales
from suite.model.regression import Block
from suite.model.training import Configurations
from suite.observables import ELASTIC
from suite.results import Model, Rows, Simulation, Solved, Verdict, World
from suite.spec import Spec
from suite.stages.cells import dislocation_of, simulation_cell, training_cells
from suite.stages.rows import recipe_of
from suite.world.cell import Arrays, Cell
from suite.world.crystal import LATTICES, Crystal, Response
from suite.world.curvature import Landscape
from suite.world.elasticity import Line
from suite.world.glide import Glide
from suite.world.relaxation import Relaxation, Status


def dataset(**arrays: tuple[tuple[str, ...], Any]) -> xr.Dataset:
    """Dataset from `name=(dims, values)`."""
    return xr.Dataset({name: (dims, np.asarray(values)) for name, (dims, values) in arrays.items()})


# --- what a run keeps ---------------------------------------------------------------------------------------------

_ATOM = ("atom", "xyz")


def _cell_group(cell: Cell, equilibrium: Relaxation) -> Arrays:
    return {
        "reference": (_ATOM, cell.reference),
        "predictor": (_ATOM, cell.predictor),
        "relaxed": (_ATOM, equilibrium.displacement),
        "cell": (("vector", "xyz"), cell.vectors),
        "cell_perfect": (("vector", "xyz"), cell.vectors_perfect),
        "species": (("atom",), cell.numbers.astype(np.int64)),
        "sublattice": (("atom",), cell.sublattice.astype(np.int64)),
        "core_burgers": (("core", "xyz"), cell.burgers),
        "force_history": (("call",), equilibrium.history),
        **cell.own_arrays(equilibrium.displacement),
    }


def run_groups(world: World, rows: Rows, model: Model, verdict: Verdict) -> dict[str, xr.Dataset]:
    """Everything that is needed to redraw every figure and to compare two runs; see `store.schema`."""
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
    forces = [
        (test.forces.reshape(len(test), 3 * len(cell)), fields)
        for cell, test, fields in zip(world.training, rows.test, verdict.matching.forces, strict=True)
    ]
    counts = np.concatenate([np.full(len(reference), reference.shape[1]) for reference, _ in forces])
    return {
        "crystal": dataset(a0=((), world.crystal.a0), energy_per_atom=((), world.energy_per_atom), **tensors),
        "simulation": dataset(
            **_cell_group(cell, world.equilibrium),
            **cell.own_model_arrays(comparison.relaxation.displacement),
            relaxed_model=(_ATOM, comparison.relaxation.displacement),
            forces=(_ATOM, comparison.model_forces_at_reference),
            error_atom=(("atom",), cell.strain_per_atom(error)),
            error_linear_atom=(("atom",), cell.strain_per_atom(comparison.linear_displacement)),
            force_history_model=(("call_model",), comparison.relaxation.history),
        ),
        **{_numbered("training", k): dataset(**_cell_group(*pair)) for k, pair in enumerate(world.trained)},
        "model": dataset(
            coefficients=(("function",), model.coefficients),
            order=(("function",), rows.basis.orders.astype(np.int64)),
        ),
        "matching": dataset(
            energy_reference=(("config",), np.concatenate([test.energies for test in rows.test])),
            energy_model=(("config",), verdict.matching.energies),
            force_reference=(("component",), np.concatenate([reference.ravel() for reference, _ in forces])),
            force_model=(("component",), np.concatenate([model.ravel() for _, model in forces])),
            force_config=(("component",), np.repeat(np.arange(len(counts), dtype=np.int64), counts)),
            amplitude=(("config",), np.concatenate([test.amplitudes for test in rows.test])),
            dual_norm=(("config",), verdict.matching.dual_norms),
        ),
    }


def _numbered(name: str, index: int) -> str:
    """Group of the first, second, ... training cell: training, training_2, ..."""
    return name if index == 0 else f"{name}_{index + 1}"


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
        Status.CONVERGED,  # only converged equilibria are cached
        group["displacement"].values,
        float(group["energy"]),
        group["forces"].values,
        group["history"].values,
        group["shifts"].values,
    )


def _response_group(found: Response) -> xr.Dataset:
    return dataset(d1=(("a",), found.d1.ravel()), d2=(("b",), found.d2.ravel()), d3=(("c",), found.d3.ravel()))


def _response(group: Any) -> Response:
    return Response(*(group[f"d{order}"].values.reshape((3,) * 2 * order) for order in (1, 2, 3)))


def simulation_groups(simulated: Simulation) -> dict[str, xr.Dataset]:
    """The parts of a simulation that are expensive to compute."""
    coarse = simulated.response.coarse
    assert coarse is not None  # `pipeline.build_world` measures with both steps
    groups = {
        "crystal": dataset(
            a0=((), simulated.crystal.a0),
            energy_per_atom=((), simulated.energy_per_atom),
            stability=((), simulated.stability),
            **_split_arrays(simulated),
        ),
        "response": _response_group(simulated.response),
        "coarse": _response_group(coarse),
        "simulation": _relaxation_group(simulated.equilibrium).assign(softest=(_ATOM, simulated.landscape.softest)),
    }
    if simulated.landscape.hessian is not None:
        matrix = simulated.landscape.hessian.tocsr()
        groups["hessian"] = dataset(
            data=(("entry",), matrix.data),
            indices=(("entry",), matrix.indices.astype(np.int64)),
            indptr=(("row",), matrix.indptr.astype(np.int64)),
        )
    return groups


def simulation_from(spec: Spec, groups: Any) -> Simulation:
    """The simulation of `spec` from its cached groups (a DataTree or mapping of datasets)."""
    crystal_group = groups["crystal"]
    crystal = Crystal(LATTICES[spec.material.lattice], spec.material.species, float(crystal_group["a0"]))
    reference = replace(_response(groups["response"]), coarse=_response(groups["coarse"]))
    cell = simulation_cell(spec, crystal, reference)
    return Simulation(
        crystal,
        float(crystal_group["energy_per_atom"]),
        reference,
        dislocation_of(spec),
        cell,
        _relaxation(groups["simulation"]),
        _landscape(cell, groups),
        float(crystal_group["fault_energy"]) if "fault_energy" in crystal_group else None,
    )


def _split_arrays(simulated: Simulation) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Arrays that exist only for dislocations that split."""
    arrays: dict[str, tuple[tuple[str, ...], Any]] = {}
    if simulated.fault_energy is not None:
        arrays["fault_energy"] = ((), simulated.fault_energy)
    if (glide := simulated.landscape.glide) is not None:
        arrays |= {"glide": (_ATOM, glide.mode), "glide_curvature": ((), glide.curvature)}
    return arrays


def _landscape(cell: Cell, groups: Any) -> Landscape:
    """The energy around the equilibrium: with a Hessian and a neutral glide where they were stored."""
    crystal, matrix, glide = groups["crystal"], None, None
    if "hessian" in groups:
        parts, size = groups["hessian"], 3 * len(cell)
        matrix = csr_array((parts["data"].values, parts["indices"].values, parts["indptr"].values), shape=(size, size))
    if "glide" in crystal:
        glide = Glide.of(cell, crystal["glide"].values, float(crystal["glide_curvature"]))
    return Landscape(matrix, float(crystal["stability"]), groups["simulation"]["softest"].values, glide)


def training_groups(world: World) -> dict[str, xr.Dataset]:
    """The equilibria of the training cells."""
    return {_numbered("training", k): _relaxation_group(found) for k, (_, found) in enumerate(world.trained)}


def world_from(spec: Spec, simulated: Simulation, groups: Any) -> World:
    """The world of `spec` from its simulation and the cached groups of its training cells."""
    training = training_cells(spec, simulated.crystal, simulated.response)
    equilibria = [_relaxation(groups[_numbered("training", k)]) for k in range(len(training))]
    return World.of(simulated, list(map(Solved, training, equilibria)))


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
    for name, sets in (("train", rows.train), ("test", rows.test)):
        groups |= {_numbered(name, k): _configurations_group(found) for k, found in enumerate(sets)}
    return groups


def block_names(rows: Rows) -> list[str]:
    return list(rows.blocks)


def rows_from(spec: Spec, groups: Any, names: list[str], response: Response) -> Rows:
    """Rows of `spec` from their cached groups and the reference's elastic `response`."""
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
        recipe_of(spec),
        blocks,
        {name: group[name].values for name in ELASTIC if name in group},
        group["perfect"].values,
        float(group["energy_per_atom"]),
        _every_configuration(groups, "train"),
        _every_configuration(groups, "test"),
        response,
    )


def _every_configuration(groups: Any, name: str) -> tuple[Configurations, ...]:
    found: list[Configurations] = []
    while _numbered(name, len(found)) in groups:
        found.append(_configurations(groups[_numbered(name, len(found))]))
    return tuple(found)


def oracle_groups(oracle: Oracle) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Groups and attributes of an oracle's cache entry."""
    groups = {
        "response": dataset(
            geometry=(("row", "column"), oracle.geometry),
            energy=(("column",), oracle.energy),
            pull=(("left", "column"), oracle.pull),
            shift=(("left", "column"), oracle.shift),
        ),
        "test": dataset(
            amplitudes=(("config",), oracle.amplitudes),
            energies=(("config", "column"), oracle.energies),
            dual=(("config", "row", "column"), oracle.dual),
        ),
        "elastic": dataset(
            **{name: ((f"{name}_row", "column"), np.ascontiguousarray(rows)) for name, rows in oracle.elastic.items()}
        ),
    }
    groups["line"] = dataset(
        frame=(("vector", "xyz"), oracle.line.frame),
        burgers=(("xyz",), oracle.line.burgers),
        length=((), oracle.line.length),
        moduli=(("entry", "column"), oracle.moduli),
    )
    for index, rows in enumerate(oracle.forces.values()):
        groups[f"force_{index}"] = dataset(triangle=(("row", "column"), rows))
    return groups, {"scales": asdict(oracle.scales), "components": oracle.components}


def oracle_from(tree: xr.DataTree) -> Oracle:
    """An oracle from its cache entry."""
    components = {name: int(count) for name, count in tree.attrs["components"].items()}
    line = tree["line"]
    return Oracle(
        Scales(**tree.attrs["scales"]),
        tree["test"]["amplitudes"].to_numpy(),
        tree["test"]["energies"].to_numpy(),
        tree["test"]["dual"].to_numpy(),
        {name: tree[f"force_{index}"]["triangle"].to_numpy() for index, name in enumerate(components)},
        components,
        {str(name): rows.to_numpy() for name, rows in tree["elastic"].data_vars.items()},
        line["moduli"].to_numpy(),
        Line(line["frame"].to_numpy(), line["burgers"].to_numpy(), float(line["length"])),
        *(tree["response"][name].to_numpy() for name in ("geometry", "energy", "pull", "shift")),
    )
