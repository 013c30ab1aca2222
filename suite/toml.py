"""Plain values as TOML and back, and the nearest of some known words."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import tomlkit

DEEPEST = 32  # levels of nesting; a spec needs five
SHOWN = 80  # characters of a value that a message repeats


class TomlError(ValueError):
    """Text that is not TOML, or is TOML that nothing here could use; `line` is where."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; raises `TomlError`.

    The standard library's parser ends in errors of Python for deep nesting and for integers of thousands of digits;
    both are refused here, and so are integers beyond 64 bits, which TOML does not promise and nothing can count.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"line (\d+)", str(error))
        last = text.count("\n") + 1
        raise TomlError(int(match.group(1)) if match else last, f"not TOML: {error}") from error
    except RecursionError as error:
        raise TomlError(_deep_line(text), f"nested more than {DEEPEST} levels deep") from error
    except ValueError as error:  # Python's limit on the digits of an integer
        raise TomlError(_long_line(text), "an integer has too many digits: 64 bits are the most") from error
    waiting: list[tuple[Any, int]] = [(tables, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise TomlError(_deep_line(text), f"nested more than {DEEPEST} levels deep")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise TomlError(_long_line(text), "an integer has too many digits: 64 bits are the most")
        if isinstance(value, dict | list):
            waiting += [(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]
    return tables


def bare(line: str) -> str:
    """A line of TOML without its comment and with empty strings: what is left are brackets, keys and numbers."""
    return re.sub(r'"(\\.|[^"\\])*"|\'[^\']*\'', '""', line).split("#")[0]


def _deep_line(text: str) -> int:
    depth = 0
    for number, line in enumerate(text.splitlines(), start=1):
        key = re.match(r"[^=]*", bare(line))
        if key and key.group().count(".") >= DEEPEST:
            return number
        for character in bare(line):
            depth += (character in "[{") - (character in "]}")
            if depth > DEEPEST:
                return number
    return 1


def _long_line(text: str) -> int:
    lines = enumerate(text.splitlines(), start=1)
    return next((number for number, line in lines if re.search(r"[0-9a-fA-F_]{17,}", bare(line))), 1)


def shortened(value: Any) -> str:
    """`repr` of a value for a message, cut when it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word[:SHOWN], list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def dump_toml(tables: Mapping[str, Any]) -> str:
    """Nested mappings of numbers, strings, booleans and lists as TOML. Raises TypeError for what TOML cannot hold."""
    return tomlkit.dumps(tables)


def toml_value(value: Any) -> str:
    """A plain value as TOML, in one line; raises TypeError for what TOML cannot hold."""
    if isinstance(value, Mapping):
        inline = tomlkit.inline_table()
        inline.update(value)
        return inline.as_string()
    return str(tomlkit.item(value).as_string())
