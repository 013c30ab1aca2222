"""Plain values as TOML, and the nearest of some known words."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any


def did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def dump_toml(tables: Mapping[str, Any], prefix: str = "") -> str:
    """Write nested mappings of numbers, strings, booleans and lists as TOML."""
    plain = [f"{_toml_key(k)} = {toml_value(v)}" for k, v in tables.items() if not isinstance(v, Mapping)]
    text = "\n".join(plain) + ("\n" if plain else "")
    for key, value in tables.items():
        if isinstance(value, Mapping):
            name = f"{prefix}{_toml_key(key)}"
            body = dump_toml(value, f"{name}.")
            text += f"\n[{name}]\n{body}" if body or not value else f"\n[{name}]\n"
    return text


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def toml_value(value: Any) -> str:
    """A plain value as TOML; raises `TypeError` for what TOML cannot hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON and TOML escape alike but for characters beyond 16 bits and the delete character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    raise TypeError(f"{value!r} cannot be written as TOML")
