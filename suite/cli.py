"""The command `dislobench`: parsing, progress and printing, nothing else.

Exit codes: 0 done, 1 an unexpected error, 2 a bad spec or command, 3 an outcome that cannot be used (a dipole that
annihilates, a model that does not relax), 4 a damaged or missing store or run, 130 interrupted, 143
terminated (SIGTERM).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.faults import BadInput, BadStore, FailedOutcome, Fault
from suite.arguments import build_parser
from suite.text import printable

if TYPE_CHECKING:
    from store.sealed import Believed
    from suite.spec import Spec
    from suite.study.sweep import Sweep, SweepResult

BAD_SPEC, FAILED_OUTCOME, BAD_STORE = BadInput.exit_code, FailedOutcome.exit_code, BadStore.exit_code
INTERRUPTED = 130
TRACKING = "MLFLOW_TRACKING_URI"
PARENT = "DISLOBENCH_PARENT"  # process that started this command and waits for it: the command ends with it
PATIENCE = 10.0  # seconds for a child to end after SIGTERM


class CommandError(Fault):
    """A message for the user and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class Terminated(KeyboardInterrupt):
    """A signal that asks this process to end, such as SIGTERM of a batch system: ends a command as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def _ends_cleanly() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Terminated`, where they are not ignored (nohup), and in the main thread only.

    The first signal, or Ctrl-C, ends the command; later ones do not disturb its tidying up, but for a second Ctrl-C.
    """
    import threading

    defaults = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }

    def end(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number, default in defaults.items():
            if signal.getsignal(number) is default:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    code = _command(arguments)
    if arguments is None:  # the answer is out: Ctrl-C while the interpreter ends would only leave a traceback
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if (execution := sys.modules.get("suite.execution")) is not None:
            execution.leave(code)
    return code


def _command(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    if "workspace" in options:
        _tell_other_tracking(options.workspace)
    with _ends_cleanly():
        try:
            if parent := os.environ.pop(PARENT, None):
                from suite.execution import end_with

                end_with(int(parent), signal.SIGTERM)
            return COMMANDS[options.command](options)
        except Fault as fault:
            _report(options, str(fault), fault.exit_code)
            return fault.exit_code
        except OSError as error:
            from store.seal import disk_fault

            place = error.filename or getattr(options, "workspace", None) or Path.cwd()
            if (refusal := disk_fault(Path(str(place)), error)) is None:
                raise
            _report(options, str(refusal), refusal.exit_code)
            return refusal.exit_code
        except KeyboardInterrupt as stop:
            return _stopped(options, stop)


def _stopped(options: argparse.Namespace, stop: KeyboardInterrupt) -> int:
    """End the workers, tell, and return the exit code."""
    if "suite.execution" in sys.modules:
        from suite.execution import stop_workers

        stop_workers()
    how, code = ("terminated", stop.exit_code) if isinstance(stop, Terminated) else ("interrupted", INTERRUPTED)
    left = (
        "the server has ended" if options.command == "ui" else "finished stages are cached, so the same command goes on"
    )
    _report(options, f"{how}; {left}", code)
    return code


def _report(options: argparse.Namespace, message: str, code: int) -> None:
    if getattr(options, "json", False):
        print(json.dumps({"error": message, "exit": code}))
    print(f"dislobench: {printable(message)}", file=sys.stderr)


def _tell_other_tracking(workspace: Path) -> None:
    """Say that the address of MLflow in the environment is not the one in use."""
    named = os.environ.get(TRACKING)
    if not named:
        return
    from store.database import address

    if named != address(workspace.absolute() / "mlflow.db"):
        print(
            f"dislobench: {TRACKING} is set but dislobench writes to {workspace}/mlflow.db; unset it, or choose the "
            "folder with --workspace",
            file=sys.stderr,
        )


# --- commands ----------------------------------------------------------------------------------------------------


def _load(options: argparse.Namespace) -> Spec:
    from suite.spec import load

    return _refuse_code(options, load(options.spec, options.preset, options.overrides))


def _refuse_code(options: argparse.Namespace, spec: Spec) -> Spec:
    """The spec; raises `CommandError` when it names code and the command line asked for none."""
    if getattr(options, "safe", False) and spec.code:
        raise CommandError(
            f"{spec.case.name} names {' and '.join(spec.code)}: code that this command would run, and --safe forbids "
            "it; read that code, and leave --safe out when you trust it",
            BAD_SPEC,
        )
    return spec


def _spec_words(options: argparse.Namespace) -> list[str]:
    """The words of a command line that choose preset and overrides."""
    preset = [] if options.preset is None else ["--preset", options.preset]
    return [*preset, *(word for override in options.overrides for word in ("--set", override))]


def _run(options: argparse.Namespace) -> int:
    if len(options.specs) > 1:
        return _run_each(options)
    (options.spec,) = options.specs
    spec = _load(options)
    if options.start is not None:
        from suite.world.lammps_job import job_digest

        job_digest(options.start)  # refuses a job that is not there before anything is made
    _make_workspace(options.workspace)
    from store.runs import Tracker
    from suite.judge.remarks import remarks
    from suite.show.terminal import progress_reporter, run_table
    from suite.study.case import run_case, run_name
    from suite.world.relaxation import Status

    with progress_reporter(quiet=options.json) as progress:
        for sentence in Tracker(options.workspace).tidy():
            progress("workspace", 1.0, sentence)
        name = options.name or " ".join([run_name(spec), *options.overrides])[:200].strip()
        result = run_case(spec, options.workspace, progress, name, workers=options.workers, job=options.start)
    status = result.verdict.status
    failure = "" if status is Status.CONVERGED else f"the model's relaxation: {status.value}. Remedy: {status.remedy}"
    if options.json:
        told = {
            "run": result.run_id,
            "case": spec.case.name,
            "status": status.name.lower(),
            "numbers": result.verdict.numbers,
            "remarks": remarks(result.verdict.numbers),
            "seconds": result.stages.seconds,
            "megabytes": result.stages.megabytes,
            "fields": str(result.fields),
            "figures": [str(p) for p in result.figures],
        }
        print(json.dumps(told | ({"error": failure, "exit": FAILED_OUTCOME} if failure else {})))
    else:
        run_table(spec, result)
    if failure:
        print(f"dislobench: {failure}", file=sys.stderr)
        return FAILED_OUTCOME
    return 0


def _make_workspace(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot use the workspace: {error}; name another with --workspace", BAD_STORE) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(
            f"{folder} can be read only; copy the workspace, or name another with --workspace "
            "(runs, show --figures, report --folder and compare read it as it is)",
            BAD_STORE,
        )


def _run_each(options: argparse.Namespace) -> int:
    """Each case in a process of its own: an engine that dies takes only its own case with it."""
    if options.start:
        raise CommandError("--start belongs to one spec; name one only", BAD_SPEC)
    from suite.spec import load

    for name in options.specs:  # a bad spec stops everything before anything runs
        _refuse_code(options, load(name, options.preset, options.overrides))
    worst = 0
    cases: list[Any] = []
    for name in options.specs:
        # -P: nothing that lies in the current folder may stand in for a module of dislobench
        command = [sys.executable, "-P", "-m", "dislobench", "run", name, "--workspace", str(options.workspace)]
        command += _spec_words(options)
        command += ["--name", options.name] if options.name else []
        command += ["--workers", str(options.workers)] if options.workers else []
        command += ["--safe"] if options.safe else []
        command += ["--json"] if options.json else []
        code, told = _in_a_process(command, captured=options.json)
        if options.json:
            # an engine may have printed something before
            last = told.strip().rpartition("\n")[2]
            cases.append(json.loads(last) if last.startswith("{") else {"case": name, "exit": code})
        if code < 0:
            print(
                f"dislobench: {name}: an engine killed the process ({signal.Signals(-code).name}); the case is lost, "
                "the others go on. Coinciding atoms do that: look at the core site and at the model's forces.",
                file=sys.stderr,
            )
            code = FAILED_OUTCOME
        worst = max(worst, code)
    if options.json:
        print(json.dumps({"cases": cases}))
    return worst


def _in_a_process(command: Sequence[str], captured: bool = False, **options: Any) -> tuple[int, str]:
    """Run a command and return its exit code and, if `captured`, its output. It never outlives this process: it is
    terminated when this one is stopped, and ends by itself when this one is killed."""
    import subprocess

    output = subprocess.PIPE if captured else None
    # an address of other runs, which dislobench does not use, has been told once
    environment = {key: value for key, value in os.environ.items() if key != TRACKING} | {PARENT: str(os.getpid())}
    with subprocess.Popen(command, stdout=output, text=True, env=environment, **options) as process:
        try:
            told, _ = process.communicate()
        except BaseException:
            own_group = options.get("start_new_session", False)
            _end(process, own_group)
            raise
    return process.returncode, told or ""


def _end(process: Any, own_group: bool) -> None:
    """Terminate a child (with its whole process group if it has one of its own); kill what does not end in time."""
    import subprocess

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            if own_group:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        except ProcessLookupError:
            break
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            continue


def _export(options: argparse.Namespace) -> int:
    spec = _load(options)
    from suite.show.terminal import progress_reporter
    from suite.stages.cells import export_job

    _make_workspace(options.folder)
    with progress_reporter(quiet=options.json) as progress:
        files = export_job(spec, options.folder, progress)
    if options.json:
        print(json.dumps({"folder": str(options.folder), "files": [path.name for path in files]}))
        return 0
    again = shlex.join(["dislobench", "run", options.spec, *_spec_words(options), "--start", str(options.folder)])
    print(f"wrote    {', '.join(path.name for path in files)}")
    print(f"relax    cd {shlex.quote(str(options.folder))} && mpirun -n 2 lmp -in relax.in")
    print(f"then     {printable(again)}")
    return 0


def _scan(options: argparse.Namespace) -> int:
    spec = _load(options)
    from suite.show.terminal import progress_reporter, table
    from suite.stages.cells import scan_cores

    with progress_reporter(quiet=options.json) as progress:
        found = scan_cores(spec, options.size, options.grid, progress)
    rows = [
        {
            "sites": [list(site) for site in entry.sites],
            "energy": entry.energy,
            "status": entry.relaxation.status.name.lower(),
            "calls": entry.relaxation.calls,
            "largest_shift": entry.largest_shift,
        }
        for entry in found
    ]
    if options.json:
        print(json.dumps({"atoms": found[0].atoms if found else 0, "sites": rows}))
        return 0
    table(
        f"core sites of {spec.case.name}, {found[0].atoms} atoms: sites of +b and -b in fractions of the unit cell",
        ["sites", "energy [eV]", "outcome", "force calls", "largest shift [Å]"],
        [[str(r["sites"]), f"{r['energy']:.4f}", r["status"], r["calls"], _short(r["largest_shift"])] for r in rows],
    )
    print("put the chosen one into the spec as: [dislocation] sites = [[f1, f2], [f1, f2]]")
    return 0


def _tune(options: argparse.Namespace) -> int:
    spec = _load(options)
    _make_workspace(options.workspace)
    from suite.show.terminal import progress_reporter, tune_table
    from suite.study.tune import tune
    from suite.study.weighings import weights_toml

    with progress_reporter(quiet=options.json) as progress:
        result = tune(spec, options.workspace, options.trials, options.workers, options.verify, progress)
    if options.json:
        entries = [
            {
                "name": entry.name,
                "weights": entry.weights,
                "predicted": entry.predicted,
                "relaxed": entry.relaxed,
                "status": entry.status,
            }
            for entry in result.entries
        ]
        print(
            json.dumps(
                {
                    "study": result.key,
                    "run": result.run_id,
                    "trials": len(result.trials),
                    "front": result.front,
                    "entries": entries,
                    "recommended": result.recommended.name,
                    "reason": result.reason,
                    "balance_and_accuracy": result.tension,
                    "correlation": result.correlation,
                    "importance": result.importance,
                    "seconds": result.seconds,
                    "folder": str(result.folder),
                }
            )
        )
        return 0
    tune_table(result)
    journal = shlex.quote(str(result.folder / "journal.log"))
    print(printable(weights_toml(result.recommended)))
    print(f"report     {result.folder / 'report.html'}")
    print(f"weights    {result.folder / 'recommended.toml'}")
    print(f"dashboard  optuna-dashboard {journal}    (pip install optuna-dashboard)")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    only = options.only or []
    chosen = _chosen_sweeps(options, options.spec, only)
    _make_workspace(options.workspace)
    from suite.study.sweep import content_of

    results = [result for _, result in _run_sweeps(options, [(options.spec, *each) for each in chosen.items()])]
    if options.json:
        told = [content_of(r) for r in results]
        print(json.dumps({"sweeps": told}))
        return 0
    print(f"report   dislobench report --workspace {shlex.quote(str(options.workspace))}")
    return 0


def _chosen_sweeps(options: argparse.Namespace, name: str, only: Sequence[str]) -> dict[str, Sweep]:
    """The sweeps of spec `name`, or `only` those with these names."""
    from suite.spec import load_sweeps

    sweeps = load_sweeps(name, options.preset, options.overrides, only)
    if unknown := [each for each in only if each not in sweeps]:
        raise CommandError(f"no sweep {unknown[0]!r} in {name}; it has {', '.join(sweeps)}", BAD_SPEC)
    return {each: sweep for each, sweep in sweeps.items() if not only or each in only}


def _run_sweeps(
    options: argparse.Namespace, chosen: Sequence[tuple[str, str, Sweep]]
) -> Iterator[tuple[str, SweepResult]]:
    """Run sweeps given as (spec, name, sweep); each is told at once, for the next one may be stopped."""
    from suite.show.terminal import progress_reporter, sweep_table
    from suite.spec import load, toml_value
    from suite.study.sweep import run_sweep

    with progress_reporter(quiet=options.json) as progress:
        for spec, name, sweep in chosen:

            def resolved(settings: Mapping[str, Any], spec: str = spec) -> Spec:
                words = [f"{key}={toml_value(value)}" for key, value in settings.items()]
                return _refuse_code(options, load(spec, options.preset, [*options.overrides, *words]))

            result = run_sweep(resolved, name, sweep, options.workspace, progress, options.workers, options.retry)
            if not options.json:
                sweep_table(result)
            yield spec, result


def _paper(options: argparse.Namespace) -> int:
    from suite.study.paper import FIGURES, write_page
    from suite.study.sweep import content_of

    known = [figure.number for figure in FIGURES]
    wanted = options.figure or known
    if unknown := [number for number in wanted if number not in known]:
        raise CommandError(
            f"figure {unknown[0]} shows no numbers, or is none of the paper's; those that do: "
            f"{', '.join(map(str, known))}",
            BAD_SPEC,
        )
    figures = [figure for figure in FIGURES if figure.number in wanted]
    chosen = [
        (figure.spec, figure.sweep, _chosen_sweeps(options, figure.spec, [figure.sweep])[figure.sweep])
        for figure in figures
    ]
    _make_workspace(options.workspace)
    folder = options.folder or options.workspace / "paper"
    _make_workspace(folder)
    records: dict[int, Any] = {}
    files: list[Path] = []
    for figure, (_, r) in zip(figures, _run_sweeps(options, chosen), strict=True):
        records[figure.number] = content_of(r)
        files = write_page(records, options.preset, folder)  # at once: the next sweep takes long
    if options.json:
        told = {str(number): {"rates": record["rates"]} for number, record in records.items()}
        print(json.dumps({"figures": told, "files": [str(file) for file in files]}))
        return 0
    print(f"page     {files[0]}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from suite.spec import load
    from suite.study.verify import compare, published, read_expected

    if options.expectation is None:
        print(json.dumps({"published": list(published())}) if options.json else "\n".join(published()))
        return 0
    expected = read_expected(options.expectation)
    from store.runs import Tracker
    from suite.show.terminal import progress_reporter, table
    from suite.study.ledger import believed

    tracker = Tracker(options.workspace)
    if options.run_reference is None:
        _make_workspace(options.workspace)
        from suite.study.case import run_case

        spec = _refuse_code(options, load(expected.spec, expected.preset, expected.set))
        with progress_reporter(quiet=options.json) as progress:
            run = run_case(spec, options.workspace, progress, f"verify {options.expectation}").run_id
    else:
        run = tracker.find(options.run_reference).id
    found = believed(tracker, run)
    _tell(found)
    checks = compare(expected, found.record.metrics)
    bad = [check for check in checks if not check.good]
    if options.json:
        rows = [{"name": c.name, "expected": c.expected, "found": c.found, "good": c.good} for c in checks]
        print(json.dumps({"run": run, "good": not bad, "checks": rows}))
    else:
        table(
            f"{options.expectation}, run {run[:8]}",
            ["number", "published", "found", "tolerance", ""],
            [
                [
                    c.name,
                    f"{c.expected:.6g}",
                    "" if c.found is None else f"{c.found:.6g}",
                    f"{c.tolerance:.2g}",
                    "" if c.good else "DIFFERS",
                ]
                for c in checks
            ],
        )
    if bad:
        print(f"dislobench: {len(bad)} of {len(checks)} numbers differ", file=sys.stderr)
    return FAILED_OUTCOME if bad else 0


def _report_command(options: argparse.Namespace) -> int:
    from suite.show.report import write_report

    folder = options.folder or options.workspace / "report"
    written = write_report(options.workspace, folder, options.case)
    if options.json:
        print(json.dumps({"files": [str(path) for path in written]}))
    else:
        print("\n".join(f"wrote    {path}" for path in written))
    return 0


def _list(options: argparse.Namespace) -> int:
    from suite.spec import read, shipped

    rows: list[dict[str, Any]] = []
    for name, path in shipped().items():
        tables = read(path).tables
        rows.append(
            {
                "spec": name,
                "title": tables["case"]["title"],
                "reference": tables["material"]["reference"],
                "presets": list(tables.get("preset", {})),
                "paper": tables["case"].get("paper", ""),
            }
        )
    from suite.world.reference import CATALOGUE

    potentials: list[dict[str, Any]] = [
        {
            "reference": name,
            "species": list(entry.species),
            "cutoff": entry.cutoff,
            "form": entry.summary,
            "source": entry.source,
            "notice": entry.notice,
        }
        for name, entry in CATALOGUE.items()
    ]
    from suite import plugins

    brought = [
        {"group": group, "name": name, "value": entry.value, "package": entry.dist.name if entry.dist else ""}
        for group in plugins.GROUPS
        for name, entry in plugins.installed(group).items()
    ]
    if options.json:
        print(json.dumps({"specs": rows, "references": potentials, "installed": brought}))
        return 0
    from suite.show.terminal import table

    table(
        "specs",
        ["spec", "title", "reference", "presets", "paper"],
        [[r["spec"], r["title"], r["reference"], " ".join(r["presets"]), r["paper"]] for r in rows],
    )
    table(
        "reference potentials",
        ["name", "species", "cutoff [Å]", "form", "source"],
        [[p["reference"], "-".join(p["species"]), f"{p['cutoff']:.3f}", p["form"], p["source"]] for p in potentials],
    )
    if brought:
        table("of installed packages", ["group", "name", "value", "package"], [list(each.values()) for each in brought])
    return 0


def _check(options: argparse.Namespace) -> int:
    from suite.spec import read

    file = read(options.spec)
    presets = [None, *file.presets] if options.preset is None else [options.preset]
    problems: list[str] = []
    from suite.spec import BadSpec, load, load_sweeps, read_sweeps

    def good(preset: str | None, look: Callable[[], Any]) -> bool:
        """Whether `look` finds the spec good; keeps what it finds, once for all presets."""
        try:
            look()
        except BadSpec as error:
            where = "" if preset is None else f"with preset {preset}: "
            known = {p.partition(": ")[2] if p.startswith("with preset") else p for p in problems}
            problems.extend(where + p for p in error.problems if p not in known)
            return False
        return True

    for preset in presets:
        sound = good(preset, partial(load, options.spec, preset, options.overrides))
        swept = "sweep" in file.tables or "sweep" in file.presets.get(preset or "", {})
        if swept and good(preset, partial(read_sweeps, options.spec, preset)) and sound:
            good(preset, partial(load_sweeps, options.spec, preset, options.overrides))
    if problems:
        raise CommandError("\n".join(problems), BAD_SPEC)
    checked = ", ".join(p or "no preset" for p in presets)
    print(json.dumps({"ok": True, "presets": presets}) if options.json else f"{file.path}: good ({checked})")
    return 0


def _plan(options: argparse.Namespace) -> int:
    spec = _load(options)
    from suite.study.plan import WARNING, plan

    found = plan(spec)
    if warning := found.get(WARNING):
        print(f"dislobench: {warning}", file=sys.stderr)
    if options.json:
        print(json.dumps(found))
        return 0
    from suite.show.terminal import table

    found = {key: value for key, value in found.items() if key != WARNING}
    table(f"plan of {spec.case.name}", ["what", "how much"], [[k, _short(v)] for k, v in found.items()])
    return 0


def _show(options: argparse.Namespace) -> int:
    from store import fields
    from store.runs import Tracker

    tracker = Tracker(options.workspace)
    found = tracker.believe(tracker.find(options.run_reference))
    record, path = found.record, tracker.store_of(found.record.id)
    if not path.exists():
        ended = f"it ended as {record.status} before the store stage; run its case again"
        lost = f"{path} is missing, although the run has finished; restore it, or run its case again"
        reason = record.tags.get("error") or (lost if record.status == "FINISHED" else ended)
        raise CommandError(f"run {record.name!r} ({record.id}) has no fields: {reason}", BAD_STORE)
    _tell(found)
    tree = fields.read(path)
    folder = options.figures or Path(options.workspace) / "figures" / record.id
    from suite.show.figures import draw_all

    drawn = draw_all(tree, folder)
    if options.json:
        print(
            json.dumps(
                {"run": record.id, "name": record.name, "attributes": tree.attrs, "figures": [str(p) for p in drawn]},
                default=str,
            )
        )
        return 0
    from suite.show.terminal import store_table

    store_table(record, tree, folder)
    return 0


def _runs(options: argparse.Namespace) -> int:
    from store.runs import Tracker
    from suite.study.ledger import ledger

    tracker = Tracker(options.workspace)
    rows = ledger(tracker, options.case, options.trials or options.all, options.points or options.all)
    if lost := tracker.lost():
        print(
            f"dislobench: {len(lost)} stores in {tracker.fields} have no run in the database; "
            f"`dislobench repair --workspace {options.workspace}` adds them",
            file=sys.stderr,
        )
    if options.json:
        print(json.dumps({"runs": [row.content() for row in rows], "lost": lost}))
        return 0
    if not rows:
        which = f" of case {options.case!r}" if options.case else ""
        print(f"no runs{which} in {options.workspace}; start with: dislobench run w-screw --preset quick")
        return 0
    from suite.judge.numbers import ERRORS, head
    from suite.show.terminal import table

    told = any(row.note for row in rows)
    table(
        f"runs in {options.workspace}",
        ["id", "name", "status", "outcome", *map(head, ERRORS), "started", *(["note"] if told else [])],
        [
            [
                r.id[:8],
                r.name + _folded(row.folded, r.tags.get("kind")),
                r.status,
                r.tags.get("outcome", r.tags.get("status", "")),
                *(_short(r.metrics.get(name)) for name in ERRORS),
                r.start[:19],
                *([row.note] if told else []),
            ]
            for row in rows
            for r in (row.record,)
        ],
    )
    return 0


def _folded(count: int, kind: str | None) -> str:
    word = "trials" if kind == "study" else "points"
    return f" ({count} {word}; --{word} lists them)" if count else ""


def _tell(believed: Believed) -> None:
    """Say on standard error what is wrong with the numbers of a run."""
    if believed.note:
        record = believed.record
        print(f"dislobench: {record.name} ({record.id[:8]}): {believed.note}", file=sys.stderr)


def _compare(options: argparse.Namespace) -> int:
    from store.runs import Tracker
    from suite.study.ledger import believed

    tracker = Tracker(options.workspace)
    found = [believed(tracker, reference) for reference in options.runs]
    for each in found:
        _tell(each)
    a, b = (each.record for each in found)
    settings = [
        [k, a.parameters.get(k, ""), b.parameters.get(k, "")]
        for k in sorted(a.parameters.keys() | b.parameters.keys())
        if a.parameters.get(k) != b.parameters.get(k)
    ]
    numbers: list[list[Any]] = []
    for key in sorted(a.metrics.keys() | b.metrics.keys()):
        x, y = a.metrics.get(key), b.metrics.get(key)
        ratio = y / x if x and y is not None else None
        numbers.append([key, x, y, ratio])
    if options.json:
        told = {"runs": [a.id, b.id], "settings": settings, "numbers": numbers, "notes": [each.note for each in found]}
        print(json.dumps(told))
        return 0
    from suite.show.terminal import table

    heads = [f"{r.name} ({r.id[:8]})" for r in (a, b)]
    table("settings that differ", ["setting", *heads], settings or [["none", "", ""]])
    table("numbers", ["number", *heads, "ratio"], [[k, *map(_short, rest)] for k, *rest in numbers])
    return 0


def _repair(options: argparse.Namespace) -> int:
    if options.workspace.is_dir():
        _make_workspace(options.workspace)  # refuses one that can be read only
    from suite.show.terminal import progress_reporter
    from suite.study.repair import repair

    with progress_reporter(quiet=options.json) as progress:
        found = repair(options.workspace, progress)
    if options.json:
        print(json.dumps({"done": found.done, "left": found.left}))
    else:
        print("\n".join(f"done     {sentence}" for sentence in found.done or ["nothing: there was nothing to repair"]))
    for sentence in found.left:
        print(f"dislobench: not repaired: {sentence}", file=sys.stderr)
    return BAD_STORE if found.left else 0


def _ui(options: argparse.Namespace) -> int:
    from store.runs import Tracker

    tracker = Tracker(options.workspace)
    if not tracker.database.exists():
        raise CommandError(
            f"{options.workspace} holds no runs; run a case first, or name another folder with --workspace", BAD_STORE
        )
    _need_free_port(options.host, options.port)
    print("MLflow UI, in a quarter of a minute (Ctrl-C ends it):", file=sys.stderr)
    for name, link in tracker.ui_links(options.port, options.host).items():
        print(f"  {printable(name)}: {link}", file=sys.stderr)
    # a session of its own: the server has children, and all of them end when this command does
    code, _ = _in_a_process(tracker.ui_command(options.port, options.host), start_new_session=True)
    raise CommandError(f"the MLflow server ended by itself with exit code {code}; its messages stand above", 1)


def _need_free_port(host: str, port: int) -> None:
    """Refuse a port that nobody can listen on: MLflow's server would try for ever, without a word."""
    import errno
    import socket

    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: no wait for old connections
            probe.bind(address)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        cure = (
            f"name another one, such as --port {port + 1 if port < 65535 else 5000}"
            if taken
            else "see --host and --port"
        )
        why = "another program listens there" if taken else error.strerror or str(error)
        raise CommandError(f"cannot listen on {host}, port {port}: {why}; {cure}", BAD_SPEC) from error


def _doctor(options: argparse.Namespace) -> int:
    from suite.study.doctor import examine

    found = examine()
    if options.json:
        print(json.dumps({"engines": [{"what": w, "ok": ok, "detail": d} for w, ok, d in found]}))
    else:
        from suite.show.terminal import table

        table("doctor", ["what", "state", "detail"], [[w, "good" if ok else "BAD", d] for w, ok, d in found])
    return 0 if all(ok for _, ok, _ in found) else 1


def _short(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "export": _export,
    "scan": _scan,
    "tune": _tune,
    "sweep": _sweep,
    "paper": _paper,
    "verify": _verify,
    "report": _report_command,
    "list": _list,
    "check": _check,
    "plan": _plan,
    "show": _show,
    "runs": _runs,
    "compare": _compare,
    "repair": _repair,
    "ui": _ui,
    "doctor": _doctor,
}


if __name__ == "__main__":
    sys.exit(main())
