"""Leaderboards: what a board file may say, runs that are made once, and pages from the store alone."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from store.runs import RunRecord, Tracker
from suite.boards import BadBoard, read_board, seeds_of, shipped_boards, spec_of
from suite.cli import main
from suite.spec import Spec, specs_folder

BOARD = """
title = "Two potentials for tungsten"
cases = ["small.toml"]
preset = "tiny"

[entry."ACE, pairs"]
family = "ACE"
set = { "model.channels" = [8], "model.degrees" = [0] }

[entry.EAM]
family = "EAM"
set = { "model.backend" = "calculator", "model.calculator" = "W_zhou04" }

[entry."ACE, large"]
family = "ACE"
case."small.toml".left_out = "the design matrix needs 500 GB"

[entry.GAP]
family = "GAP"
set = { "model.backend" = "trainer", "model.trainer" = "gap" }
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a board, and with its case: w-split with few configurations."""
    folder = tmp_path_factory.mktemp("board")
    (folder / "two.toml").write_text(BOARD, encoding="utf-8")
    text = (specs_folder() / "w-split.toml").read_text(encoding="utf-8")
    before, _, rest = text.partition("[sweep.")
    _, _, tiny = rest.partition("[preset.tiny]")
    tiny = "[preset.tiny]\n" + tiny.partition("\n")[2].partition("sweep.")[0]
    for old, new in (
        ("configurations = 8", "configurations = 2"),
        ("test = 4", "test = 1"),
    ):
        assert old in tiny
        tiny = tiny.replace(old, new)
    (folder / "small.toml").write_text(before + tiny, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _in_the_bench(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the package of GAP."""
    monkeypatch.chdir(bench)
    monkeypatch.setattr("suite.trainers.needed.program_of", lambda command: None)


@pytest.fixture(scope="module")
def workspace(bench: Path) -> Path:
    """A workspace in which the board has run once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(bench)
        patch.setattr("suite.trainers.needed.program_of", lambda command: None)
        assert main(["leaderboard", "two.toml", "--workers", "1"]) == 0
    return bench / "runs"


@pytest.fixture(scope="module")
def runs(workspace: Path) -> dict[str, RunRecord]:
    """The runs of the cells by name."""
    return {record.name: record for record in Tracker(workspace).history("w-split")}


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of a leaderboard's CSV file by the name of their entry."""
    with (folder / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        return {row["entry"]: row for row in csv.DictReader(file)}


def test_numbers_are_those_of_the_runs(workspace: Path, runs: dict[str, RunRecord]) -> None:
    assert set(runs) == {"ACE, pairs, seed 0", "EAM, seed 0"}  # what is not installed has no run, and no failed one
    rows = rows_of(workspace / "leaderboard")
    for entry in ("ACE, pairs", "EAM"):
        record, row = runs[f"{entry}, seed 0"], rows[entry]
        assert record.tags["outcome"] == "converged"
        assert row["runs"] == record.id
        assert (row["usable"], row["seeds"]) == ("1", "1")
        for name in ("geometry_error", "energy_difference", "rmse_F", "eps_V1_felt"):
            assert float(row[name]) == abs(record.metrics[name])
        assert float(row["force_call_us_per_atom"]) > 0
        assert row["remarks"].removeprefix("seed 0: ") == record.tags.get("remarks", "")
    assert rows["ACE, pairs"]["functions"] == runs["ACE, pairs, seed 0"].parameters["functions"] == "8"
    for name in ("geometry_error", "energy_difference", "rmse_F", "eps_V1_felt"):
        assert float(rows["ACE, pairs"][name]) > 0
    assert rows["EAM"]["functions"] == ""
    assert rows["EAM"]["training_seconds"] == ""
    assert float(rows["ACE, pairs"]["training_seconds"]) == runs["ACE, pairs, seed 0"].metrics["training_seconds"]


def test_what_did_not_run_is_told(workspace: Path) -> None:
    rows = rows_of(workspace / "leaderboard")
    assert rows["ACE, large"]["why_not"] == "left out: the design matrix needs 500 GB"
    assert rows["GAP"]["why_not"].startswith("not installed: ")
    assert "quippy-ase" in rows["GAP"]["why_not"]
    for entry in ("ACE, large", "GAP"):
        assert (rows[entry]["usable"], rows[entry]["runs"], rows[entry]["geometry_error"]) == ("0", "", "")
        assert rows[entry]["force_call_us_per_atom"] == ""
    told = (workspace / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
    assert "the design matrix needs 500 GB" in told
    assert list(rows)[-2:] == ["ACE, large", "GAP"]  # after those that have numbers


def test_the_page_comes_from_the_store_alone(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(workspace, tmp_path / "copy", ignore=shutil.ignore_patterns("cache", "leaderboard"))
    words = ["leaderboard", "--workspace", str(tmp_path / "copy"), "--folder", str(tmp_path / "page"), "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert [Path(file).name for file in told["files"]] == ["leaderboard.html", "leaderboard.md", "leaderboard.csv"]
    for file in ("leaderboard.csv", "leaderboard.md"):
        again = (tmp_path / "page" / file).read_text(encoding="utf-8")
        assert again == (workspace / "leaderboard" / file).read_text(encoding="utf-8")
    html = (tmp_path / "page" / "leaderboard.html").read_text(encoding="utf-8")
    assert "Two potentials for tungsten" in html
    assert html.count("<img") == 2  # errors against cost, and cores
    assert {path.name for path in (tmp_path / "page" / "figures").iterdir()} == {"pareto-small.png", "cores-small.png"}


def test_a_second_call_computes_nothing(
    workspace: Path, runs: dict[str, RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing is left to run")

    monkeypatch.setattr("suite.study.points.run_in", refuse)
    words = ["leaderboard", "two.toml", "--workers", "1", "--folder", str(tmp_path)]
    assert main([*words, "--case", "small.toml", "--entry", "ACE, large", "--entry", "GAP"]) == 0
    assert set(rows_of(tmp_path)) == {"ACE, large", "GAP"}  # a part of a board is a board
    assert not [*(tmp_path / "figures").iterdir()]
    before = rows_of(workspace / "leaderboard")
    assert main(words) == 0
    after = rows_of(tmp_path)  # the whole board again, although the part began later
    for row in (*before.values(), *after.values()):
        for name in ("force_call_us_per_atom", "reference_us_per_atom"):
            row.pop(name)  # timed anew
    assert after == before
    assert {record.id for record in Tracker(workspace).history("w-split")} == {each.id for each in runs.values()}
    boards = [record for record in Tracker(workspace).history() if record.tags.get("kind") == "board"]
    assert len(boards) == 2  # the whole one goes on in its own run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('["small.toml"]', '["w-splitt"]'), "cases: no spec 'w-splitt' (did you mean 'w-split'?)"),
        (
            ('case."small.toml"', 'case."smal.toml"'),
            "'smal.toml' is no case of this board (did you mean 'small.toml'?)",
        ),
        (('family = "EAM"', 'famly = "EAM"'), "entry.EAM.famly: "),
        (('title = "Two potentials for tungsten"', "seeds = []"), "title: "),
        (('"model.degrees"', '"training.size" = 5, "model.degrees"'), "'training.size' is the same for all entries"),
    ],
)
def test_a_board_file_with_a_mistake_is_refused(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    assert change[0] in BOARD
    path.write_text(BOARD.replace(*change), encoding="utf-8")
    with pytest.raises(BadBoard) as caught:
        read_board(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_names_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*words: str) -> str:
        capsys.readouterr()
        assert main(["leaderboard", *words, "--workspace", str(tmp_path / "runs")]) == 2
        return capsys.readouterr().err

    assert "no board 'no-such-board'; " in refused("no-such-board")
    assert "missing.toml: there is no such file" in refused("missing.toml")
    assert "no case 'smal.toml' (did you mean 'small.toml'?)" in refused("two.toml", "--case", "smal.toml")
    assert "no entry 'EAMM' (did you mean 'EAM'?)" in refused("two.toml", "--entry", "EAMM")
    assert "did you mean 'tiny'?" in refused("two.toml", "--preset", "tinny")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(BOARD.replace("model.channels", "model.chanels"), encoding="utf-8")
    told = refused(str(wrong))
    assert "entry 'ACE, pairs' in small.toml: " in told
    assert "did you mean 'channels'?" in told
    assert not (tmp_path / "runs" / "mlflow.db").exists()  # nothing has run


def test_a_board_that_names_code_is_refused_with_safe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "code.toml"
    path.write_text(BOARD.replace('"W_zhou04"', '"theirs:potential"'), encoding="utf-8")
    theirs = Path("theirs.py")  # beside the case of the board
    theirs.write_text("raise AssertionError('this code must not run')\n", encoding="utf-8")
    assert main(["leaderboard", str(path), "--safe", "--workspace", str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err
    assert "theirs:potential" in told
    assert "--safe forbids it" in told
    theirs.unlink()
    assert not (tmp_path / "runs" / "mlflow.db").exists()  # nothing has run


def test_a_workspace_without_a_board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--workspace", str(tmp_path)]) == 4
    assert "no finished leaderboard" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
    assert main(["leaderboard", "--entry", "EAM", "--workspace", str(tmp_path)]) == 2
    assert "--entry belongs to a board that is run" in capsys.readouterr().err


def test_a_slow_entry_has_fewer_training_sets_where_it_is_slow(tmp_path: Path) -> None:
    path = tmp_path / "seeds.toml"
    more = BOARD.replace('preset = "tiny"', 'preset = "tiny"\nseeds = [0, 1, 2]').replace("small.toml", "w-split")
    path.write_text(more.replace("left_out =", 'seeds = [4]\ncase."w-split".left_out =') + "seeds = [7, 8]\n", "utf-8")
    _, board = read_board(str(path))
    assert {entry: seeds_of(board, "w-split", entry) for entry in board.entry} == {
        "ACE, pairs": (0, 1, 2),
        "EAM": (0, 1, 2),
        "ACE, large": (4,),
        "GAP": (7, 8),
    }


@pytest.mark.parametrize("name", shipped_boards())
def test_a_shipped_board_asks_for_runs_that_can_be(name: str) -> None:
    _, board = read_board(name)
    for case in board.cases:
        for entry in board.entry:
            found = spec_of(board, case, entry, board.seeds[0])
            assert isinstance(found, Spec) or found  # a spec, or the reason why it is left out
