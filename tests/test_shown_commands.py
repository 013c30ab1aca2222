"""Every command that README and docs show is run here, small, or at least parsed: none of them may rot."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from store.faults import FailedOutcome
from suite.arguments import build_parser
from suite.cli import main
from suite.spec import dump_toml, load
from suite.trainers.needed import MissingPackage
from suite.world.lammps_calculator import lammps_potential_file

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

FEWER = "--set training.configurations=2 --set training.test=1"
FEW = f"--workers 1 {FEWER} --set model.channels=[8] --set model.degrees=[0]"
SMALL_IRON = "--set simulation.size=16 --set training.size=5 --set simulation.force_tolerance=1e-3"

ACE_JAX = (
    "dislobench run w-screw --preset quick --set model.backend=ace-jax "
    "--set 'model.arguments={ cutoff = 5, channels = [12, 4], degrees = [0, 0] }'"
)

# What is shown -> what is run instead, with smaller cells, fewer trials and names of the fixture below. RUN is the
# id of the newest run of the workspace that all of them share.
RUN_AS_SHOWN = (
    "dislobench list",
    "dislobench list --references Si",
    "dislobench check my.toml",
    "dislobench check fe-screw.toml",
    "dislobench plan w-screw --preset paper",
    "dislobench report",
    "dislobench runs",
    "dislobench show RUN",
    "dislobench view RUN",
    "dislobench view RUN --atoms run.extxyz",
    "dislobench runs --where 'geometry_error < 0.5' --columns weight_virial1,eps_V1_felt --sort geometry_error",
    "dislobench compare RUN RUN",
    "dislobench compare RUN RUN --figures comparison",
    "dislobench data --run RUN --folder run-data",
    "dislobench leaderboard",
    "dislobench repair",
    "dislobench doctor",
    "dislobench completion bash",
)
RUN_SMALLER = {
    "dislobench run w-screw --set training.size=12": f"dislobench run w-split --preset tiny {FEW}",
    # two specs with the same world, so that the second one takes it from the cache
    "dislobench run w-screw si-edge nial-screw w-loop": f"dislobench run w-split my.toml --preset tiny {FEW}",
    "dislobench run w-loop --set simulation.engine=lammps-mpi --set simulation.ranks=4": (
        f"dislobench run w-split --preset tiny {FEW} --set simulation.engine=lammps-mpi --set simulation.ranks=1"
    ),
    "dislobench scan si-edge": "dislobench scan si-edge --preset tiny --size 8 --grid 1",
    "dislobench export w-loop --folder job": "dislobench export w-loop --preset tiny --folder job",
    "dislobench tune w-screw --trials 200 --workers 2": (
        f"dislobench tune w-split --preset tiny {FEW} --trials 2 --verify 1"
    ),
    "dislobench sweep w-screw --preset quick": f"dislobench sweep my.toml --preset tiny {FEW}",
    "dislobench sweep w-screw --preset quick --only fig5 --cluster local:2": (
        f"dislobench sweep my.toml --preset tiny {FEW.removeprefix('--workers 1 ')} --cluster local:1"
    ),
    "dislobench sweep w-screw --shard 3/10": f"dislobench sweep my.toml --preset tiny {FEW} --shard 1/1",
    "dislobench plan w-screw --preset quick --sweep fig5": "dislobench plan my.toml --preset tiny --sweep size",
    "dislobench paper --preset quick": (
        "dislobench paper --preset tiny --figure 4 --set training.configurations=3 --set training.test=3 --workers 1"
    ),
    "dislobench paper --preset quick --figure 4 --figure 5": (
        "dislobench paper --preset tiny --figure 4 --set training.configurations=3 --set training.test=3 --workers 1"
    ),
    "dislobench data w-screw --folder w-screw-data": f"dislobench data w-split --preset tiny {FEWER} --folder set-1",
    "dislobench data w-screw --preset quick --folder w-screw-data": (
        f"dislobench data w-split --preset tiny {FEWER} --folder set-2"
    ),
    # a board of hours: its declaration is read whole, and one cell of another board stands for its runs
    "dislobench leaderboard families": 'dislobench leaderboard board.toml --entry "ACE, pairs" --workers 1',
    "dislobench leaderboard board.toml": 'dislobench leaderboard board.toml --entry "ACE, pairs" --workers 1',
    "dislobench verify w-screw-quick": "dislobench verify published.toml --run RUN",
    "dislobench run w-screw --preset quick --safe": f"dislobench run w-split --preset tiny {FEW} --safe",
    "dislobench run w-screw --set model.backend=calculator --set model.calculator=W_zhou04": (
        "dislobench run w-screw --preset tiny --workers 1 --set training.configurations=2 --set training.test=1 "
        "--set model.backend=calculator --set model.calculator=W_zhou04"
    ),
    "dislobench run w-mixed --preset quick --set model.backend=pod --set model.arguments.cutoff=5": (
        "dislobench plan w-split --preset tiny --set model.backend=pod --set model.arguments.cutoff=5"
    ),
    ACE_JAX: (
        f"dislobench run w-split --preset tiny --workers 1 {FEWER} --set model.backend=ace-jax "
        "--set 'model.arguments={ cutoff = 5, channels = [8], degrees = [0] }'"
    ),
    # a database of the test stands for the servers; tests/store/test_remote.py uses real ones
    "dislobench run w-screw --preset quick --tracking-uri http://HOST:5000": (
        f"dislobench run w-split --preset tiny {FEW} --workspace shared --tracking-uri sqlite:///shared.db"
    ),
    "dislobench run w-screw --preset quick --tracking-uri postgresql://HOST/runs": (
        f"dislobench run w-split --preset tiny {FEW} --workspace shared --tracking-uri sqlite:///shared.db"
    ),
    "dislobench tune w-screw --trials 2000 --storage postgresql://HOST/trials": (
        f"dislobench tune w-split --preset tiny {FEW} --trials 2 --verify 1 --storage sqlite:///trials.db"
    ),
    "dislobench tune w-screw --trials 2000 --storage postgresql://HOST/trials --help-only": (
        f"dislobench tune w-split --preset tiny {FEW} --trials 2 --storage sqlite:///trials.db --help-only"
    ),
    "dislobench runs --tracking-uri http://HOST:5000": "dislobench runs --workspace shared --tracking-uri sqlite:///shared.db",
    "dislobench repair --tracking-uri http://HOST:5000": "dislobench repair --workspace shared --tracking-uri sqlite:///shared.db",
    "dislobench repair --tracking-uri postgresql://HOST/runs": "dislobench repair --workspace shared --tracking-uri sqlite:///shared.db",
    "dislobench scan fe-screw.toml --size 20": "dislobench scan fe-screw.toml --size 8 --grid 1",
    "dislobench run w-screw --preset quick": f"dislobench run w-split --preset tiny {FEW}",
    "dislobench run w-screw --preset quick --set weights.virial1=10": (
        f"dislobench run w-split --preset tiny {FEW} --set weights.virial1=1e4"
    ),
    "dislobench run w-screw --preset quick --set training.seed=1": (
        f"dislobench run w-split --preset tiny {FEW} --set training.seed=1"
    ),
    **dict.fromkeys(
        ("dislobench paper --preset quick --figure 4", "dislobench paper --preset quick --figure 7"),
        "dislobench paper --preset tiny --figure 4 --set training.configurations=3 --set training.test=3 --workers 1",
    ),
    "dislobench sweep w-split --only consistency": "dislobench plan w-split --preset tiny --sweep consistency",
    "dislobench sweep nial-screw --only consistency": "dislobench plan nial-screw --preset tiny --sweep consistency",
    "dislobench sweep w-springs --only table1": "dislobench plan w-springs --preset tiny --sweep table1",
    "dislobench run fe-screw.toml": f"dislobench run fe-screw.toml {FEW} {SMALL_IRON}",
}
OUTCOMES = {
    # potentials with different cores: the page says that the outcome is "unstable"
    "dislobench run w-screw --set model.backend=calculator --set model.calculator=W_zhou04": 3,
    # ace-jax is not among the packages of the tests: without it the run is refused
    ACE_JAX: 0 if find_spec("ace_jax") else MissingPackage.exit_code,
}
ONLY_PARSED = (
    *("dislobench ui", "dislobench ui --port 5001"),  # it does not end by itself
    # a scheduler and a batch system; tests/test_cluster.py has workers and job scripts
    "dislobench sweep w-screw --preset quick --only fig5 --cluster tcp://node1:8786",
    "dislobench sweep w-screw --cluster slurm.toml",
    # a bucket; tests/test_cli.py and tests/store/test_lasting.py have a server
    "dislobench run w-screw --preset quick --workspace s3://my-bucket/runs",
    "dislobench repair --workspace s3://my-bucket/runs",
)


def shown() -> list[str]:
    """The commands of all pages, in order, each once, without their comments."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=re.S | re.M)
        lines = [*re.findall(r"^    (dislobench .*)$", text, flags=re.M)]
        lines += re.findall(r"^(?:\$ )?(dislobench .*)$", "\n".join(fenced), flags=re.M)
        found |= dict.fromkeys(shlex.join(shlex.split(line, comments=True)) for line in lines)
    return list(found)


EXECUTED = {**{command: command for command in RUN_AS_SHOWN}, **RUN_SMALLER}


def test_every_shown_command_is_known_here() -> None:
    commands = shown()
    assert len(commands) > 15
    assert set(commands) == {*EXECUTED, *ONLY_PARSED}, "add it to RUN_AS_SHOWN, RUN_SMALLER or ONLY_PARSED"


@pytest.mark.parametrize("command", shown())
def test_shown_command_parses(command: str) -> None:
    options = build_parser().parse_args(shlex.split(command)[1:])
    assert options.command == command.split()[1]


@pytest.mark.parametrize("command", [each for each in shown() if "--set" in each])
def test_overrides_that_are_shown_change_the_spec(command: str) -> None:
    options = build_parser().parse_args(shlex.split(command)[1:])
    for name in getattr(options, "specs", None) or [options.spec]:
        assert load(name, options.preset, options.overrides) != load(name, options.preset), "it would be the same run"


def test_the_array_job_of_the_page_parses() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^srun dislobench (.*)$", text, flags=re.M)
    words = line.replace("$SLURM_ARRAY_TASK_ID", "3").replace("$SLURM_ARRAY_TASK_COUNT", "10")
    assert build_parser().parse_args(shlex.split(words)).shard == (3, 10)


def test_examples_of_the_help_parse() -> None:
    (commands,) = [action.choices for action in build_parser()._actions if action.dest == "command"]
    for name, command in (commands or {}).items():
        words = shlex.split(command.epilog.removeprefix("example: ").partition(" > ")[0])
        assert build_parser().parse_args(words[1:]).command == name


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in, with the files that the pages speak of."""
    folder = tmp_path_factory.mktemp("bench")
    sweep = '[sweep.size]\nladders = { "training.size" = [6] }\nablation = false\n'
    text = (ROOT / "specs" / "w-split.toml").read_text(encoding="utf-8")
    before, after = text[: text.index("[sweep.")], text[text.index("[preset.") :]
    after = re.sub(r"^sweep\..*\n", "", after, flags=re.M)
    (folder / "my.toml").write_text(f"{before}{sweep}\n{after}", encoding="utf-8")
    own = (ROOT / "docs" / "own-material.md").read_text(encoding="utf-8")
    (folder / "fe-screw.toml").write_text(re.findall(r"```toml\n(.*?)```", own, flags=re.S)[0], encoding="utf-8")
    shutil.copy(lammps_potential_file("Fe_mm.eam.fs"), folder)
    other = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
    board = tomllib.loads(re.findall(r"```toml\n(title = .*?)```", other, flags=re.S)[0])
    del board["entry"]["GAP"]["case"]
    (folder / "board.toml").write_text(dump_toml({**board, "cases": ["my.toml"], "preset": "tiny", "seeds": [0]}))
    expected = {"spec": "my.toml", "numbers": {"a0": {"value": 3.1648, "abs": 1e-3}}}
    (folder / "published.toml").write_text(dump_toml(expected))
    return folder


@pytest.mark.parametrize("command", [command for command in shown() if command in EXECUTED])
def test_shown_command_runs(
    command: str, bench: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(bench)
    words = shlex.split(EXECUTED[command])
    if "RUN" in words:
        assert main(["runs", "--json"]) == 0
        runs = [run for run in json.loads(capsys.readouterr().out)["runs"] if run["status"] == "FINISHED"]
        ids = [run["id"][:12] for run in runs if "geometry_error" in run["metrics"]]
        words = [ids.pop(0) if word == "RUN" else word for word in words]
    if words[1] == "run" and len(load_names(words)) > 1:
        # through the command that is installed: its children are processes of their own
        script = Path(sys.executable).with_name("dislobench")
        done = subprocess.run([script, *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("again    dislobench show") == len(load_names(words))
        return
    code, told = main(words[1:]), capsys.readouterr()
    assert code == OUTCOMES.get(command, 0), told.err
    assert told.out if code in (0, FailedOutcome.exit_code) else "pip install" in told.err


def load_names(words: list[str]) -> list[str]:
    """The specs that a `run` names."""
    names: list[str] = build_parser().parse_args(words[1:]).specs
    return names


@pytest.mark.parametrize("module", ["dislobench", "suite.cli"])
def test_the_command_is_a_module_too(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "check", "w-screw", "--preset", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "good (tiny)" in done.stdout


def test_the_wheel_has_the_package_of_the_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "dislobench" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_shown_benchmarks_run() -> None:
    """Once each, without timing: the rows, and the options that the page shows."""
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\.venv/bin/pytest (benchmarks.*)$", text, flags=re.M)
    assert [shlex.split(command, comments=True) for command in commands] == [["benchmarks"], ["benchmarks", "--large"]]
    few = ["-k", "test_rows and ours", "--benchmark-disable", "-p", "no:cacheprovider"]
    # the settings of this pytest are none of theirs: a worker of xdist would take them for workers too
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    for words in (["benchmarks", *few], ["benchmarks", "--large", "--collect-only"]):
        command = [sys.executable, "-m", "pytest", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=clean)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"\d passed|tests collected", done.stdout)
