"""Damaged workspaces: what is damaged is named, or made again with equal numbers; nothing changes without a word."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sqlite3
import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compared
import judging
from processes import Case, Done, Finding, dislobench, scratch_folder
from workspace import REPORT, RUN, RUNS, SECOND, SHOW, SWEEP, TUNE, Template, numbers_of

DAMAGE_WORDS = r"damage|checksum|missing|mismatch|differ|changed|corrupt|disagree|not |cannot"
Command = tuple[str, ...]


@dataclass(frozen=True)
class Damage:
    """What was done to a workspace: in words, the names by which a message may call it, the commands to try then."""

    told: str
    names: tuple[str, ...]
    commands: tuple[Command, ...]


Maker = Callable[[Path, Template, random.Random], Damage]

# --- one file -----------------------------------------------------------------------------------------------------


def _truncated(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))] if data else b"x"


def _flipped(data: bytes, dice: random.Random) -> bytes:
    place, bit = dice.randrange(max(1, len(data))), 1 << dice.randrange(8)
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :] if data else b"x"


WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": _truncated,
    "emptied": lambda data, dice: b"",
    "zeroed": lambda data, dice: bytes(len(data)),
    "one bit flipped": _flipped,
    "appended to": lambda data, dice: data + dice.choice([b"\n", b"garbage", bytes(100)]),
}


def spoil(path: Path, dice: random.Random, others: Sequence[Path] = ()) -> str:
    """Damage one file in one of the ways, or by a copy of one of the `others`; tells how."""
    ways = [*WAYS, "deleted", *(["replaced by another one of its kind"] if others else [])]
    way = dice.choice(ways)
    if way == "deleted":
        path.unlink()
    elif others and way.startswith("replaced"):
        shutil.copyfile(dice.choice(others), path)
    else:
        path.write_bytes(WAYS[way](path.read_bytes(), dice))
    return way


def _exchange(a: Path, b: Path) -> None:
    aside = a.with_name("aside")
    os.rename(a, aside)
    os.rename(b, a)
    os.rename(aside, b)


def _in_store(store: Path, kind: str) -> list[Path]:
    """Files of a store: "array" (chunks), "metadata" or "manifest"."""
    if kind == "manifest":
        return [store / "manifest.json"]
    every = [path for path in sorted(store.rglob("*")) if path.is_file()]
    return [
        path for path in every if (path.name == "zarr.json") == (kind == "metadata") and path.name != "manifest.json"
    ]


def _store_damage(store: Path, kind: str, dice: random.Random) -> str:
    files = _in_store(store, kind)
    path = dice.choice(files)
    siblings = [
        other for other in store.parent.glob("*.zarr") if other != store and (other / path.relative_to(store)).is_file()
    ]
    others = [other / path.relative_to(store) for other in siblings]
    return f"{path.relative_to(store.parent.parent)} {spoil(path, dice, others)}"


# --- kinds of damage ----------------------------------------------------------------------------------------------


def _called(*stores: str) -> tuple[str, ...]:
    """Names of stores of runs: a table has the first eight digits of the run's id."""
    return tuple(name for store in stores for name in (store, store[:8]))


def fields_of(kind: str) -> Maker:
    def damage(workspace: Path, template: Template, dice: random.Random) -> Damage:
        name = f"{template.facts['ids']['first']}.zarr"
        told = _store_damage(workspace / "fields" / name, kind, dice)
        return Damage(told, _called(name), (SHOW, dice.choice([REPORT, RUNS])))

    return damage


def fields_of_a_point(workspace: Path, template: Template, dice: random.Random) -> Damage:
    ids = template.facts["ids"]
    name = f"{ids[dice.choice([key for key in ids if key.startswith('L:')])]}.zarr"
    told = _store_damage(workspace / "fields" / name, dice.choice(["array", "metadata", "manifest"]), dice)
    return Damage(told, _called(name), (SWEEP, REPORT))


def fields_exchanged(workspace: Path, template: Template, dice: random.Random) -> Damage:
    a, b = (f"{template.facts['ids'][name]}.zarr" for name in ("first", "second"))
    _exchange(workspace / "fields" / a, workspace / "fields" / b)
    return Damage(f"fields/{a} and fields/{b} exchanged", _called(a, b), (SHOW, REPORT))


def fields_replaced(workspace: Path, template: Template, dice: random.Random) -> Damage:
    a, b = (f"{template.facts['ids'][name]}.zarr" for name in ("first", "second"))
    place = workspace / "fields" / a
    shutil.rmtree(place)
    kind = dice.randrange(3)
    if kind == 0:
        shutil.copytree(workspace / "fields" / b, place)
    elif kind == 1:
        place.write_text("no store")
    told = ("replaced by another run's", "replaced by a file", "deleted")[kind]
    return Damage(f"fields/{a} {told}", _called(a), (SHOW, REPORT))


def _entry(template: Template, dice: random.Random) -> tuple[str, Command]:
    """A cache entry and the command that reads it."""
    command = dice.choice([RUN, RUN, TUNE])
    return dice.choice(template.facts["cache"][" ".join(command)]), command


def cache_of(kind: str) -> Maker:
    def damage(workspace: Path, template: Template, dice: random.Random) -> Damage:
        name, command = _entry(template, dice)
        told = _store_damage(workspace / "cache" / name, kind, dice)
        return Damage(told, (name,), (command,))

    return damage


def cache_exchanged(workspace: Path, template: Template, dice: random.Random) -> Damage:
    cache = template.facts["cache"]
    kind = dice.choice(["rows", "rows", "training"])
    mine = [name for name in cache[" ".join(RUN)] if name.startswith(kind)]
    others = [name for command in (SECOND, SWEEP) for name in cache[" ".join(command)] if name.startswith(kind)]
    a, b = dice.choice(mine), dice.choice(others)
    if dice.random() < 0.5:
        _exchange(workspace / "cache" / a, workspace / "cache" / b)
        return Damage(f"cache/{a} and cache/{b} exchanged", (a, b), (RUN,))
    shutil.rmtree(workspace / "cache" / a)
    shutil.copytree(workspace / "cache" / b, workspace / "cache" / a)
    return Damage(f"cache/{a} replaced by a copy of cache/{b}", (a,), (RUN,))


def cache_replaced(workspace: Path, template: Template, dice: random.Random) -> Damage:
    name, command = _entry(template, dice)
    place = workspace / "cache" / name
    shutil.rmtree(place)
    kind = dice.randrange(3)
    if kind == 0:
        place.write_text("no store")
    elif kind == 1:
        place.mkdir()
    told = ("replaced by a file", "replaced by an empty folder", "deleted")[kind]
    return Damage(f"cache/{name} {told}", (name,), (command,))


def database_file(workspace: Path, template: Template, dice: random.Random) -> Damage:
    told = spoil(workspace / "mlflow.db", dice)
    return Damage(
        f"mlflow.db {told}", ("mlflow.db",), (RUNS, dice.choice([SHOW, REPORT, SWEEP]), dice.choice([RUN, SWEEP]))
    )


def database_bits(workspace: Path, template: Template, dice: random.Random) -> Damage:
    """Bits of numbers as they lie in the file: no page, no index is hurt."""
    path, numbers = workspace / "mlflow.db", template.numbers(RUNS)
    keys = [key for key in numbers if key.startswith(("first", "L:")) and key.endswith("_error")]
    key = dice.choice(keys)
    data, wanted = path.read_bytes(), struct.pack(">d", numbers[key])
    count = data.count(wanted)
    assert count, f"{key} is not in mlflow.db as eight bytes"
    path.write_bytes(data.replace(wanted, struct.pack(">d", numbers[key] * 0.5)))
    run = template.facts["ids"][key.partition(" 1.")[0]]
    told = f"mlflow.db: the bytes of {key} changed in {count} places"
    return Damage(told, ("mlflow.db", *_called(run)), (RUNS, SWEEP, REPORT))


def database_value(workspace: Path, template: Template, dice: random.Random) -> Damage:
    """A number of a run, changed or deleted by SQL."""
    ids = template.facts["ids"]
    name = dice.choice(["first", *(key for key in ids if key.startswith("L:"))])
    metric = dice.choice(["geometry_error", "energy_error", "rmse_F", "eps_V1", "c0"])
    change = dice.choice(["UPDATE {} SET value = value * 0.5", "UPDATE {} SET value = 1e-9", "DELETE FROM {}"])
    tables = dice.choice([("metrics", "latest_metrics"), ("latest_metrics",)])
    for table in tables:
        # MLflow's name has a group before the slash
        sql(workspace, f"{change.format(table)} WHERE key LIKE '%/' || ? AND run_uuid = ?", (metric, ids[name]))
    told = f"mlflow.db: {change.format(' and '.join(tables))} of {metric} in run {name!r}"
    return Damage(told, ("mlflow.db", *_called(ids[name]), f"{name!r}"), (RUNS, SWEEP, REPORT))


def database_points(workspace: Path, template: Template, dice: random.Random) -> Damage:
    """Two points of a sweep exchange their keys, or one loses it."""
    ids = template.facts["ids"]
    a, b = dice.sample([key for key in ids if key.startswith("L:")], 2)
    change = "UPDATE tags SET value = ? WHERE key = 'point' AND run_uuid = ?"
    read = "SELECT value FROM tags WHERE key = 'point' AND run_uuid = ?"
    (one,), (other,) = (sql(workspace, read, (ids[name],))[0] for name in (a, b))
    sql(workspace, change, (other, ids[a]))
    sql(workspace, change, (one, ids[b]))
    return Damage(
        f"mlflow.db: keys of {a!r} and {b!r} exchanged", ("mlflow.db", ids[a], ids[b], repr(a), repr(b)), (SWEEP,)
    )


def database_table(workspace: Path, template: Template, dice: random.Random) -> Damage:
    table = dice.choice(["metrics", "latest_metrics", "tags", "params", "runs", "experiments", "alembic_version"])
    change = dice.choice(["DROP TABLE", "DELETE FROM"])
    sql(workspace, f"{change} {table}")
    return Damage(f"mlflow.db: {change} {table}", ("mlflow.db",), (RUNS, dice.choice([SWEEP, REPORT, RUN])))


def sql(workspace: Path, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """Rows of one statement, committed."""
    with closing(sqlite3.connect(workspace / "mlflow.db")) as connection:
        found = connection.execute(statement, values).fetchall()
        connection.commit()
    return found


def _study(workspace: Path) -> Path:
    return next((workspace / "studies").iterdir())


def journal(workspace: Path, template: Template, dice: random.Random) -> Damage:
    path = _study(workspace) / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    kind = dice.choice(["torn", "torn", "dropped", "garbage", "spoiled", "doubled"])
    if kind == "torn":
        lines[-1] = lines[-1][: dice.randrange(1, len(lines[-1]))]
    elif kind == "dropped":
        del lines[dice.randrange(len(lines))]
    elif kind == "garbage":
        lines.insert(
            dice.randrange(len(lines)), dice.choice([b"garbage\n", b"{}\n", b"[1]\n", b"\x00" * 50 + b"\n", b"\n"])
        )
    elif kind == "doubled":
        k = dice.randrange(len(lines))
        lines.insert(k, lines[k])
    if kind == "spoiled":
        told = spoil(path, dice)
    else:
        path.write_bytes(b"".join(lines))
        told = {
            "torn": "last line torn",
            "dropped": "a line dropped",
            "garbage": "a line of garbage",
            "doubled": "a line doubled",
        }[kind]
    return Damage(f"journal.log: {told}", ("journal.log",), (TUNE,))


def journal_number(workspace: Path, template: Template, dice: random.Random) -> Damage:
    """A number of a trial is another one."""
    path = _study(workspace) / "journal.log"
    lines = path.read_text().splitlines(keepends=True)
    pattern = dice.choice(
        [r'"values": ?\[([^,\]]+)', r'"geometry_error_linear": ?([^,}]+)', r'"param_value_internal": ?([^,}]+)']
    )
    places = [k for k, line in enumerate(lines) if re.search(pattern, line)]
    k = dice.choice(places)
    match = re.search(pattern, lines[k])
    assert match
    value = float(match.group(1)) * dice.choice([1e-6, 0.5])
    lines[k] = lines[k][: match.start(1)] + repr(value) + lines[k][match.end(1) :]
    path.write_text("".join(lines))
    return Damage(f"journal.log, line {k + 1}: {match.group(0)[:60]} made {value!r}", ("journal.log",), (TUNE,))


def verified(workspace: Path, template: Template, dice: random.Random) -> Damage:
    path = _study(workspace) / "verified.json"
    if dice.random() < 0.4:
        told = spoil(path, dice)
        return Damage(f"verified.json {told}", ("verified.json",), (TUNE,))
    text = path.read_text()
    places = [*re.finditer(r'"geometry_error": ?([0-9.e-]+)|"status": ?"(\w+)"', text)]
    match = dice.choice(places)
    group = 1 if match.group(1) else 2
    new = repr(float(match.group(1)) * 1e-3) if group == 1 else "moved"
    path.write_text(text[: match.start(group)] + new + text[match.end(group) :])
    return Damage(f"verified.json: {match.group(0)} made {new}", ("verified.json",), (TUNE,))


def sweep_file(workspace: Path, template: Template, dice: random.Random) -> Damage:
    path = next((workspace / "artifacts").rglob("sweep.json"))
    if dice.random() < 0.5:
        told = spoil(path, dice)
    else:
        content = json.loads(path.read_text())
        rate = dice.choice(content["rates"])
        rate["slope"] = -2.0
        path.write_text(json.dumps(content))
        told = f"slope of {rate['error']} made -2"
    return Damage(f"sweep.json {told}", ("sweep.json",), (REPORT, SWEEP))


def artifact(workspace: Path, template: Template, dice: random.Random) -> Damage:
    """Any other artifact or file of a study: nothing may stumble over it."""
    folders = (workspace / "artifacts", workspace / "studies")
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    path = dice.choice([path for path in files if path.name not in ("sweep.json", "journal.log", "verified.json")])
    kind = {other for other in files if other.suffix == path.suffix and other != path}
    told = spoil(path, dice, sorted(kind))
    command = TUNE if "studies" in path.parts else dice.choice([SWEEP, RUN])
    return Damage(f"{path.relative_to(workspace)} {told}", (path.name,), (RUNS, REPORT, command))


KINDS: dict[str, Maker] = {
    "fields, an array": fields_of("array"),
    "fields, metadata": fields_of("metadata"),
    "fields, manifest": fields_of("manifest"),
    "fields of a sweep's point": fields_of_a_point,
    "fields, exchanged": fields_exchanged,
    "fields, replaced": fields_replaced,
    "cache, an array": cache_of("array"),
    "cache, metadata": cache_of("metadata"),
    "cache, manifest": cache_of("manifest"),
    "cache, exchanged": cache_exchanged,
    "cache, replaced": cache_replaced,
    "database, the file": database_file,
    "database, bits of a number": database_bits,
    "database, a number by SQL": database_value,
    "database, keys of points": database_points,
    "database, a table": database_table,
    "journal": journal,
    "journal, a number": journal_number,
    "verified.json": verified,
    "sweep.json": sweep_file,
    "another artifact": artifact,
}

# --- judging ------------------------------------------------------------------------------------------------------


def judge_after(
    damage: Damage, command: Command, done: Done, found: compared.Numbers, template: Template, notes: str
) -> str:
    """What is wrong with a command after a damage, or "": `found` are its numbers, `notes` what else it wrote."""
    if wrong := judging.of_ending(done, (0, 4)):
        return wrong
    if _word(damage, done, notes):
        return ""
    if done.code == 4:
        return f"exit 4 without the name of what is damaged: {done.last_words()}"
    differs = (
        _study_differs(done, template)
        if command[0] == "tune"
        else compared.differences(template.numbers(command), compared.without_repeats(found))
    )
    return f"other numbers without a word: {'; '.join(differs)}" if differs else ""


def _word(damage: Damage, done: Done, notes: str) -> bool:
    """Whether stderr or a note names what is damaged; a note has many names, so that it must tell of damage too."""
    near = [line for line in notes.splitlines() if re.search(DAMAGE_WORDS, line)]
    return judging.of_word(Done((), 0, "", done.err, 0.0), damage.names, "".join(near))


def _study_differs(done: Done, template: Template) -> list[str]:
    """Entries of a study against those of the control: equal for equal weights; a new trial may have new numbers, but
    not those of another trial."""
    known: dict[str, Any] = template.facts["study"]
    taken = {json.dumps(compared.flat(entry["predicted"]), sort_keys=True): weights for weights, entry in known.items()}
    told = compared.printed(done.out)
    if not isinstance(told, dict) or "entries" not in told:
        return [f"no entries: {done.out[:200]}"]
    found = []
    for entry in told["entries"]:
        weights = compared.weights_of(entry)
        kept = ("predicted", "relaxed", "status")
        if weights in known:
            before, after = ({key: e[key] for key in kept} for e in (known[weights], entry))
            found += [
                f"{entry['name']}: {d}" for d in compared.differences(compared.flat(before), compared.flat(after))
            ]
        elif not entry["name"].startswith("trial"):
            found.append(f"{entry['name']}: other weights {weights}")
        elif json.dumps(compared.flat(entry["predicted"]), sort_keys=True) in taken:
            found.append(f"{entry['name']}: the numbers of another trial")
    wanted = [entry["name"] for entry in known.values() if not entry["name"].startswith("trial")]
    names = {entry["name"] for entry in told["entries"]}
    return found + [f"{name} is missing" for name in wanted if name not in names]


def judge(number: int, template: Template, seed: int) -> list[Finding]:
    """Damage a copy of the workspace and judge every command after it."""
    dice = random.Random(f"{seed}/damage/{number}")
    kind = list(KINDS)[number % len(KINDS)]
    found = []
    with scratch_folder() as scratch:
        workspace = scratch / "runs"
        shutil.copytree(template.workspace, workspace)
        damage = KINDS[kind](workspace, template, dice)
        for command in damage.commands:
            done = dislobench(template.words(command, workspace), scratch, 150.0)
            numbers = numbers_of(command, done, workspace) if done.code == 0 else {}
            report = workspace / "report" / "report.md"
            notes = report.read_text() if command[0] == "report" and report.exists() else ""
            wrong = judge_after(damage, command, done, numbers, template, notes)
            told = f"{damage.told}; then dislobench {' '.join(command)}   (--damage case {number})" if wrong else ""
            signature = f"{kind}; {command[0]}: {judging.signature_of(wrong)}"[:120]
            found.append(Finding("damage", kind, wrong, done.traced, signature, told))
    return found


def cases(count: int, template: Template, seed: int) -> list[Case]:
    return [Case(f"damage-{n}", lambda n=n: judge(n, template, seed), 480.0) for n in range(count)]
