"""Commands that compute many runs: tune, sweep, paper, verify."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.commands.common import (
    BAD_SPEC,
    FAILED_OUTCOME,
    CommandError,
    chosen_sweeps,
    cluster_of,
    loader_of,
    make_workspace,
    refuse_code,
    refuse_own_ids,
    spec_of,
    tell,
)
from suite.text import printable

if TYPE_CHECKING:
    from suite.spec import Spec
    from suite.study.sweep import Sweep, SweepResult


def tune(options: argparse.Namespace) -> int:
    spec = spec_of(options)
    make_workspace(options.workspace)
    from suite.show.terminal import progress_reporter, tune_table
    from suite.study.keeping import Place, dashboard_of
    from suite.study.tune import tune
    from suite.study.weighings import weights_toml

    if options.help_only:
        return _help_with(options, spec)
    with cluster_of(options), progress_reporter(quiet=options.json) as progress:
        result = tune(
            spec, options.workspace, options.trials, options.workers, options.verify, progress, options.storage
        )
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
    print(printable(weights_toml(result.recommended)))
    print(f"report     {result.folder / 'report.html'}")
    print(f"weights    {result.folder / 'recommended.toml'}")
    trials = shlex.quote(dashboard_of(Place(result.key, result.folder, options.storage or "")))
    print(f"dashboard  optuna-dashboard {trials}    (pip install optuna-dashboard)")
    return 0


def _help_with(options: argparse.Namespace, spec: Spec) -> int:
    """Run trials of a study that another command begins or ends."""
    from suite.show.terminal import progress_reporter
    from suite.study.tune import help_with

    if not options.storage:
        raise CommandError("--help-only needs --storage: a journal is used by one command at a time", BAD_SPEC)
    with progress_reporter(quiet=options.json) as progress:
        found = help_with(spec, options.workspace, options.storage, options.trials, options.workers, progress)
    if options.json:
        print(json.dumps({"trials": found}))
        return 0
    print(f"the study has {found} complete trials; the same command without --help-only verifies and recommends")
    return 0


def sweep(options: argparse.Namespace) -> int:
    only = options.only or []
    chosen = chosen_sweeps(options, options.spec, only)
    make_workspace(options.workspace)
    if options.shard:
        refuse_own_ids(options)
        return _run_shards(options, chosen)
    from suite.study.sweep import content_of

    results = [result for _, result in _run_sweeps(options, [(options.spec, *each) for each in chosen.items()])]
    if options.json:
        told = [content_of(r) for r in results]
        print(json.dumps({"sweeps": told}))
        return 0
    print(f"report   dislobench report --workspace {shlex.quote(str(options.workspace))}")
    return 0


def _run_sweeps(
    options: argparse.Namespace, chosen: Sequence[tuple[str, str, Sweep]]
) -> Iterator[tuple[str, SweepResult]]:
    """Run sweeps given as (spec, name, sweep). Each is printed at once, because the next one may be interrupted."""
    from suite.show.terminal import progress_reporter, sweep_table
    from suite.study.sweep import run_sweep

    with cluster_of(options), progress_reporter(quiet=options.json) as progress:
        for spec, name, sweep in chosen:
            result = run_sweep(
                loader_of(options, spec), name, sweep, options.workspace, progress, options.workers, options.retry
            )
            if not options.json:
                sweep_table(result)
            yield spec, result


def _run_shards(options: argparse.Namespace, chosen: Mapping[str, Sweep]) -> int:
    """Run one shard of each chosen sweep, and say how to collect them."""
    if options.cluster:
        raise CommandError("--shard and --cluster are two ways to share a sweep: choose one", BAD_SPEC)
    from suite.show.terminal import progress_reporter
    from suite.study.sweep import run_shard

    with progress_reporter(quiet=options.json) as progress:
        done = [
            run_shard(
                loader_of(options, options.spec),
                name,
                sweep,
                options.workspace,
                options.shard,
                progress,
                options.workers,
                options.retry,
            )
            for name, sweep in chosen.items()
        ]
    if options.json:
        print(json.dumps({"shard": list(options.shard), "sweeps": [vars(each) for each in done]}))
        return 0
    number, count = options.shard
    for each in done:
        print(f"shard {number}/{count} of {each.name}: {each.points} of {each.total} points, {each.computed} computed")
    print("collect  the same command without --shard, when all shards have ended")
    return 0


def paper(options: argparse.Namespace) -> int:
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
        (figure.spec, figure.sweep, chosen_sweeps(options, figure.spec, [figure.sweep])[figure.sweep])
        for figure in figures
    ]
    make_workspace(options.workspace)
    folder = options.folder or options.workspace / "paper"
    make_workspace(folder)
    records: dict[int, Any] = {}
    files: list[Path] = []
    for figure, (_, r) in zip(figures, _run_sweeps(options, chosen), strict=True):
        records[figure.number] = content_of(r)
        files = write_page(records, options.preset, folder)  # after every sweep, because the next one takes long
    if options.json:
        told = {str(number): {"rates": record["rates"]} for number, record in records.items()}
        print(json.dumps({"figures": told, "files": [str(file) for file in files]}))
        return 0
    print(f"page     {files[0]}")
    return 0


def leaderboard(options: argparse.Namespace) -> int:
    from suite.show.leaderboard import write_leaderboard

    folder = options.folder or options.workspace / "leaderboard"
    run_id = None
    chosen = {word: vars(options)[word] for word in ("preset", "case", "entry", "retry", "safe")}
    if options.board is None and (given := [word for word, value in chosen.items() if value]):
        raise CommandError(f"--{given[0]} belongs to a board that is run: name the board", BAD_SPEC)
    if options.board is not None:
        from suite.boards import chosen_of, read_board
        from suite.show.terminal import progress_reporter
        from suite.study.board import run_board

        name, board = read_board(options.board)
        board = chosen_of(board, options.case, options.entry, options.preset)
        make_workspace(options.workspace)
        with cluster_of(options), progress_reporter(quiet=options.json) as progress:
            accept = partial(refuse_code, options)
            result = run_board(name, board, options.workspace, progress, options.workers, options.retry, accept)
        run_id = result.run_id
    written = write_leaderboard(options.workspace, folder, run_id)
    if options.json:
        print(json.dumps({"folder": str(folder), "files": [str(path) for path in written]}))
        return 0
    for path in written:
        print(f"wrote    {printable(str(path))}")
    return 0


def verify(options: argparse.Namespace) -> int:
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
        make_workspace(options.workspace)
        from suite.study.case import Case, run_in
        from suite.study.session import Session

        spec = refuse_code(options, load(expected.spec, expected.preset, expected.set))
        with progress_reporter(quiet=options.json) as progress:
            run = run_in(Session(options.workspace, progress), Case(spec, f"verify {options.expectation}")).run_id
    else:
        run = tracker.find(options.run_reference).id
    found = believed(tracker, run)
    tell(found)
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
