"""Specs that are wrong in every way that we could think of, each from a shipped one and a seed.

A mutant is a list of edits, each with a seed of its own, so that a shorter list is a mutant as well: that is how the
shortest reproduction is found. Edits of tables come first, then edits of the text.
"""

from __future__ import annotations

import difflib
import random
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from processes import ROOT

SPECS = sorted((ROOT / "specs").glob("*.toml"))


class Raw(str):
    """A value as it shall stand in the TOML text."""


Edit = tuple[str, int]  # name of an edit, seed of its choices
Place = tuple[Any, ...]  # keys and indices from the root of the tables


@dataclass(frozen=True)
class Mutant:
    """A spec to try: its base, edits, preset, --set words, and the name of its file."""

    base: Path
    edits: tuple[Edit, ...]
    preset: str | None = None
    overrides: tuple[str, ...] = ()
    name: str = "mine.toml"

    @property
    def content(self) -> bytes:
        return _edited(self)[0]

    @property
    def surely_bad(self) -> bool:
        """Whether an edit made it wrong beyond doubt: nothing overrides what it touched."""
        return not self.preset and not self.overrides and len(self.edits) == 1 and _edited(self)[1]

    @property
    def has_preset(self) -> bool:
        """Whether it has the preset that is asked for, as far as TOML can be read."""
        try:
            presets = tomllib.loads(self.content.decode()).get("preset", {})
        except (ValueError, RecursionError):
            return True  # something else is wrong with it
        return self.preset is None or (isinstance(presets, dict) and self.preset in presets)

    def write(self, folder: Path) -> Path:
        """Write its file into `folder` and return the path."""
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content)
        return path

    def shorter(self) -> list[Mutant]:
        """This mutant with one thing less."""
        found = [replace(self, edits=self.edits[:k] + self.edits[k + 1 :]) for k in range(len(self.edits))]
        found += [
            replace(self, overrides=self.overrides[:k] + self.overrides[k + 1 :]) for k in range(len(self.overrides))
        ]
        found += [replace(self, preset=None)] if self.preset is not None else []
        found += [replace(self, name="mine.toml")] if self.name != "mine.toml" else []
        return found

    def told(self) -> str:
        """How to make it: lines that differ from the base as dislobench's own TOML writer puts it, and options."""
        before = write(_tables(self.base)).splitlines()
        after = self.content.decode("utf-8", errors="backslashreplace").splitlines()
        lines = difflib.unified_diff(before, after, n=0, lineterm="")
        changed = [line for line in lines if line[:2] not in ("--", "++", "@@") and len(line) > 1]
        changed.sort(key=lambda line: line[0])  # what is new first
        parts = [f"{self.base.name}: " + " | ".join(_clipped(line) for line in changed[:8])]
        parts += [f"file name {_clipped(self.name)!r}"] if self.name != "mine.toml" else []
        parts += [f"--preset {_clipped(self.preset)!r}"] if self.preset is not None else []
        parts += [f"--set {_clipped(word)!r}" for word in self.overrides]
        return "; ".join(parts)


def _clipped(text: str, most: int = 110) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


@cache
def _parsed(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _tables(path: Path) -> dict[str, Any]:
    return _copied(_parsed(path))


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


# --- TOML ---------------------------------------------------------------------------------------------------------


def write(tables: Mapping[str, Any], prefix: str = "") -> str:
    """Nested tables as TOML, `Raw` values as they are."""
    lines = [f"{key_of(k)} = {value_of(v)}" for k, v in tables.items() if not isinstance(v, dict)]
    text = "\n".join(lines) + "\n" if lines else ""
    for key, value in tables.items():
        if isinstance(value, dict):
            name = f"{prefix}{key_of(key)}"
            text += f"\n[{name}]\n{write(value, f'{name}.')}"
    return text


def key_of(key: str) -> str:
    return key if isinstance(key, Raw) or re.fullmatch(r"[A-Za-z0-9_-]+", key) else value_of(str(key))


def value_of(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = "".join(c if c.isprintable() and c not in '"\\' else _escaped(c) for c in value)
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(map(value_of, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key_of(k)} = {value_of(v)}" for k, v in value.items()) + "}"
    return repr(value)


def _escaped(character: str) -> str:
    number = ord(character)
    if character in '"\\':
        return "\\" + character
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


# --- edits of tables ----------------------------------------------------------------------------------------------

WRONG_FOR_A_NUMBER = [
    Raw(text)
    for text in (
        "true",
        "false",
        '"8"',
        '""',
        '"1e3"',
        "[]",
        "[[1, 2]]",
        "{}",
        "{ a = 1 }",
        "1979-05-27",
        "nan",
        "-nan",
    )
]
WRONG_FOR_A_WORD = [Raw(text) for text in ("true", "7", "0.5", "[]", "{}", '["a"]', "1979-05-27", "07:32:00", "inf")]
NUMBERS = [
    Raw(text)
    for text in (
        *("0", "-1", "1", "-0.0", "1e-320", "1e308", "1e400", "inf", "-inf", "nan", "0.5", "3.7", "1_000", "0xff"),
        *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "9" * 25, "9" * 400, "-" + "9" * 400),
        *("9" * 4301, "9" * 10_000, "0x" + "f" * 5000, "0b" + "1" * 5000, "1e" + "9" * 50),
    )
]
WORDS = [
    *(
        "",
        " ",
        "a",
        "A B",
        "scerw",
        "ärger",
        "𝕎 Ω",
        "\u202egnirts",
        "\x1b[31mred\x1b[0m",
        "\x00",
        "a\nb",
        "a\tb",
        "\x7f",
    ),
    *("../../x", "/etc/passwd", "a/b", "-", "--preset", "%s%n", "{0}", "$(id)", "<script>", "=1+1", "x" * 101),
    *(
        "x" * 300,
        "x" * 100_000,
        "builtins:dict",
        "os:system",
        "nomodule:thing",
        ":",
        "a:b:c",
        "kim:",
        "kim:none",
        "W_eam4",
    ),
    *("suite.model.teacher:teacher", "ase.calculators.emt:EMT", "C11", "nan", "null", "None", "0", "\ufeff", "e\u0301"),
]
OTHERS = [
    Raw(text)
    for text in (
        *("true", "false", "[]", "{}", "[1, 2]", '["a"]', "[[]]", "[1, 'a', true]", "{ a = { b = { c = 1 } } }"),
        *("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "1979-05-27T07:32:00-07:00", "'''a\nb'''", '"\\ud83d"'),
        *("[" * 30 + "]" * 30, "[" * 200 + "]" * 200, "{a=" * 30 + "1" + "}" * 30, "[" + "1," * 3000 + "]"),
    )
]


def hostile(dice: random.Random) -> Any:
    """A value of any type."""
    return dice.choice([dice.choice(NUMBERS), dice.choice(WORDS), dice.choice(OTHERS)])


def _places(tables: Any, prefix: Place = ()) -> list[Place]:
    """Every table, list and value below the root."""
    found: list[Place] = []
    inside = tables.items() if isinstance(tables, dict) else enumerate(tables) if isinstance(tables, list) else ()
    for key, value in inside:
        found += [(*prefix, key), *_places(value, (*prefix, key))]
    return found


def _at(tables: Any, place: Place) -> Any:
    for key in place:
        tables = tables[key]
    return tables


def _keys(tables: dict[str, Any]) -> list[Place]:
    return [place for place in _places(tables) if isinstance(place[-1], str)]


_free = {"arguments", "ladders", "set", "expect", "shift", "amplitudes"}  # tables of names that a user chooses


def _sure(place: Place) -> bool:
    return place[0] not in ("preset", "sweep") and not _free & set(place) and len(place) == 2


def delete(tables: dict[str, Any], dice: random.Random) -> bool:
    place = dice.choice(_places(tables))
    del _at(tables, place[:-1])[place[-1]]
    return len(place) == 1 and place[0] in ("case", "material", "dislocation", "simulation", "training", "model")


def rename(tables: dict[str, Any], dice: random.Random) -> bool:
    place = dice.choice(_keys(tables))
    parent, key = _at(tables, place[:-1]), place[-1]
    new = dice.choice(
        [
            key + "s",
            key[:-1] or "q",
            key.upper(),
            key[::-1],
            "",
            "ä",
            f"{key}.{key}",
            key.replace("_", "-"),
            "\x1b[31m",
            "x" * 5000,
        ]
    )
    entries = [(new if name == key else name, value) for name, value in parent.items()]
    if new in parent:
        return False
    parent.clear()
    parent.update(entries)
    return _sure(place) or (len(place) == 1 and place[0] not in ("preset", "sweep"))


def set_wrong_type(tables: dict[str, Any], dice: random.Random) -> bool:
    """A number becomes something that no number is, a word something that no word is."""
    leaves = [p for p in _keys(tables) if isinstance(_at(tables, p), int | float | str)]
    place = dice.choice(leaves)
    value = _at(tables, place)
    if isinstance(value, bool):
        wrong = dice.choice([Raw('"no"'), Raw("[]"), Raw("{}"), Raw("7"), Raw("nan"), Raw("1979-05-27")])
    else:
        wrong = dice.choice(WRONG_FOR_A_WORD if isinstance(value, str) else WRONG_FOR_A_NUMBER)
    _at(tables, place[:-1])[place[-1]] = wrong
    return _sure(place)


def set_number(tables: dict[str, Any], dice: random.Random) -> bool:
    places = [p for p in _places(tables) if isinstance(_at(tables, p), int | float)]
    place = dice.choice(places)
    _at(tables, place[:-1])[place[-1]] = dice.choice(NUMBERS)
    return False


def set_word(tables: dict[str, Any], dice: random.Random) -> bool:
    places = [p for p in _places(tables) if isinstance(_at(tables, p), str)]
    place = dice.choice(places)
    _at(tables, place[:-1])[place[-1]] = dice.choice(WORDS)
    return False


def set_anything(tables: dict[str, Any], dice: random.Random) -> bool:
    place = dice.choice(_places(tables))
    _at(tables, place[:-1])[place[-1]] = hostile(dice)
    return False


def add_key(tables: dict[str, Any], dice: random.Random) -> bool:
    place = dice.choice([p for p in _keys(tables) if isinstance(_at(tables, p), dict)])
    name = dice.choice(
        ["new", "", "ä b", "a.b", "\x1b[2J", "size", "seed", "name", "__class__", "model_config", "x" * 300]
    )
    table = _at(tables, place)
    known = name in table
    table[name] = hostile(dice)
    return (
        not known and name not in ("size", "seed", "name") and len(place) == 1 and place[0] not in ("preset", "sweep")
    )


def move(tables: dict[str, Any], dice: random.Random) -> bool:
    """A key goes into another table."""
    place = dice.choice(_keys(tables))
    value = _at(tables, place[:-1]).pop(place[-1])
    table = dice.choice([()] + [p for p in _keys(tables) if isinstance(_at(tables, p), dict)])
    _at(tables, table)[place[-1]] = value
    return False


def swap(tables: dict[str, Any], dice: random.Random) -> bool:
    a, b = dice.choice(_keys(tables)), dice.choice(_keys(tables))
    if a[: len(b)] == b or b[: len(a)] == a:
        return False
    one, other = _at(tables, a), _at(tables, b)
    _at(tables, a[:-1])[a[-1]], _at(tables, b[:-1])[b[-1]] = other, one
    return False


def wrap(tables: dict[str, Any], dice: random.Random) -> bool:
    place = dice.choice(_keys(tables))
    value = _at(tables, place)
    wrapped = dice.choice([[value], [[value]], [value] * 3, {place[-1]: value}, {"a": [value]}])
    _at(tables, place[:-1])[place[-1]] = wrapped
    return False


def change_presets(tables: dict[str, Any], dice: random.Random) -> bool:
    """A preset that is no table of tables."""
    kind = dice.randrange(4)
    if kind == 0:
        tables["preset"] = hostile(dice)
    elif kind == 1:
        name = dice.choice(["tiny", "quick", "", "ä", "sweep"])
        presets = tables.get("preset", {})  # another edit may have made it no table
        tables["preset"] = {**(presets if isinstance(presets, dict) else {}), name: hostile(dice)}
    elif kind == 2:
        tables["preset"] = {
            "tiny": {dice.choice(["simulation", "training", "sweep", "preset", "nothing"]): hostile(dice)}
        }
    else:
        tables["preset"] = {
            "tiny": {"sweep": {dice.choice(["L", "new"]): dice.choice([hostile(dice), {"seeds": hostile(dice)}])}}
        }
    return False


def change_sweeps(tables: dict[str, Any], dice: random.Random) -> bool:
    """A ladder, its seeds, its axis, what it sets."""
    ladders = [
        *(
            {},
            {"training.size": []},
            {"training.size": [6, "a"]},
            {"training.size": [-5, 6]},
            {"training.size": [6, 6, 6, 8]},
        ),
        *(
            {"case.name": ["a", "b"]},
            {"training.seed": [0]},
            {"training.siz": [6]},
            {"size": [6]},
            {"": [6]},
            {"training.": [6]},
        ),
        *(
            {"training.size": 6},
            {"training.size": [[6]]},
            {"training.size": [Raw("nan"), Raw("inf")]},
            {"a.b.c.d": [1]},
        ),
        *(
            {"model.channels": [[8, 3], []]},
            {"material.arguments.x": [1, 2]},
            {"material.reference": ["nothing", "W_eam4"]},
        ),
        *(
            {"training.size": [6, 7], "simulation.size": [24]},
            {"sweep.L": [1]},
            {"tune.trials": [1, 2]},
            {"matching": [True]},
        ),
        *(
            {"training.size": [6, Raw("9" * 5000)]},
            {"training.size": [Raw("1979-05-27")]},
            {"training.size": list(range(400))},
        ),
    ]
    choices: list[tuple[str, list[Any]]] = [
        ("ladders", ladders),
        ("seeds", [[], [-1], ["a"], [0, 0], [1.5], [True], 3, [2**63], [Raw("9" * 5000)], list(range(300))]),
        ("against", ["nonsense", "", "L", "eps_V1", "\x1b[31m", "case.name", 3, "x" * 5000]),
        ("zip", [True, False, "yes", 1, []]),
        (
            "set",
            [{"training.size": 7}, {"nonsense.key": 1}, {"training": {"size": 7}}, {"training.size": "a"}, 3, {"": 1}],
        ),
        ("ablation", [True, False, "no", 2]),
        ("expect", [{"geometry_error": "a"}, {"geometry": 1.0}, {}, {"geometry_error": Raw("nan")}]),
        ("", [3, [], "a", {}, {"ladder": {}}]),
    ]
    sweeps = tables.get("sweep")
    if not isinstance(sweeps, dict) or dice.random() < 0.1:
        tables["sweep"] = dice.choice([3, [], "a", {}, {"a": 1}, {"a": {}}, [{"ladders": {}}]])
        return False
    name = dice.choice([*sweeps, "new", "a/b", "../up", "", "ä", "\x1b[31m", "x" * 300])
    table = sweeps.setdefault(name, {"ladders": {"training.size": [6, 7]}})
    for key, values in dice.sample(choices, dice.choice([1, 1, 2])):
        if key and isinstance(table, dict):
            table[key] = dice.choice(values)
        elif not key:
            sweeps[name] = table = dice.choice(values)
    return False


# --- edits of text ------------------------------------------------------------------------------------------------


def _lines(change: Callable[[list[bytes], random.Random], None]) -> Callable[[bytes, random.Random], bytes]:
    def edit(text: bytes, dice: random.Random) -> bytes:
        lines = text.split(b"\n")
        change(lines, dice)
        return b"\n".join(lines)

    return edit


def _duplicate(lines: list[bytes], dice: random.Random) -> None:
    k = dice.randrange(len(lines))
    lines.insert(dice.choice([k, dice.randrange(len(lines))]), lines[k])


def _drop(lines: list[bytes], dice: random.Random) -> None:
    del lines[dice.randrange(len(lines))]


def _exchange(lines: list[bytes], dice: random.Random) -> None:
    a, b = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]


def _join(lines: list[bytes], dice: random.Random) -> None:
    k = dice.randrange(len(lines) - 1)
    lines[k : k + 2] = [lines[k] + lines[k + 1]]


def _insert_line(lines: list[bytes], dice: random.Random) -> None:
    depth = dice.choice([5, 50, 500, 1200, 5000, 50_000])
    line = dice.choice(
        [
            *(
                b"[",
                b"]",
                b"= 3",
                b"a",
                b"a =",
                b"a = ",
                b"[[case]]",
                b"[case",
                b"[case]]",
                b"[]",
                b"[.]",
                b"[a..b]",
                b'"a',
            ),
            *(
                b"'''",
                b'"""',
                b"a = 1 b = 2",
                b"a.b.c = 1",
                b"training.size = 7",
                b"\x00",
                b"\xff\xfe",
                b"\xef\xbb\xbf",
                b"a = \xe4",
            ),
            *(
                b"a = " + b"[" * depth + b"]" * depth,
                b"a = " + b"[" * depth,
                b"a = " + b"{a=" * depth,
                b"a." * depth + b"a = 1",
            ),
            *(
                b"[" + b"a." * depth + b"a]",
                b"a = " + b"9" * depth,
                b"a = " + b"{a=" * depth + b"1" + b"}" * depth,
                b"#" + b"x" * depth,
            ),
            *(
                b"a = 1e999999999999",
                b"a = 0x",
                b"a = 1__0",
                b"a = 2024-13-45",
                b'a = "\\q"',
                b'a = "\\uD800"',
                b"\r",
                b"a = 1\rb = 2",
            ),
        ]
    )
    lines.insert(dice.randrange(len(lines) + 1), line)


def _damage_bytes(text: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(text)
    for _ in range(dice.choice([1, 1, 2, 8])):
        place = dice.randrange(len(damaged))
        kind = dice.randrange(4)
        if kind == 0:
            damaged[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            damaged[place] = dice.randrange(256)
        elif kind == 2:
            del damaged[place : place + dice.choice([1, 1, 5])]
        else:
            damaged[place:place] = dice.choice(
                [b'"', b"[", b"]", b"{", b"}", b"=", b"#", b"\\", b"\n", b"\x00", b"\x80", b"'", b".", b"-"]
            )
        if not damaged:
            break
    return bytes(damaged)


def _cut(text: bytes, dice: random.Random) -> bytes:
    return text[: dice.randrange(len(text))]


def _encode(text: bytes, dice: random.Random) -> bytes:
    plain = text.decode("utf-8", errors="replace")
    return dice.choice(
        [
            plain.encode("utf-16"),
            plain.encode("utf-32"),
            b"\xef\xbb\xbf" + text,
            text.replace(b"\n", b"\r\n"),
            text.replace(b"\n", b"\r"),
            b"",
            text + text,
            b"\x00" * 100,
        ]
    )


TABLE_EDITS: dict[str, Callable[[dict[str, Any], random.Random], bool]] = {
    edit.__name__: edit
    for edit in (
        delete,
        rename,
        set_wrong_type,
        set_number,
        set_word,
        set_anything,
        add_key,
        move,
        swap,
        wrap,
        change_presets,
        change_sweeps,
    )
}
TEXT_EDITS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "duplicate": _lines(_duplicate),
    "drop": _lines(_drop),
    "exchange": _lines(_exchange),
    "join": _lines(_join),
    "insert": _lines(_insert_line),
    "bytes": _damage_bytes,
    "cut": _cut,
    "encode": _encode,
}


@cache
def _edited(mutant: Mutant) -> tuple[bytes, bool]:
    tables, sure = _tables(mutant.base), False
    for name, seed in mutant.edits:
        if name in TABLE_EDITS and tables:
            sure = TABLE_EDITS[name](tables, random.Random(seed)) or sure
    text = write(tables).encode("utf-8", errors="surrogatepass")
    for name, seed in mutant.edits:
        if name in TEXT_EDITS and text.count(b"\n") > 2:
            text = TEXT_EDITS[name](text, random.Random(seed))
    return text, sure


# --- mutants ------------------------------------------------------------------------------------------------------

PRESETS = ["", " ", "nope", "quick ", "QUICK", "tiny.tiny", "\x1b[31m", "x" * 5000, "../x", "0", "preset", "ä"]
NAMES = [
    "with space.toml",
    "ä𝕎.toml",
    "a\nb.toml",
    "x" * 200 + ".toml",
    "-x.toml",
    "[red]x[/red].toml",
    "%s.toml",
    "a/b/c.toml",
]
ODD_OVERRIDES = [
    *(
        "=",
        "a",
        "",
        "training.size",
        ".size=3",
        "training..size=3",
        "training.size=",
        "training=3",
        "training.size.deep=3",
    ),
    *(
        "sweep.L=3",
        "sweep.L.seeds=[1]",
        "preset.tiny=1",
        "nothing.key=1",
        "  training.size = 8 ",
        "training.size=8 # c",
        'training.size="8',
    ),
    *(
        "training.size=" + "[" * 5000,
        "training.size=" + "9" * 10_000,
        "x." * 3000 + "y=1",
        "training.size=8\nseed=3",
        "a=b=c.d",
        "training.size=\x1b[31m",
    ),
    *(
        "=3.x",
        "material.arguments.a.b.c=1",
        "weights.amplitudes={'0.1'=2}",
        "weights.amplitudes.0.1=2",
        "training.amplitudes=[0.1,]",
        "case.name=2024-01-01",
    ),
]


def _override(dice: random.Random, base: Path) -> str:
    if dice.random() < 0.4:
        return dice.choice(ODD_OVERRIDES)
    keys = [p for p in _keys(_parsed(base)) if p[0] not in ("preset", "sweep") and len(p) > 1]
    return f"{'.'.join(dice.choice(keys))}={value_of(hostile(dice))}"


def make(seed: str) -> Mutant:
    """The mutant of a seed."""
    generator = random.Random(seed)
    base = generator.choice(SPECS)
    names = [*TABLE_EDITS, "change_presets", "change_sweeps", "change_sweeps", "set_wrong_type", *TEXT_EDITS]
    count = generator.choice([0, 1, 1, 1, 1, 2, 3])
    edits = tuple((generator.choice(names), generator.randrange(2**32)) for _ in range(count))
    presets = [
        None,
        None,
        generator.choice([*_parsed(base).get("preset", {}), "tiny"]),
        "tiny",
        generator.choice(PRESETS),
    ]
    words: tuple[str, ...] = ()
    if count == 0 or generator.random() < 0.15:
        words = tuple(_override(generator, base) for _ in range(generator.choice([1, 1, 2])))
    name = generator.choice(NAMES) if generator.random() < 0.03 else "mine.toml"
    return Mutant(base, edits, generator.choice(presets), words, name)
