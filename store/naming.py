"""Names of metrics in MLflow, whose UI makes a group of what stands before a slash: `errors/geometry_error`.

Only MLflow's tables hold grouped names. Everywhere else a number has its plain name, `geometry_error`: in `RunRecord`,
in `run.json`, in sealed stores. Names become grouped where metrics go to MLflow, and plain where they come from there,
so that databases of older versions, whose names have no groups, are read in the same way.
"""

from collections.abc import Callable, Iterable, Mapping

SLASH = "/"
Grouping = Callable[[str], str]
"""Gives the group of a plain name, "" for a name without a group."""


def no_group(name: str) -> str:
    """The grouping without groups."""
    return ""


def grouped(metrics: Mapping[str, float], group: Grouping) -> dict[str, float]:
    """Return `metrics` by their names in MLflow."""
    return {f"{group(name)}{SLASH}{name}".lstrip(SLASH): value for name, value in metrics.items()}


def plain(name: str) -> str:
    """Return the plain name of a metric in MLflow."""
    return name.rpartition(SLASH)[2]


def ungrouped(metrics: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return metrics from MLflow by their plain names.

    A run that an older version began and this one continued may hold a number under both names; the grouped one is
    newer, and counts.
    """
    found: dict[str, float] = {}
    for name, value in sorted(metrics, key=lambda each: SLASH in each[0]):
        found[plain(name)] = value
    return found
