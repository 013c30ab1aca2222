"""Commands that compute nothing: they show specs, runs, reports, the workspace, the installation."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.addresses import TRACKING
from suite.children import in_a_process
from suite.commands.common import (
    BAD_SPEC,
    BAD_STORE,
    CommandError,
    make_workspace,
    spec_of,
    specs_of_sweep,
    tell,
)
from suite.text import printable, short

if TYPE_CHECKING:
    import xarray as xr

    from store.runs import RunRecord, Tracker
    from suite.study.comparison import Compared
    from suite.study.ledger import Row
    from suite.study.selection import Condition
    from suite.world.catalogue import Reference


def list_known(options: argparse.Namespace) -> int:
    from suite.world.catalogue import CATALOGUE, selected

    if options.references is not None:
        return _references(selected(options.references), options)
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
    potentials = [{"reference": name, **entry.facts(), "notice": entry.notice} for name, entry in CATALOGUE.items()]
    from suite import plugins

    brought = [
        {"group": group, "name": name, "value": entry.value, "package": entry.dist.name if entry.dist else ""}
        for group in plugins.GROUPS
        for name, entry in plugins.installed(group).items()
    ]
    from suite.boards import read_board, shipped_boards

    boards = [
        {"board": name, "title": board.title, "cases": list(board.cases), "entries": list(board.entry)}
        for name, board in map(read_board, shipped_boards())
    ]
    if options.json:
        print(json.dumps({"specs": rows, "references": potentials, "boards": boards, "installed": brought}))
        return 0
    from suite.show.terminal import table

    table(
        "specs",
        ["spec", "title", "reference", "presets", "paper"],
        [[r["spec"], r["title"], r["reference"], " ".join(r["presets"]), r["paper"]] for r in rows],
    )
    table(
        "reference potentials (dislobench list --references tells more of them)",
        ["name", "species", "lattice", "form", "cutoff [Å]", "source"],
        [[e.name, "-".join(e.species), e.lattice, e.form, f"{e.cutoff:.3f}", e.source] for e in CATALOGUE.values()],
    )
    table(
        "leaderboards",
        ["board", "title", "cases", "entries"],
        [[each["board"], each["title"], " ".join(each["cases"]), ", ".join(each["entries"])] for each in boards],
    )
    if brought:
        table("of installed packages", ["group", "name", "value", "package"], [list(each.values()) for each in brought])
    return 0


def _references(entries: Mapping[str, Reference], options: argparse.Namespace) -> int:
    """Some entries of the catalogue in full."""
    if not entries:
        from suite.toml import did_you_mean
        from suite.world.catalogue import CATALOGUE

        known = dict.fromkeys([*CATALOGUE, *(s for entry in CATALOGUE.values() for s in entry.species)])
        hint = did_you_mean(options.references, known)
        raise CommandError(f"no reference has {printable(options.references)!r} in its name or source{hint}", BAD_SPEC)
    if options.json:
        told = [{"reference": name, **entry.facts(), "notice": entry.notice} for name, entry in entries.items()]
        print(json.dumps({"references": told}))
        return 0
    from suite.show.potentials import potential_table, source_table
    from suite.show.terminal import show_table

    for each in (potential_table(entries), source_table(entries)):
        show_table(each)
    return 0


def check(options: argparse.Namespace) -> int:
    from suite.spec import read

    file = read(options.spec)
    presets = [None, *file.presets] if options.preset is None else [options.preset]
    problems: list[str] = []
    from suite.spec import BadSpec, load, load_sweeps, read_sweeps

    def good(preset: str | None, look: Callable[[], Any]) -> bool:
        """Whether `look` finds no problem in the spec; problems are collected, each once for all presets."""
        try:
            look()
        except BadSpec as error:
            where = "" if preset is None else f"with preset {preset}: "
            known = {p.partition(": ")[2] if p.startswith("with preset") else p for p in problems}
            problems.extend(where + p for p in error.problems if p not in known)
            return False
        return True

    remarks: dict[str, None] = {}

    def look(preset: str | None) -> None:
        from suite.refusals import remarks_on

        remarks.update(dict.fromkeys(remarks_on(load(options.spec, preset, options.overrides))))

    for preset in presets:
        sound = good(preset, partial(look, preset))
        swept = "sweep" in file.tables or "sweep" in file.presets.get(preset or "", {})
        if swept and good(preset, partial(read_sweeps, options.spec, preset)) and sound:
            good(preset, partial(load_sweeps, options.spec, preset, options.overrides))
    if problems:
        raise CommandError("\n".join(problems), BAD_SPEC)
    checked = ", ".join(p or "no preset" for p in presets)
    for remark in remarks:
        print(f"dislobench: {remark}", file=sys.stderr)
    told = {"ok": True, "presets": presets, "remarks": list(remarks)}
    print(json.dumps(told) if options.json else f"{file.path}: good ({checked})")
    return 0


def plan(options: argparse.Namespace) -> int:
    spec = spec_of(options)
    from suite.study.plan import WARNING, plan, plan_sweep

    title = f"plan of {spec.case.name}"
    if options.sweep is None:
        found = plan(spec)
    else:
        title += f", sweep {options.sweep}"
        found = plan_sweep(specs_of_sweep(options, options.spec, options.sweep))
    if warning := found.get(WARNING):
        print(f"dislobench: {warning}", file=sys.stderr)
    if options.json:
        print(json.dumps(found))
        return 0
    from suite.show.terminal import table

    found = {key: value for key, value in found.items() if key != WARNING}
    table(title, ["what", "how much"], [[k, short(v)] for k, v in found.items()])
    return 0


def show(options: argparse.Namespace) -> int:
    record, tree = _stored(options)
    folder = options.figures or Path(options.workspace) / "figures" / record.id
    from suite.show.figures import draw_all

    drawn = draw_all(tree, folder, vector=True)
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


def view(options: argparse.Namespace) -> int:
    record, tree = _stored(options)
    from suite.show.defects import find_defects, write_atoms
    from suite.show.scene import scene_path, write_scene

    page = options.output or scene_path(options.workspace, record.id)
    found = find_defects(tree, options.distortion)
    written = [write_scene(found, f"{record.name} ({record.id[:8]})", tree.attrs["status"], page)]
    if options.atoms:
        written.append(write_atoms(found, options.atoms))
    if options.json:
        print(json.dumps({"run": record.id, "atoms": len(found.atoms), "files": [str(path) for path in written]}))
    else:
        print("\n".join(f"wrote    {path}" for path in written))
    return 0


def _stored(options: argparse.Namespace) -> tuple[RunRecord, xr.DataTree]:
    """The run that the command line names, and its store; raises `CommandError` when it has none."""
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
    tell(found)
    return record, fields.read(path)


def runs(options: argparse.Namespace) -> int:
    from store.runs import Tracker
    from suite.study.ledger import ledger
    from suite.study.selection import read_condition, refuse_unknown

    tracker = Tracker(options.workspace)
    conditions = [read_condition(text) for text in options.where]
    rows = ledger(tracker, options.case, options.trials or options.all, options.points or options.all)
    rows = _chosen(rows, conditions, options.sort)
    columns = [name.strip() for names in options.columns for name in names.split(",") if name.strip()]
    refuse_unknown(columns, [row.record for row in rows])
    if lost := tracker.lost():
        print(
            f"dislobench: {len(lost)} stores in {tracker.fields} have no run in {tracker.home.where}; "
            f"`dislobench repair {shlex.join(['--workspace', str(options.workspace), *tracker.home.options])}` adds "
            "them",
            file=sys.stderr,
        )
    if options.json:
        print(json.dumps({"runs": [row.content() for row in rows], "lost": lost}))
        return 0
    if not rows:
        which = f" of case {options.case!r}" if options.case else ""
        cure = "leave out --where" if conditions else "start with: dislobench run w-screw --preset quick"
        if options.case and (cases := sorted({record.experiment for record in tracker.history()})):
            cure = f"it has runs of {', '.join(map(printable, cases))}"
        print(f"no runs{which}{' that satisfy all of this' * bool(conditions)} in {options.workspace}; {cure}")
        return 0
    from suite.show.terminal import runs_table

    runs_table(f"runs in {options.workspace}", rows, columns)
    return 0


def _chosen(rows: list[Row], conditions: Sequence[Condition], sort: str | None) -> list[Row]:
    """The rows that satisfy all conditions, sorted by a name if one is given."""
    from suite.study.selection import by, select

    records = select([row.record for row in rows], conditions)
    kept = {row.record.id: row for row in rows}
    return [kept[record.id] for record in (records if sort is None else by(sort, records))]


def compare(options: argparse.Namespace) -> int:
    from store.runs import Tracker
    from suite.study.comparison import compare
    from suite.study.ledger import believed

    tracker = Tracker(options.workspace)
    found = [believed(tracker, reference) for reference in options.runs]
    for each in found:
        tell(each)
    compared = compare([each.record for each in found])
    if options.json:
        told = {
            "runs": [record.id for record in compared.runs],
            "settings": [[line.name, *(value or "" for value in line.values)] for line in compared.settings],
            "numbers": [[line.name, *line.values, line.ratio] for line in compared.numbers],
            "notes": [each.note for each in found],
        }
        print(json.dumps(told | {"figures": list(map(str, _comparison_figures(tracker, compared, options.figures)))}))
        return 0
    from suite.show.terminal import comparison_tables

    comparison_tables(compared, options.all)
    for path in _comparison_figures(tracker, compared, options.figures):
        print(f"wrote    {path} and .pdf")
    return 0


def _comparison_figures(tracker: Tracker, compared: Compared, folder: Path | None) -> list[Path]:
    """Draw the figures of a comparison where a folder for them is named. A run whose store is damaged has no core
    there, and that is told."""
    if folder is None:
        return []
    from store import fields
    from suite.show.comparison_figures import draw_comparison

    trees = {}
    for record in compared.runs:
        try:
            trees[record.id] = fields.read(tracker.store_of(record.id))
        except fields.StoreError as error:
            print(f"dislobench: no core of {printable(record.name)} is drawn: {error}", file=sys.stderr)
    return draw_comparison(compared.runs, trees, folder)


def report(options: argparse.Namespace) -> int:
    from suite.show.report import write_report

    folder = options.folder or options.workspace / "report"
    written = write_report(options.workspace, folder, options.case, options.runs)
    if options.json:
        print(json.dumps({"files": [str(path) for path in written]}))
    else:
        print("\n".join(f"wrote    {path}" for path in written))
    return 0


def repair(options: argparse.Namespace) -> int:
    if options.workspace.is_dir():
        make_workspace(options.workspace)  # raises an error for a workspace that is read-only
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


def ui(options: argparse.Namespace) -> int:
    from store.runs import Tracker

    tracker = Tracker(options.workspace)
    if not tracker.history():
        raise CommandError(
            f"{options.workspace} holds no runs; run a case first, or name another folder with --workspace", BAD_STORE
        )
    if tracker.lasting is not None:
        tracker.lasting.fetch_all("artifacts/")  # the pages read them from the local folder
    command = tracker.ui_command(options.port, options.host)
    if command:
        _need_free_port(options.host, options.port)
    _share_views(tracker)
    (newest, link), *others = tracker.ui_links(options.port, options.host).items()
    ready = ", ready in about 15 seconds (Ctrl-C ends it)" if command else ""
    print(f"MLflow UI{ready}. The newest case, {printable(newest)}:\n\n  {link}\n")
    for name, address in others:
        print(f"  {printable(name)}: {address}")
    sys.stdout.flush()
    if not command:  # a server shows them already
        return 0
    variables = {TRACKING: "", **tracker.home.ui_variables()}
    # a session of its own, so that the server's child processes end with this command too
    code, _ = in_a_process(command, variables=variables, start_new_session=True)
    raise CommandError(f"the MLflow server ended by itself with exit code {code}; see its messages above", 1)


def _share_views(tracker: Tracker) -> None:
    """Give each experiment the view that its link opens: columns and charts for the runs that it has now."""
    from suite.show.views import view_of

    experiments: dict[str, list[RunRecord]] = {}
    for record in tracker.history():
        experiments.setdefault(record.experiment, []).append(record)
    for name, records in experiments.items():
        tracker.share_view(name, view_of(records, tracker.metric_keys(name)))


def _need_free_port(host: str, port: int) -> None:
    """Raise an error for a port that cannot be used: MLflow's server would retry for ever without a message."""
    import errno
    import socket

    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # as servers do: do not wait for old connections to time out
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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


def doctor(options: argparse.Namespace) -> int:
    from suite.study.doctor import examine

    found = examine()
    if options.json:
        print(json.dumps({"engines": [{"what": w, "ok": ok, "detail": d} for w, ok, d in found]}))
    else:
        from suite.show.terminal import table

        table("doctor", ["what", "state", "detail"], [[w, "good" if ok else "BAD", d] for w, ok, d in found])
    return 0 if all(ok for _, ok, _ in found) else 1
