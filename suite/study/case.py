"""One case from spec to store: stages cached by content, the run in MLflow, fields in zarr, figures beside them.

    result = run_in(Session(workspace, progress), Case(spec))

A `Session` holds what all runs of a command share, a `Case` describes one of them. `run_case` takes both as plain
arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from store import fields, handing, provenance
from store.faults import FailedOutcome
from store.listing import KIND, RUN
from store.runs import Run, Tracker
from suite import pipeline
from suite.data.folder import digest_of
from suite.execution import at_most, to_stderr
from suite.judge.numbers import NUMBERS, group_of
from suite.judge.remarks import remarks
from suite.model.trained import TrainedSpec
from suite.progress import Progress, silent
from suite.results import Model, Rows, Verdict, World
from suite.show import figures
from suite.show.notes import run_note
from suite.spec import Spec
from suite.stages.engine import refuse_engine
from suite.stages.rows import recipe_of
from suite.study import archive
from suite.study.cache import cached_rows, cached_world
from suite.study.described import PACKAGES, attributes, parameters, reference_numbers, run_name, version_tags
from suite.study.session import Session, Stages
from suite.world.cell import StraightCell
from suite.world.lammps_job import job_digest
from suite.world.relaxation import FailedRelaxation


@dataclass(frozen=True)
class Case:
    """One run to make: its spec; in MLflow its name (default: `described.run_name`), the id of its parent run, and
    further tags; `job` as in `pipeline.build_world`. Without `draw` it gets no figures; `dislobench show` draws them
    later."""

    spec: Spec
    name: str | None = None
    parent: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    job: Path | None = None
    draw: bool = True


@dataclass(frozen=True)
class Judged:
    """A case after its stages: the record of each stage, and their cost."""

    spec: Spec
    world: World
    rows: Rows
    model: Model
    verdict: Verdict
    stages: Stages

    def measured(self) -> dict[str, float]:
        """All numbers of the run so far, by name. The UI shows them in this order: errors come first."""
        numbers = self.verdict.numbers
        return {
            **{name: numbers[name] for name in NUMBERS if name in numbers},
            **numbers,
            **{f"train_rmse_{k.replace('@', '_')}": v for k, v in self.model.training_rmse.items()},
            **{f"solver_{k}": v for k, v in self.model.solution.details.items()},
            **{f"seconds_{k}": v for k, v in self.stages.seconds.items()},
            **{f"megabytes_{k}": v for k, v in self.stages.megabytes.items()},
            **self._training(),
            **reference_numbers(self.world),
        }

    def _training(self) -> dict[str, float]:
        """What it took to train: to make the rows and to fit, or by another trainer."""
        taken = {f"training_{name}": value for name, value in self.stages.training.items()}
        if self.rows.functions and "training_seconds" in taken:
            taken["training_seconds"] += self.stages.seconds["fit"]
        return taken

    def ending(self) -> dict[str, str]:
        """The outcome of the run, and what a user should know about it."""
        outcome = self.verdict.status
        told = {
            "outcome": outcome.name.lower(),
            "limiting_term": self.verdict.limiting_term,
            "remedy": outcome.remedy,
            "remarks": "; ".join(remarks(self.verdict.numbers)),
        }
        return {name: text for name, text in told.items() if text}


@dataclass(frozen=True)
class CaseResult(Judged):
    """A finished case: its records, the id of its run, and where its fields and figures lie."""

    run_id: str
    fields: Path
    figures: list[Path]


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
) -> CaseResult:
    """`run_in` for a single run: the fields of its `Session` and its `Case` are arguments. Raises what that raises."""
    return run_in(Session(workspace, progress, workers), Case(spec, name, parent, tags or {}, job, draw))


def run_in(session: Session, case: Case) -> CaseResult:
    """Run one case and keep everything: stages in the cache, the run in MLflow, fields in zarr, figures as artifacts.

    Raises what the stages raise, after it has been recorded in the run: `FailedRelaxation` before fitting when an
    equilibrium is unusable, `Unsolvable`, `UnusableReference`; and before there is a run `UnusableReference` when
    `case.job` is not finished. A model that does not relax is a result, with a status. A figure that cannot be drawn is
    a warning.
    """
    if case.job is not None:
        job_digest(case.job)
    tracker = Tracker(session.workspace, group_of)
    with tracker.start(*_opening(case)) as run:
        return _made(run, tracker.store_path(run.id), session, case)


def hand_over(session: Session, case: Case, run_id: str = "", collector: Mapping[str, str] | None = None) -> str:
    """As `run_in`, without the database: whoever writes it takes the run over later. Returns the id of the run.

    `run_id` and `collector` as in `store.handing.begin`. Raises what `run_in` raises, after it has been recorded.
    """
    if case.job is not None:
        job_digest(case.job)
    with handing.begin(session.workspace, *_opening(case), run_id, collector) as run:
        return _made(run, run.store, session, case).run_id


def failed_run(tracker: Tracker, case: Case, fault: FailedOutcome) -> str:
    """Record a run that ended with `fault` where nothing could record it; returns its id."""
    with suppress(type(fault)), tracker.start(*_opening(case)) as run:
        raise fault
    return run.id


# --- the steps of a run -------------------------------------------------------------------------------------------


def _opening(case: Case) -> tuple[str, str, dict[str, Any], dict[str, str], str | None]:
    """What a run begins with: experiment, name, parameters, tags, parent."""
    spec = case.spec
    tags = {KIND: RUN, **case.tags}
    return spec.case.name, case.name or run_name(spec), parameters(spec), tags, case.parent


def _made(run: Run, place: Path, session: Session, case: Case) -> CaseResult:
    """Everything between the beginning and the end of a run; its fields are written to `place`."""
    with at_most(session.workers):
        _describe(run, case.spec)
        judged = _judge(run, session, case)
        ending = judged.ending()
        run.describe(_note(run, judged, ending, case.draw))
        _keep(run, place, judged, ending, session.progress)
        drawn = _draw(run, place, judged.stages, session.progress) if case.draw else []
        run.tags(ending)  # last, because a failed run with an outcome counts as one that failed for its physics
    return CaseResult(**vars(judged), run_id=run.id, fields=place, figures=drawn)


def _describe(run: Run, spec: Spec) -> None:
    """Record what the run was computed with: package versions, machine, and the resolved spec."""
    machine = {f"machine.{key}": str(value) for key, value in provenance.machine().items()}
    key = {"preset_free_spec": provenance.content_key(spec.model_dump())}
    run.tags(version_tags(provenance.versions(PACKAGES)) | machine | key)
    run.text("spec.toml", spec.to_toml())


def _judge(run: Run, session: Session, case: Case) -> Judged:
    """World, rows, fit, judgement: `pipeline.judge` with the cache of the session."""
    spec, progress, stages = case.spec, session.progress, Stages()
    _refuse_early(spec)
    try:
        world = cached_world(spec, session, stages, case.job)
    except FailedRelaxation as failure:
        run.tags({"outcome": failure.relaxation.status.name.lower(), "remedy": failure.remedy})
        raise
    rows = cached_rows(spec, world, session, stages)
    run.parameters({"L_D": round(world.core_distance, 4)})
    _tell_data(run, spec, rows)
    if rows.functions:
        run.parameters({"functions": rows.functions})
    with stages.stage("fit"):
        if rows.functions:
            progress("fit", 0.0, f"{rows.functions} functions, {spec.solver.kind}")
        model = pipeline.fit(spec, rows)
    with stages.stage("assess"):
        verdict = pipeline.assess(spec, world, rows, model, progress)
        stages.watch(spec)
    return Judged(spec, world, rows, model, verdict, stages)


def _tell_data(run: Run, spec: Spec, rows: Rows) -> None:
    """Record the labelled sets as datasets of the run."""
    for context, sets in (("training", rows.train), ("testing", rows.test)):
        if count := sum(map(len, sets)):
            profile = {
                "configurations": count,
                "atoms": [found.forces.shape[1] for found in sets],
                "amplitudes": list(spec.training.amplitudes),
                "seed": spec.training.seed,
                "reference": spec.material.reference,
            }
            command = f"dislobench data --run {run.id}"
            run.dataset(f"{spec.case.name} {context}", digest_of((sets,)), context, command, profile)


def _refuse_early(spec: Spec) -> None:
    """Raises `UnusableReference` for a potential or a trainer that cannot be built or imported, `UnusableEngine` for an
    engine that cannot be started: now, and not after the world has been computed."""
    recipe = recipe_of(spec)
    if isinstance(recipe, TrainedSpec):
        recipe.importable()
    elif spec.model.source:
        recipe.build()
    refuse_engine(spec)


def _note(run: Run, judged: Judged, ending: Mapping[str, str], draw: bool) -> str:
    """The description of the run in the UI. It is set before the store is sealed, so that a repair restores it."""
    cells = judged.world.training
    words = (
        f"{judged.spec.judged}, {'trained' if judged.rows.functions else 'tested'} on cells of "
        f"{' and '.join(str(len(cell)) for cell in cells)} atoms, judged on {len(judged.world.simulation)} atoms"
    )
    drawn = figures.names_for(isinstance(judged.world.simulation, StraightCell)) if draw else ()
    return run_note(run.id, judged.spec.case.title, words, judged.verdict.numbers, ending, drawn)


def _keep(run: Run, place: Path, judged: Judged, ending: Mapping[str, str], progress: Progress) -> None:
    """Write the fields to `place`, sealed with the numbers, and the potential and the numbers to MLflow."""
    world, rows, model, verdict, stages = judged.world, judged.rows, judged.model, judged.verdict, judged.stages
    measured = judged.measured()
    with stages.stage("store"):
        progress("store", 0.0, "fields, MLflow")
        sealed: dict[str, Any] = attributes(judged.spec, run.id, world, verdict)
        sealed["record"] = run.record(measured, dict(ending))
        fields.write(place, archive.run_groups(world, rows, model, verdict), sealed)
        with TemporaryDirectory() as scratch:
            potential = Path(scratch, "potential")
            if rows.basis.save(model.coefficients, model.energy_per_atom, potential):
                run.artifact(potential)
    run.metrics(measured | {"seconds_store": stages.seconds["store"], "megabytes_store": stages.megabytes["store"]})


def _draw(run: Run, place: Path, stages: Stages, progress: Progress) -> list[Path]:
    """Draw the figures of a finished run into its artifacts. Its numbers are stored already, so that a figure that
    fails is only reported."""
    failed: dict[str, Exception] = {}
    with stages.stage("figures"):
        progress("figures", 0.0, "from the store")
        with TemporaryDirectory() as scratch:
            pictures = Path(scratch, "figures")
            figures.draw_all(fields.read(place), pictures, failed=failed)
            drawn = sorted(run.artifact(pictures).glob("*.png"))
    for name, error in failed.items():
        told = f"{type(error).__name__}: {error}"
        run.tags({f"figure_failed.{name}": told[:500]})
        to_stderr(f"warning: the figure {name!r} of run {run.id[:8]} cannot be drawn ({told}); its numbers are kept")
    run.metrics({"seconds_figures": stages.seconds["figures"]})
    return drawn
