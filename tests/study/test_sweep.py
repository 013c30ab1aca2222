"""Ladders on the tiny twin: points found again, interrupted sweeps, the report, published numbers."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from store.faults import FailedOutcome
from store.runs import Tracker
from store.seal import StoreError, write_json
from suite.ladders import overrides_of
from suite.show.report import write_report
from suite.show.sweep_figures import draw_ordering
from suite.spec import BadSpec, Spec, Sweep, dump_toml, load, load_sweeps, read, shipped
from suite.study import points as module
from suite.study.case import Case
from suite.study.points import Points, point_key
from suite.study.session import Session
from suite.study.sweep import SweepResult, entry_name, ordering, points_of, run_sweep
from suite.study.verify import Expected, ExpectedNumber, compare, published, read_expected

LADDER = Sweep(ladders={"training.size": (5.5, 6.0)}, seeds=(0, 1), set={"training.configurations": 4})


def tiny_with(settings: Mapping[str, Any]) -> Spec:
    words = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return load("w-split", "tiny", words)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def interrupted(workspace: Path) -> int:
    """The same sweep, stopped after its third point; how many points it finished."""
    original, count = module.run_in, 0

    def stops(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        if count == 3:
            raise KeyboardInterrupt
        count += 1
        return original(*arguments, **named)

    module.run_in = stops  # type: ignore[assignment]
    try:
        with pytest.raises(KeyboardInterrupt):
            run_sweep(tiny_with, "L", LADDER, workspace, workers=1)
    finally:
        module.run_in = original
    return count


@pytest.fixture(scope="module")
def result(workspace: Path, interrupted: int) -> SweepResult:
    return run_sweep(tiny_with, "L", LADDER, workspace, workers=1)


def test_sweep_goes_on_where_it_was(result: SweepResult, interrupted: int, workspace: Path) -> None:
    assert len(result.points) == 2 * 2 * 3
    assert sum(not point.computed for point in result.points) == interrupted
    assert all(point.status == "converged" for point in result.points)
    again = run_sweep(tiny_with, "L", LADDER, workspace, workers=1)
    assert not any(point.computed for point in again.points)
    assert again.run_id == result.run_id
    for before, after in zip(result.points, again.points, strict=True):
        assert after.numbers == before.numbers, "number for number"


def test_interrupted_sweep_equals_the_uninterrupted_one(result: SweepResult, tmp_path: Path) -> None:
    few = LADDER.model_copy(update={"ladders": {"training.size": (5.5,)}, "seeds": (0,)})
    fresh = run_sweep(tiny_with, "L", few, tmp_path, workers=1)
    for point in fresh.points:
        (same,) = [p for p in result.points if (p.setting, p.seed, p.values) == (point.setting, 0, point.values)]
        for name in ("geometry_error", "energy_error", "eps_F", "eps_V1"):
            assert same.numbers[name] == pytest.approx(point.numbers[name], rel=1e-9)


def test_one_more_point_computes_one_point(result: SweepResult, workspace: Path) -> None:
    more = LADDER.model_copy(update={"seeds": (0, 1, 2), "ladders": {"training.size": (6.0,)}, "ablation": False})
    found = run_sweep(tiny_with, "more", more, workspace, workers=1)
    assert [point.computed for point in found.points] == [False, False, True]


def test_values_of_a_ladder_as_curves(result: SweepResult, workspace: Path) -> None:
    """The same runs in another order: a curve for each L, with its own slope, and an entry of MLflow for each."""
    ladders = {
        "observables.virial1": (False, True, True) * 2,
        "observables.virial2": (False, False, True) * 2,
        "training.size": (5.5,) * 3 + (6.0,) * 3,
    }
    changes = {"ladders": ladders, "zip": True, "curves": "training.size", "ablation": False, "against": "rmse_F"}
    curves = LADDER.model_copy(update=changes)
    found = run_sweep(tiny_with, "curves", curves, workspace, workers=1)
    assert not any(point.computed for point in found.points)
    assert {(error, curve) for error, curve in found.rates} == {
        (error, curve) for error in ("geometry_error", "energy_error") for curve in ("L = 5.5", "L = 6.0")
    }
    slope = found.rates["geometry_error", "L = 5.5"].slope
    assert Tracker(workspace).find(found.run_id).metrics["slope_geometry_error_L_5.5"] == pytest.approx(slope)


def test_names_of_curves_for_mlflow() -> None:
    words = ("CLE+nonlinear", "no elasticity", "channels = [8, 4]", "")
    assert [entry_name(word) for word in words] == ["CLE_nonlinear", "no_elasticity", "channels_8_4", "all"]


def test_two_sweeps_at_once_compute_a_point_once(
    result: SweepResult, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    told: list[tuple[str, float, str]] = []
    spec = tiny_with({"training.seed": 77})

    original = module.run_in

    def counted(session: Session, case: Case) -> Any:
        computed.append(case.name or "")
        time.sleep(1.0)  # the other one comes to the lock meanwhile
        return original(session, case)

    monkeypatch.setattr(module, "run_in", counted)

    def point(_: int) -> Any:
        tracker = Tracker(workspace)
        session = Session(workspace, lambda *report: told.append(report), workers=1)
        return Points(session, tracker).run(Case(spec, "x", result.run_id))

    with ThreadPoolExecutor(2) as pool:  # locks tell threads apart as they tell processes
        found = list(pool.map(point, range(2)))
    assert computed == ["x"]
    assert found[0][0].id == found[1][0].id
    assert sorted(here for _, here in found) == [False, True]
    assert ("waiting", 0.0, "another process computes x") in told


def test_points_are_crossed_or_zipped() -> None:
    ladders = {"training.size": (6, 7), "simulation.size": (20, 24)}
    crossed = Sweep(ladders=ladders, ablation=False)
    assert len(points_of(crossed)) == 4
    zipped = Sweep(ladders=ladders, ablation=False, zip=True)
    assert [tuple(values.values()) for values, _, _ in points_of(zipped)] == [(6, 20), (7, 24)]


def test_point_key_forgets_names_and_studies_only(tiny: Spec) -> None:
    assert point_key(load("w-split", "tiny", ['case.title="x"', "tune.seed=4"])) == point_key(tiny)
    assert point_key(load("w-split", "tiny", ["weights.energy=3"])) != point_key(tiny)


def test_report_tells_what_the_store_holds(result: SweepResult, workspace: Path, tmp_path: Path) -> None:
    written = write_report(workspace, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "data:image/webp;base64," in html
    assert "Zhou, Johnson, Wadley" in html
    for figure in (
        "sweep-w-split-L",
        "ordering-w-split-L",
        "w-split-cells",
        "w-split-differential_displacement",
        "w-split-errors",
    ):
        assert (tmp_path / "figures" / f"{figure}.png").exists()
    with (tmp_path / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    finished = {row["run"]: row for row in runs if row["status"] == "FINISHED"}
    for point in result.points:
        assert float(finished[point.run]["geometry_error"]) == pytest.approx(point.numbers["geometry_error"])
    assert all(path.exists() for path in written)
    with pytest.raises(LookupError, match="no runs"):
        write_report(workspace, tmp_path, "nothing")


def test_report_tells_what_orders_both_errors(result: SweepResult, workspace: Path, tmp_path: Path) -> None:
    write_report(workspace, tmp_path)
    text = (tmp_path / "report.md").read_text()
    for error, name in (("geometry_error", "eps_V1_felt"), ("energy_error", "eps_K")):
        found = ordering(result.points, error)
        column = [point.numbers[name] for point in result.points]
        ranks = [np.argsort(np.argsort(values)) for values in (column, [p.numbers[error] for p in result.points])]
        assert found[name] == pytest.approx(np.corrcoef(ranks)[0, 1])
        told = [line for line in text.splitlines() if f"relaxed {error.partition('_')[0]} error over all" in line]
        assert len(told) >= 1
        assert f"{name} {found[name]:.2f}" in " ".join(told)


def test_a_sweep_of_an_older_version_has_one_row_of_orderings(
    result: SweepResult, workspace: Path, tmp_path: Path
) -> None:
    content = json.loads((Tracker(workspace).artifacts_dir(result.run_id) / "sweep.json").read_text())
    both = image.imread(draw_ordering(content, tmp_path / "both.png"))
    del content["ordering_energy"]
    one = image.imread(draw_ordering(content, tmp_path / "one.png"))
    assert both.shape[0] == pytest.approx(2 * one.shape[0], abs=2)


def test_children_belong_to_the_sweep(result: SweepResult, workspace: Path) -> None:
    tracker = Tracker(workspace)
    content = json.loads((tracker.artifacts_dir(result.run_id) / "sweep.json").read_text())
    assert len(content["points"]) == len(result.points)
    children = {record.id for record in tracker.children(result.run_id)}
    assert {point.run for point in result.points} <= children


# --- growth with the distance of the dislocations ---------------------------------------------------------------------


def test_growth_of_a_tiny_ladder_is_measured_and_told(workspace: Path, tmp_path: Path) -> None:
    """Three distances, two weights, one seed; a workspace of its own, so that the report has this sweep alone."""
    sweep = Sweep(
        ladders={"simulation.size": (18, 21, 24)},
        set={"training.configurations": 4, "training.test": 2},
        against="log_L_D",
        law="logarithm",
        ablation=False,
        variants={
            "no elasticity": {"observables.virial1": False, "observables.virial2": False},
            "V1 1000": {"weights.virial1": 1000, "observables.virial2": False},
        },
    )
    found = run_sweep(tiny_with, "consistency", sweep, tmp_path / "runs", workers=1)
    assert [point.status for point in found.points] == ["converged"] * 6
    assert not found.rates
    assert set(found.growths) == {(e, v) for e in ("geometry_error", "energy_difference") for v in sweep.variants}
    for (error, variant), growth in found.growths.items():
        line = [point for point in found.points if point.setting == variant]
        y = [p.numbers[error] ** (2 if error == "geometry_error" else 1) for p in line]
        assert growth.slope == pytest.approx(np.polyfit([p.x for p in line], y, 1)[0])
        name = "growth_geometry" if error == "geometry_error" else "growth_energy"
        # the constants of a model do not depend on the simulation cell
        assert [p.numbers[name] for p in line] == pytest.approx([growth.predicted] * 3, rel=1e-6)
    rows = [found.growths["energy_difference", variant] for variant in sweep.variants]
    assert rows[1].predicted_rms < rows[0].predicted_rms, "that is what the weight is for"
    write_report(tmp_path / "runs", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    for heading in ("Growth with ln L_D", "energy, no elasticity", "geometry, V1 1000", rows[0].verdict):
        assert heading in text
    assert (tmp_path / "report" / "figures" / "sweep-w-split-consistency.png").exists()


# --- what is taken over, and what is not --------------------------------------------------------------------------


@pytest.fixture
def copied(result: SweepResult, workspace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workspace, tmp_path / "runs"))


def test_only_whole_points_are_taken_over(result: SweepResult, copied: Path) -> None:
    """A store that is missing, one with a damaged array, numbers edited in the database: those three, no others."""
    few = LADDER.model_copy(update={"ladders": {"training.size": (5.5,)}})
    tracker = Tracker(copied)
    before = run_sweep(tiny_with, "L", few, copied, workers=1)
    assert not any(point.computed for point in before.points)
    missing, damaged, edited = (before.points[n].run for n in (0, 2, 3))
    shutil.rmtree(tracker.store_of(missing))
    chunk = next(p for p in sorted(tracker.store_of(damaged).rglob("c/0/0")) if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    with closing(sqlite3.connect(tracker.database)) as connection:
        statement = "UPDATE latest_metrics SET value = 1e-9 WHERE key = 'errors/geometry_error' AND run_uuid = ?"
        assert connection.execute(statement, [edited]).rowcount == 1
        connection.commit()
    told: list[str] = []
    after = run_sweep(tiny_with, "L", few, copied, lambda what, fraction, note: told.append(note), workers=1)
    assert [n for n, point in enumerate(after.points) if point.computed] == [0, 2, 3]
    said = "\n".join(told)
    for words in (
        "its store is missing",
        "checksum mismatch in",
        "numbers differ from the sealed store: geometry_error",
    ):
        assert words in said
    for old, new in zip(before.points, after.points, strict=True):
        assert new.numbers["geometry_error"] == pytest.approx(old.numbers["geometry_error"], rel=1e-9)


@pytest.mark.parametrize(
    ("fault", "again"),
    [
        (FailedOutcome("annihilated"), False),  # a result about the physics
        (StoreError(Path("x"), "cannot be written: No space left on device", "free some space"), True),
        (KeyboardInterrupt(), True),
    ],
)
def test_failed_points_are_computed_again_unless_their_physics_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, again: bool
) -> None:
    calls = []

    def failing(session: Session, case: Case) -> Any:
        calls.append(case.name)
        with Tracker(session.workspace).start(case.spec.case.name, case.name or "", {}, case.tags, case.parent):
            raise fault

    monkeypatch.setattr(module, "run_in", failing)
    one = Sweep(ladders={"training.size": (6.0,)}, ablation=False)

    def sweep(**named: Any) -> None:
        try:
            run_sweep(tiny_with, "L", one, tmp_path, **named)
        except type(fault):
            assert again

    sweep()
    sweep()
    assert len(calls) == 1 + again
    sweep(retry=True)
    assert len(calls) == 2 + again


def test_a_restarted_sweep_clears_what_the_killed_one_left(result: SweepResult, copied: Path) -> None:
    tracker = Tracker(copied)
    half = tracker.fields / f".{result.points[0].run}.zarr.new"
    half.mkdir()
    with closing(sqlite3.connect(tracker.database)) as connection:
        connection.execute("UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", [result.points[0].run])
        connection.commit()
    told: list[str] = []
    few = LADDER.model_copy(update={"ladders": {"training.size": (5.5,)}, "seeds": (0,)})
    run_sweep(tiny_with, "L", few, copied, lambda what, fraction, note: told.append(note), workers=1)
    assert not half.exists()
    assert tracker.find(result.points[0].run).status == "KILLED"
    assert any("closed as KILLED" in note for note in told)


def test_a_report_tells_damage_and_shows_the_rest(result: SweepResult, copied: Path, tmp_path: Path) -> None:
    tracker = Tracker(copied)
    newest, other, edited = (tracker.history("w-split")[0].id, result.points[0].run, result.points[1].run)
    (tracker.store_of(newest) / "manifest.json").unlink()
    chunk = next(p for p in sorted(tracker.store_of(other).rglob("c/0/0")) if p.is_file())
    chunk.unlink()
    with closing(sqlite3.connect(tracker.database)) as connection:
        statement = "UPDATE latest_metrics SET value = 1e-9 WHERE key = 'errors/geometry_error' AND run_uuid = ?"
        connection.execute(statement, [edited])
        connection.commit()
    write_report(copied, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Damaged, or different from the sealed store" in text
    assert "no manifest.json" in text
    assert "numbers differ from the sealed store: geometry_error" in text
    assert "1e-09" not in text
    assert (tmp_path / "report" / "figures" / "w-split-cells.png").exists()
    with (tmp_path / "report" / "runs.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert float(rows[edited]["geometry_error"]) == result.points[1].numbers["geometry_error"]
    assert "differ" in rows[edited]["note"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("lost", "missing"),
        ("cut", "not JSON"),
        ("edit", "was changed since it was written"),
        ("old", "has no checksum"),
    ],
)
def test_a_damaged_sweep_is_told_and_the_rest_is_shown(
    result: SweepResult, copied: Path, tmp_path: Path, damage: str, message: str
) -> None:
    path = Tracker(copied).artifacts_dir(result.run_id) / "sweep.json"
    content = json.loads(path.read_text())
    content["points"][0]["numbers"]["geometry_error"] = 1e-9
    if damage == "old":
        del content["sha256"]
    if damage == "lost":
        path.unlink()
    else:
        path.write_text("{" if damage == "cut" else json.dumps(content))
    write_report(copied, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert message in text
    assert "give the sweep again" in text
    assert "Matching conditions" in text


def test_names_of_a_strangers_sweep_lead_nowhere(result: SweepResult, copied: Path, tmp_path: Path) -> None:
    path = Tracker(copied).artifacts_dir(result.run_id) / "sweep.json"
    write_json(path, json.loads(path.read_text()) | {"name": "../../victim/a"})
    (tmp_path / "victim").mkdir()
    written = write_report(copied, tmp_path / "deep" / "report")
    assert all(each.is_relative_to(tmp_path / "deep" / "report") for each in written)
    assert not list((tmp_path / "victim").iterdir())
    assert list((tmp_path / "deep" / "report" / "figures").glob("sweep-w-split-*victim_a.png"))


# --- specs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sweep.L]\nladders = { 'training.sise' = [6] }", "did you mean 'training.size'"),
        ("[sweep.L]\nladders = { 'training.size' = [6] }\nsteps = 3", "sweep.L.steps"),
        ("[sweep.L]\nladders = { 'training.size' = [6, 7], 'simulation.size' = [30] }\nzip = true", "equally long"),
        ("[case]\nname = 'x'", "no [sweep.NAME]"),
    ],
)
def test_bad_sweeps_are_refused_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(BadSpec) as caught:
        load_sweeps(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", list(shipped()))
def test_shipped_sweeps_resolve_at_every_point(name: str) -> None:
    for preset in {None, "quick"} & {None, *read(name).presets}:
        for sweep in load_sweeps(name, preset).values():
            for values, seed, setting in points_of(sweep):
                settings = overrides_of(sweep, values, seed, setting)
                load(name, preset, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


# --- published numbers --------------------------------------------------------------------------------------------


def test_published_numbers_resolve() -> None:
    assert published()
    for name in published():
        assert read_expected(name).numbers


def test_comparison_knows_tolerances_and_missing_numbers(tmp_path: Path) -> None:
    numbers = {"a": ExpectedNumber(value=2.0, rel=0.1), "b": ExpectedNumber(value=0.0, abs=1e-3)}
    expected = Expected(spec="w-split", numbers={**numbers, "c": ExpectedNumber(value=1.0, rel=1.0)})
    checks = {check.name: check.good for check in compare(expected, {"a": 2.19, "b": 2e-3})}
    assert checks == {"a": True, "b": False, "c": False}
    path = tmp_path / "x.toml"
    path.write_text(dump_toml({"spec": "w-split", "preset": "nosuch", "numbers": {"a": {"value": 1.0}}}))
    with pytest.raises(BadSpec, match="nosuch"):
        read_expected(str(path))
