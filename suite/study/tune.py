"""Weight studies: Optuna proposes, the oracle judges in milliseconds, full relaxation confirms.

    result = tune(spec, workspace, trials=200, workers=2)

A trial is scale, stack, solve, evaluate; no configuration is touched. Trials live in an Optuna journal in the
workspace, so that a study can be stopped or killed and goes on; MLflow mirrors them, a parent run with one child each.
The paper's weights of the spec and the uniform ones are the first two trials. At the end the best few and the rivals
are relaxed in full. The numbers of trials and of verified entries carry a seal each (`suite.study.trials`): what was
altered is told, left out, or computed again.
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store import journal, provenance
from store.faults import BadInput
from store.locking import locked
from store.runs import FinishedRun, Tracker
from store.seal import writing
from suite import pipeline
from suite.execution import map_pieces
from suite.judge.oracle import Oracle
from suite.judge.theory import TERMS, limiting_term
from suite.model.regression import Block, Unsolvable, by_observable, fit
from suite.observables import RATIOS
from suite.progress import Progress, silent
from suite.results import Model, Rows, World
from suite.show.tune_report import write_report
from suite.spec import Spec
from suite.stages.judge import build_oracle
from suite.stages.rows import blocks_of
from suite.study import archive, rivals
from suite.study.case import Stages, cached, cached_rows, cached_world, parameters, stage_key
from suite.study.trials import front_of, open_journal, record_of, seal_of
from suite.study.weighings import (
    PAPER,
    UNIFORM,
    Entry,
    TuneResult,
    number_of,
    pull_apart,
    rank_correlation,
    recommend,
    regret,
    unbeaten,
)

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from suite.study.journaling import Journal

ORACLE_VERSION = 6
STUDY_VERSION = 3  # of what the journal holds: numbers of the corrected bound
JOURNAL = "journal.log"
BATCH, MOST = 25, 250  # trials of one worker before the parent hears of them: at first, and at most


@dataclass(frozen=True)
class Bench:
    """What trials need: reduced blocks and oracle of every basis of a study, by its channels in words; `joint` are the
    blocks as trials use them that leave the amplitudes alone."""

    spec: Spec
    blocks: dict[str, dict[str, Block]]
    oracles: dict[str, Oracle]
    joint: dict[str, dict[str, Block]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "joint", {key: by_observable(self.spec, each) for key, each in self.blocks.items()})

    def candidate(self, values: Mapping[str, Any]) -> Spec:
        """The spec with the parameters of a trial."""
        weights: dict[str, Any] = {name: values[name] * self.spec.weights.force for name in RATIOS if name in values}
        factors = {name.partition("@")[2]: value for name, value in values.items() if name.startswith("amplitude@")}
        if factors:
            weights["amplitudes"] = {**self.spec.weights.amplitudes, **factors}
        solver = {name: values[name] for name in ("alpha", "threshold") if name in values}
        model = {"channels": tuple(map(int, values["channels"].split()))} if "channels" in values else {}
        return self.spec.model_copy(
            update={
                "weights": self.spec.weights.model_copy(update=weights),
                "solver": self.spec.solver.model_copy(update=solver),
                "model": self.spec.model.model_copy(update=model),
            }
        )

    def judge(self, candidate: Spec) -> dict[str, float]:
        """Fit and evaluate; every number of the oracle. Raises `regression.Unsolvable`."""
        key = basis_key(candidate)
        own = candidate.weights.amplitudes == self.spec.weights.amplitudes
        joint = self.joint[key] if own else by_observable(candidate, self.blocks[key])
        solution = fit(candidate, joint)
        numbers = self.oracles[key].evaluate(solution.coefficients)
        numbers["limiting"] = float(list(TERMS).index(limiting_term(numbers)))
        return numbers


def basis_key(spec: Spec) -> str:
    return " ".join(map(str, spec.model.channels))


def oracle_key(spec: Spec) -> str:
    """Content key of an oracle: rows and the equilibrium of the simulation cell."""
    return provenance.content_key("oracle", ORACLE_VERSION, stage_key(spec, "simulation"), stage_key(spec, "rows"))


def study_key(spec: Spec) -> str:
    """Content key of a study: what its trials depend on. The number of trials is not in the key, so that a study can
    be extended."""
    settings = spec.tune.model_dump(exclude={"trials", "verify"})
    own = spec.table("weights", "solver", "observables")
    judges = [oracle_key(each) for each in bases_of(spec)]
    return provenance.content_key("study", STUDY_VERSION, settings, own, judges)


def bases_of(spec: Spec) -> list[Spec]:
    """The spec once for every basis that its study may choose, its own first."""
    wanted = dict.fromkeys([spec.model.channels, *spec.tune.channels])
    return [spec.model_copy(update={"model": spec.model.model_copy(update={"channels": c})}) for c in wanted]


# --- preparation --------------------------------------------------------------------------------------------------


def cached_oracle(
    spec: Spec, world: World, rows: Rows, workspace: Path, progress: Progress, workers: int | None
) -> Oracle:
    """The oracle of a world and rows, from the cache when its key is there."""
    oracle, _ = cached(
        workspace / "cache" / f"oracle-{oracle_key(spec)}.zarr",
        archive.oracle_from,
        lambda: build_oracle(spec, world, rows, progress, workers),
        archive.oracle_groups,
        progress,
    )
    return oracle


def search_space(spec: Spec) -> dict[str, tuple[float, float]]:
    """Log-uniform ranges by parameter: ratios of weights to the forces', amplitude factors, solver parameters."""
    tune, space = spec.tune, {}
    for name in RATIOS:
        limits = getattr(tune, name)
        if getattr(spec.observables, name) and limits is not None:
            space[name] = limits
    if tune.amplitudes is not None:
        for amplitude in sorted(spec.training.amplitudes)[1:]:
            space[f"amplitude@{amplitude:g}"] = tune.amplitudes
    for name in ("alpha", "threshold"):
        if getattr(tune, name) is not None:
            space[name] = getattr(tune, name)
    return space


def _suggest(trial: Trial, spec: Spec) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: trial.suggest_float(name, *limits, log=True) for name, limits in search_space(spec).items()
    }
    if spec.tune.channels:
        values["channels"] = trial.suggest_categorical("channels", [basis_key(each) for each in bases_of(spec)])
    return values


def first_trials(spec: Spec) -> list[tuple[str, dict[str, Any]]]:
    """The spec's own weights (the paper's, for shipped cases) and the uniform ones, inside the ranges."""
    space = search_space(spec)
    named = []
    for name, weights in ((PAPER, spec.weights.model_dump()), (UNIFORM, rivals.uniform(spec))):
        force = weights["force"] or 1.0
        values: dict[str, Any] = {}
        for key, (low, high) in space.items():
            wanted = {"alpha": spec.solver.alpha, "threshold": spec.solver.threshold}.get(key)
            if key in weights:
                wanted = weights[key] / force
            elif key.startswith("amplitude@"):
                wanted = spec.weights.amplitudes.get(key.partition("@")[2], 1.0)
            assert wanted is not None
            values[key] = min(max(wanted, low), high)
        if spec.tune.channels:
            values["channels"] = basis_key(spec)
        named.append((name, values))
    return named


# --- trials -------------------------------------------------------------------------------------------------------


def _open(spec: Spec, folder: Path, key: str, seed: int) -> tuple[Study, Journal]:
    """The study in `folder`, made unless it is there, and its storage."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tune = spec.tune
    samplers: dict[str, Any] = {
        "tpe": optuna.samplers.TPESampler,
        "nsga2": optuna.samplers.NSGAIISampler,
        "random": optuna.samplers.RandomSampler,
    }
    named: dict[str, Any] = {"multivariate": True, "n_startup_trials": 20} if tune.sampler == "tpe" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = samplers[tune.sampler](seed=seed, **named)
    journal = open_journal(folder / JOURNAL)
    study = optuna.create_study(
        study_name=key,
        storage=journal,
        sampler=sampler,
        directions=["minimize"] * len(tune.objectives),
        load_if_exists=True,
    )
    return study, journal


def _work(bench: Bench, folder: Path, key: str, budget: int, most: int, seed: int) -> int:
    """Run at most `most` trials while the study has fewer than `budget`; returns how many."""
    import optuna

    study, journal = _open(bench.spec, folder, key, seed)
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.RUNNING)
    settings = bench.spec.tune
    objectives = [number_of(name, settings) for name in settings.objectives]
    limits = {name: (number_of(name, settings), limit) for name, limit in settings.limits.items()}

    def tell(trial: Trial, values: Mapping[str, Any], numbers: Mapping[str, float], error: str) -> None:
        if error:
            trial.set_user_attr("error", error)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        # one entry of the journal instead of forty
        finite = {k: float(v) for k, v in numbers.items() if math.isfinite(v)}
        trial.set_user_attr("numbers", finite)
        trial.set_user_attr("seal", seal_of(trial.number, values, finite))
        for name, (number, limit) in limits.items():
            trial.set_constraint(name, numbers[number] / limit - 1)
        study.tell(trial, [float(numbers[name]) for name in objectives])

    last: tuple[Trial, dict[str, Any], dict[str, float], str] | None = None
    try:
        for done in range(most + 1):
            # one at a time, or two workers would both take the last place; one write of the last trial and the next one
            with locked(folder), journal.together():
                if last is not None:
                    tell(*last)
                if done == most or len(study.get_trials(deepcopy=False, states=states)) >= budget:
                    return done
                trial = study.ask()
                values = _suggest(trial, bench.spec)
            numbers, fault = {}, ""
            try:
                begun = time.perf_counter()
                numbers = bench.judge(bench.candidate(values))
                judged = {*objectives, *(number for number, _ in limits.values())}
                if unknown := [name for name in judged if not math.isfinite(numbers[name])]:
                    raise Unsolvable(f"the crystal of this fit is not stable: it has no {', '.join(sorted(unknown))}")
                numbers["milliseconds"] = 1e3 * (time.perf_counter() - begun)
            except Unsolvable as error:
                fault = str(error)
            last = trial, values, numbers, fault
    finally:
        journal.flush()
    return most


def _requeue_orphans(study: Study) -> int:
    """Trials that a killed process left running are failed and asked again; returns how many."""
    import optuna

    dead = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    for trial in dead:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params, user_attrs=dict(trial.user_attrs))
        elif "fixed_params" in trial.system_attrs:
            study.enqueue_trial(trial.system_attrs["fixed_params"], user_attrs=dict(trial.user_attrs))
    return len(dead)


def mirror(tracker: Tracker, experiment: str, parent: str, study: Study) -> int:
    """Log the finished trials that MLflow does not have yet, and delete those that the journal has lost; returns how
    many were logged."""
    import optuna

    known = {(r.tags.get("trial"), r.tags.get("seal", "")): r.id for r in tracker.children(parent)}
    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL))
    journaled = {(str(trial.number), trial.user_attrs.get("seal", "")) for trial in finished}
    tracker.discard([run_id for key, run_id in known.items() if key not in journaled])
    children = []
    for trial in finished:
        seal = trial.user_attrs.get("seal", "")
        if (str(trial.number), seal) in known:
            continue
        named = trial.user_attrs.get("name", "")
        complete = trial.state == optuna.trial.TrialState.COMPLETE
        children.append(
            FinishedRun(
                name=f"trial {trial.number}{f' ({named})' if named else ''}",
                parameters=_axes_of(trial.params),
                metrics=trial.user_attrs.get("numbers", {}),
                tags={"trial": str(trial.number), "kind": "trial", **({"seal": seal} if seal else {})},
                status="FINISHED" if complete else "FAILED",
                start=trial.datetime_start.timestamp() if trial.datetime_start else None,
                end=trial.datetime_complete.timestamp() if trial.datetime_complete else None,
            )
        )
    tracker.log_batch_of_runs(experiment, parent, children)
    return len(children)


def _axes_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a trial as MLflow's parallel coordinates can show them: its axes are linear, ratios are not."""
    return {
        f"log10_{name}".replace("@", "_") if isinstance(value, float) else name: (
            round(math.log10(value), 4) if isinstance(value, float) else value
        )
        for name, value in values.items()
    }


# --- the study ----------------------------------------------------------------------------------------------------


def tune(
    spec: Spec,
    workspace: Path,
    trials: int | None = None,
    workers: int = 1,
    verify: int | None = None,
    progress: Progress = silent,
) -> TuneResult:
    """Run or continue the study of `spec` until it has `trials` trials, verify, recommend, and write the report.

    Raises what the stages raise (`FailedRelaxation`, `NoOracle`, ...), and `StudyInUse`; a study that is killed goes on
    when it is called again.
    """
    workspace = workspace.absolute()
    trials, verify = trials or spec.tune.trials, verify or spec.tune.verify
    stages, worlds, every_rows, blocks, oracles = Stages(), {}, {}, {}, {}
    for each in bases_of(spec):
        worlds[basis_key(each)] = world = cached_world(each, workspace, stages, progress)
        every_rows[basis_key(each)] = rows = cached_rows(each, world, workspace, stages, progress, workers)
        with stages.stage("oracle"):
            oracles[basis_key(each)] = cached_oracle(each, world, rows, workspace, progress, workers)
        blocks[basis_key(each)] = blocks_of(each, rows)
    bench = Bench(spec, blocks, oracles)
    key = study_key(spec)
    folder = workspace / "studies" / f"{spec.case.name}-{key[:8]}"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tracker = Tracker(workspace)
    with only_one(folder):
        for sentence in [*tracker.tidy(), journal.mend(folder / JOURNAL)]:
            if sentence:
                progress("workspace", 1.0, sentence)
        study, _ = _open(spec, folder, key, spec.tune.seed)
        _requeue_orphans(study)
        if not study.trials:
            for name, values in first_trials(spec):
                study.enqueue_trial(values, user_attrs={"name": name})
        run = tracker.start_or_resume(
            spec.case.name,
            f"study {spec.case.name} {key[:8]}",
            parameters(spec),
            {"study": key, "kind": "study", "folder": folder.name},
            known_by="study",
        )
        run.text("spec.toml", spec.to_toml())
        with run:
            with stages.stage("trials"):
                # what was altered is left out, so that as many trials more are needed
                budget = trials + len(_altered(_records(study, spec)))
                _run_trials(bench, folder, key, budget, workers, study, progress)
            with stages.stage("mlflow"):
                progress("MLflow", 0.0, f"{mirror(tracker, spec.case.name, run.id, study)} new trials")
            records = _records(study, spec)
            if altered := _altered(records):
                named = ", ".join(map(str, altered))
                progress("left out", 1.0, f"the numbers of these trials are not those that were judged: {named}")
            front = front_of(records, spec.tune)
            if not front:
                raise Unsolvable(
                    f"none of {len(records)} trials keeps tune.limits ({spec.tune.limits}): loosen them, widen the "
                    "ranges, or give more --trials"
                )
            with stages.stage("rivals"):
                entries = _candidates(bench, records, front, verify, trials, progress)
            with stages.stage("verify"):
                entries = _verified(bench, worlds, every_rows, entries, folder, progress)
            best, reason = recommend(entries, spec)
            result = TuneResult(
                key,
                folder,
                run.id,
                spec,
                records,
                front,
                entries,
                best,
                rank_correlation(entries),
                _importance(study, spec, set(altered)),
                stages.seconds,
                altered,
                reason,
                pull_apart(entries, spec, best),
            )
            for path in write_report(result):
                run.artifact(path)
            run.metrics({f"best_{k}": v for k, v in best.predicted.items()})
            run.metrics({f"best_{k}_relaxed": v for k, v in best.relaxed.items()})
            run.metrics({f"correlation_{k}": v for k, v in result.correlation.items()})
            run.metrics({f"seconds_{k}": v for k, v in stages.seconds.items()} | {"trials": len(records)})
            run.tags({"recommended": best.name, "outcome": best.status})
    return result


class StudyInUse(BadInput, RuntimeError):
    """Another process works on this study."""


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """The lock of a whole study. It does not wait: it raises `StudyInUse` when another process has it."""
    import fcntl

    with writing(folder):
        handle = (folder / ".study").open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StudyInUse(
                f"another process works on the study in {folder}; give one command more --workers instead"
            ) from error
        yield


def _run_trials(
    bench: Bench, folder: Path, key: str, budget: int, workers: int, study: Study, progress: Progress
) -> None:
    import optuna

    def count() -> int:
        return len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))

    seed = bench.spec.tune.seed
    while (done := count()) < budget:
        progress("trials", done / budget, f"{done} of {budget}")
        _requeue_orphans(study)  # of a worker that was killed: a trial left running would keep its place for ever
        # the sampler's own seed goes on from where the study stands, or a continued study would repeat its draws
        begun = len(study.get_trials(deepcopy=False))
        seeds = [seed + begun + 1000 * worker for worker in range(workers)]
        # each batch reads the whole journal: batches that grow with it keep that in proportion to the number of trials
        most = min(max(BATCH, begun // 2), MOST)
        for _ in map_pieces(_work, [(bench, folder, key, budget, most, each) for each in seeds], workers):
            pass
        if count() == done and _failed_in_a_row(study) >= BATCH:
            raise Unsolvable(f"the last {BATCH} trials had no finite solution: widen or shift the ranges in [tune]")
    progress("trials", 1.0, f"{count()} of {budget}")


def _failed_in_a_row(study: Study) -> int:
    import optuna

    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    length = 0
    while length < len(states) and states[-1 - length] == optuna.trial.TrialState.FAIL:
        length += 1
    return length


def _records(study: Study, spec: Spec) -> list[dict[str, Any]]:
    return [record_of(trial, spec.tune) for trial in study.get_trials(deepcopy=False)]


def _altered(records: list[dict[str, Any]]) -> list[int]:
    return [record["number"] for record in records if record["state"] == "altered"]


def _candidates(
    bench: Bench, records: list[dict[str, Any]], front: list[int], verify: int, trials: int, progress: Progress
) -> list[Entry]:
    """Rivals, then trials to verify: half of the front, first those that are predicted to be no worse than any rival
    in both errors, then evenly, ends included; the rest evenly over the imbalance of all."""
    spec, key = bench.spec, basis_key(bench.spec)
    blocks, oracle = bench.blocks[key], bench.oracles[key]
    entries = []

    def rival(name: str, candidate: Spec) -> None:
        weights = {k: getattr(candidate.weights, k) for k in rivals.observed(candidate)}
        try:
            entries.append(Entry(name, weights, candidate, bench.judge(candidate)))
        except Unsolvable:
            progress("rivals", 1.0, f"{name} has no finite solution")

    rival(PAPER, spec)
    rival(UNIFORM, rivals.with_weights(spec, rivals.uniform(spec)))
    rival("elastic share", rivals.with_weights(spec, rivals.elastic_share(spec, blocks)))
    progress("rivals", 0.2, "evidence")
    rival("evidence", rivals.with_weights(spec, rivals.evidence(spec, blocks)))
    progress("rivals", 0.4, "closed-form rule")
    rival("closed form", rivals.with_weights(spec, rivals.balanced(spec, blocks, oracle)))
    progress("rivals", 0.6, "random search")
    drawn, _ = rivals.random_search(
        search_space(spec),
        trials,
        spec.tune.seed,
        lambda values: bench.judge(bench.candidate(values)),
        lambda numbers: regret(Entry("", {}, spec, numbers), spec),
    )
    rival("random search", bench.candidate(drawn))
    finished = {record["number"]: record for record in records if record["state"] == "complete"}
    share = max(1, (verify + 1) // 2)
    chosen = _promising(spec, {n: finished[n]["numbers"] for n in front}, entries)[: (share + 1) // 2]
    left = sorted((n for n in front if n not in chosen), key=lambda n: finished[n]["values"][0])
    chosen += _spread_over(left, share - len(chosen))
    spread = number_of("balance", spec.tune)
    others = sorted((n for n in finished if n not in front), key=lambda n: finished[n]["numbers"].get(spread, math.inf))
    chosen += [n for n in _spread_over(others, verify - len(chosen)) if n not in chosen]
    for number in chosen:
        candidate = bench.candidate(finished[number]["parameters"])
        weights = {k: getattr(candidate.weights, k) for k in rivals.observed(candidate)}
        name = f"trial {number}" + (" (front)" if number in front else "")
        entries.append(Entry(name, weights, candidate, finished[number]["numbers"], trial=True, front=number in front))
    return entries


def _promising(spec: Spec, front: Mapping[int, dict[str, float]], rivals: list[Entry]) -> list[int]:
    """Trials of the front, by their numbers, that are predicted to be no worse than any rival in both errors: those of
    least regret first."""
    errors = ("geometry_error_linear", "energy_error_linear")
    best = [min((rival.predicted[name] for rival in rivals), default=math.inf) for name in errors]
    good = [n for n, numbers in front.items() if unbeaten([numbers[name] for name in errors], best)]
    return sorted(good, key=lambda n: regret(Entry("", {}, spec, front[n]), spec))


def _spread_over(items: list[int], count: int) -> list[int]:
    if count <= 0 or not items:
        return []
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]


def _verified(
    bench: Bench,
    worlds: Mapping[str, World],
    every_rows: Mapping[str, Rows],
    entries: list[Entry],
    folder: Path,
    progress: Progress,
) -> list[Entry]:
    """Relax every entry in full; what was relaxed before, for the same weights, is read from the study's folder."""
    path = folder / "verified.json"
    known = _believed_entries(path, progress)
    done = []
    for index, entry in enumerate(entries):
        progress("verification", index / len(entries), entry.name)
        key = provenance.content_key(entry.spec.table("weights", "solver", "model", "observables"))
        if key not in known:
            rows = every_rows[basis_key(entry.spec)]
            model: Model = pipeline.fit(entry.spec, rows)
            verdict = pipeline.assess(entry.spec, worlds[basis_key(entry.spec)], rows, model)
            names = (
                *("geometry_error", "energy_error", "balance_spread", "calibrated_spread", "corrected_spread"),
                *("bound_geometry", "bound_energy_corrected"),
            )
            relaxed = {name: float(verdict.numbers[name]) for name in names if name in verdict.numbers}
            found = {"relaxed": relaxed, "status": verdict.status.name.lower()}
            known[key] = found | {"seal": provenance.content_key("verified", key, found)}
            partial = path.with_suffix(".new")
            with writing(path):
                partial.write_text(json.dumps(known, indent=1))
                os.replace(partial, path)
        found = known[key]
        done.append(replace(entry, relaxed=found["relaxed"], status=found["status"]))
    return done


def _believed_entries(path: Path, progress: Progress) -> dict[str, dict[str, Any]]:
    """The entries of `verified.json` that carry their seal; the others are told, and will be relaxed again."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = {key: dict(entry) for key, entry in content.items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        progress("verified", 1.0, f"{path}: damaged, every entry is relaxed again")
        return {}
    good = {}
    for key, entry in entries.items():
        seal = entry.pop("seal", None)
        if seal == provenance.content_key("verified", key, entry):
            good[key] = entry | {"seal": seal}
    if bad := len(entries) - len(good):
        progress("verified", 1.0, f"{path}: {bad} of {len(entries)} entries were altered; they are relaxed again")
    return good


def _importance(study: Study, spec: Spec, altered: set[int]) -> dict[str, dict[str, float]]:
    """Share of each parameter in the variance of each objective (fANOVA of Optuna); empty with one parameter or too few
    trials."""
    import optuna

    good = [trial for trial in study.get_trials(deepcopy=False) if trial.number not in altered]
    if len(search_space(spec)) + bool(spec.tune.channels) < 2 or len(good) < 10:
        return {}
    believed = optuna.create_study(directions=["minimize"] * len(spec.tune.objectives))
    believed.add_trials(trial for trial in good if trial.state.is_finished())
    found: dict[str, dict[str, float]] = {}
    for index, name in enumerate(spec.tune.objectives):

        def value(trial: FrozenTrial, index: int = index) -> float:
            return math.log(max(trial.values[index], 1e-12))

        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=spec.tune.seed)
        found[name] = dict(optuna.importance.get_param_importances(believed, evaluator=evaluator, target=value))
    return found
