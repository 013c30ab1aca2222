"""Boards as they are declared: cases, seeds of the training set, and entries, each of which sets keys of the spec.

All entries of a case have the same data and cells. `suite.study.board` runs a board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from store.faults import BadInput
from suite.records import Record, Seed, sentence_of
from suite.spec import BadSpec, Spec, load, read_toml, shipped, specs_folder
from suite.toml import did_you_mean, shortened, toml_value

SETTABLE = ("model", "observables", "weights", "solver")  # tables that decide neither the data nor the cells


class Part(Record):
    """What an entry does in one case: further keys of the spec, and fewer `seeds` where that case is slow; or the
    reason why it is left out."""

    set: dict[str, Any] = {}  # noqa: RUF012
    seeds: tuple[Seed, ...] = ()
    left_out: str = ""


class Entry(Record):
    """One family at one size: the `family` it is drawn with, keys of the spec that it sets in all cases, and `case`
    with what differs in some of them. A slow one may have fewer `seeds` than the board."""

    family: str
    seeds: tuple[Seed, ...] = ()
    set: dict[str, Any] = {}  # noqa: RUF012
    case: dict[str, Part] = {}  # noqa: RUF012


class Board(Record):
    """A leaderboard as it is declared: a title, cases with a preset for all, seeds, and entries by name. `data` are
    keys of the spec that all entries of a case have, such as its amplitudes, by case."""

    title: str
    cases: Annotated[tuple[str, ...], Field(min_length=1)]
    preset: str | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    data: dict[str, dict[str, Any]] = {}  # noqa: RUF012
    entry: Annotated[dict[str, Entry], Field(min_length=1)]


class BadBoard(BadInput, ValueError):
    """A board that cannot be read, or names what there is not; a line for each problem."""


def shipped_boards() -> dict[str, Path]:
    """Names and paths of the boards that come with dislobench."""
    return {path.stem: path for path in sorted((specs_folder() / "boards").glob("*.toml"))}


def read_board(name: str) -> tuple[str, Board]:
    """Name and record of a shipped board, or of a TOML file; raises `BadBoard`."""
    known = shipped_boards()
    path = Path(name) if name.endswith(".toml") else known.get(name)
    if path is None or not path.is_file():
        if name.endswith(".toml"):
            raise BadBoard(f"{name}: there is no such file")
        told = f"shipped: {', '.join(known)}{did_you_mean(name, known)}" if known else "name a TOML file"
        raise BadBoard(f"no board {shortened(name)}; {told}")
    try:
        _, tables = read_toml(path)
        board = Board.model_validate(tables)
    except ValidationError as error:
        raise BadBoard(
            "\n".join(
                f"{path}: {'.'.join(map(str, item['loc']))}: {sentence_of(item, tuple(map(str, item['loc'])), Board)}"
                for item in error.errors()
            )
        ) from error
    if problems := list(_unknown(path, board)):
        raise BadBoard("\n".join(problems))
    return path.stem, board


def chosen_of(board: Board, cases: Sequence[str] | None, entries: Sequence[str] | None, preset: str | None) -> Board:
    """The board with these cases and entries only, and with another preset; raises `BadBoard` for one it has not."""
    for wanted, known, kind in ((cases or (), board.cases, "case"), (entries or (), tuple(board.entry), "entry")):
        for name in wanted:
            if name not in known:
                raise BadBoard(f"the board has no {kind} {shortened(name)}{did_you_mean(name, known)}")
    return board.model_copy(
        update={
            "cases": tuple(cases) if cases else board.cases,
            "entry": {name: each for name, each in board.entry.items() if not entries or name in entries},
            "preset": preset or board.preset,
        }
    )


def _unknown(path: Path, board: Board) -> list[str]:
    """Cases that no spec has, parts of entries for cases that the board does not have, and keys that would give an
    entry other data or cells than the rest."""
    problems = []
    for case in board.cases:
        if not case.endswith(".toml") and case not in shipped():
            problems.append(f"{path}: cases: no spec {shortened(case)}{did_you_mean(case, shipped())}")
    for name, entry in board.entry.items():
        places = {"set": entry.set, **{f"case.{case}.set": part.set for case, part in entry.case.items()}}
        for place, keys in places.items():
            for key in keys:
                if key.partition(".")[0] not in SETTABLE:
                    problems.append(
                        f"{path}: entry.{name}.{place}: {shortened(key)} is the same for all entries of a case: an "
                        f"entry may set keys of {', '.join(SETTABLE)}"
                    )
    parts: dict[str, Mapping[str, Any]] = {"data": board.data}
    parts |= {f"entry.{name}.case": entry.case for name, entry in board.entry.items()}
    for place, part in parts.items():
        for case in part:
            if case not in board.cases:
                hint = did_you_mean(case, board.cases)
                problems.append(f"{path}: {place}: {shortened(case)} is no case of this board{hint}")
    return problems


def seeds_of(board: Board, case: str, entry: str) -> tuple[int, ...]:
    """The training sets of an entry in a case: its own for that case, else its own, else those of the board."""
    chosen = board.entry[entry]
    return chosen.case.get(case, Part()).seeds or chosen.seeds or board.seeds


def spec_of(board: Board, case: str, entry: str, seed: int) -> Spec | str:
    """The spec of an entry in a case, or why the entry is left out; raises `BadSpec`, with the name of the entry."""
    part = board.entry[entry].case.get(case, Part())
    if part.left_out:
        return part.left_out
    keys = {**board.data.get(case, {}), **board.entry[entry].set, **part.set, "training.seed": seed}
    try:
        return load(case, board.preset, [f"{key}={toml_value(value)}" for key, value in keys.items()])
    except BadSpec as error:
        raise BadSpec([f"entry {entry!r} in {case}: {problem}" for problem in error.problems]) from error
