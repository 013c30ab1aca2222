"""Where the trials of a study are kept: in a journal in the workspace, or in a database that many hosts share.

    kept = kept_at(place)
    with kept.turn():
        study.tell(last, values)
        trial = study.ask()
    with kept.working(trial):
        ...

Imports Optuna when a study is opened.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from store.addresses import shown
from store.locking import locked
from store.remote import NoAnswer, no_answer
from suite.study.trials import open_journal

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "journal.log"
INTERVAL, GRACE = 10, 40  # seconds between signs of life of a trial, and until a trial without one is taken for dead
RETRIES = 3  # of a trial whose process died
LOOK = 1.0  # seconds between two looks at the trials of other hosts
CREATIONS = 5  # attempts to make the tables, which several hosts may begin at once


class Place(NamedTuple):
    """Where a study is kept: its name, which is its content key, its folder in the workspace, and the address of the
    database of its trials ("" for the journal in the folder)."""

    key: str
    folder: Path
    storage: str = ""


class Kept(Protocol):
    """An opened storage of trials. Each process opens its own."""

    shared: bool
    """Whether other commands may work on the study at the same time."""

    @property
    def storage(self) -> BaseStorage:
        """For Optuna's studies."""
        ...

    def answering(self) -> AbstractContextManager[None]:
        """Use the study inside: errors of the storage are faults, with the cure."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Create the study inside, where no other process makes a trial."""
        ...

    def turn(self) -> AbstractContextManager[None]:
        """End a trial and begin the next one inside."""
        ...

    def begun(self, study: Study) -> int:
        """How many trials are complete or running."""
        ...

    def working(self, trial: Trial) -> AbstractContextManager[None]:
        """Work on a trial inside: others can see that it is alive."""
        ...

    def revive(self, study: Study) -> None:
        """Queue the parameters of trials again whose process is dead."""
        ...

    def wait(self, study: Study) -> None:
        """Nothing is left to begin: wait until a trial of another process has ended or is dead."""
        ...

    def close(self) -> None:
        """Make sure that what was told is on the disk, and end all connections; using it again opens new ones."""
        ...


def dashboard_of(place: Place) -> str:
    """The storage of a study as the argument of optuna-dashboard, without a password."""
    return shown(place.storage) if place.storage else str(place.folder / JOURNAL)


def kept_at(place: Place) -> Kept:
    """Open the storage of a study; raises StoreError for a damaged journal, NoAnswer for a database out of reach."""
    return InDatabase(place.storage) if place.storage else InJournal(place.folder)


class InJournal:
    """The journal in the folder of the study, one command at a time (`sampling.only_one`)."""

    shared = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.storage = open_journal(folder / JOURNAL)

    def answering(self) -> AbstractContextManager[None]:
        return nullcontext()  # the journal's own errors are faults

    @contextmanager
    def alone(self) -> Iterator[None]:
        # Optuna writes an entry that creates the study even when it is there already: a worker that begins late would
        # write it between the reading and the writing of another worker
        with locked(self._folder):
            yield

    @contextmanager
    def turn(self) -> Iterator[None]:
        # under a lock, or two workers could both start the last trial; the last result and the next trial are one write
        with locked(self._folder), self.storage.together():
            yield

    def begun(self, study: Study) -> int:
        return self.storage.begun(study._study_id)

    def working(self, trial: Trial) -> AbstractContextManager[None]:
        return nullcontext()

    def revive(self, study: Study) -> None:
        requeue(study, running(study))

    def wait(self, study: Study) -> None:
        pass  # all trials are those of this command

    def close(self) -> None:
        self.storage.flush()


class InDatabase:
    """A database that Optuna can use (RDBStorage), shared by any number of commands and hosts.

    A trial gives a sign of life when it begins and every `INTERVAL` seconds; one without a sign for `GRACE` seconds is
    failed and tried again, `RETRIES` times at most.
    """

    shared = True

    def __init__(self, address: str) -> None:
        self._where = shown(address)
        self._trial: int | None = None
        self._over = threading.Event()
        self._beating: threading.Thread | None = None
        with self.answering(), _quiet():
            self.storage = _opened(address)

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()  # transactions keep processes apart

    def turn(self) -> AbstractContextManager[None]:
        return _quiet()

    def begun(self, study: Study) -> int:
        import optuna

        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.RUNNING)
        return len(study.get_trials(deepcopy=False, states=states))

    @contextmanager
    def working(self, trial: Trial) -> Iterator[None]:
        self.storage.record_heartbeat(trial._trial_id)
        if self._beating is None:
            self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._beating.start()
        self._trial = trial._trial_id
        try:
            yield
        finally:
            self._trial = None

    def _beat(self) -> None:
        while not self._over.wait(INTERVAL):
            if (trial := self._trial) is not None:
                with suppress(Exception):  # the thread of the trial tells when the database does not answer
                    self.storage.record_heartbeat(trial)

    def revive(self, study: Study) -> None:
        import optuna

        with _quiet():
            optuna.storages.fail_stale_trials(study)

    def wait(self, study: Study) -> None:
        before = [trial.number for trial in running(study)]
        patience = self._patience(study)
        begun = time.monotonic()
        while before and [trial.number for trial in running(study)] == before:
            time.sleep(LOOK)
            self.revive(study)
            if time.monotonic() - begun > patience:  # killed before their first sign of life: nothing else ends them
                requeue(study, running(study))

    def _patience(self, study: Study) -> float:
        """Seconds in which a trial that is alive has ended."""
        taken = [trial.duration.total_seconds() for trial in study.get_trials(deepcopy=False) if trial.duration]
        return max(2 * GRACE, 20 * max(taken, default=0.0))

    def close(self) -> None:
        self._over.set()  # every entry was committed when it was told
        self.storage.remove_session()
        self.storage.engine.dispose()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn errors of the connection into `NoAnswer`, without the password that their messages may hold."""
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (StorageInternalError, SQLAlchemyError, ImportError) as error:
            cause = error.__cause__ or error
            fault = no_answer(self._where, cause if isinstance(cause, Exception) else error, "--storage")
            raise NoAnswer(f"{fault}. Trials that had ended are kept: give the same command again") from None


def _opened(address: str) -> RDBStorage:
    """Optuna's storage; its tables are made when they are missing."""
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for attempt in range(CREATIONS):
        try:
            return RDBStorage(
                address,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=INTERVAL,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
            )
        except (IntegrityError, ProgrammingError):  # another host made the same table first
            if attempt == CREATIONS - 1:
                raise
            time.sleep(LOOK)
    raise AssertionError


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings that heartbeats are experimental and meant for `optimize`."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used")
        yield


def running(study: Study) -> list[FrozenTrial]:
    """The trials that have begun and not ended."""
    import optuna

    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))


def requeue(study: Study, dead: Sequence[FrozenTrial]) -> None:
    """Mark trials of dead processes as failed, and queue their parameters again."""
    import optuna

    for trial in dead:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        if trial.params:
            study.enqueue_trial(trial.params, user_attrs=dict(trial.user_attrs))
        elif "fixed_params" in trial.system_attrs:
            study.enqueue_trial(trial.system_attrs["fixed_params"], user_attrs=dict(trial.user_attrs))
