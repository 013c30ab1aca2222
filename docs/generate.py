"""Write the pages of `PAGES`: `python docs/generate.py`; a test asserts that they are so.

The data and pictures of docs/paper.md are what `dislobench paper` wrote into its folder `figures`.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic_core import PydanticUndefined

from store.schema import describe
from suite.judge.numbers import GROUPS, NUMBERS, NUMBERS_OF_AMPLITUDES
from suite.model.backends import BACKENDS
from suite.show.potentials import potential_table, source_table
from suite.spec import Spec
from suite.study.paper import write_page
from suite.world.catalogue import CATALOGUE

HERE = Path(__file__).parent
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
        "rebuilds a lost database from it.\n\n" + describe()
    )


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


PAGES = {
    "spec.md": spec_page,
    "store.md": store_page,
    "numbers.md": numbers_page,
    "paper.md": paper_page,
    "references.md": references_page,
}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding="utf-8")
