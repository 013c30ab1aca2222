"""Views of MLflow's UI: their tags, their links, and what a user has saved."""

from __future__ import annotations

import base64
import json
import zlib

import pytest

from store import views
from store.runs import FinishedRun, Tracker

STATE = {"selectedColumns": ["metrics.`errors/geometry_error`"], "orderByAsc": True}


def tags(tracker: Tracker, name: str) -> dict[str, str]:
    return dict(tracker._client().get_experiment_by_name(name).tags)


def test_old_and_new_versions_of_the_ui_can_read_a_view() -> None:
    found = json.loads(views.encoded(STATE))
    assert {name: found[name] for name in STATE} == STATE
    scheme, _, packed = found["state"].partition(";")
    assert scheme == "deflate"
    assert json.loads(zlib.decompress(base64.b64decode(packed))) == STATE
    assert isinstance(found["createdAt"], int)
    assert found["name"] == "dislobench"


def test_an_experiment_has_its_view_and_a_link_to_it(tracker: Tracker) -> None:
    tracker.log_batch_of_runs("w-screw", None, [FinishedRun("a", start=1e9)])
    tracker.log_batch_of_runs("si-edge", None, [FinishedRun("b", start=2e9)])
    tracker.share_view("w-screw", STATE)
    links = tracker.ui_links(5001)
    assert list(links) == ["si-edge", "w-screw"], "newest first, and none without runs"
    assert links["w-screw"].startswith("http://127.0.0.1:5001/#/experiments/")
    assert links["w-screw"].endswith("/runs?workflowType=machine_learning&viewStateShareKey=dislobench")
    assert links["si-edge"].endswith("/runs?workflowType=machine_learning"), "no key without a view"
    assert tags(tracker, "w-screw")["mlflow.experimentKind"] == "custom_model_development"


def test_a_view_that_a_user_has_saved_is_kept(tracker: Tracker) -> None:
    tracker.log_batch_of_runs("w-screw", None, [FinishedRun("a")])
    tracker.share_view("w-screw", STATE)
    tracker.share_view("w-screw", STATE | {"orderByAsc": False})
    assert json.loads(tags(tracker, "w-screw")[views.TAG])["orderByAsc"] is False
    client = tracker._client()
    saved = json.dumps({"name": "dislobench", "createdAt": 1, "updatedAt": 2, "state": "{}"})  # as the UI writes it
    number = client.get_experiment_by_name("w-screw").experiment_id
    for text in (saved, "no JSON", "[]"):
        client.set_experiment_tag(number, views.TAG, text)
        tracker.share_view("w-screw", STATE)
        assert tags(tracker, "w-screw")[views.TAG] == text


def test_a_view_that_no_tag_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        views.encoded({"selectedColumns": [f"{n:x}" * 9 for n in range(2000)]})
