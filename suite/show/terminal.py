"""Output for people: progress with remaining time, and tables. Plain lines if the output is no terminal."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from store.homes import home_of
from store.seal import attributes
from suite.judge.matching import told
from suite.judge.numbers import ERRORS, NUMBERS, SHOWN, head
from suite.judge.remarks import remarks
from suite.judge.theory import CORRECTED_ENERGY_TERMS, TERMS, limiting_term
from suite.ladders import short_label
from suite.show.table import Table
from suite.study.rates import GROWTH_HEADS, HEADS, cells, growth_cells
from suite.study.selection import value_of
from suite.text import printable, short

if TYPE_CHECKING:
    from store.runs import RunRecord
    from suite.progress import Progress as Report
    from suite.spec import Spec
    from suite.study.case import CaseResult
    from suite.study.comparison import Compared
    from suite.study.ledger import Row
    from suite.study.sweep import SweepResult
    from suite.study.weighings import TuneResult

PLAIN_EVERY = 5.0  # seconds between lines of one stage when there is no terminal


@contextmanager
def progress_reporter(quiet: bool = False) -> Iterator[Report]:
    """A progress callback `(what, fraction, note)` for the pipeline, on standard error."""
    console = Console(stderr=True)
    if quiet:
        yield lambda what, fraction, note: None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bars:
            tasks: dict[str, Any] = {}

            def show(what: str, fraction: float, note: str) -> None:
                if what not in tasks:
                    for task in tasks.values():
                        bars.update(task, completed=1.0)
                    tasks[what] = bars.add_task(escape(printable(what)), total=1.0, note="")
                bars.update(tasks[what], completed=fraction, note=escape(printable(note)))

            yield show
            for task in tasks.values():
                bars.update(task, completed=1.0)
    else:
        begun: dict[str, float] = {}
        told: dict[str, float] = {}

        def line(what: str, fraction: float, note: str) -> None:
            now = time.monotonic()
            first = what not in begun
            begun.setdefault(what, now)
            if first or fraction >= 1 or now - told[what] > PLAIN_EVERY:
                told[what] = now
                left = (now - begun[what]) * (1 / fraction - 1) if 0 < fraction < 1 and not first else None
                rest = f", about {left:.0f} s left" if left is not None else ""
                print(printable(f"{what}: {note}{rest}"), file=sys.stderr, flush=True)

        yield line


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns are never cut when the output is no terminal."""
    show_table(Table(heads, rows, title))


def show_table(shown: Table) -> None:
    """As `table`, of a table as one value."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(shown.terminal())
    console.print()


POINT_NUMBERS = (*ERRORS, "rmse_F")
# Predicted numbers of a weighing that the table of a study shows
ENTRY_PREDICTED = (
    *("balance_spread", "calibrated_spread", "corrected_spread"),
    *("geometry_error_linear", "energy_error_linear"),
)


def _numbers(numbers: dict[str, float], limiting: str) -> list[list[str]]:
    """Rows of a run's table; `limiting` is the largest term of (3.13)."""
    entries = [NUMBERS[name] for name in SHOWN if name in numbers]
    rows = [[("  " if e.under else "") + e.symbol, told(numbers, e.name), e.unit, e.meaning] for e in entries]
    rows.append(["limiting term", TERMS[limiting], "", "largest term of (3.13)"])
    if "bound_energy_corrected" in numbers:  # runs of an older version lack it
        term = limiting_term(numbers, CORRECTED_ENERGY_TERMS)
        rows.append(["limiting term, energy", CORRECTED_ENERGY_TERMS[term], "", "largest of the corrected bound"])
    return rows


def run_table(spec: Spec, result: CaseResult) -> None:
    """Print a finished run: its numbers, its stages, and where its files are."""
    status = result.verdict.status
    world = result.world
    table(
        f"{spec.case.title}: {status.name.lower()}, {len(world.simulation)} atoms, "
        f"{'trained' if result.rows.functions else 'tested'} on {sum(map(len, world.training))}, "
        + (f"{result.rows.functions} functions, " if result.rows.functions else "")
        + spec.judged,
        ["number", "value", "unit", "meaning"],
        _numbers(result.verdict.numbers, result.verdict.limiting_term),
    )
    stages = result.stages
    table(
        "stages",
        ["stage", "seconds", "peak MB", ""],
        [
            [
                name,
                f"{stages.seconds[name]:.1f}",
                f"{stages.megabytes[name]:.0f}",
                "from the cache" if stages.cached.get(name) else "",
            ]
            for name in stages.seconds
        ],
    )
    _places(result.run_id, result.verdict.numbers, result.fields, result.figures)


def record_table(record: RunRecord, store: Path, figures: Sequence[Path]) -> None:
    """Print a run that a worker has finished, as far as its store tells of it."""
    attrs = attributes(store)
    numbers = attrs["numbers"]
    table(
        f"{attrs['title']}: {attrs['status']}, {record.metrics['atoms_simulation']:.0f} atoms, "
        f"L = {record.parameters['L']}, seed {record.parameters['seed']}",
        ["number", "value", "unit", "meaning"],
        _numbers(numbers, attrs["limiting_term"]),
    )
    _places(record.id, numbers, store, figures)


def _places(run_id: str, numbers: dict[str, float], fields: Path, figures: Sequence[Path]) -> None:
    """Print what should be known about a run, where its files are, and how to see it again."""
    for sentence in remarks(numbers):
        print(f"note     {sentence}")
    print(f"run      {run_id}\nfields   {fields}\nfigures  {figures[0].parent if figures else Path()}")
    workspace = fields.parent.parent
    words = ["dislobench", "show", run_id[:8], "--workspace", str(workspace), *home_of(workspace).options]
    print(f"again    {shlex.join(words)}")


def store_table(record: Any, tree: Any, folder: Path) -> None:
    """Print a run from its store: its numbers, its parameters, and the paths of its redrawn figures."""
    attrs = tree.attrs
    table(
        f"{record.name} ({record.id}): {attrs['status']}",
        ["number", "value", "unit", "meaning"],
        _numbers(attrs["numbers"], attrs["limiting_term"]),
    )
    table("parameters", ["parameter", "value"], sorted(record.parameters.items()))
    print(f"figures  {folder}")


_RUN_COLUMNS = ("status", "outcome", *ERRORS, "started")
"""Columns of a list of runs, after id and name, unless others are wanted."""


def runs_table(title: str, rows: Sequence[Row], columns: Sequence[str] = ()) -> None:
    """Print a list of runs with these columns: names as in `selection.value_of`."""
    noted = ["note"] if any(row.note for row in rows) else []
    table(
        title,
        ["id", "name", *map(head, columns or _RUN_COLUMNS), *noted],
        [
            [
                row.record.id[:8],
                row.record.name + _folded(row.folded, row.record.kind),
                *(_value(row.record, name) for name in columns or _RUN_COLUMNS),
                *([row.note] if noted else []),
            ]
            for row in rows
        ],
    )


def _value(record: RunRecord, name: str) -> str:
    value = value_of(record, name)
    if name == "outcome" and value is None:
        value = record.tags.get("status", "")  # a run that failed before it had an outcome tells which error
    return short(value)


def _folded(count: int, kind: str) -> str:
    word = "trials" if kind == "study" else "points"
    return f" ({count} {word}; --{word} lists them)" if count else ""


def comparison_tables(compared: Compared, everything: bool) -> None:
    """Print runs side by side: what differs first. `everything` adds the numbers that are equal, and all others."""
    ids = [record.id[:8] for record in compared.runs]
    table(
        "runs",
        ["id", "case", "name", "outcome"],
        [
            [record.id[:8], record.experiment, record.name, outcome]
            for record, outcome in zip(compared.runs, compared.outcomes.values, strict=True)
        ],
    )
    settings = [[line.name, *(value or "-" for value in line.values)] for line in compared.settings]
    table("settings that differ", ["setting", *ids], settings or [["none", *("" for _ in ids)]])
    lines = compared.numbers if everything else compared.telling()
    ratio = "ratio" if len(ids) == 2 else "largest / smallest"
    table(
        "all numbers" if everything else "numbers that differ (--all shows every number)",
        ["number", *ids, ratio],
        [[head(line.name), *map(short, line.values), short(line.ratio)] for line in lines]
        or [["none", *("" for _ in ids), ""]],
    )


def tune_table(result: TuneResult) -> None:
    """Print the verified weighings of a study, and the rank correlation of prediction and relaxation."""

    def cell(numbers: dict[str, float], name: str) -> str:
        return f"{numbers[name]:.4g}" if name in numbers else ""

    weights = sorted({name for entry in result.entries for name in entry.weights})
    table(
        f"{result.spec.case.title}: {len(result.trials)} trials, {len(result.front)} on the front; recommended: "
        f"{result.recommended.name}",
        [
            "weighing",
            *(f"W {name}" for name in weights),
            *map(head, ENTRY_PREDICTED),
            *map(head, ERRORS),
            "outcome",
        ],
        [
            [
                entry.name,
                *(f"{entry.weights[name]:.3g}" if name in entry.weights else "" for name in weights),
                *(cell(entry.predicted, name) for name in ENTRY_PREDICTED),
                *(cell(entry.relaxed, name) for name in ERRORS),
                entry.status,
            ]
            for entry in result.entries
        ],
    )
    words = {"geometry": "geometry", "energy": "energy"}
    found = [f"{words[name]} {value:.2f}" for name, value in result.correlation.items() if name in words]
    if found:
        print(f"rank correlation of prediction and relaxation: {', '.join(found)}")
    print(f"recommended {result.recommended.name}: {result.reason}\n{result.tension}")
    print("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in result.seconds.items()))
    print()


def sweep_table(result: SweepResult) -> None:
    """Print the points of a sweep and its rates with verdicts."""
    table(
        f"{result.spec.case.title}, sweep {result.name}: {len(result.points)} points, "
        f"{sum(point.computed for point in result.points)} computed",
        ["point", "setting", "seed", result.sweep.against, *map(head, POINT_NUMBERS), "outcome"],
        [
            [
                short_label(point.values),
                point.setting,
                str(point.seed),
                "" if point.x is None else f"{point.x:.4g}",
                *(f"{point.numbers[name]:.4g}" if name in point.numbers else "" for name in POINT_NUMBERS),
                point.status,
            ]
            for point in result.points
        ],
    )
    if result.growths:
        table(
            "growth with ln L_D: Å² of the squared geometry error, eV of the signed energy difference",
            ["error", "setting", *GROWTH_HEADS],
            [[error, setting, *growth_cells(asdict(found))] for (error, setting), found in result.growths.items()],
        )
        return
    if not result.rates:
        print(f"no rate: it needs three values of {result.sweep.against} with a finite error, of one setting\n")
        return
    table(
        "rates",
        ["error", "setting", *HEADS],
        [[error, setting, *cells(asdict(rate))] for (error, setting), rate in result.rates.items()],
    )
