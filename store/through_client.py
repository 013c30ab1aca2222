"""Runs read and written through MLflow's client: slower than `store.listing`, but it works for every server and
database."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from store.listing import PARENT, RunRecord
from store.naming import ungrouped

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

MARK = "dislobench"
"""Tag of the experiments that dislobench made on a server, where other people's experiments lie too."""
_PAGE = 1000


def read(
    client: MlflowClient,
    *,
    marked: bool = False,
    experiment: str | None = None,
    run_id: str | None = None,
    prefix: str = "",
    tagged: tuple[str, str] | None = None,
    limit: int | None = None,
    **equal: str,
) -> list[RunRecord]:
    """The same result as `listing.read`; `equal` are its other conditions. With `marked` only experiments with the
    tag `MARK` count."""
    names = _experiments(client, marked, experiment)
    if run_id is not None:
        found = [_record(raw, names) for raw in _one(client, run_id)]
    else:
        found = [_record(raw, names) for raw in _pages(client, names, _filter(equal, tagged))]
    chosen = [
        record
        for record in found
        if record.experiment
        and record.id.startswith(prefix)
        and (tagged is None or record.tags.get(tagged[0]) == tagged[1])
        and all(getattr(record, name) == value for name, value in equal.items())
    ]
    return chosen[:limit]


def known_ids(client: MlflowClient) -> set[str]:
    """Ids of all runs, those deleted in the UI too."""
    from mlflow.entities import ViewType

    names = {e.experiment_id: e.name for e in client.search_experiments(ViewType.ALL, max_results=50_000)}
    return {raw.info.run_id for raw in _pages(client, names, "", ViewType.ALL)}


def metric_keys(client: MlflowClient, experiment: str) -> list[str]:
    """The same result as `listing.metric_keys`."""
    names = _experiments(client, False, experiment)
    return sorted({key for raw in _pages(client, names, "") for key in raw.data.metrics})


def record_of(raw: MlflowRun, experiment: str) -> RunRecord:
    """A run of MLflow's client as a record; its experiment has this name."""
    started = datetime.fromtimestamp(raw.info.start_time / 1000, UTC)
    return RunRecord(
        id=raw.info.run_id,
        name=raw.info.run_name,
        experiment=experiment,
        status=raw.info.status,
        start=started.isoformat(timespec="milliseconds"),
        parameters=dict(raw.data.params),
        metrics=ungrouped(raw.data.metrics.items()),
        tags={k: v for k, v in raw.data.tags.items() if not k.startswith("mlflow.")},
        parent=raw.data.tags.get(PARENT),
        place=raw.info.artifact_uri,
    )


def _record(raw: MlflowRun, names: dict[str, str]) -> RunRecord:
    return record_of(raw, names.get(raw.info.experiment_id, ""))


def _experiments(client: MlflowClient, marked: bool, experiment: str | None) -> dict[str, str]:
    """Names of the active experiments by id: of all, or of the one that is wanted."""
    found = client.search_experiments(max_results=50_000, filter_string=f"tags.{MARK} != ''" if marked else None)
    return {e.experiment_id: e.name for e in found if experiment in (None, e.name)}


def _one(client: MlflowClient, run_id: str) -> list[MlflowRun]:
    """The run with this id; none if there is none, or if it was deleted in the UI."""
    from mlflow.exceptions import MlflowException

    try:
        raw = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return []
        raise
    return [raw] if raw.info.lifecycle_stage == "active" else []


def _filter(equal: dict[str, str], tagged: tuple[str, str] | None) -> str:
    """The conditions that the server can apply itself; texts with both kinds of quotes are left to the caller."""
    columns = {"status": "attributes.status", "name": "attributes.run_name", "parent": f"tags.`{PARENT}`"}
    wanted = [(columns[name], value) for name, value in equal.items()]
    if tagged is not None:
        wanted.append((f"tags.`{tagged[0]}`", tagged[1]))
    parts = []
    for column, value in wanted:
        if "'" not in value:
            parts.append(f"{column} = '{value}'")
        elif '"' not in value:
            parts.append(f'{column} = "{value}"')
    return " AND ".join(parts)


def _pages(
    client: MlflowClient, experiments: Collection[str], conditions: str, view: Any = None
) -> Iterator[MlflowRun]:
    """Runs of the experiments with these ids, newest first."""
    from mlflow.entities import ViewType

    token = None
    while experiments:
        page = client.search_runs(
            list(experiments),
            conditions,
            ViewType.ACTIVE_ONLY if view is None else view,
            max_results=_PAGE,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        yield from page
        if not (token := page.token):
            return
