"""Write docs/spec.md, docs/store.md and docs/paper.md: `python docs/generate.py`; a test asserts that they are so.

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
from suite.spec import Spec
from suite.study.paper import write_page

HERE = Path(__file__).parent


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
        parts.append(f"## [{name}]\n\n{' '.join(record.__doc__.split())}\n\n| key | allowed | default |\n|---|---|---|")
        properties = schema["$defs"][record.__name__]["properties"]
        for key, entry in record.model_fields.items():
            default = "required" if entry.default is PydanticUndefined else f"`{entry.default!r}`"
            parts.append(f"| `{key}` | {_allowed(properties[key])} | {default} |")
        parts.append("")
    return "\n".join(parts)


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


def paper_page() -> str:
    """Markdown page of the paper's figures, from docs/figures/paper.json and our words on them."""
    data = json.loads((HERE / "figures" / "paper.json").read_text(encoding="utf-8"))
    records = {int(number): record for number, record in data["figures"].items()}
    words = tomllib.loads((HERE / "figures" / "comments.toml").read_text(encoding="utf-8"))
    comments = {int(name.removeprefix("fig")): " ".join(text.split()) for name, text in words.items()}
    with TemporaryDirectory() as folder:
        write_page(records, data["preset"], Path(folder), comments)
        return (Path(folder) / "paper.md").read_text(encoding="utf-8")


PAGES = {"spec.md": spec_page, "store.md": store_page, "paper.md": paper_page}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding="utf-8")
