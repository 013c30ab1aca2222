"""The command that prints a script for the shell, which then completes what is typed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from suite.arguments import build_parser


def completion(options: argparse.Namespace) -> int:
    script = completion_script(options.shell)
    print(json.dumps({"shell": options.shell, "script": script}) if options.json else script)
    return 0


def completion_script(shell: str) -> str:
    """What `shell` ("bash" or "zsh") has to read to complete commands, options, choices and names.

    Names are those of the specs, boards and expectations that are shipped with this version.
    """
    import shtab

    parser = build_parser()
    names = _names()
    for action in _actions(parser):
        if action.dest in ("folder", "workspace", "figures", "start"):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.dest in names and not action.choices:
            action.complete = dict.fromkeys(("bash", "zsh"), _function(action.dest))  # type: ignore[attr-defined]
    write = {"bash": _bash_function, "zsh": _zsh_function}[shell]
    functions = "\n".join(write(kind, words) for kind, words in names.items())
    script: str = shtab.complete(parser, shell, preamble={shell: functions})
    return script


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options of every command; argparse has no public way to ask for them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action


def _names() -> dict[str, list[str]]:
    """Destinations of the parser -> the names that are good there. All but `preset` and `case` take TOML files too."""
    from suite.boards import shipped_boards
    from suite.spec import read, shipped
    from suite.study.verify import published

    specs = list(shipped())
    presets = {name: None for spec in specs for name in read(spec).presets}
    return {
        "spec": specs,
        "specs": specs,
        "case": specs,
        "preset": list(presets),
        "board": list(shipped_boards()),
        "expectation": list(published()),
    }


def _takes_files(kind: str) -> bool:
    return kind not in ("preset", "case")


def _function(kind: str) -> str:
    """Name of the shell's function; shtab lets bash add the slash of a folder where the name says `_glob`."""
    return f"_dislobench{'_glob' if _takes_files(kind) else ''}_{kind}"


def _bash_function(kind: str, words: list[str]) -> str:
    files = '\n  compgen -f -X \'!*.toml\' -- "$1"\n  compgen -d -- "$1"' if _takes_files(kind) else ""
    return f'{_function(kind)}() {{\n  compgen -W "{" ".join(words)}" -- "$1"{files}\n}}'


def _zsh_function(kind: str, words: list[str]) -> str:
    files = "\n  _files -g '*.toml'" if _takes_files(kind) else ""
    return f"{_function(kind)}() {{\n  compadd -- {' '.join(words)}{files}\n}}"
