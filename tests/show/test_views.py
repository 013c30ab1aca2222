"""What the link of `dislobench ui` opens: columns that differ and matter, charts in the order of the table."""

from __future__ import annotations

from dataclasses import replace

from store import views
from store.listing import RunRecord
from suite.judge.numbers import NUMBERS, group_of
from suite.show.views import MOST_SETTINGS, view_of

RUN = RunRecord("0" * 32, "a", "w-split", "FINISHED", "2026-01-01", {"case": "w-split", "L": "6"}, {}, {}, None)
KEYS = {name: [f"{group_of(name)}/{name}"] for name in (*NUMBERS, "seconds_fit", "points", "solver_rank")}


def test_columns_are_errors_then_what_differs_then_matching_numbers() -> None:
    runs = [RUN, replace(RUN, parameters={"case": "w-split", "L": "8", "model": "ACE"})]
    view = view_of(runs, KEYS)
    columns = view["selectedColumns"]
    assert columns[:2] == ["metrics.`errors/geometry_error`", "metrics.`errors/energy_error`"]
    assert columns[2:4] == ["params.`L`", "params.`model`"], "a setting that all share is no column"
    assert "metrics.`elastic/eps_V1_felt`" in columns
    assert columns[-2:] == ["tags.`outcome`", "tags.`kind`"]
    assert view["columnOrder"][1:] == columns
    assert set(view["columnWidths"]) == set(view["columnOrder"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`errors/geometry_error`", True)


def test_many_settings_do_not_hide_the_numbers() -> None:
    runs = [RUN, replace(RUN, parameters={f"p{n}": "1" for n in range(20)})]
    settings = [column for column in view_of(runs, KEYS)["selectedColumns"] if column.startswith("params.")]
    assert len(settings) == MOST_SETTINGS


def test_names_of_older_versions_are_columns_too() -> None:
    view = view_of([RUN], {"geometry_error": ["errors/geometry_error", "geometry_error"], "eps_E": ["eps_E"]})
    assert view["selectedColumns"][:3] == [
        "metrics.`errors/geometry_error`",
        "metrics.`geometry_error`",
        "metrics.`eps_E`",
    ]


def test_an_experiment_without_errors_is_sorted_by_time() -> None:
    view = view_of([replace(RUN, tags={"kind": "board"})], {})
    assert (view["orderByKey"], view["orderByAsc"]) == ("attributes.start_time", False)
    assert view["compareRunCharts"] == []


def test_charts_come_in_the_order_of_the_table_of_numbers() -> None:
    view = view_of([RUN], KEYS)
    sections = [section["name"] for section in view["compareRunSections"]]
    assert sections[1:4] == ["errors", "matching", "elastic"]
    assert sections[-3:] == ["fit", "cost", "counts"]
    first = view["compareRunCharts"][0]
    assert first["xaxis"]["key"] == "elastic/eps_V1_felt"
    assert first["yaxis"]["key"] == "errors/geometry_error"
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == {view["compareRunSections"][0]["uuid"]}


def test_trials_are_drawn_in_parallel_coordinates() -> None:
    trials = [
        replace(RUN, parameters={"log10_energy": text, "solver": "rrqr"}, tags={"kind": "trial"}) for text in "12"
    ]
    (chart,) = [chart for chart in view_of(trials, KEYS)["compareRunCharts"] if chart["type"] == "PARALLEL"]
    assert chart["selectedParams"] == ["log10_energy"]
    assert chart["selectedMetrics"] == ["errors/geometry_error_linear", "errors/energy_error_linear"]


def test_a_view_of_everything_fits_into_a_tag() -> None:
    long = [replace(RUN, parameters={f"a_rather_long_name_{n}": str(k) for n in range(30)}) for k in range(2)]
    assert len(views.encoded(view_of(long, KEYS))) < views.LONGEST
