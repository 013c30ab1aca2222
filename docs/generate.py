"""Write the pages of `PAGES`: `python docs/generate.py`; a test asserts that they are so.

The data and pictures of docs/paper.md are what `dislobench paper` wrote into its folder `figures`.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import textwrap
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic_core import PydanticUndefined

import dislobench
from store.schema import describe
from suite.arguments import build_parser
from suite.judge.numbers import GROUPS, NUMBERS, NUMBERS_OF_AMPLITUDES
from suite.model.backends import BACKENDS
from suite.show.potentials import potential_table, source_table
from suite.spec import Spec
from suite.study.paper import write_page
from suite.world.catalogue import CATALOGUE

HERE = Path(__file__).parent
ALL_NUMBERS = "Every number of a run by its name."  # a dictionary has no docstring of its own
OF_SOME = {
    "": "",
    "split": " (dislocations that split)",
    "hessian": " (with `matching.hessian`)",
    "neighbourhood": " (with `matching.neighbourhood`)",
}


def spec_page() -> str:
    """Markdown page of every table and key of a spec."""
    schema = Spec.model_json_schema()
    parts = [
        "# Keys of a spec\n",
        "Unknown keys are refused. `[preset.NAME]` overrides any key under `--preset NAME`, and `--set KEY=VALUE`\n"
        "overrides both. Sizes are in units of the cubic lattice constant.\n",
    ]
    for name, field in Spec.model_fields.items():
        record: Any = field.annotation
        parts += _table(f"## [{name}]", record, schema["$defs"][record.__name__]["properties"])
        if name == "model":
            for backend, entry in BACKENDS.items():
                if settings := entry.settings:
                    title = f'## [model.arguments] with model.backend = "{backend}"'
                    parts += _table(title, settings, settings.model_json_schema()["properties"])
    return "\n".join(parts)


def _table(title: str, record: Any, properties: dict[str, Any]) -> list[str]:
    """What a record says of itself, and its keys."""
    parts = [f"{title}\n\n{' '.join(record.__doc__.split())}\n\n| key | allowed | default |\n|---|---|---|"]
    for key, entry in record.model_fields.items():
        default = "required" if entry.default is PydanticUndefined else f"`{entry.default!r}`"
        parts.append(f"| `{key}` | {_allowed(properties[key])} | {default} |")
    return [*parts, ""]


def _allowed(entry: dict[str, Any]) -> str:
    if "anyOf" in entry:
        return " or ".join(_allowed(option) for option in entry["anyOf"])
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    if "const" in entry:
        return f"`{entry['const']}`"
    if "pattern" in entry:
        return f"string like `{entry['pattern']}`"
    signs = (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
    bounds = [f"{sign} {entry[key]:.10g}" for key, sign in signs if key in entry]
    if entry.get("type") == "array":
        inner = entry.get("items") or (entry.get("prefixItems") or [{}])[0]
        return f"list of {_allowed(inner)}"
    kind = {"number": "number", "integer": "whole number", "object": "table"}.get(
        entry.get("type", ""), entry.get("type")
    )
    return " ".join(filter(None, [str(kind), ", ".join(bounds)]))


def store_page() -> str:
    """Markdown page of every variable of a run's store."""
    return (
        "# What a run's store holds\n\n"
        "`runs/fields/RUN.zarr` is an xarray DataTree in zarr with `manifest.json`, checksums; `store.fields.read`\n"
        "verifies it. The manifest also holds the name of the store: one that lies under another name is refused.\n"
        "Attributes of the root: the resolved `spec`, all `numbers`, `reference` numbers, `status`, versions, and the\n"
        "`record` of the run as the database holds it. `store.seal.attributes` reads them without an array. Where\n"
        "numbers in the database differ from this record, that is told and the record is shown; `dislobench repair`\n"
        "rebuilds a lost database from it.\n\n"
        "Of a workspace in a bucket ([servers.md](servers.md)) the same files lie below `fields/` there, and programs\n"
        "that know nothing of dislobench read them with zarr and xarray, here the largest error of a run, without any\n"
        "other array of its store:\n\n"
        f"```python\n{BUCKET_EXAMPLE}```\n\n"
        "The keys come from the environment. This reads without checksums: a chunk that is missing reads as NaN. What\n"
        "`dislobench` reads from a bucket, it fetches whole and compares with the manifest first.\n\n" + describe()
    )


BUCKET_EXAMPLE = """\
import xarray as xr
from obstore.store import S3Store
from zarr.storage import ObjectStore

store = ObjectStore(S3Store("BUCKET", prefix="PREFIX/fields/RUN.zarr"), read_only=True)
with xr.open_datatree(store, engine="zarr", consolidated=False, chunks=None) as tree:
    print(tree["simulation"]["error_atom"].max().item(), tree.attrs["numbers"]["geometry_error"])
"""


def numbers_page() -> str:
    """Markdown page of every number of a run."""
    parts = [
        "# Numbers of a run\n",
        "Every run has these numbers in its store and in MLflow. Energies are in eV, lengths in Å, elastic constants\n"
        "in GPa; sizes `L`, `N`, `L_D` are in lattice constants. Equations are those of Wang, Patel, Ortner (2024).\n"
        "[method.md](method.md) tells how they are measured, [theory.md](theory.md) what the bounds are. Three of\n"
        "them also stand for each amplitude of the test set "
        f"({', '.join(f'`{name}_0.1`' for name in NUMBERS_OF_AMPLITUDES)}).\n",
    ]
    for group, title in GROUPS.items():
        parts.append(f"## {title}\n\nIn MLflow `{group}/NAME`.\n")
        parts.append("| name | symbol | unit | meaning |\n|---|---|---|---|")
        for entry in NUMBERS.values():
            if entry.group == group:
                words = [f"`{entry.name}`", entry.symbol, entry.unit, entry.meaning + OF_SOME[entry.needs]]
                parts.append("| " + " | ".join(word.replace("|", "\\|") for word in words) + " |")
        parts.append("")
    return "\n".join(parts)


def paper_page() -> str:
    """Markdown page of the paper's figures, from docs/figures/paper.json and our words on them."""
    data = json.loads((HERE / "figures" / "paper.json").read_text(encoding="utf-8"))
    records = {int(number): record for number, record in data["figures"].items()}
    words = tomllib.loads((HERE / "figures" / "comments.toml").read_text(encoding="utf-8"))
    comments = {int(name.removeprefix("fig")): " ".join(text.split()) for name, text in words.items()}
    with TemporaryDirectory() as folder:
        write_page(records, data["preset"], Path(folder), comments)
        return (Path(folder) / "paper.md").read_text(encoding="utf-8")


def references_page() -> str:
    """Markdown page of every reference potential: the tables, and our words on them."""
    words = (HERE / "templates" / "references.md").read_text(encoding="utf-8")
    return words.replace("{POTENTIALS}", potential_table(CATALOGUE).markdown().rstrip("\n")).replace(
        "{SOURCES}", source_table(CATALOGUE).markdown().rstrip("\n")
    )


def commands_page() -> str:
    """Markdown page of every command of the command line."""
    (commands,) = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    parts = [
        "# The command line\n",
        "`python -m dislobench` is the same command. Every command has `--help`, and `--json`, which prints one\n"
        "object for machines. Exit codes: 0 done, 1 an unexpected error, 2 a bad spec or command, 3 an outcome that\n"
        "cannot be used, 4 a missing or damaged store, 130 interrupted, 143 terminated.\n",
        "| command | what it does |\n|---|---|",
        *(f"| [`{name}`](#{name}) | {_cell(sub.description)} |" for name, sub in commands.choices.items()),
    ]
    for name, sub in commands.choices.items():
        usage = " ".join(sub.format_usage().split())
        parts.append(f"\n## {name}\n\n{sub.description}\n\n```text\n{_wrapped(usage)}\n```\n")
        parts.append("| argument | what |\n|---|---|")
        shared = ("help", "json")
        parts += [f"| {_argument(a)} | {_cell(a.help)} |" for a in sub._actions if a.dest not in shared]
        if parts[-1] == "|---|---|":
            parts[-2:] = ["It takes no arguments of its own."]
        parts.append(f"\nFor example: `{str(sub.epilog).removeprefix('example: ')}`")
    return "\n".join(parts) + "\n"


def _wrapped(usage: str) -> str:
    """A usage line, broken before its options where it is long."""
    lines = [""]
    for word in re.findall(r"\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]|\S+", usage):
        if len(lines[-1]) + len(word) > 90:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def _argument(action: argparse.Action) -> str:
    name = str(action.metavar or (action.dest if not action.option_strings else action.dest.upper()))
    if action.choices is not None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return f"`{name}`"
    value = "" if action.nargs == 0 else f" [{name}]" if action.nargs == "?" else f" {name}"
    return f"`{action.option_strings[0]}{value}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("<", "&lt;")


def python_page() -> str:
    """Markdown page of every name that `import dislobench` offers: its signature, and what it says of itself."""
    parts = ["# From Python\n", _docstring(dislobench)]
    names = dislobench.__all__
    parts.append("\n| name | what |\n|---|---|")
    for name in names:
        parts.append(f"| [`{name}`](#{name.lower()}) | {_cell(_summary(getattr(dislobench, name), name))} |")
    for name in names:
        thing = getattr(dislobench, name)
        parts.append(f"\n## {name}\n")
        if name == "NUMBERS":
            parts.append(
                f"{ALL_NUMBERS} They are records of `suite.judge.numbers.Number`; see [numbers.md](numbers.md)."
            )
            continue
        if (signature := _signature(name, thing)) is not None:
            parts.append(f"```python\n{signature}\n```\n")
        parts.append(_docstring(thing))
        if inspect.isclass(thing):
            parts += _members(thing)
    return "\n".join(parts) + "\n"


def _summary(thing: Any, name: str) -> str:
    if name == "NUMBERS":
        return ALL_NUMBERS
    paragraph = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", paragraph)[0]


def _docstring(thing: Any) -> str:
    """What a thing says of itself, as Markdown: the line breaks of paragraphs as they are, examples as code."""
    text = inspect.getdoc(thing) or ""
    code = r"^ {4}.*(?:\n(?:\n(?= {4}))? {4}.*)*"
    return re.sub(code, lambda found: f"```python\n{textwrap.dedent(found[0])}\n```", text, flags=re.M)


def _signature(name: str, thing: Any) -> str | None:
    """The call as it is written in the source, a parameter on each line where it is long; None without one."""
    if inspect.isclass(thing) and (issubclass(thing, Exception) or getattr(thing, "_is_protocol", False)):
        return None
    if thing is Spec:
        return None  # its tables are the page of keys
    found = inspect.signature(thing)
    given = [
        p.replace(default=_Named(p.default.__name__)) if inspect.isfunction(p.default) else p
        for p in found.parameters.values()
    ]
    short = f"{name}{found.replace(parameters=given)}".replace("'", "")
    if len(short) <= 100:
        return short
    result = "" if inspect.isclass(thing) else f" -> {found.return_annotation}"
    lines = [f"    {parameter},\n" for parameter in given]
    return f"{name}(\n{''.join(lines)}){result}".replace("'", "")


class _Named(str):
    """A default that is shown by its name: the repr of a function holds an address."""

    def __repr__(self) -> str:
        return str(self)


def _members(thing: Any) -> list[str]:
    """The public methods and properties of a class that say something of themselves."""
    lines = []
    for name, member in vars(thing).items():
        text = inspect.getdoc(member)
        shown = inspect.isfunction(member) or isinstance(member, property)
        if not shown or not text or name.startswith(("_", "model_")):  # model_...: what pydantic adds
            continue
        call = name
        if inspect.isfunction(member):
            call = f"{name}({', '.join(list(inspect.signature(member).parameters)[1:])})"
        lines.append(f"* `{call}`: {' '.join(text.split())}")
    return ["", *lines] if lines else []


PAGES = {
    "commands.md": commands_page,
    "python.md": python_page,
    "spec.md": spec_page,
    "store.md": store_page,
    "numbers.md": numbers_page,
    "paper.md": paper_page,
    "references.md": references_page,
}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding="utf-8")
