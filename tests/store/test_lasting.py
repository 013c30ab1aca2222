"""Workspaces in a bucket, on a real S3 server: what lasts there, and what other machines see of it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from servers import Objects, silent_port

from store import fields, handing, marks, objects
from store.addresses import BadAddress
from store.faults import BadInput, BadStore
from store.lasting import Unsent
from store.objects import BucketError, bucket_of, folder_of
from store.runs import FinishedRun, Tracker
from store.seal import StoreError, digest_of, sealed
from suite.cli import main
from suite.spec import load
from suite.study.case import Case
from suite.study.points import Points, point_key
from suite.study.repair import repair
from suite.study.session import Session

Machine = Callable[[str], Tracker]


@pytest.fixture
def machine(bucket: str, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The tracker of a machine with this name, as the workspace is there when a command begins."""

    def at(name: str) -> Tracker:
        monkeypatch.setenv("DISLOBENCH_CACHE", str(tmp_path / name))
        folder = folder_of(bucket)
        if not folder.exists():  # creating a database takes seconds, copying it does not
            shutil.copytree(template, folder)
        tracker = Tracker(folder)
        assert tracker.lasting is not None
        tracker.lasting.begin()
        return tracker

    return at


SECRET = "secret-word"
GROUPS = {
    "small": xr.Dataset({"x": (("n", "k"), np.arange(12.0).reshape(4, 3) / 7), "e": ((), -1.5)}),
    "empty": xr.Dataset({"none": (("m",), np.zeros(0))}),
}


def make(tracker: Tracker, name: str = "one", tags: dict[str, str] | None = None, parent: str | None = None) -> str:
    """A finished run with fields and artifacts; returns its id."""
    with tracker.start("case", name, {"size": 8}, tags or {}, parent) as run:
        run.metrics({"eps_E": 0.1 + 0.2, "bound": float("inf")})
        fields.write(tracker.store_path(run.id), GROUPS, {"run": run.id, "record": run.record()}, check=False)
        run.text("spec.toml", "size = 8\n")
        run.text("figures/a.svg", "<svg/>")
        run.describe("**one**")
    return run.id


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- a second machine ---------------------------------------------------------------------------------------------


def test_another_machine_has_every_bit_of_a_run(machine: Machine) -> None:
    first = machine("a")
    run = make(first)
    second = machine("b")
    assert second.workspace != first.workspace
    assert second.find("one") == first.find(run)
    assert not second.store_path(run).exists(), "fields are fetched when they are read"
    believed = second.believe(second.find(run))
    assert (believed.sealed, believed.note, believed.record.metrics) == (True, "", {"eps_E": 0.1 + 0.2})
    assert not second.store_path(run).exists()

    (second.artifacts_dir(run) / "spec.toml").unlink()
    tree = fields.read(second.store_of(run))
    assert tree["small"].to_dataset().identical(GROUPS["small"])
    for place in (first.fields / f"{run}.zarr", first.artifacts_dir(run)):
        there = second.workspace / place.relative_to(first.workspace)
        assert second.artifacts_dir(run).exists()
        assert contents(there) == contents(place) != {}
    assert second.believe(second.find(run)) == first.believe(first.find(run))
    assert second.client().get_run(run).data.tags["mlflow.note.content"] == "**one**"


def test_a_listing_fetches_one_object_of_each_run_once(
    machine: Machine, s3: Objects, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = machine("a")
    runs = {make(first, f"run {n}") for n in range(3)}
    machine("b")
    s3.asked.clear()
    assert main(["runs", "--workspace", bucket, "--json"]) == 0
    told = capsys.readouterr()
    assert {run["id"] for run in json.loads(told.out)["runs"]} == runs
    assert [method for method, *_ in s3.asked] == ["GET"], "the list of marks alone"
    assert f"{bucket}: its local folder is {folder_of(bucket)}" in told.err
    assert "fetched" not in told.err
    machine("c")
    assert len([path for _, path, _ in s3.asked if "/marks/" in path]) == 3


def test_the_mark_is_written_last_and_the_manifest_after_its_files(machine: Machine, s3: Objects) -> None:
    run = make(machine("a"))
    written = [path.split("/", 3)[3] for path in s3.written()]
    kinds = [path.split("/")[0] for path in written]
    store = [path for path in written if path.startswith("fields/")]
    assert set(store) == {f"fields/{run}.zarr/{name}" for name in contents(machine("a").store_path(run))}
    assert store[-1].endswith("/manifest.json")
    assert kinds[-1] == "marks"
    assert kinds.count("marks") == 1
    assert len(written) == len(set(written)), "no object is written twice"


class Killed(BaseException):
    """As if the process had died."""


@pytest.mark.parametrize("number", [0, 3, 8, 10])
def test_a_run_is_there_whole_or_not_at_all_and_the_next_command_sends_it(
    number: int, machine: Machine, s3: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after so many objects."""
    first, left, put = machine("a"), iter(range(number)), objects.Bucket.put

    def dying(*arguments: object) -> None:
        if next(left, None) is None:
            raise Killed
        put(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(objects.Bucket, "put", dying)
    monkeypatch.setattr(objects, "AT_A_TIME", 1)
    with pytest.raises(Killed):
        make(first)
    assert len(s3.written()) == number
    assert machine("b").history() == []
    monkeypatch.setattr(objects.Bucket, "put", put)
    again = machine("a")
    assert again.lasting is not None
    done, wrong = again.lasting.send()
    assert (len(done), wrong) == (1, [])
    assert again.lasting.send() == ([], [])
    second = machine("b")
    (record,) = second.history()
    assert fields.read(second.store_of(record.id))["small"].to_dataset().identical(GROUPS["small"])


def test_a_store_that_was_sent_whole_is_not_sent_again(machine: Machine, s3: Objects) -> None:
    s3.refuse = lambda method, path: method == "PUT" and "/marks/" in path
    make(machine("a"))
    s3.refuse = lambda method, path: False
    s3.asked.clear()
    again = machine("a")
    assert again.lasting is not None
    again.lasting.send()
    assert {path.split("/")[3] for path in s3.written()} == {"artifacts", "marks"}


def test_a_point_that_another_machine_has_finished_is_used(machine: Machine) -> None:
    spec = load("w-split", "tiny")
    first = machine("a")
    with first.start(spec.case.name, "point", {}, {"point": point_key(spec)}) as made:
        made.metrics({"geometry_error": 0.1})
        fields.write(first.store_path(made.id), {}, {"run": made.id, "record": made.record()})
    second = machine("b")
    record, computed = Points(Session(second.workspace), second).run(Case(spec))
    assert (record.id, record.metrics, computed) == (made.id, {"geometry_error": 0.1}, False)


# --- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("small/x/c/0/0", "was changed since it was sent"),
        ("small/x/c/0/0", "missing"),
        ("manifest.json", "was changed since it was sent"),
        ("manifest.json", "missing"),
    ],
)
def test_a_damaged_store_in_the_bucket_is_refused_with_place_and_cure(
    name: str, wrong: str, machine: Machine, s3: Objects, bucket: str
) -> None:
    run = make(machine("a"))
    key = f"{bucket.removeprefix('s3:/')}/fields/{run}.zarr/{name}"
    if wrong == "missing":
        s3.delete(key)
    else:
        s3.put(key, s3.get(key)[:-1] + b"?")
    second = machine("b")
    with pytest.raises(StoreError, match=wrong) as caught:
        second.store_of(run)
    assert f"{bucket}/fields/{run}.zarr/{name}: " in str(caught.value)
    assert "run its case again" in str(caught.value)
    assert not contents(second.fields).keys() - {".lock"}, "nothing of it is left"


def test_damaged_artifacts_and_marks_are_refused(machine: Machine, s3: Objects, bucket: str) -> None:
    first = machine("a")
    run, root = make(first), bucket.removeprefix("s3:/")
    second = machine("b")
    s3.put(f"{root}/artifacts/case/{run}/artifacts/spec.toml", b"size = 9\n")
    with pytest.raises(StoreError, match=r"spec\.toml: was changed since it was sent"):
        second.artifacts_dir(run)
    (mark,) = (path for path in s3.written() if "/marks/" in path)
    whole = s3.get(mark)
    s3.put(mark, whole.replace(b'"size": "8"', b'"size": "9"'))
    third = machine("c")
    assert third.history() == [], "a mark that is damaged is left out, and the others come"
    assert third.lasting is not None
    _, told = third.lasting.begin()
    assert re.match(rf"{bucket}/marks/{run}\.1\..*json: was changed since it was written", told)
    s3.put(mark, whole)
    assert machine("c").find(run).parameters == {"size": "8"}


def test_a_mark_that_leads_elsewhere_is_refused(machine: Machine, s3: Objects, tmp_path: Path) -> None:
    run = make(machine("a"))
    (mark,) = (path for path in s3.written() if "/marks/" in path)
    content = json.loads(s3.get(mark))
    (name,) = marks.by_run([mark.rpartition("/")[2]])[run]
    assert marks.checked(content, name, "cure") == content
    evil = {"sha256": digest_of(b"evil")[0], "size": 4}
    own = f"artifacts/case/{run}"
    bad = ["../../evil", f"{own}/../../../evil", "/etc/evil", f"{own}//evil", "studies/evil", f"artifacts/{run}/evil"]
    changes = [{"files": {path: evil}} for path in bad]
    changes += [
        {"files": {f"{own}/evil": {**evil, "key": "../evil"}}},
        {"record": {**content["record"], "id": "1" * 32}},
    ]
    changes += [{"record": {**content["record"], "experiment": ".."}}, {"record": {}}, {"files": [["evil"]]}]
    for change in changes:
        with pytest.raises(StoreError, match="is not the mark of this run; cure"):
            marks.checked({**content, **change}, name, "cure")
    s3.put(mark, json.dumps(sealed({**content, **changes[0]})).encode())
    second = machine("b")
    assert second.lasting is not None
    assert "is not the mark of this run" in second.lasting.begin()[1]
    assert second.history() == []
    assert not list(tmp_path.rglob("evil"))


def test_repair_sends_again_what_the_bucket_has_lost(machine: Machine, s3: Objects, bucket: str) -> None:
    first = machine("a")
    run = make(first)
    written = s3.written()
    for path in [
        path for path in written if "/marks/" in path or path.endswith(("zarr.json", "manifest.json", "toml"))
    ]:
        s3.delete(path)
    assert machine("b").history() == []
    first = machine("a")
    s3.asked.clear()
    found = repair(first.workspace)
    assert found.left == []
    (told,) = found.done
    assert re.fullmatch(rf"run {run[:8]}: \d+ objects that {bucket} had lost, sent again", told)
    assert "/marks/" in s3.written()[-1]
    second = machine("b")
    assert fields.read(second.store_of(run))["small"].to_dataset().identical(GROUPS["small"])
    assert contents(second.artifacts_dir(run)) == contents(first.artifacts_dir(run))
    assert repair(second.workspace).done == repair(machine("a").workspace).done == []
    for folder in (first.artifacts_dir(run), first.store_path(run)):
        (file,) = folder.rglob("spec.toml") if folder.name == "artifacts" else folder.rglob("small/x/c/0/0")
        file.write_bytes(b"?")
    for path in [path for path in written if path.endswith(("toml", "small/x/c/0/0"))]:
        s3.delete(path)
    found = repair(first.workspace)
    assert found.done == []
    (told,) = found.left
    assert re.search(r"has lost fields/.*/small/x/c/0/0, artifacts/.*/spec\.toml, not whole here either", told)


def test_a_store_that_is_damaged_here_is_told_and_not_sent(machine: Machine, s3: Objects) -> None:
    first = machine("a")
    s3.refuse = lambda method, path: method == "PUT"
    run = make(first)
    s3.refuse = lambda method, path: False
    (first.store_path(run) / "small" / "x" / "c" / "0" / "0").write_bytes(b"?")
    found = repair(first.workspace)
    assert any("is not sent" in sentence and "small/x" in sentence for sentence in found.left)
    assert machine("b").history() == []


# --- a bucket that does not answer --------------------------------------------------------------------------------


def test_a_run_goes_on_without_the_bucket_and_is_sent_later(
    machine: Machine, s3: Objects, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = machine("a")
    s3.refuse = lambda method, path: True
    runs = {make(first, "one"), make(first, "two")}
    assert caplog.text.count("is sent later") == 1, "told once, and not tried with every run"
    assert SECRET not in caplog.text
    assert first.lasting is not None
    with pytest.raises(Unsent, match=r"Nothing is lost: 2 runs wait in .*`dislobench repair --workspace s3://"):
        first.lasting.send()
    with pytest.raises(BucketError, match="does not answer as it should"):
        machine("a")
    s3.refuse = lambda method, path: False
    machine("a")
    found = repair(folder_of(bucket))
    assert len([sentence for sentence in found.done if f"sent to {bucket}" in sentence]) == 2
    assert {record.id for record in machine("b").history()} == runs


def test_commands_begin_with_a_bucket_that_answers(
    bucket: str, s3: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISLOBENCH_CACHE", str(tmp_path))

    def told(address: str = bucket) -> str:
        assert main(["runs", "--workspace", address]) == BadStore.exit_code
        message = capsys.readouterr().err
        assert SECRET not in message
        return message

    assert "s3://nothing/x" in (message := told("s3://nothing/x"))
    assert "NoSuchBucket: The specified bucket does not exist; make the bucket" in message
    with silent_port() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:{port}")
        assert f"{bucket} at http://127.0.0.1:{port} does not answer" in told()


def test_without_its_library_the_command_says_how_to_get_it(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISLOBENCH_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert main(["runs", "--workspace", bucket]) == BadInput.exit_code
    assert "pip install 'dislobench[s3]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address",
    ["s3://", "s3://B/x", "s3://bucket/../x", "s3://bucket/a b", "s3://bucket/a+b", "s3://me:secret-word@b/x"],
)
def test_bad_addresses_are_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadAddress):
        folder_of(address)
    with pytest.raises(SystemExit) as stop:
        main(["runs", "--workspace", address])
    assert stop.value.code == BadInput.exit_code
    assert "write s3://BUCKET/PREFIX" in capsys.readouterr().err.replace("\n", " ")


def test_a_folder_tells_its_bucket_and_no_other_folder_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISLOBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    folders = []
    for address in ("s3://bucket", "s3://bucket/a", "s3://bucket/a/b.c-d_e", "gs://bucket/a", "s3://bucket/a/b"):
        folders.append(folder_of(address))
        bucket = bucket_of(folders[-1])
        assert bucket is not None
        assert bucket.where == address
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://minio.example.org:9000")
    folders.append(folder_of("s3://bucket/a"))
    assert len(set(folders)) == len(folders)
    assert folder_of("s3://bucket/a/") == folders[-1]
    with pytest.raises(BucketError, match="AWS_ENDPOINT_URL names another server"):
        bucket_of(folders[0])
    for server in ("localhost:9000", "ftp://host", f"https://me:{SECRET}@host/a b"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        with pytest.raises(BadAddress, match=r"AWS_ENDPOINT_URL is .*https://HOST:PORT") as caught:
            folder_of("s3://bucket/a")
        assert SECRET not in str(caught.value)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for folder in (tmp_path, tmp_path / "runs", folders[0].parent, folders[0] / "cache", Path("runs")):
        assert bucket_of(folder) is None


# --- runs that go on after their end ------------------------------------------------------------------------------


def sweep_on(tracker: Tracker, points: int) -> str:
    """The run of a sweep, begun or continued."""
    with tracker.start_or_resume("case", "sweep", {}, {"kind": "sweep", "sweep_key": "k"}, "sweep_key") as run:
        run.metrics({"points": points})
        run.tags({"verdict": f"agrees {points}"})
        run.sealed_json("sweep.json", {"points": points})
    return run.id


def points_in(tracker: Tracker) -> tuple[float, str, int]:
    """What the database, and the artifacts, say of the sweep."""
    (record,) = tracker.tagged("case", "sweep_key", "k")
    path = tracker.artifacts_dir(record.id) / "sweep.json"
    return record.metrics["points"], record.tags["verdict"], json.loads(path.read_bytes())["points"]


def test_a_run_that_goes_on_elsewhere_is_brought_up_to_date(machine: Machine) -> None:
    first = machine("a")
    run = sweep_on(first, 3)
    second = machine("b")
    point = make(second, "point", parent=run)
    assert sweep_on(second, 4) == run
    assert points_in(machine("a")) == (4, "agrees 4", 4)
    assert [child.id for child in machine("a").children(run)] == [point]
    assert sweep_on(machine("a"), 5) == run
    assert points_in(machine("b")) == points_in(machine("c")) == (5, "agrees 5", 5)


def test_of_two_machines_that_go_on_at_once_all_take_the_same(machine: Machine) -> None:
    first = machine("a")
    sweep_on(first, 3)
    second = machine("b")
    sweep_on(first, 4)
    sweep_on(second, 5)
    found = {points_in(machine(name)) for name in ("a", "b", "c")}
    assert found in ({(4, "agrees 4", 4)}, {(5, "agrees 5", 5)})


def test_points_find_their_sweep_when_it_ends_later(machine: Machine) -> None:
    first = machine("a")
    with first.start("case", "sweep", {}, {"kind": "sweep"}) as parent:
        point = make(first, "point", parent=parent.id)
        second = machine("b")
        assert [record.id for record in second.history()] == [point]
    assert [child.id for child in machine("b").children(parent.id)] == [point]


def test_a_study_lasts_with_its_journal_and_its_trials(machine: Machine) -> None:
    def study_on(tracker: Tracker, trials: int) -> str:
        tags = {"kind": "study", "study": "k", "folder": "case-k"}
        tracker.fetch_study("case", "k")
        journal = tracker.workspace / "studies" / "case-k" / "journal.log"
        with tracker.start_or_resume("case", "study", {}, tags, "study") as run:
            known = len(tracker.children(run.id))
            entries = [
                FinishedRun(f"trial {n}", {"w": n}, {"x": n / 7}, {"kind": "trial"}) for n in range(known, trials)
            ]
            tracker.log_batch_of_runs("case", run.id, entries)
            journal.parent.mkdir(parents=True, exist_ok=True)
            with journal.open("a") as handle:
                handle.write(f"{trials}\n")
        return run.id

    run = study_on(machine("a"), 2)
    assert study_on(machine("b"), 3) == run
    for name in ("a", "c"):
        tracker = machine(name)
        tracker.fetch_study("case", "k")
        assert {child.name: child.metrics["x"] for child in tracker.children(run)} == {
            f"trial {n}": n / 7 for n in range(3)
        }
        assert (tracker.workspace / "studies" / "case-k" / "journal.log").read_text() == "2\n3\n"
    own = machine("a").workspace / "studies" / "case-k" / "journal.log"
    own.write_text("gone on here\n")
    study_on(machine("c"), 4)
    machine("a").fetch_study("case", "k")
    assert own.read_text() == "gone on here\n"


def test_a_run_of_a_shard_waits_for_its_sweep_on_any_machine(machine: Machine) -> None:
    first = machine("a")
    with handing.begin(first.workspace, "case", "point", {"size": 8}, {}, collector={"sweep_key": "k"}) as point:
        point.metrics({"eps_E": 0.5})
        fields.write(point.store, GROUPS, {"run": point.id, "record": point.record()}, check=False)
        point.text("spec.toml", "size = 8\n")
    assert first.lasting is not None
    first.lasting.send()
    second = machine("b")
    assert second.history() == []
    (waiting,) = handing.waiting(second.workspace)
    assert waiting["id"] == point.id
    sweep = sweep_on(second, 1)
    for tracker in (machine("b"), machine("c"), machine("a")):
        (child,) = tracker.children(sweep)
        assert (child.id, child.metrics) == (point.id, {"eps_E": 0.5})
        assert fields.read(tracker.store_of(point.id))["small"].to_dataset().identical(GROUPS["small"])
        assert (tracker.artifacts_dir(point.id) / "spec.toml").read_text() == "size = 8\n"


def test_on_a_server_runs_have_the_bucket_as_their_place(bucket: str, tmp_path: Path) -> None:
    for address in ("http://127.0.0.1:5000", f"sqlite:///{tmp_path}/shared.db"):
        assert Tracker(folder_of(bucket), address=address).home.tags() == {"workspace": bucket}
        assert Tracker(tmp_path, address=address).home.tags()["workspace"].endswith(f":{tmp_path}")


def test_a_failed_run_lasts_and_a_stopped_one_is_sent_by_the_next_command(machine: Machine) -> None:
    first = machine("a")
    with pytest.raises(ValueError, match="bad"), first.start("case", "failed", {}, {}):
        raise ValueError("bad")
    with pytest.raises(KeyboardInterrupt), first.start("case", "stopped", {}, {}):
        raise KeyboardInterrupt
    assert [(r.name, r.status, r.tags["error"]) for r in machine("b").history()] == [("failed", "FAILED", "bad")]
    assert first.lasting is not None
    first.lasting.send()
    assert {(r.name, r.status) for r in machine("b").history()} == {("failed", "FAILED"), ("stopped", "KILLED")}
