"""Filters, columns and the order of a list of runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.runs import RunRecord
from suite.study.selection import BadCondition, UnknownName, by, read_condition, refuse_unknown, select, value_of

BASE = RunRecord("0" * 32, "base", "w-split", "FINISHED", "2026-01-01T12:00:00.000+00:00", {}, {}, {}, None)
GOOD = replace(
    BASE,
    name="good",
    metrics={"geometry_error": 0.01, "eps_E": 1e-3},
    parameters={"seed": "0", "model": "ACE"},
    tags={"outcome": "converged"},
)
BAD = replace(
    BASE,
    name="bad",
    experiment="si-edge",
    metrics={"geometry_error": 0.5},
    parameters={"seed": "10", "model": "W_zhou04"},
    tags={"outcome": "unstable", "seed": "a tag"},
)
RUNS = [BASE, BAD, GOOD]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("geometry_error < 0.1", ["good"]),
        ("geometry_error<=0.5", ["bad", "good"]),
        ("geometry_error != 0.5", ["good"]),
        ("seed = 0", ["good"]),
        ("seed = 0.0", ["good"]),
        ("seed > 9", ["bad"]),
        ("tags.seed = a tag", ["bad"]),
        ("params.seed == 10", ["bad"]),
        ("metrics.eps_E >= 0.001", ["good"]),
        ("model = 'ACE'", ["good"]),
        ("model ~ zhou", ["bad"]),
        ("case = w-split", ["base", "good"]),
        ("name != base", ["bad", "good"]),
        ("kind = run", ["base", "bad", "good"]),
        ("outcome = converged", ["good"]),
    ],
)
def test_conditions(text: str, names: list[str]) -> None:
    assert [record.name for record in select(RUNS, [read_condition(text)])] == names


def test_all_conditions_must_hold() -> None:
    conditions = [read_condition(text) for text in ("geometry_error < 1", "seed > 0")]
    assert select(RUNS, conditions) == [BAD]
    assert select(RUNS, []) == RUNS


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_numbers_are_compared_as_numbers(here: float, wanted: float) -> None:
    record = replace(BASE, metrics={"x": here})
    for sign, expected in (("<", here < wanted), (">=", here >= wanted), ("=", here == wanted), ("!=", here != wanted)):
        assert (select([record], [read_condition(f"x {sign} {wanted!r}")]) == [record]) == expected


@pytest.mark.parametrize("text", ["", "geometry_error", "< 3", "geometry_error <", "a ? b"])
def test_what_is_no_condition_is_told(text: str) -> None:
    with pytest.raises(BadCondition, match=r"such as 'geometry_error < 0\.1'"):
        read_condition(text)


@pytest.mark.parametrize("text", ["name < 3", "geometry_error < high"])
def test_text_has_no_order(text: str) -> None:
    with pytest.raises(BadCondition, match="is no number; text can be compared with"):
        select(RUNS, [read_condition(text)])


def test_unknown_names_are_told_with_the_one_that_is_meant() -> None:
    for look in (
        lambda: select(RUNS, [read_condition("geometri_error < 1")]),
        lambda: by("geometri_error", RUNS),
        lambda: refuse_unknown(["name", "geometri_error"], RUNS),
    ):
        with pytest.raises(UnknownName, match="did you mean 'geometry_error'"):
            look()
    refuse_unknown(["anything"], [])  # an empty workspace is no reason to doubt a name


def test_runs_are_sorted_and_those_without_the_value_come_last() -> None:
    assert [record.name for record in by("geometry_error", RUNS)] == ["good", "bad", "base"]
    assert [record.name for record in by("params.seed", RUNS)] == ["good", "bad", "base"], "10 comes after 0"
    assert [record.name for record in by("case", RUNS)] == ["bad", "base", "good"]


def test_a_name_is_a_number_before_a_parameter_before_a_tag() -> None:
    assert value_of(BAD, "seed") == "10"
    assert value_of(BAD, "tags.seed") == "a tag"
    assert value_of(BASE, "seed") is None
    assert value_of(replace(BAD, metrics={"seed": 1.0}), "seed") == 1.0
    assert value_of(BASE, "started") == "2026-01-01T12:00:00"
