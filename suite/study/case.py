"""One case from spec to store: stages cached by content, the run in MLflow, fields in zarr, figures beside them.

A stage's key hashes exactly the tables of the spec that it reads (`pipeline.stage_tables`), the content of the
potentials that these name (`suite.world.contents`), the versions of the packages whose numbers it contains, and a stage
version. What is stored under a key is reused; a failure never is. Processes that want the same stage at once take
turns: the first makes it, the others read it.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import xarray as xr

from store import fields, provenance
from store.faults import BadInput
from store.locking import locked_file
from store.runs import Run, Tracker
from suite import pipeline
from suite.execution import at_most, to_stderr
from suite.judge.remarks import remarks
from suite.model.trained import TrainedSpec
from suite.observables import OBSERVABLES
from suite.progress import Progress, silent
from suite.results import Model, Rows, Simulation, Verdict, World
from suite.show import figures
from suite.spec import Spec
from suite.stages.rows import recipe_of
from suite.study import archive
from suite.study.training import trained, training_key
from suite.world.contents import contents_of
from suite.world.crystal import constants
from suite.world.lammps_job import job_digest
from suite.world.relaxation import FailedRelaxation

# Raise a number when the stage's results change for the same spec; "verdict" is not cached, but points of sweeps are.
STAGE_VERSIONS = {"simulation": 4, "training": 1, "rows": 4, "verdict": 8}
STAGE_PACKAGES = {"simulation": ("lammps",), "training": ("lammps",), "rows": ("lammps", "python-ace")}
PACKAGES = ("dislobench", "numpy", "scipy", "ase", "lammps", "python-ace", "mlflow", "optuna", "xarray", "zarr")


Content = TypeVar("Content")


class ChangedPotential(BadInput, RuntimeError):
    """A file or module of a potential was changed while a run used it: its numbers would be a mixture."""


@dataclass
class Stages:
    """Wall time (s) of each stage, peak memory of the process (MB) after it, and whether it came from the cache. A
    stage that is entered again adds its time. `potentials` is what the first stage found them to be made of; `training`
    what another trainer took when it ran, perhaps in an earlier run: seconds, megabytes, cores."""

    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)
    cached: dict[str, bool] = field(default_factory=dict)
    potentials: dict[str, Any] | None = None
    training: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun
            peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            self.megabytes[name] = peak / 1024

    def watch(self, spec: Spec) -> None:
        """Remember what the potentials of `spec` are made of; raises `ChangedPotential` when it is not what it was."""
        found = potentials_of(spec)
        if self.potentials is None:
            self.potentials = found
        elif self.potentials != found:
            changed = [name for name in found if self.potentials.get(name) != found[name]]
            raise ChangedPotential(
                f"files or code of the {' and the '.join(changed)} changed while the run used them, so that its "
                "numbers would be a mixture: run it again"
            )


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


def potentials_of(spec: Spec) -> dict[str, Any]:
    """What the reference, and the potential that is given as the model, are made of."""
    folders = [] if spec.folder is None else [spec.folder]
    named = {"reference": (spec.material.reference, spec.material.arguments)}
    if spec.model.source:
        named["model"] = (spec.model.source, spec.model.arguments)
    return {which: contents_of(name, arguments, folders) for which, (name, arguments) in named.items()}


def stage_key(spec: Spec, stage: str, job: Path | None = None) -> str:
    """Content key of a stage; `job` as in `pipeline.build_world`, which only the simulation reads."""
    potentials = potentials_of(spec)
    if stage != "rows":
        potentials.pop("model", None)
    return provenance.content_key(
        stage,
        STAGE_VERSIONS[stage],
        pipeline.stage_tables(spec)[stage],
        provenance.versions(STAGE_PACKAGES[stage]),
        potentials,
        job_digest(job) if job is not None and stage == "simulation" else None,
    )


# --- the cache ----------------------------------------------------------------------------------------------------


def _cached(path: Path) -> xr.DataTree | None:
    """What is cached at `path`, whole; else None."""
    try:
        return fields.read(path) if path.exists() else None
    except fields.StoreError:
        return None


@contextmanager
def _made_once(path: Path, progress: Progress) -> Iterator[None]:
    """While the cache entry at `path` is made, no other process makes it. Look again inside: another one may have.

    A damaged entry is removed, because it can be made again.
    """
    what, _, _ = path.stem.partition("-")
    lock = path.parent.parent / "locks" / path.stem
    with locked_file(lock, lambda: progress("waiting", 0.0, f"another process computes the same {what}")):
        if path.exists():
            try:
                fields.verify(path)
            except fields.StoreError as error:
                progress("cache", 1.0, f"damaged, computed again: {error}")
                fields.remove(path)
        yield


def cached(
    path: Path,
    load: Callable[[xr.DataTree], Content],
    make: Callable[[], Content],
    groups: Callable[[Content], tuple[Mapping[str, xr.Dataset], Mapping[str, Any]]],
    progress: Progress,
) -> tuple[Content, bool]:
    """What the cache holds at `path`, else what `make` makes, which is kept there; and whether it was there."""
    if (tree := _cached(path)) is not None:
        return load(tree), True
    with _made_once(path, progress):
        if (tree := _cached(path)) is not None:
            return load(tree), True
        made = make()
        fields.write(path, *groups(made), check=False)
    return made, False


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
    stages.watch(spec)
    key = stage_key(spec, "simulation", job)
    large = workspace / "cache" / f"simulation-{key}.zarr"
    small = workspace / "cache" / f"training-{stage_key(spec, 'training')}.zarr"

    def found(simulated: Simulation | None) -> tuple[Simulation | None, World | None]:
        if simulated is None and (tree := _cached(large)) is not None:
            simulated = archive.simulation_from(spec, tree)
        tree = None if simulated is None else _cached(small)
        world = None if simulated is None or tree is None else archive.world_from(spec, simulated, tree)
        return simulated, world

    with stages.stage("world"):
        simulated, world = found((kept or {}).get(key))
        stages.cached["world"] = world is not None
        if world is None:
            with _made_once(large if simulated is None else small, progress):
                simulated, world = found(simulated)
                if world is None:
                    world = pipeline.build_world(spec, progress, job, simulated)
                    stages.watch(spec)
                    if simulated is None:
                        fields.write(large, archive.simulation_groups(world), check=False)
                    fields.write(small, archive.training_groups(world), check=False)
        if kept is not None:
            kept.clear()
            kept[key] = world
    return world


def cached_rows(
    spec: Spec, world: World, workspace: Path, stages: Stages, progress: Progress = silent, workers: int | None = None
) -> Rows:
    """The rows of `spec`, from the cache when their key is there."""
    stages.watch(spec)
    path = workspace / "cache" / f"rows-{stage_key(spec, 'rows')}.zarr"

    def make() -> Rows:
        rows = pipeline.build_rows(spec, world, progress, workers)
        stages.watch(spec)
        return rows

    with stages.stage("rows"):
        rows, stages.cached["rows"] = cached(
            path,
            lambda tree: archive.rows_from(spec, tree, list(tree.attrs["blocks"]), world.response),
            make,
            lambda rows: (archive.rows_groups(rows), {"blocks": archive.block_names(rows)}),
            progress,
        )
    if spec.model.backend != "trainer":
        return rows
    with stages.stage("train"):
        key = training_key(spec, stage_key(spec, "rows"))
        rows, stages.training, stages.cached["train"] = trained(spec, world, rows, workspace, key, progress)
        stages.watch(spec)
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


def refuse_early(spec: Spec) -> None:
    """Raises `UnusableReference` for a potential or a trainer that cannot be built or imported: now, and not after the
    world has been computed."""
    recipe = recipe_of(spec)
    if isinstance(recipe, TrainedSpec):
        recipe.importable()
    elif spec.model.source:
        recipe.build()


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
    equilibrium is unusable, `Unsolvable`, `UnusableReference`; and before there is a run `UnusableReference` when `job`
    is not finished. A model that does not relax is a result, with a status. A figure that cannot be drawn is a warning.
    """
    workspace = workspace.absolute()
    if job is not None:
        job_digest(job)
    stages = Stages()
    tracker = Tracker(workspace)
    described = {
        **provenance.versions(PACKAGES),
        **{f"machine.{k}": str(v) for k, v in provenance.machine().items()},
    }
    begun = tracker.start(spec.case.name, name or run_name(spec), parameters(spec), tags or {}, parent)
    with at_most(workers), begun as run:
        run.tags(described | {"preset_free_spec": provenance.content_key(spec.model_dump())})
        run.text("spec.toml", spec.to_toml())
        refuse_early(spec)
        try:
            world = cached_world(spec, workspace, stages, progress, job, kept)
        except FailedRelaxation as failure:
            run.tags({"outcome": failure.relaxation.status.name.lower(), "remedy": failure.remedy})
            raise
        rows = cached_rows(spec, world, workspace, stages, progress, workers)
        run.parameters({"L_D": round(world.core_distance, 4)})
        if rows.functions:
            run.parameters({"functions": rows.functions})
        with stages.stage("fit"):
            if rows.functions:
                progress("fit", 0.0, f"{rows.functions} functions, {spec.solver.kind}")
            model = pipeline.fit(spec, rows)
        with stages.stage("assess"):
            verdict = pipeline.assess(spec, world, rows, model, progress)
            stages.watch(spec)
        outcome = verdict.status
        ending = {"outcome": outcome.name.lower(), "limiting_term": verdict.limiting_term, "remedy": outcome.remedy}
        if found := remarks(verdict.numbers):
            ending["remarks"] = "; ".join(found)
        measured = {
            **verdict.numbers,
            **{f"train_rmse_{k.replace('@', '_')}": v for k, v in model.training_rmse.items()},
            **{f"solver_{k}": v for k, v in model.solution.details.items()},
            **{f"seconds_{k}": v for k, v in stages.seconds.items()},
            **{f"megabytes_{k}": v for k, v in stages.megabytes.items()},
            **{f"training_{k}": v for k, v in stages.training.items()},
            **reference_numbers(world),
        }
        with stages.stage("store"):
            progress("store", 0.0, "fields, MLflow")
            place = tracker.store_of(run.id)
            sealed = attributes(spec, run.id, world, verdict) | {"record": run.record(measured, ending)}
            fields.write(place, archive.run_groups(world, rows, model, verdict), sealed)
            with TemporaryDirectory() as scratch:
                potential = Path(scratch, "potential")
                if rows.basis.save(model.coefficients, model.energy_per_atom, potential):
                    run.artifact(potential)
        run.metrics(measured | {"seconds_store": stages.seconds["store"], "megabytes_store": stages.megabytes["store"]})
        drawn = []
        if draw:  # a ladder of runs has figures of its own; `show` draws those of a run at any time
            with stages.stage("figures"):
                progress("figures", 0.0, "from the store")
                drawn = _draw(run, place)
            run.metrics({"seconds_figures": stages.seconds["figures"]})
        run.tags(ending)  # last: a failed run with an outcome is one that failed for its physics
    return CaseResult(run.id, spec, world, rows, model, verdict, stages, place, drawn)


def _draw(run: Run, place: Path) -> list[Path]:
    """Draw the figures of a finished run into its artifacts. Its numbers are kept already: a figure that fails costs
    only itself, and is told."""
    failed: dict[str, Exception] = {}
    with TemporaryDirectory() as scratch:
        pictures = Path(scratch, "figures")
        figures.draw_all(fields.read(place), pictures, failed=failed)
        drawn = sorted(run.artifact(pictures).glob("*.png"))
    for name, error in failed.items():
        told = f"{type(error).__name__}: {error}"
        run.tags({f"figure_failed.{name}": told[:500]})
        to_stderr(f"warning: the figure {name!r} of run {run.id[:8]} cannot be drawn ({told}); its numbers are kept")
    return drawn


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
