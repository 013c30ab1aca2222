import json
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from store.provenance import content_key, git_revision, machine, utc_now, versions

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def shape_of(value: Any) -> str:
    """An independent rendering that two values share only if they are the same content."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k!r}:{shape_of(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(shape_of, value)) + "]"
    return repr(value)


@settings(deadline=None)
@given(nested, nested)
def test_keys_agree_exactly_when_contents_agree(a: Any, b: Any) -> None:
    assert (content_key(a) == content_key(b)) == (shape_of(a) == shape_of(b))


@settings(deadline=None)
@given(st.dictionaries(st.text(), nested, min_size=2, max_size=5))
def test_order_of_keys_and_kind_of_sequence_do_not_matter(value: dict[str, Any]) -> None:
    backwards = dict(reversed(value.items()))
    assert content_key(value) == content_key(backwards)
    assert content_key(list(value.values())) == content_key(tuple(value.values()))


@settings(deadline=None)
@given(npst.arrays(npst.integer_dtypes() | npst.floating_dtypes(), npst.array_shapes(min_side=0)))
def test_an_array_counts_by_dtype_shape_and_bytes(array: np.ndarray) -> None:
    key = content_key(array)
    assert key == content_key(np.asfortranarray(array))
    assert key == content_key(array.astype(array.dtype.newbyteorder()))
    assert key != content_key(array[None])
    wider = np.dtype("c16") if array.dtype.kind == "f" else np.dtype("f8")
    assert key != content_key(array.astype(wider))
    assert key != content_key(array.tolist())
    if array.size:
        changed = array.copy()
        changed.reshape(-1).view("u1")[0] ^= 1
        assert key != content_key(changed)


def test_values_that_only_look_alike_differ() -> None:
    alike = [1, 1.0, True, "1", [1], None, "None", 0.0, -0.0, float("nan"), "nan", {"1": 1}, {}, []]
    assert len({content_key(value) for value in alike}) == len(alike)
    assert content_key(1, 2) != content_key([1, 2])
    # What an array or a mapping is turned into on the way must not be mistaken for one.
    array = np.arange(2.0)
    assert content_key({"array": ["<f8", [2], "0" * 64]}) != content_key(array)
    assert content_key({"mapping": {"a": 1}}) != content_key({"a": 1})


def test_numpy_scalars_count_as_the_number_they_hold() -> None:
    assert content_key(np.float64(0.1), np.int32(3), np.True_) == content_key(0.1, 3, True)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, {"b": {1, 2}}]}, r"part 0\.a\[1\]\.b: a set"),
        ({"a": {1: 2}}, r"part 0\.a: key 1 is a int"),
        ([np.array([None])], r"part 0\[0\]: an array of dtype object"),
        (Path("x"), r"part 0: a \w*Path"),
        (1j, "part 0: a complex"),
    ],
)
def test_unsupported_values_are_refused_with_their_place(value: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        content_key(value)


def test_keys_are_the_same_in_another_process(spawn: Callable[..., Any]) -> None:
    code = (
        "import numpy as np; from store.provenance import content_key;"
        "print(content_key({'b': 0.1, 'a': (1, 'x', None)}, np.arange(6.0).reshape(2, 3)))"
    )
    keys = {spawn(code, PYTHONHASHSEED=seed).communicate()[0].strip() for seed in ("1", "2")}
    assert keys == {content_key({"a": [1, "x", None], "b": 0.1}, np.arange(6.0).reshape(2, 3))}
    assert len(keys.pop()) == 16


def test_key_of_a_fixed_value_never_changes() -> None:
    # A regression number: a change of it orphans every cache and needs a line in CHANGELOG.md.
    assert content_key({"size": 8, "field": np.arange(3)}) == "9fdf2667421e2403"


def test_versions_say_absent_for_what_is_not_installed() -> None:
    found = versions(["numpy", "no-such-distribution"])
    assert found == {"numpy": np.__version__, "no-such-distribution": "absent"}


def test_machine_can_be_stored_as_json() -> None:
    found = machine()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"]
    assert 1 <= int(found["cores_usable"]) <= int(found["cores"])
    assert float(found["memory_gb"]) > 0.1


def test_utc_now_is_now_and_in_utc() -> None:
    stamp = datetime.fromisoformat(utc_now())
    assert stamp.utcoffset() == timedelta(0)
    assert abs(datetime.now(stamp.tzinfo) - stamp) < timedelta(minutes=1)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_revision_follows_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert git_revision(tmp_path) is None
    git("init", "-q")
    assert git_revision(tmp_path) is None
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "installed").mkdir()
    git("add", "code.py")
    git("commit", "-qm", "one")
    head = git("rev-parse", "HEAD")
    assert git_revision(tmp_path) == head
    assert git_revision(tmp_path / "installed") is None
    monkeypatch.setenv("GIT_DIR", os.devnull)
    assert git_revision(tmp_path) == head
    monkeypatch.delenv("GIT_DIR")
    (tmp_path / "code.py").write_text("2")
    assert git_revision(tmp_path) == head + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert git_revision(tmp_path) is None
