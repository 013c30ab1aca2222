"""What a named potential is made of: the files, code and packages behind it, as a value for content keys.

A name alone tells nothing about numbers: `my_potential:build` is what stands in `my_potential.py` today, and
`potential = "Fe.eam.fs"` what stands in that file. What the code opens by itself cannot be known.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from store.provenance import content_key, file_digest, versions
from suite import plugins
from suite.world.catalogue import CATALOGUE
from suite.world.modules import find_module

CODE = (".py", *EXTENSION_SUFFIXES)
_WORD = re.compile(r"[\"']([^\"']*)[\"']|(\S+)")  # of a LAMMPS command: a name with spaces stands in quotes
_DOTTED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*")


def contents_of(name: str, arguments: Mapping[str, Any], folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Content of the potential `name` with `arguments`, as plain values by the text that names it.

    Covers, for `name` and for every text in `arguments`, nested ones and single words of commands too: names of the
    catalogue (the files that LAMMPS reads), dotted references (see `_code`), and files, relative to the current folder,
    to `folders` and to those of LAMMPS_POTENTIALS. Places do not count: a file that has been moved with its folder has
    the same content.
    """
    lammps = filter(None, os.environ.get("LAMMPS_POTENTIALS", "").split(os.pathsep))  # where its commands look too
    places = (Path.cwd(), *folders, *map(Path, lammps))
    texts = dict.fromkeys([name, *_texts(arguments)])
    return {text: found for text in texts if (found := _content(text, places))}


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for item in value.values():
                yield from _texts(item)
        case list() | tuple():
            for item in value:
                yield from _texts(item)


def _content(text: str, places: Sequence[Path]) -> Any:
    if text in CATALOGUE:
        commands = [word for command in getattr(CATALOGUE[text].build(), "commands", []) for word in command.split()]
        return [file_digest(Path(word)) if Path(word).is_absolute() else word for word in commands]
    groups = (plugins.REFERENCES, plugins.BACKENDS)
    if brought := [entry for group in groups if (entry := plugins.installed(group).get(text))]:
        return [{"entry": entry.value, "code": _code(entry.module)} for entry in brought]
    if text.startswith("kim:"):  # a KIM model has its version in its name
        return versions(["kimpy"])
    if dotted := _DOTTED.fullmatch(text):
        return _code(dotted.group(1))
    words = dict.fromkeys([text, *(quoted or word for quoted, word in _WORD.findall(text))])
    return {word: found for word in words if (found := _files(word, places))}


def _files(text: str, places: Sequence[Path]) -> list[str]:
    """Digests of the files of this name; a text that can be no path names none."""
    found = []
    for place in places:
        try:
            path = place / Path(text).expanduser()
            if path.is_file():
                found.append(file_digest(path))
        except (
            OSError,
            ValueError,
            RuntimeError,
        ):  # too long, no such user, a null byte, not readable: whoever needs the file will tell
            continue
    return found


def _code(module: str) -> Any:
    """Content of a module: the version of the distribution that brought it, else the code of its outermost package, or
    of the file itself. Nothing is imported; None for a module that is not found."""
    if module == "__main__":  # the script that runs has no place among the modules
        script = getattr(sys.modules[module], "__file__", None)
        return _digest(Path(script)) if script else None
    chain = _chain(module)
    if not chain:
        return None
    outermost = module.partition(".")[0]
    regular = [found for found in chain if found.has_location and found.origin]
    if not regular:
        return {"python": platform.python_version()}  # built in, or a folder without code of its own
    file = Path(str(regular[-1].origin))
    if outermost == __name__.partition(".")[0]:  # our own: the versions of stages tell when numbers change
        return _digest(file)
    if outermost in sys.stdlib_module_names:
        return {"python": platform.python_version()}
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    if installed and (brought := _distributions().get(outermost)):
        return versions(brought)
    package = regular[0].submodule_search_locations
    files = _code_files(Path(package[0])) if package else {file.name: file}
    return content_key({name: _digest(path) for name, path in files.items()})


def _chain(module: str) -> list[ModuleSpec]:
    """Where Python finds a module and the packages around it, outermost first; empty when it finds none."""
    names = module.split(".")
    found = find_module(names[0])  # also beside the spec, before it is imported as after
    chain: list[ModuleSpec] = []
    for name in [*names[1:], None]:
        if found is None:
            return []
        chain.append(found)
        around = found.submodule_search_locations
        if name is not None:
            found = PathFinder.find_spec(name, list(around)) if around else None
    return chain


def _code_files(package: Path) -> dict[str, Path]:
    files = sorted(path for path in package.rglob("*") if path.name.endswith(CODE) and path.is_file())
    return {path.relative_to(package).as_posix(): path for path in files}


@cache
def _digest(path: Path) -> str:
    """Digest of code, for as long as this process lives: a module is imported once, too."""
    return file_digest(path)


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
