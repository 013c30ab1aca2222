"""A study on the tiny twin: contents, continuation, agreement of journal and MLflow, rivals, recommendation."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from store.runs import Tracker
from suite.judge import oracle as oracle_module
from suite.judge.numbers import head
from suite.model.regression import by_observable, fit
from suite.results import Rows
from suite.spec import Spec, load
from suite.study import rivals, sampling
from suite.study.bench import Bench, study_key
from suite.study.candidates import believed_entries
from suite.study.described import run_name
from suite.study.keeping import JOURNAL
from suite.study.sampling import StudyInUse, key_of, only_one, open_study, place_of, started
from suite.study.space import objectives_of
from suite.study.trials import open_journal
from suite.study.tune import tune
from suite.study.weighings import (
    PAPER,
    UNIFORM,
    Entry,
    TuneResult,
    number_of,
    pull_apart,
    recommend,
    weights_toml,
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def result(tiny: Spec, workspace: Path) -> TuneResult:
    return tune(tiny, workspace, trials=14, verify=3)


def trials_of(folder: Path) -> list[Any]:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return optuna.load_study(study_name=None, storage=storage).trials


def assert_mirrored(workspace: Path, result: TuneResult) -> None:
    """MLflow has each finished trial of the journal once, with its numbers."""
    children = Tracker(workspace).children(result.run_id)
    finished = {str(t.number): t for t in trials_of(result.folder) if t.state.is_finished()}
    assert sorted(c.tags["trial"] for c in children) == sorted(finished)
    for child in children:
        trial = finished[child.tags["trial"]]
        assert child.status == ("FINISHED" if trial.state.name == "COMPLETE" else "FAILED")
        for name, value in trial.user_attrs.get("numbers", {}).items():
            assert child.metrics[name] == pytest.approx(value, rel=1e-12)


def test_study_contains_the_paper_and_the_uniform_weights(result: TuneResult, tiny: Spec) -> None:
    named = {trial["name"]: trial for trial in result.trials if trial["name"]}
    assert set(named) == {PAPER, UNIFORM}
    paper = named[PAPER]["parameters"]
    assert paper["energy"] == pytest.approx(tiny.weights.energy / tiny.weights.force)
    assert paper["virial1"] == pytest.approx(tiny.weights.virial1 / tiny.weights.force)
    rival = next(entry for entry in result.entries if entry.name == PAPER)
    for name, value in rival.predicted.items():
        if name not in ("milliseconds",):
            assert named[PAPER]["numbers"][name] == pytest.approx(value, rel=1e-6), name


def test_front_is_the_set_that_nothing_beats(result: TuneResult) -> None:
    values = {t["number"]: np.array(t["values"]) for t in result.trials if t["state"] == "complete"}
    for number, value in values.items():
        beaten = any((other <= value).all() and (other < value).any() for other in values.values())
        assert beaten == (number not in result.front)


def test_prediction_holds_after_relaxation(result: TuneResult) -> None:
    good = [entry for entry in result.entries if entry.status == "converged"]
    assert len(good) >= 6
    for entry in good:
        assert entry.relaxed["geometry_error"] == pytest.approx(entry.predicted["geometry_error_linear"], rel=0.5)
    assert result.correlation["geometry"] > 0.8


def test_report_and_recommended_weights(result: TuneResult, tiny: Spec, tmp_path: Path) -> None:
    html = (result.folder / "report.html").read_text()
    for entry in result.entries:
        assert entry.name in html
    assert (result.folder / "report.md").exists()
    assert result.reason in (result.folder / "report.md").read_text()
    assert result.tension in (result.folder / "report.md").read_text()
    assert {p.stem for p in (result.folder / "figures").glob("*.png")} >= {"front", "oracle", "imbalance", "terms"}
    # the table goes into a spec as it is and gives the fit that was recommended
    text = (result.folder / "recommended.toml").read_text()
    assert text == weights_toml(result.recommended)
    shipped = tiny.to_toml()
    start = shipped.index("[weights]")
    end = shipped.index("[solver]")
    path = tmp_path / "again.toml"
    path.write_text(shipped[:start] + text + "\n" + shipped[end:])
    again = load(path)
    for name, value in result.recommended.weights.items():
        assert getattr(again.weights, name) == pytest.approx(value)


def test_continued_study_adds_trials_and_loses_none(result: TuneResult, tiny: Spec, workspace: Path) -> None:
    before = {t.number: t.values for t in trials_of(result.folder)}
    more = tune(tiny, workspace, trials=20, workers=2, verify=1)
    assert more.folder == result.folder
    assert more.run_id == result.run_id
    after = {t.number: t.values for t in trials_of(result.folder)}
    assert {n: after[n] for n in before} == before
    assert Counter(t.state.name for t in trials_of(result.folder)) == {"COMPLETE": 20}
    assert_mirrored(workspace, more)
    draws = [tuple(t.params.values()) for t in trials_of(result.folder)]
    assert len(set(draws)) == len(draws), "a continued study must not repeat its draws"


def test_killed_study_goes_on(workspace: Path, result: TuneResult, tiny: Spec) -> None:
    """kill -9 in the middle, with two workers; a trial that was running is asked again."""
    overrides = ["tune.seed=3"]
    script = (
        "from pathlib import Path; from suite.spec import load; from suite.study.tune import tune; "
        f"tune(load('w-split', 'tiny', {overrides}), Path({str(workspace)!r}), trials=4000, workers=2)"
    )
    spec = load("w-split", "tiny", overrides)
    folder = workspace / "studies" / f"w-split-{study_key(spec)[:8]}"
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, start_new_session=True)
    journal = folder / "journal.log"
    deadline = time.monotonic() + 120
    while not (journal.exists() and len(journal.read_text().splitlines()) > 60):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    import os
    import signal

    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = sum(t.state.name == "COMPLETE" for t in trials_of(folder))
    found = tune(spec, workspace, trials=done + 3, verify=1)
    states = Counter(t.state.name for t in trials_of(folder))
    assert states["COMPLETE"] == done + 3
    assert states["RUNNING"] == 0
    assert_mirrored(workspace, found)


def test_two_commands_do_not_share_a_study(result: TuneResult, tiny: Spec, workspace: Path) -> None:
    with only_one(result.folder), pytest.raises(StudyInUse, match="--workers"):
        tune(tiny, workspace, trials=14, verify=1)


def test_a_late_worker_does_not_disturb_a_trial_that_is_made(tiny: Spec, tmp_path: Path) -> None:
    """Whoever opens a study writes an entry that creates it; this must wait while another worker makes a trial."""
    place = place_of(tiny, tmp_path)
    study, kept = open_study(tiny, place, seed=0)
    late = threading.Thread(target=open_study, args=(tiny, place, 1))
    with kept.turn():
        late.start()
        late.join(1.0)
        assert late.is_alive()
        study.ask()
    late.join()
    assert len(study.trials) == 1


def test_key_of_a_study_hears_what_changes_its_trials(tiny: Spec) -> None:
    same = study_key(load("w-split", "tiny", ["tune.trials=7", "tune.verify=2"]))
    assert same == study_key(tiny)
    for change in ("tune.seed=1", 'tune.objectives=["geometry"]', "weights.energy=3", "training.size=7"):
        assert study_key(load("w-split", "tiny", [change])) != study_key(tiny)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (["tune.sampler=nsga2", "tune.limits={bound_geometry=5.0}", 'tune.objectives=["felt","energy_factor"]'], 2),
        (['tune.objectives=["geometry"]', "tune.channels=[[8,4],[15,8]]", "tune.amplitudes=[0.01,1]"], 1),
        (["solver.kind=ridge", "tune.alpha=[1e-14,1e-6]", "tune.sampler=random", "tune.balance=corrected"], 3),
    ],
)
def test_other_searches(settings: list[str], wanted: int, workspace: Path) -> None:
    spec = load("w-split", "tiny", settings)
    found = tune(spec, workspace, trials=8, verify=1)
    complete = [trial for trial in found.trials if trial["state"] == "complete"]
    assert len(complete) == 8
    assert all(len(trial["values"]) == wanted for trial in complete)
    assert found.front
    for trial in complete:
        wanted = [trial["numbers"][number_of(name, spec.tune)] for name in spec.tune.objectives]
        assert trial["values"] == wanted


def test_a_trial_without_an_energy_factor_fails_alone(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other fit of a trial is said to have no stable crystal."""
    answers, trying = iter(range(10_000)), False
    original, unstable = oracle_module.energy_factor_numbers, {"energy_factor_difference": math.inf, "eps_K": math.inf}
    work = sampling._work

    def tries(*given: Any) -> int:
        nonlocal trying
        trying = True
        try:
            return work(*given)
        finally:
            trying = False

    monkeypatch.setattr(sampling, "_work", tries)
    monkeypatch.setattr(
        oracle_module,
        "energy_factor_numbers",
        lambda *given: unstable if trying and next(answers) % 2 else original(*given),
    )
    spec = load("w-split", "tiny", ['tune.objectives=["energy_factor","geometry"]', "tune.seed=5"])
    found = tune(spec, workspace, trials=6, verify=1)
    states = Counter(trial["state"] for trial in found.trials)
    assert states["complete"] == 6
    assert states["fail"] >= 5
    errors = {trial.user_attrs["error"] for trial in trials_of(found.folder) if trial.state.name == "FAIL"}
    assert errors == {"the crystal of this fit is not stable: it has no eps_K"}
    assert math.isfinite(found.recommended.predicted["eps_K"])


def test_limits_that_nothing_keeps_are_told(workspace: Path) -> None:
    spec = load("w-split", "tiny", ['tune.objectives=["geometry"]', "tune.limits={balance=1e-9}"])
    with pytest.raises(RuntimeError, match="keeps tune"):
        tune(spec, workspace, trials=4, verify=1)


# --- rivals -------------------------------------------------------------------------------------------------------


def test_balancing_rule_balances(result: TuneResult) -> None:
    numbers = next(entry for entry in result.entries if entry.name == "closed form").predicted
    assert numbers["balance_spread"] < 0.5
    logs = [np.log(numbers[f"balance_{name}"]) for name in ("E", "F", "V1")]
    assert max(logs) - min(logs) == pytest.approx(numbers["balance_spread"])


@pytest.mark.parametrize("normalisation", ["paper", "mean"])
def test_elastic_share_rights_the_constants_and_keeps_the_forces(tiny: Spec, rows: Rows, normalisation: str) -> None:
    """Both normalisations give one problem; felt and ε_K fall far below those of the paper's weights."""
    plain = tiny.model_copy(update={"weights": tiny.weights.model_copy(update={"normalisation": "paper"})})
    virial1 = rivals.elastic_share(plain, rows.blocks)["virial1"]
    components = sum(block.rows for name, block in rows.blocks.items() if name.startswith("force"))
    assert virial1 == pytest.approx(0.1 * plain.weights.force * components)
    if normalisation == "mean":  # weights of blocks: each row has the weight of its block over their number
        blocks = plain.model_copy(update={"weights": plain.weights.model_copy(update={"normalisation": "mean"})})
        a_row = rivals.elastic_share(blocks, rows.blocks)["virial1"] / rows.blocks["virial1"].rows
        assert a_row / (plain.weights.force / components) == pytest.approx(virial1 / plain.weights.force, rel=1e-9)
        return
    before, after = (
        fit(spec, by_observable(spec, rows.blocks)).coefficients
        for spec in (plain, rivals.with_weights(plain, rivals.elastic_share(plain, rows.blocks)))
    )
    assert rows.blocks["virial1"].rmse(after) < 0.1 * rows.blocks["virial1"].rmse(before)
    for name, block in rows.blocks.items():
        if name.startswith("force"):
            assert block.rmse(after) < 1.1 * block.rmse(before)
    without = load("w-split", "tiny", ["observables.virial1=false"])
    assert "virial1" not in rivals.elastic_share(without, rows.blocks)


def test_evidence_finds_the_noise_of_synthetic_blocks() -> None:
    """Rows with known noise: weights are the inverse variances, whatever the units of the blocks."""
    generator = np.random.default_rng(0)
    truth = generator.standard_normal(6)
    spec = load("w-split", "tiny", ["observables.virial1=false", "observables.virial2=false"])
    blocks = {}
    for name, sigma, count in (("energy@0.1", 0.3, 4000), ("force@0.1", 0.02, 4000)):
        matrix = generator.standard_normal((count, 6))
        reducer = rivals_reducer()
        reducer.add(matrix, matrix @ truth + sigma * generator.standard_normal(count))
        blocks[name] = reducer.finish()
    found = rivals.evidence(spec, blocks)
    assert found["force"] == pytest.approx(spec.weights.force)
    assert found["energy"] / found["force"] == pytest.approx((0.02 / 0.3) ** 2, rel=0.1)


def rivals_reducer() -> Any:
    from suite.model.regression import Reducer

    return Reducer(6)


def test_random_search_returns_its_best() -> None:
    drawn, numbers = rivals.random_search(
        {"a": (0.1, 10.0)}, 200, 0, lambda v: {"x": abs(np.log(v["a"]) - 1)}, lambda n: n["x"]
    )
    assert 0.1 <= drawn["a"] <= 10
    assert numbers["x"] < 0.05


# --- choices ------------------------------------------------------------------------------------------------------


def entry(
    name: str, spread: float, geometry: float, energy: float, status: str = "converged", front: bool = True
) -> Entry:
    """A weighing of the spec `tiny`; what is called trial is one, on the front or not, and the rest are rivals."""
    predicted = {"balance_spread": spread, "geometry_error_linear": geometry, "energy_error_linear": energy}
    predicted |= {"calibrated_spread": 1.0, "corrected_spread": 1 / spread}
    relaxed = {"geometry_error": geometry, "energy_error": energy} if status == "converged" else {}
    trial = name.startswith("trial")
    return Entry(name, {}, load("w-split", "tiny"), predicted, relaxed, status, trial, trial and front)


RIVALS = [entry(PAPER, 4.0, 0.020, 2e-3), entry("evidence", 9.0, 0.015, 8e-3)]


def test_recommended_is_never_worse_than_a_rival_in_both_errors(tiny: Spec) -> None:
    """Whatever its balance: trial 1 is balanced and worse in energy, trial 4 is not on the front, trial 5 failed."""
    entries = [
        *RIVALS,
        entry("trial 1", 0.1, 0.015, 5e-3),
        entry("trial 2", 5.0, 0.014, 1.9e-3),
        entry("trial 3", 3.0, 0.015, 2e-3),
        entry("trial 4", 0.1, 0.001, 1e-4, front=False),
        entry("trial 5", 0.1, 0.001, 1e-4, "diverged"),
    ]
    best, reason = recommend(entries, tiny)
    assert best.name == "trial 3", "of both that are safe the one with the smaller sum of objectives"
    assert "2 such points" in reason
    assert "literal balance has a spread of 3" in reason
    said = pull_apart(entries[:5], tiny, best)
    assert said.startswith("Balance and accuracy pull apart here: trial 1 has the least spread of the literal balance")
    assert "0.015 Å and 0.005 eV" in said
    assert "a spread of 3 and errors of 0.015 Å and 0.002 eV" in said
    corrected = load("w-split", "tiny", ["tune.balance=corrected"])
    best, reason = recommend(entries, corrected)
    assert best.name == "trial 2", "its corrected spread is 1/5, that of trial 3 is 1/3"
    assert "corrected balance has a spread of 0.2" in reason
    limited = load("w-split", "tiny", ["tune.limits={balance=4.5}"])
    assert recommend(entries, limited)[0].name == "trial 3"


def test_where_no_point_is_safe_the_report_says_so(tiny: Spec) -> None:
    """Each of these is worse in one error than some rival: the least product of both errors is taken, and told."""
    entries = [*RIVALS, entry("trial 1", 0.1, 0.016, 2e-3), entry("trial 2", 5.0, 0.1, 1e-3)]
    best, reason = recommend(entries, tiny)
    assert best.name == "trial 1"
    assert reason.startswith("no verified point of the front is as good as")
    assert "evidence has the smaller geometry error, 0.015 Å" in reason
    assert "energy error, " not in reason
    best, reason = recommend([*RIVALS, entries[3]], tiny)
    assert best.name == PAPER
    assert "agree here" in pull_apart([*RIVALS, entries[3]], tiny, best)
    # an energy error that happens to cross zero is no reason to take a worse geometry
    crossing = [replace(each, predicted={**each.predicted, "rmse_E_0.1": 3e-3}) for each in entries]
    lucky = replace(crossing[3], relaxed={"geometry_error": 0.03, "energy_error": 1e-9})
    assert recommend([crossing[0], lucky], tiny)[0].name == PAPER
    assert recommend([RIVALS[0], replace(lucky, predicted=RIVALS[0].predicted)], tiny)[0].name == lucky.name
    with pytest.raises(RuntimeError, match="no verified weighing"):
        recommend([entry("trial 5", 0.1, 0.001, 1e-4, "diverged")], tiny)


def test_candidate_has_the_parameters_of_the_trial(tiny: Spec, rows: Rows) -> None:
    spec = load("w-split", "tiny", ["tune.amplitudes=[0.01,1]"])
    bench = Bench(spec, {}, {})
    candidate = bench.candidate({"energy": 3.0, "virial1": 0.5, "amplitude@0.5": 0.1, "channels": "9 4"})
    assert candidate.weights.energy == pytest.approx(3 * spec.weights.force)
    assert candidate.weights.virial1 == pytest.approx(0.5 * spec.weights.force)
    assert candidate.weights.virial2 == spec.weights.virial2
    assert candidate.weights.amplitudes == {"0.5": 0.1}
    assert candidate.model.channels == (9, 4)
    coefficients = np.ones(rows.blocks["force@0.5"].triangle.shape[1] - 1)
    small, large = (rows.blocks[f"force@{amplitude}"].residual(coefficients) ** 2 for amplitude in ("0.1", "0.5"))
    relaxed = rows.blocks["force@0"].residual(coefficients) ** 2
    joint = by_observable(candidate, rows.blocks)["force"].residual(coefficients) ** 2
    assert joint == pytest.approx(relaxed + small + 0.1 * large)
    assert json.dumps(candidate.tune.model_dump())


# --- what was altered or torn -------------------------------------------------------------------------------------


def test_a_tampered_study_is_told_and_not_believed(
    result: TuneResult, tiny: Spec, workspace: Path, tmp_path: Path
) -> None:
    """An altered trial that would win, an altered verified entry that would win, and a torn last line, at once."""
    copy = tmp_path / "runs"
    shutil.copytree(workspace, copy)
    folder = copy / "studies" / result.folder.name
    complete = [trial for trial in trials_of(folder) if trial.state.name == "COMPLETE"]
    beaten = next(trial for trial in complete if trial.number not in result.front and not trial.user_attrs.get("name"))
    journal = folder / "journal.log"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for entry in lines:
        if entry.get("trial_id") == beaten.number and "numbers" in entry.get("user_attr", {}):
            entry["user_attr"]["numbers"] |= {
                "geometry_error_linear": 1e-9,
                "energy_error_linear": 1e-9,
                "balance_spread": 1e-9,
            }
        if entry.get("trial_id") == beaten.number and entry.get("values"):
            entry["values"] = [1e-9, 1e-9, 1e-9]
    text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in lines)
    journal.write_text(text + text.splitlines()[-1][:20])
    verified = json.loads((folder / "verified.json").read_text())
    key, changed = next((k, v) for k, v in verified.items() if v["status"] == "converged")
    honest = dict(changed["relaxed"])
    changed["relaxed"]["geometry_error"] = 1e-9
    (folder / "verified.json").write_text(json.dumps(verified))

    told: list[str] = []
    found = tune(tiny, copy, trials=len(complete), verify=1, progress=lambda what, fraction, note: told.append(note))
    said = "\n".join(told)
    assert f"these trials are not those that were judged: {beaten.number}" in said
    assert "1 of " in said
    assert "entries were altered; they are relaxed again" in said
    assert "was torn, and was dropped" in said
    assert found.altered == [beaten.number]
    assert beaten.number not in found.front
    assert all(value > 1e-9 for entry in found.entries for value in entry.relaxed.values())
    again = json.loads((folder / "verified.json").read_text())
    if key in again:  # relaxed again where it was wanted again, to the same numbers
        assert again[key]["relaxed"] == pytest.approx(honest, rel=1e-6)
    assert sum(trial["state"] == "complete" for trial in found.trials) == len(complete), "one more stands in"
    assert f"trials {beaten.number}." in (found.folder / "report.md").read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 3}', "\x00\x00"])
def test_damaged_entries_are_relaxed_again(tmp_path: Path, text: str) -> None:
    path = tmp_path / "verified.json"
    path.write_text(text)
    told: list[str] = []
    assert believed_entries(path, lambda what, fraction, note: told.append(note)) == {}
    assert "verified.json: damaged" in told[0]


# --- in optuna-dashboard ------------------------------------------------------------------------------------------


def test_a_study_has_a_readable_name_and_named_axes(tiny: Spec, tmp_path: Path) -> None:
    place = place_of(tiny, tmp_path)
    study, _ = started(tiny, place)
    assert study.study_name == f"{run_name(tiny)} {place.key}"
    assert key_of(study.study_name) == place.key
    assert study.metric_names == [head(name) for name in objectives_of(tiny)]
    size = (place.folder / JOURNAL).stat().st_size
    again, _ = open_study(tiny, place, seed=1)
    assert len(again.trials) == len(study.trials)
    assert started(tiny, place)[0].study_name == study.study_name
    assert (place.folder / JOURNAL).stat().st_size < size + 2000, "axes are named once"


def test_a_study_of_an_older_version_goes_on_under_its_name(tiny: Spec, tmp_path: Path) -> None:
    """Its name is its key, and its axes have no names."""
    place = place_of(tiny, tmp_path)
    old = optuna.create_study(
        study_name=place.key,
        storage=open_journal(place.folder / JOURNAL),
        directions=["minimize"] * len(tiny.tune.objectives),
    )
    old.add_trial(optuna.trial.create_trial(values=[1.0] * len(tiny.tune.objectives)))
    study, _ = started(tiny, place)
    assert study.study_name == place.key
    assert [trial.values for trial in study.trials] == [trial.values for trial in old.trials], "no second study"
    assert study.metric_names == [head(name) for name in objectives_of(tiny)]
