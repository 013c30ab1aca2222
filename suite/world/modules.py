"""Modules and files that a spec names: looked for without executing anything, also beside the spec itself."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from store.faults import BadInput

# what files of potentials and models end with; other text that an argument holds may be anything
SUFFIXES = frozenset(
    (
        *("adp", "ace", "alloy", "eam", "fs", "library", "meam", "snapcoeff", "snapparam", "sw", "table", "tersoff"),
        *("cbor", "ckpt", "json", "model", "mtp", "npz", "params", "pb", "pkl", "pt", "pth", "xml"),
        *("yace", "yaml", "yml"),
    )
)
_beside: dict[str, set[Path]] = {}  # top-level module -> folders of the specs beside which it lies


class TwoModules(BadInput, ImportError):
    """Two specs of one process name different modules by the same name."""


def find_module(module: str, folder: Path | None = None) -> ModuleSpec | None:
    """Where Python finds `module`, or else where it lies in the `folder` of a spec; None when it is nowhere.

    Nothing is executed: of a package only the folders are looked at.
    """
    names = module.split(".")
    found = _installed(names[0])
    if found is None:
        folders = [folder] if folder is not None else sorted(_beside.get(names[0], ()))
        found = _in_folders(names[0], folders)
    for depth in range(2, len(names) + 1):
        if found is None or found.submodule_search_locations is None:
            return None
        # by its last name: for a folder without __init__.py Python would want the one around it imported
        found = PathFinder.find_spec(names[depth - 1], list(found.submodule_search_locations))
    return found


def _installed(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module that was made by hand, such as __main__
        return ModuleSpec(name, None)


def _in_folders(name: str, folders: list[Path]) -> ModuleSpec | None:
    importlib.invalidate_caches()  # the file may be newer than Python's list of that folder
    return PathFinder.find_spec(name, [str(folder) for folder in folders])


def remember_beside(module: str, folder: Path) -> None:
    """Tell `import_beside` that a spec in `folder` names `module`, if it lies there and Python has none elsewhere."""
    top = module.partition(".")[0]
    here = _in_folders(top, [folder])
    if here is None:
        return
    elsewhere = _installed(top)
    # one that is found only because an earlier spec of this process brought its folder is not installed
    if elsewhere is None or _home(elsewhere) in _beside.get(top, ()):
        _beside.setdefault(top, set()).add(folder.resolve())


def _home(found: ModuleSpec) -> Path | None:
    """The folder that `found` was found in."""
    places = found.submodule_search_locations
    place = next(iter(places), None) if places is not None else found.origin
    return None if place is None else Path(place).resolve().parent


def import_beside(module: str) -> ModuleType:
    """Import `module`; the folder of the spec that names it is searched last.

    Raises `TwoModules` when specs in different folders have brought a module of that name: Python knows a module by
    its name alone, and would give both specs the first one.
    """
    folders = sorted(_beside.get(module.partition(".")[0], ()))
    if len(folders) > 1:
        raise TwoModules(
            f"{module!r} lies beside specs in {folders[0]} and in {folders[1]}, and Python can use one of them only: "
            "give them different names, or start a process for each"
        )
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.append(folder)
    return importlib.import_module(module)


# --- files ------------------------------------------------------------------------------------------------------


def located(arguments: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`arguments` with every name of a file that lies in `folder` but not in the current one made absolute."""

    def place(text: str, quote: str) -> str:
        path = Path(text).expanduser()
        if _is_file(path) or not _is_file(folder / path):
            return text
        absolute = str((folder / path).resolve())
        return f"{quote}{absolute}{quote}" if " " in absolute else absolute

    def follow(value: Any) -> Any:
        match value:
            case str() if _is_command(value):
                return re.sub(r"\S+", lambda word: place(word[0], '"') if names_file(word[0]) else word[0], value)
            case str() if names_file(value):
                return place(value, "")
            case list() | tuple():
                return [follow(item) for item in value]
            case Mapping():
                return {key: follow(item) for key, item in value.items()}
        return value

    return {key: follow(value) for key, value in arguments.items()}


def missing_files(arguments: Mapping[str, Any]) -> list[str]:
    """Files that `arguments` name and that do not exist, as far as their endings tell that they are files.

    A text with spaces is a command, such as "pair_coeff * * W.eam.alloy W": each of its words may be a file, and
    LAMMPS looks in the folders of LAMMPS_POTENTIALS too.
    """
    folders = [Path(), *(Path(f) for f in os.environ.get("LAMMPS_POTENTIALS", "").split(os.pathsep) if f)]
    names = [name for name in _words(arguments) if names_file(name)]
    return [name for name in names if not any(_is_file(folder / Path(name).expanduser()) for folder in folders)]


def _words(value: Any) -> Iterator[str]:
    match value:
        case str() if _is_command(value):
            yield from (quoted or word for quoted, word in re.findall(r"[\"']([^\"']*)[\"']|(\S+)", value))
        case str():
            yield value
        case Mapping() | list() | tuple():
            for item in value.values() if isinstance(value, Mapping) else value:
                yield from _words(item)


def _is_command(text: str) -> bool:
    """Is it several words, rather than one name of a file that has spaces in it?"""
    return len(text.split()) > 1 and not text.startswith(("/", "~", ".")) and not _is_file(Path(text))


def names_file(text: str) -> bool:
    """Whether a text is the name of a file of a potential, as far as its ending tells."""
    return "://" not in text and "*" not in text and Path(text).suffix.removeprefix(".").lower() in SUFFIXES


def _is_file(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file can have
        return False
