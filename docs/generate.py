"""Write docs/spec.md and docs/store.md from the code: `python docs/generate.py`; a test asserts that they are so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from store.schema import describe
from suite.spec import Spec

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


PAGES = {"spec.md": spec_page, "store.md": store_page}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding="utf-8")
