"""The command line's commands and options."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.addresses import BadAddress, check_database, check_tracking
from store.objects import folder_of, is_bucket

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no public name for it

MOST_WORKERS = 1024


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _workers(text: str) -> int:
    value = _positive_int(text)
    if value > MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{text} processes are more than {MOST_WORKERS}")
    return value


def _width(text: str) -> float:
    value = float(text)
    if not 4 <= value < 1e4:
        raise argparse.ArgumentTypeError(f"{text} is not a width in lattice constants (4 or more)")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port (1 to 65535)")
    return value


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name is no folder")
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]*://", text):
        raise argparse.ArgumentTypeError(f"{text} is an address, and this must be a local folder")
    return Path(text)


def _file(text: str) -> Path:
    path = _folder(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; name a file")
    return path


def _distance(text: str) -> float:
    value = float(text)
    if not 0 < value < 10:
        raise argparse.ArgumentTypeError(f"{text} is not a distance between 0 and 10 Å")
    return value


def _workspace(text: str) -> Path:
    """The folder of a workspace; of one in a bucket, its local folder."""
    if not is_bucket(text.strip()):
        if "://" in text:
            told = f"{text} is an address, and a workspace is a folder or a bucket (s3://BUCKET/PREFIX)"
            raise argparse.ArgumentTypeError(told)
        return _folder(text)
    try:
        return folder_of(text.strip())
    except BadAddress as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _tracking(text: str) -> str:
    try:
        return check_tracking(text.strip())
    except BadAddress as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _database(text: str) -> str:
    try:
        return check_database(text.strip())
    except BadAddress as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _cluster(text: str) -> str:
    if not re.fullmatch(r"(tcp|tls)://\S+:\d+|local:[1-9]\d{0,3}|.+\.toml", text):
        raise argparse.ArgumentTypeError(
            f"{text} is not the address of a scheduler (tcp://HOST:PORT), local:N for N processes, or a TOML file"
        )
    return text


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text} is not a shard: write K/N with K from 1 to N, such as 3/10")
    return number, count


def _run_name(text: str) -> str:
    if not text.strip() or len(text) > 200 or not text.isprintable():
        raise argparse.ArgumentTypeError("a name of a run has 1 to 200 characters, none of them invisible")
    return text.strip()


class _AtLeastTwo(argparse.Action):
    """Refuses a list of one."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if len(values) < 2:
            parser.error("name two runs or more; `dislobench runs` lists what is there")
        setattr(namespace, self.dest, values)


def build_parser() -> argparse.ArgumentParser:
    """The parser; `command` of what it returns names the command."""
    parser = argparse.ArgumentParser(
        prog="dislobench",
        description="Benchmark machine-learned interatomic potentials on dislocations.",
        epilog="example: dislobench run w-screw --preset quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for add in (  # in the order of --help
        *(_run, _export, _data, _scan),
        *(_tune, _sweep, _paper, _verify),
        *(_report, _leaderboard),
        *(_list, _check, _plan, _show, _view, _runs, _compare),
        *(_repair, _ui, _doctor, _completion),
    ):
        add(commands)
    return parser


# --- options that several commands share ---


def _command(commands: Commands, name: str, help_: str, example: str) -> argparse.ArgumentParser:
    sub = commands.add_parser(
        name,
        help=help_,
        description=help_,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object for machines")
    return sub


def _with_spec(sub: argparse.ArgumentParser, several: bool = False, optional: bool = False) -> None:
    if several:
        sub.add_argument("specs", nargs="+", metavar="SPEC", help="names of shipped specs, or TOML files")
    else:
        sub.add_argument("spec", nargs="?" if optional else None, help="name of a shipped spec, or a TOML file")
    sub.add_argument("--preset", help="a preset of the spec, such as quick or paper (default: the spec as it stands)")
    _with_overrides(sub)


def _with_overrides(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a key of the spec, for instance training.size=8 (repeatable)",
    )


def _with_safe(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--safe",
        action="store_true",
        help="refuse a spec that names code (module:callable or a command line), which this command would run",
    )


def _with_workspace(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--workspace",
        type=_workspace,
        default=Path("runs"),
        help="folder of all results, or a bucket: s3://BUCKET/PREFIX (default: ./runs)",
    )
    sub.add_argument(
        "--tracking-uri",
        type=_tracking,
        metavar="ADDRESS",
        help="keep the runs on this MLflow server or in this database (default: MLFLOW_TRACKING_URI, else WORKSPACE)",
    )


def _with_workers(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--workers", type=_workers, help="processes for the design matrix (default: all cores)")


def _with_cluster(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--cluster",
        type=_cluster,
        metavar="ADDRESS",
        help="compute on Dask workers: tcp://HOST:PORT of a scheduler, local:N, or a TOML file of a batch system",
    )


def _with_points(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--retry",
        action="store_true",
        help="compute again the points that failed, such as dipoles that annihilated",
    )
    _with_workers(sub)
    _with_cluster(sub)


def _with_run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "run_reference",
        metavar="RUN",
        help="id, unique beginning of an id (4 characters or more), or name (the newest)",
    )


def _with_only_case(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--case", help="only this case")


# --- commands that compute with one spec ---


def _run(commands: Commands) -> None:
    sub = _command(
        commands,
        "run",
        "Run a case, or several: fit, simulate, judge, store.",
        "dislobench run w-screw --preset quick",
    )
    _with_spec(sub, several=True)
    _with_workspace(sub)
    _with_safe(sub)
    sub.add_argument("--name", type=_run_name, help="name of the run in MLflow")
    _with_workers(sub)
    _with_cluster(sub)
    sub.add_argument(
        "--start", type=_folder, metavar="FOLDER", help="start from a relaxation that `export` prepared and LAMMPS did"
    )


def _export(commands: Commands) -> None:
    sub = _command(
        commands,
        "export",
        "Write the simulation cell's relaxation as a LAMMPS job for mpirun.",
        "dislobench export w-loop --preset paper --folder job",
    )
    _with_spec(sub)
    _with_safe(sub)
    sub.add_argument("--folder", type=_folder, default=Path("job"), help="where to write it (default: ./job)")


def _data(commands: Commands) -> None:
    sub = _command(
        commands,
        "data",
        "Write the training data of a case, its relaxed cells and its elastic targets as files for other trainers.",
        "dislobench data w-screw --preset quick --folder w-screw-data",
    )
    _with_spec(sub, optional=True)
    sub.add_argument(
        "--run", metavar="RUN", dest="run_reference", help="the data of this run instead, and its model's relaxed cell"
    )
    sub.add_argument(
        "--folder", type=_folder, default=Path("data"), help="where to write it: an empty folder (default: ./data)"
    )
    sub.add_argument(
        "--format",
        choices=["extxyz", "nep", "mlip", "pacemaker"],
        default="extxyz",
        dest="form",
        help="of the labelled configurations (default: extxyz, which GAP and MACE read)",
    )
    _with_workspace(sub)
    _with_safe(sub)


def _scan(commands: Commands) -> None:
    sub = _command(
        commands,
        "scan",
        "Relax the simulation's arrangement in a small cell from every core site.",
        "dislobench scan si-edge --size 20",
    )
    _with_spec(sub)
    _with_safe(sub)
    sub.add_argument("--size", type=_width, default=24.0, help="width of the small cell in a0 (default: 24)")
    sub.add_argument("--grid", type=_positive_int, default=4, help="candidates along e1 in one unit cell (default: 4)")


# --- commands that compute many runs ---


def _tune(commands: Commands) -> None:
    sub = _command(
        commands,
        "tune",
        "Study the loss weights: trials in milliseconds, verified by full relaxation; continues where it was.",
        "dislobench tune w-screw --trials 200 --workers 2",
    )
    _with_spec(sub)
    _with_workspace(sub)
    _with_safe(sub)
    sub.add_argument("--trials", type=_positive_int, help="trials the study shall have (default: tune.trials)")
    sub.add_argument("--workers", type=_workers, default=1, help="processes that run trials (default: 1)")
    sub.add_argument("--verify", type=_positive_int, help="trials to relax in full (default: tune.verify)")
    sub.add_argument(
        "--storage",
        type=_database,
        metavar="ADDRESS",
        help="keep the trials in this database, where several hosts may run them (default: a journal in WORKSPACE)",
    )
    sub.add_argument(
        "--help-only",
        action="store_true",
        help="with --storage: run trials until the study has enough, and leave its end to another command",
    )
    _with_cluster(sub)


def _sweep(commands: Commands) -> None:
    sub = _command(
        commands,
        "sweep",
        "Run the ladders of a spec and measure the rates; finished points are reused.",
        "dislobench sweep w-screw --only fig5",
    )
    _with_spec(sub)
    _with_workspace(sub)
    _with_safe(sub)
    sub.add_argument("--only", action="append", metavar="NAME", help="only this sweep of the spec (repeatable)")
    sub.add_argument(
        "--shard",
        type=_shard,
        metavar="K/N",
        help="compute only part K of N, for an array job; the same command without it collects all parts",
    )
    _with_points(sub)


def _paper(commands: Commands) -> None:
    sub = _command(
        commands,
        "paper",
        "Make the figures of the paper: eight sweeps of four shipped specs, and a page of them.",
        "dislobench paper --preset quick --figure 4",
    )
    sub.add_argument(
        "--preset",
        choices=["tiny", "quick", "standard", "paper"],
        default="standard",
        help="sizes: quick (two hours on two cores), standard (a night), paper (days); tiny is for tests",
    )
    _with_overrides(sub)
    sub.add_argument("--figure", type=_positive_int, action="append", metavar="N", help="only this figure (repeatable)")
    sub.add_argument("--folder", type=_folder, help="where to write the page (default: WORKSPACE/paper)")
    _with_workspace(sub)
    _with_points(sub)


def _verify(commands: Commands) -> None:
    sub = _command(
        commands,
        "verify",
        "Recompute our published numbers, or take those of a run, and compare.",
        "dislobench verify w-screw-quick",
    )
    sub.add_argument("expectation", nargs="?", help="name in specs/expected, or a TOML file (default: list them)")
    sub.add_argument("--run", metavar="RUN", dest="run_reference", help="compare this run instead of computing one")
    _with_workspace(sub)
    _with_safe(sub)


# --- commands that write pages ---


def _report(commands: Commands) -> None:
    sub = _command(
        commands,
        "report",
        "Write the report of a workspace, from its store alone: HTML, Markdown, CSV.",
        "dislobench report --case w-screw",
    )
    _with_workspace(sub)
    _with_only_case(sub)
    sub.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="RUN",
        dest="runs",
        help="show cells and cores of this run instead of the newest run of every case (repeatable)",
    )
    sub.add_argument("--folder", type=_folder, help="where to write it (default: WORKSPACE/report)")


def _leaderboard(commands: Commands) -> None:
    sub = _command(
        commands,
        "leaderboard",
        "Compare families of potentials: run the board, or write its page from the store alone.",
        "dislobench leaderboard families --workspace runs",
    )
    sub.add_argument(
        "board", nargs="?", help="name of a shipped board, or a TOML file: what is missing is run (default: the newest)"
    )
    sub.add_argument("--preset", help="a preset of the cases (default: that of the board)")
    sub.add_argument("--case", action="append", metavar="CASE", help="only this case of the board (repeatable)")
    sub.add_argument("--entry", action="append", metavar="ENTRY", help="only this entry of the board (repeatable)")
    sub.add_argument("--folder", type=_folder, help="where to write the page (default: WORKSPACE/leaderboard)")
    _with_workspace(sub)
    _with_safe(sub)
    _with_points(sub)


# --- commands that compute nothing: specs, runs, the workspace, the installation ---


def _list(commands: Commands) -> None:
    text = "List the shipped specs and the reference potentials."
    sub = _command(commands, "list", text, "dislobench list --references Si")
    sub.add_argument(
        "--references",
        nargs="?",
        const="",
        metavar="TEXT",
        help="the reference potentials with what was measured of them: of an element, or with TEXT in name or source",
    )


def _check(commands: Commands) -> None:
    sub = _command(
        commands, "check", "Check a spec without computing anything.", "dislobench check my.toml --preset paper"
    )
    _with_spec(sub)


def _plan(commands: Commands) -> None:
    sub = _command(
        commands, "plan", "Tell what a run or a sweep will take.", "dislobench plan w-screw --preset paper --sweep fig5"
    )
    _with_spec(sub)
    sub.add_argument("--sweep", metavar="NAME", help="plan this sweep of the spec: its tasks, and how many workers")
    _with_safe(sub)


def _show(commands: Commands) -> None:
    sub = _command(commands, "show", "Print a run and redraw its figures from the store.", "dislobench show 3f2a")
    _with_run(sub)
    sub.add_argument("--figures", type=_folder, help="folder for the figures (default: WORKSPACE/figures/RUN)")
    _with_workspace(sub)


def _view(commands: Commands) -> None:
    text = "Write a page that shows the dislocations of a run in three dimensions, of the reference beside the model."
    sub = _command(commands, "view", text, "dislobench view 3f2a")
    _with_run(sub)
    sub.add_argument(
        "--output", type=_file, metavar="FILE", help="the page, HTML (default: WORKSPACE/figures/RUN/view.html)"
    )
    sub.add_argument(
        "--atoms", type=_file, metavar="FILE", help="write all atoms with their errors too, as extended XYZ, for OVITO"
    )
    sub.add_argument(
        "--distortion",
        type=_distance,
        metavar="DISTANCE",
        help="show atoms that are distorted more than this, in Å (default: 0.15 times the nearest distance)",
    )
    _with_workspace(sub)


def _runs(commands: Commands) -> None:
    sub = _command(commands, "runs", "List the runs of a workspace.", "dislobench runs --case w-screw")
    _with_only_case(sub)
    sub.add_argument("--trials", action="store_true", help="list the trials of studies too, not only their number")
    sub.add_argument("--points", action="store_true", help="list the points of sweeps too, not only their number")
    sub.add_argument("--all", action="store_true", help="list trials and points")
    sub.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only runs that satisfy it: a number, parameter or tag, one of < <= > >= = != ~ (contains), and a value, "
        "for instance 'geometry_error < 0.1' (repeatable)",
    )
    sub.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="NAMES",
        help="what to show of each run: numbers, parameters and tags with commas between them, for instance "
        "weight_virial1,eps_V1_felt",
    )
    sub.add_argument("--sort", metavar="NAME", help="sort by a number, parameter or tag, the smallest first")
    _with_workspace(sub)


def _compare(commands: Commands) -> None:
    text = "Compare runs: the settings that differ, then the numbers that differ."
    sub = _command(commands, "compare", text, "dislobench compare 3f2a 77b1 90cc")
    sub.add_argument(
        "runs",
        nargs="+",
        action=_AtLeastTwo,
        metavar="RUN",
        help="two or more: id, unique beginning of an id (4 characters or more), or name",
    )
    sub.add_argument("--all", action="store_true", help="show every number: equal ones, variants, costs too")
    sub.add_argument(
        "--figures", type=_folder, metavar="FOLDER", help="draw errors against matching numbers, and cores, into it"
    )
    _with_workspace(sub)


def _repair(commands: Commands) -> None:
    sub = _command(
        commands,
        "repair",
        "Rebuild a lost or damaged database from the stores of the runs, and clear what killed commands left.",
        "dislobench repair --workspace runs",
    )
    _with_workspace(sub)


def _ui(commands: Commands) -> None:
    sub = _command(commands, "ui", "Start the MLflow UI on the workspace.", "dislobench ui --port 5000")
    sub.add_argument("--port", type=_port, default=5000, help="port of the server (default: 5000)")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    _with_workspace(sub)


def _doctor(commands: Commands) -> None:
    _command(commands, "doctor", "Check that every engine works on this machine.", "dislobench doctor")


def _completion(commands: Commands) -> None:
    text = "Print a script that lets the shell complete commands, options and names of specs."
    sub = _command(commands, "completion", text, "dislobench completion bash > dislobench.bash")
    sub.add_argument("shell", choices=["bash", "zsh"], help="the shell that reads the script")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"dislobench {version('dislobench')}"
    except PackageNotFoundError:
        return "dislobench (not installed)"
