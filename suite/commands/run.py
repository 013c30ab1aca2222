"""Commands that compute with one spec: run, scan, export."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.faults import Fault
from suite.children import in_a_process
from suite.commands.common import (
    BAD_SPEC,
    FAILED_OUTCOME,
    CommandError,
    cluster_of,
    make_workspace,
    refuse_code,
    spec_of,
    spec_words,
)
from suite.text import printable, short

if TYPE_CHECKING:
    from store.runs import RunRecord
    from suite.spec import Spec


def run(options: argparse.Namespace) -> int:
    if len(options.specs) > 1:
        return _run_each(options)
    (options.spec,) = options.specs
    spec = spec_of(options)
    if options.start is not None:
        from suite.world.lammps_job import job_digest

        job_digest(options.start)  # raises an error if the job is missing, before any folder is made
    make_workspace(options.workspace)
    from store.runs import Tracker
    from suite.judge.remarks import remarks
    from suite.show.terminal import progress_reporter, run_table
    from suite.study.case import Case, run_in
    from suite.study.described import run_name
    from suite.study.session import Session
    from suite.world.relaxation import Status

    with cluster_of(options), progress_reporter(quiet=options.json) as progress:
        for sentence in Tracker(options.workspace).tidy():
            progress("workspace", 1.0, sentence)
        name = options.name or run_name(spec, options.overrides)
        session = Session(options.workspace, progress, options.workers)
        result = run_in(session, Case(spec, name, job=options.start))
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


def _run_each(options: argparse.Namespace) -> int:
    """Run each case in its own process, so that an engine that crashes ends only its own case."""
    if options.start:
        raise CommandError("--start belongs to one spec; name one only", BAD_SPEC)
    from suite.spec import load

    # read all specs first: a bad one stops the command before anything runs
    specs = {name: refuse_code(options, load(name, options.preset, options.overrides)) for name in options.specs}
    if options.cluster:
        return _run_through(options, specs)
    worst = 0
    cases: list[Any] = []
    for name in options.specs:
        # -P: files in the current folder must not be imported instead of modules of dislobench
        command = [sys.executable, "-P", "-m", "dislobench", "run", name, "--workspace", str(options.workspace)]
        command += spec_words(options)
        command += ["--name", options.name] if options.name else []
        command += ["--workers", str(options.workers)] if options.workers else []
        command += ["--safe"] if options.safe else []
        command += ["--json"] if options.json else []
        code, told = in_a_process(command, captured=options.json)
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


def _run_through(options: argparse.Namespace, specs: Mapping[str, Spec]) -> int:
    """Run each case on a worker of the cluster; each is printed at once."""
    make_workspace(options.workspace)
    from store.runs import Tracker
    from suite.execution import the_cluster
    from suite.show.terminal import progress_reporter, record_table
    from suite.study.afar import run_through
    from suite.study.case import Case
    from suite.study.session import Session

    worst = 0
    told: list[dict[str, Any]] = []
    tracker = Tracker(options.workspace)
    with cluster_of(options), progress_reporter(quiet=options.json) as progress:
        for sentence in tracker.tidy():
            progress("workspace", 1.0, sentence)
        cases = {name: Case(spec, options.name) for name, spec in specs.items()}
        cluster = the_cluster()
        assert cluster is not None
        for name, found in run_through(cluster, cases, Session(options.workspace, progress)):
            code, failure = _ending(found)
            worst = max(worst, code)
            if isinstance(found, Fault):
                told.append({"case": name})
            else:
                figures = sorted((tracker.artifacts_dir(found.id) / "figures").glob("*.png"))
                told.append(_told(found, tracker.store_of(found.id), figures))
                if not options.json and found.status == "FINISHED":
                    record_table(found, tracker.store_of(found.id), figures)
            if failure:
                told[-1] |= {"error": failure, "exit": code}
                print(f"dislobench: {name}: {failure}", file=sys.stderr)
    if options.json:
        print(json.dumps({"cases": told}))
    return worst


def _ending(found: RunRecord | Fault) -> tuple[int, str]:
    """Exit code of a case that ended on a worker, and what is wrong, "" if nothing is."""
    if isinstance(found, Fault):
        return found.exit_code, str(found)
    if found.tags.get("outcome") == "converged":
        return 0, ""
    if found.status == "FINISHED":
        return FAILED_OUTCOME, f"the model's relaxation: {found.tags['outcome']}. Remedy: {found.tags['remedy']}"
    return FAILED_OUTCOME, found.tags.get("error", found.status)


def _told(record: RunRecord, store: Path, figures: Sequence[Path]) -> dict[str, Any]:
    """A case that ended on a worker, as one that ended here is told for machines."""
    from store.seal import attributes
    from suite.judge.remarks import remarks

    def of_stages(what: str) -> dict[str, float]:
        prefix = f"{what}_"
        return {name.removeprefix(prefix): v for name, v in record.metrics.items() if name.startswith(prefix)}

    numbers = attributes(store)["numbers"] if record.status == "FINISHED" else {}
    return {
        "run": record.id,
        "case": record.experiment,
        "status": record.tags.get("outcome", record.status.lower()),
        "numbers": numbers,
        "remarks": remarks(numbers),
        "seconds": of_stages("seconds"),
        "megabytes": of_stages("megabytes"),
        "fields": str(store),
        "figures": [str(path) for path in figures],
    }


def export(options: argparse.Namespace) -> int:
    spec = spec_of(options)
    from suite.show.terminal import progress_reporter
    from suite.stages.cells import export_job

    make_workspace(options.folder)
    with progress_reporter(quiet=options.json) as progress:
        files = export_job(spec, options.folder, progress)
    if options.json:
        print(json.dumps({"folder": str(options.folder), "files": [path.name for path in files]}))
        return 0
    again = shlex.join(["dislobench", "run", options.spec, *spec_words(options), "--start", str(options.folder)])
    print(f"wrote    {', '.join(path.name for path in files)}")
    print(f"relax    cd {shlex.quote(str(options.folder))} && mpirun -n 2 lmp -in relax.in")
    print(f"then     {printable(again)}")
    return 0


def data(options: argparse.Namespace) -> int:
    if (options.spec is None) == (options.run_reference is None):
        raise CommandError("name either a spec, or with --run a run of the workspace", BAD_SPEC)
    if options.run_reference and (options.preset or options.overrides):
        raise CommandError("--preset and --set belong to a spec: a run has its own", BAD_SPEC)
    from suite.data.folder import refuse_full, write_data
    from suite.show.terminal import progress_reporter
    from suite.stages.rows import labelled_sets
    from suite.study.cache import cached_world
    from suite.study.session import Session, Stages

    relaxed = {}
    if options.run_reference:
        spec, relaxed["model"] = _run_of(options)
    else:
        spec = spec_of(options)
    refuse_full(options.folder)
    make_workspace(options.workspace)
    with progress_reporter(quiet=options.json) as progress:
        world = cached_world(spec, Session(options.workspace, progress), Stages())
        progress("labels", 0.0, f"{spec.training.configurations + spec.training.test} configurations")
        files = write_data(spec, world, labelled_sets(spec, world), options.folder, options.form, relaxed)
    if options.json:
        print(json.dumps({"folder": str(options.folder), "files": [str(f.relative_to(options.folder)) for f in files]}))
        return 0
    print(f"wrote    {len(files)} files in {printable(str(options.folder))}; README.md there tells what they are")
    return 0


def _run_of(options: argparse.Namespace) -> tuple[Any, Any]:
    """The spec of a run, and its model's equilibrium in the simulation cell, displacements (n, 3) Å."""
    from store import fields
    from store.runs import Tracker
    from suite.spec import from_text

    tracker = Tracker(options.workspace)
    tree = fields.read(tracker.store_of(tracker.believe(tracker.find(options.run_reference)).record.id))
    spec = refuse_code(options, from_text(tree.attrs["spec"]))
    return spec, tree["simulation"]["relaxed_model"].to_numpy()


def scan(options: argparse.Namespace) -> int:
    spec = spec_of(options)
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
        [[str(r["sites"]), f"{r['energy']:.4f}", r["status"], r["calls"], short(r["largest_shift"])] for r in rows],
    )
    print("put the chosen one into the spec as: [dislocation] sites = [[f1, f2], [f1, f2]]")
    return 0
