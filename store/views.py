"""Views of MLflow's UI: which columns and charts its table of runs shows, kept as a tag of the experiment.

A link with `viewStateShareKey=KEY` opens the view of that key, and `workflowType=machine_learning` the part of the UI
that is about numbers. MLflow documents neither; they are as in the UI of versions 3.11 to 3.17. A UI that knows
neither shows its usual table.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

KEY = "dislobench"
TAG = f"mlflow.sharedViewState.{KEY}"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Tells the UI that an experiment is about numbers; without it the UI guesses from the runs, or opens on traces."""
LONGEST = 20_000
"""Characters that a tag of an experiment can hold."""
_MAKER = "maker"


def encoded(state: Mapping[str, Any]) -> str:
    """Return the text of the tag for a view. Raises ValueError when it is too long for a tag.

    Newer UIs read the packed state and list the view by its name; older ones read the fields beside it.
    """
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    now = int(1000 * time.time())
    text = json.dumps({**state, "name": KEY, "createdAt": now, "updatedAt": now, "state": packed, _MAKER: KEY})
    if len(text) > LONGEST:
        raise ValueError(f"a view of {len(text)} characters is too long for a tag, which holds {LONGEST}")
    return text


def may_replace(text: str | None) -> bool:
    """Tell whether the view in this tag is missing or ours. One that a user has saved anew in the UI stays: the UI
    drops the field that says who made it."""
    if text is None:
        return True
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get(_MAKER) == KEY


def query(shared: bool) -> str:
    """Return the part of a link after `?`; with the view if the experiment has it (`shared`)."""
    return urlencode({"workflowType": "machine_learning", **({"viewStateShareKey": KEY} if shared else {})})
