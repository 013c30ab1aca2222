"""Names and values for MLflow, checked and flattened before MLflow is called."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from posixpath import normpath
from typing import Any

import numpy as np

from store.naming import SLASH

MAX_NAME = 250
MAX_PARAMETER = 6000
MAX_TAG = 8000
NONFINITE = "nonfinite."
"""Prefix of the tag that stands for a metric that was inf or NaN."""

_NAME = re.compile(r"[/\w.\- :]+")


@dataclass(frozen=True)
class FinishedRun:
    """A run that is logged after it has ended, such as a trial of a study.

    `start` and `end` are Unix seconds; None means the time of logging. `id` is the id that the run had before its
    database was lost; with "" it gets a new one. `description` is Markdown that the UI shows above its numbers.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    status: str = "FINISHED"
    start: float | None = None
    end: float | None = None
    id: str = ""
    description: str = ""


def check_name(kind: str, name: Any) -> str:
    """Return `name` if MLflow accepts it for this `kind` of entry; raises ValueError if it does not."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{kind} name {name!r}: use letters, digits, underscore, dash, period, space, colon "
            "and slash, at least one of them"
        )
    if normpath(name) != name or name.startswith(("/", "..")) or name == ".":
        raise ValueError(f"{kind} name {name!r} reads as a path; drop its leading or double slash")
    # A metric needs room for the prefix of the tag that replaces it when it is not finite.
    longest = MAX_NAME - len(NONFINITE)
    if len(name) > longest:
        raise ValueError(f"{kind} name {name[:40]!r}... has {len(name)} characters, not <= {longest}")
    return name


def split_metrics(metrics: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Split metrics into finite values and, for the others, tags `nonfinite.<name>`.

    The tags hold "nan", "inf" or "-inf": MLflow would store inf as 1.8e308 and a mean over NaN.
    Raises ValueError for a name that MLflow refuses or that has a slash (`store.naming` puts groups before names),
    TypeError for a value that is not one real number.
    """
    finite: dict[str, float] = {}
    tags: dict[str, str] = {}
    for name, value in metrics.items():
        if SLASH in check_name("metric", name):
            raise ValueError(f"metric name {name!r}: a slash ends the group of a name in MLflow; use an underscore")
        if not isinstance(value, int | float | np.number | np.bool_ | np.ndarray) or (
            np.ndim(value) > 0 or np.iscomplexobj(value)
        ):
            raise TypeError(f"metric {name!r}: {value!r} is not one real number")
        number = float(value)
        if math.isfinite(number):
            finite[name] = number
        else:
            tags[NONFINITE + name] = str(number)
    return finite, tags


def flatten(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return nested `parameters` as one level of text: {"a": {"b": 1}} becomes {"a.b": "1"}.

    Text stays as it is; numbers, booleans, None and sequences are written as in JSON, an empty
    mapping as {}. Raises ValueError for a name MLflow refuses, a name given twice, or a text above
    6000 characters (MLflow would cut it silently), TypeError for a value of another type.
    """
    flat: dict[str, str] = {}
    for name, value in _leaves("", parameters):
        check_name("parameter", name)
        if name in flat:
            raise ValueError(f"parameter {name!r} is given twice, nested and with a dot")
        text = _text(name, value)
        if len(text) > MAX_PARAMETER:
            raise ValueError(
                f"parameter {name!r} has {len(text)} characters and MLflow keeps {MAX_PARAMETER}; "
                "log it as an artifact with Run.text or Run.json"
            )
        flat[name] = text
    return flat


def _leaves(prefix: str, mapping: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise ValueError(f"parameter name {prefix}{key!r} is not a str")
        if isinstance(value, Mapping) and value:
            yield from _leaves(f"{prefix}{key}.", value)
        else:
            yield prefix + key, value


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(jsonable(value), ensure_ascii=False)
    except TypeError as fault:
        raise TypeError(f"parameter {name!r}: {fault}") from None


def check_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return `tags` as text.

    Raises ValueError for a name MLflow refuses, for its own prefix "mlflow.", and for a text above
    8000 characters.
    """
    checked = {}
    for name, value in tags.items():
        check_name("tag", name)
        if name.startswith("mlflow."):
            raise ValueError(f"tag {name!r}: names that begin with mlflow. belong to MLflow")
        text = str(value)
        if len(text) > MAX_TAG:
            raise ValueError(
                f"tag {name!r} has {len(text)} characters and MLflow keeps {MAX_TAG}; log it as an "
                "artifact with Run.text"
            )
        checked[name] = text
    return checked


def jsonable(value: Any) -> Any:
    """Return `value` in the types of strict JSON: arrays and tuples become lists, paths text.

    Numbers that are not finite become "nan", "inf" and "-inf", as in the tags of metrics, because
    JSON has no word for them. Raises TypeError for any other type.
    """
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return float(value) if math.isfinite(value) else str(float(value))
        case np.generic():
            return jsonable(value.item())
        case np.ndarray():
            return jsonable(value.tolist())
        case PurePath():
            return str(value)
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [jsonable(item) for item in value]
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")
