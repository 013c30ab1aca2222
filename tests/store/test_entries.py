import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.entries import check_name, check_tags, flatten, jsonable, split_metrics


@settings(deadline=None)
@given(st.text(max_size=8))
def test_names_pass_exactly_when_mlflow_takes_them(name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_metric_name

    try:
        _validate_metric_name(name)
        theirs = not name.endswith("\n")  # their pattern lets one trailing newline through
    except MlflowException:
        theirs = False
    try:
        check_name("metric", name)
        ours = True
    except ValueError:
        ours = False
    assert ours == (theirs and name != "")


@pytest.mark.parametrize("name", ["a^b", "a[0]", "", "/a", "a//b", "../a", ".", "x" * 241, 3])
def test_bad_names_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="metric name"):
        check_name("metric", name)


def test_numbers_that_are_not_finite_become_tags() -> None:
    finite, tags = split_metrics(
        {"a": np.float32(0.5), "b": float("inf"), "c": -np.inf, "d": np.array(np.nan), "e": True}
    )
    assert finite == {"a": 0.5, "e": 1.0}
    assert tags == {"nonfinite.b": "inf", "nonfinite.c": "-inf", "nonfinite.d": "nan"}


@pytest.mark.parametrize("value", ["1", None, [1.0], np.zeros(1), 1j, np.array(1j)])
def test_a_metric_is_one_real_number(value: Any) -> None:
    with pytest.raises(TypeError, match="metric 'a'"):
        split_metrics({"a": value})


def test_parameters_are_flattened_to_text() -> None:
    given = {
        "case": "w-screw",
        "training": {"size": 8, "amplitudes": (0.01, 0.1), "box": {"cubic": True}, "none": {}},
        "seed": None,
        "tolerance": np.float64(1e-3),
        "count": np.int64(3),
        "path": Path("a/b"),
    }
    assert flatten(given) == {
        "case": "w-screw",
        "training.size": "8",
        "training.amplitudes": "[0.01, 0.1]",
        "training.box.cubic": "true",
        "training.none": "{}",
        "seed": "null",
        "tolerance": "0.001",
        "count": "3",
        "path": '"a/b"',
    }


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_parameter_survives_its_text(value: float) -> None:
    assert float(flatten({"x": value})["x"]) == value


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"a": {"b": 1}, "a.b": 2}, ValueError, "'a.b' is given twice"),
        ({"spec": "x" * 6001}, ValueError, "'spec' has 6001 characters"),
        ({"a": {"b[0]": 1}}, ValueError, r"parameter name 'a\.b\[0\]'"),
        ({"a": {1: 2}}, ValueError, "parameter name a.1 is not a str"),
        ({"a": {"b": object()}}, TypeError, "parameter 'a.b': a object"),
    ],
)
def test_bad_parameters_are_refused(parameters: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        flatten(parameters)
    assert flatten({"spec": "x" * 6000}) == {"spec": "x" * 6000}


def test_tags_are_text_of_a_length_mlflow_keeps() -> None:
    assert check_tags({"a": 1, "b": "x" * 8000}) == {"a": "1", "b": "x" * 8000}
    with pytest.raises(ValueError, match="'b' has 8001 characters"):
        check_tags({"b": "x" * 8001})
    with pytest.raises(ValueError, match="belong to MLflow"):
        check_tags({"mlflow.runName": "x"})


def test_json_is_strict() -> None:
    value = {"a": np.array([[1.0, np.nan]]), "b": (np.int32(2), float("-inf")), "c": Path("x")}
    plain = jsonable(value)
    assert plain == {"a": [[1.0, "nan"]], "b": [2, "-inf"], "c": "x"}
    json.dumps(plain, allow_nan=False)
    with pytest.raises(TypeError, match="a set cannot"):
        jsonable({"a": {1}})
