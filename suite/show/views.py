"""The view of an experiment in MLflow's UI: a table of what differs and what matters, sorted by the geometry error, and
charts in the order of the table of numbers.

It is made anew from the runs each time `dislobench ui` starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from store.listing import RUN, RunRecord
from suite.judge.numbers import ERRORS, GROUPS
from suite.study.comparison import differing

MATCHING = ("eps_E", "eps_F", "rmse_F", "eps_V1_felt", "eps_K", "c0_model", "corrected_spread")
MOST_SETTINGS = 6
"""Columns for settings that differ; more would hide the numbers."""
_AGAINST = (
    ("geometry_error", "eps_V1_felt"),
    ("geometry_error", "eps_F"),
    ("energy_error", "eps_K"),
    ("energy_error", "eps_E"),
)
"""Errors and the matching numbers that they are drawn against."""
_TAGS = ("tags.`outcome`", "tags.`kind`")
_NAME = "attributes.`Run Name`"
_NAME_WIDTH = 300  # pixels
_OPEN = ("errors",)
_FIRST = "errors against matching numbers"
_LAST = ("fit", "cost", "counts")
Keys = Mapping[str, Sequence[str]]
"""The names that each number has in MLflow: with its group, or without one in runs of older versions, or both."""


def view_of(records: Sequence[RunRecord], keys: Keys) -> dict[str, Any]:
    """The state of the UI for an experiment with these runs, in the form of `store.views.encoded`."""
    runs = [record for record in records if record.kind == RUN]
    trials = [record for record in records if record.kind == "trial"]
    settings = differing([record.parameters for record in runs])[:MOST_SETTINGS]
    columns = [*_metrics(keys, ERRORS), *(f"params.`{name}`" for name in settings), *_metrics(keys, MATCHING), *_TAGS]
    sorted_by = next(iter(keys.get(ERRORS[0], ())), None)
    return {
        "searchFilter": "",
        "orderByKey": f"metrics.`{sorted_by}`" if sorted_by else "attributes.start_time",
        "orderByAsc": sorted_by is not None,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [_NAME, *columns],
        "columnWidths": {_NAME: _NAME_WIDTH, **{name: _width(name) for name in columns}},
        "compareRunCharts": _charts(keys, trials),
        "compareRunSections": _sections(keys),
        "isAccordionReordered": True,  # otherwise the UI sorts the sections by their names
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "chartsSearchFilter": "",
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _metrics(keys: Keys, names: Sequence[str]) -> list[str]:
    return [f"metrics.`{key}`" for name in names for key in keys.get(name, ())]


def _width(column: str) -> int:
    """Pixels that show the head of a column, but no more than fit next to others."""
    return min(60 + 6 * len(column.partition("`")[2]), 190)


def _sections(keys: Keys) -> list[dict[str, Any]]:
    """Sections of the page of charts. Those of the groups have the groups' names: the UI puts the charts of all numbers
    there by itself."""
    found = {key.rpartition("/")[0] for each in keys.values() for key in each} - {""}
    known = [*GROUPS, *sorted(found - {*GROUPS, *_LAST}), *_LAST]
    return [_section(_FIRST, True), *(_section(name, name in _OPEN) for name in known if name in found)]


def _section(name: str, open_: bool) -> dict[str, Any]:
    return {"uuid": name, "name": name, "display": open_, "isReordered": False, "deleted": False, "isGenerated": True}


def _charts(keys: Keys, trials: Sequence[RunRecord]) -> list[dict[str, Any]]:
    charts = [
        _chart("SCATTER", f"{error} against {number}", xaxis=_axis(keys, number), yaxis=_axis(keys, error))
        for error, number in _AGAINST
        if keys.get(error) and keys.get(number)
    ]
    varied = differing([trial.parameters for trial in trials])
    judged = [keys[name][0] for name in (f"{error}_linear" for error in ERRORS) if keys.get(name)]
    if varied and judged:
        charts.append(_chart("PARALLEL", "trials", selectedParams=varied, selectedMetrics=judged, showAllRuns=False))
    return charts


def _axis(keys: Keys, name: str) -> dict[str, str]:
    return {"key": keys[name][0], "type": "METRIC"}


def _chart(form: str, name: str, **settings: Any) -> dict[str, Any]:
    fixed = {"deleted": False, "isGenerated": False, "runsCountToCompare": 100, "metricSectionId": _FIRST}
    return {"uuid": name, "displayName": name, "type": form, **fixed, **settings}
