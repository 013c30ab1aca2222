from __future__ import annotations

import json
from pathlib import Path

import pytest

from store.journal import mend
from store.seal import StoreError

LINES = [json.dumps({"op_code": n, "text": "x" * n}) + "\n" for n in range(6)]
WHOLE = "".join(LINES)


@pytest.mark.parametrize(
    "tail", ['{"op_code": 4, "te', '{"op_code": 4}', "\x00\x00\x00", '{"op_co{"op_code": 5}\n', "[]\n", "\n"]
)
def test_a_torn_last_line_is_dropped_and_kept_beside(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "journal.log"
    path.write_text(WHOLE + tail)
    told = mend(path)
    assert f"{path}: line 7 was torn, and was dropped ({len(tail)} bytes)" in told
    assert "journal.log.damaged-1" in told
    assert path.read_text() == WHOLE
    assert (tmp_path / "journal.log.damaged-1").read_text() == WHOLE + tail
    assert mend(path) == ""
    path.write_text(WHOLE + tail)
    assert "damaged-2" in mend(path)


def test_every_cut_of_a_journal_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    for size in range(len(WHOLE)):
        path.write_text(WHOLE[:size])
        mend(path)
        assert path.read_text() == "".join(line for n, line in enumerate(LINES) if len("".join(LINES[: n + 1])) <= size)
        for kept in tmp_path.glob("*.damaged-*"):
            kept.unlink()


def test_a_damaged_line_in_the_middle_is_refused_with_place_and_cure(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    bad = [*LINES[:2], LINES[2][:9] + "\n", *LINES[3:]]
    path.write_text("".join(bad))
    with pytest.raises(StoreError, match=r"journal\.log: line 3 is damaged; .*dislobench repair"):
        mend(path)
    assert path.read_text() == "".join(bad), "nothing was touched"


def test_no_journal_is_nothing_to_mend(tmp_path: Path) -> None:
    assert mend(tmp_path / "journal.log") == ""
    (tmp_path / "journal.log").write_text("")
    assert mend(tmp_path / "journal.log") == ""
