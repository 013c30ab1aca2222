"""Completion: a real shell reads the script and is asked what it would complete."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from suite.arguments import build_parser
from suite.commands.shell import completion_script
from suite.spec import shipped

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "dislobench.bash"
    path.write_text(completion_script("bash"))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two TOML files, another file, and a folder."""
    for name in ("mine.toml", "w-mine.toml", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "results").mkdir()
    return tmp_path


def bash(program: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", program], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def completed(script: Path, folder: Path, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    line = " ".join(shlex.quote(word) for word in ("dislobench", *words))
    program = (
        f"source {shlex.quote(str(script))}\n"
        f"COMP_WORDS=({line}); COMP_CWORD={len(words)}\n"
        '_shtab_dislobench && printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return set(bash(program, folder).split())


@needs_bash
def test_bash_knows_the_command(script: Path, folder: Path) -> None:
    told = bash(f"source {shlex.quote(str(script))}; complete -p dislobench", folder)
    assert shlex.split(told)[-3:] == ["-F", "_shtab_dislobench", "dislobench"]


@needs_bash
def test_commands_are_completed(script: Path, folder: Path) -> None:
    (choices,) = [action.choices for action in build_parser()._actions if action.dest == "command"]
    assert completed(script, folder, "") >= set(choices or ())
    assert completed(script, folder, "com") == {"compare", "completion"}


@needs_bash
@pytest.mark.parametrize("command", ["run", "tune", "sweep", "plan", "check", "scan", "export", "data"])
def test_specs_are_shipped_names_and_toml_files(command: str, script: Path, folder: Path) -> None:
    found = completed(script, folder, command, "")
    assert found == {*shipped(), "mine.toml", "w-mine.toml", "results"}
    assert completed(script, folder, command, "w-m") == {"w-mixed", "w-mine.toml"}


@needs_bash
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "w-screw", "w-sc"), {"w-screw"}),
        (("run", "w-screw", "--preset", "qu"), {"quick"}),
        (("paper", "--preset", "st"), {"standard"}),
        (("run", "w-screw", "--works"), {"--workspace"}),
        (("runs", "--workspace", ""), {"results"}),
        (("runs", "--case", "w-mi"), {"w-mixed"}),
        (("data", "w-screw", "--format", "n"), {"nep"}),
        (("verify", "w-screw"), {"w-screw-quick"}),
        (("leaderboard", "fam"), {"families"}),
        (("completion", "b"), {"bash"}),
    ],
)
def test_options_and_what_follows_them(words: tuple[str, ...], expected: set[str], script: Path, folder: Path) -> None:
    assert completed(script, folder, *words) == expected


@needs_zsh
def test_zsh_reads_its_script(tmp_path: Path) -> None:
    (tmp_path / "_dislobench").write_text(completion_script("zsh"))
    program = 'fpath=("$PWD" $fpath); autoload -Uz compinit; compinit -u -D; print -- ${_comps[dislobench]}'
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "_dislobench"), done.stderr
    assert subprocess.run(["zsh", "-n", "_dislobench"], cwd=tmp_path, check=False).returncode == 0
