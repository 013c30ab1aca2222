"""The command `dislobench`: how it begins and how it ends; its commands are in `suite.commands`.

Exit codes: 0 done, 1 an unexpected error, 2 a bad spec or command, 3 an outcome that cannot be used (a dipole that
annihilates, a model that does not relax), 4 a damaged or missing store or run, 130 interrupted, 143
terminated (SIGTERM).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.addresses import TRACKING, ignored_tracking
from store.faults import Fault
from suite.arguments import build_parser
from suite.children import PARENT
from suite.commands import look, run, shell, study
from suite.text import printable

INTERRUPTED = 130


class Terminated(KeyboardInterrupt):
    """A signal that asks this process to end, such as SIGTERM of a batch system: ends a command as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def _ends_cleanly() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Terminated`, where they are not ignored (nohup), and in the main thread only.

    The first signal, or Ctrl-C, ends the command; later ones do not disturb its tidying up, but for a second Ctrl-C.
    """
    import threading

    defaults = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }

    def end(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number, default in defaults.items():
            if signal.getsignal(number) is default:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    code = _command(arguments)
    if arguments is None:  # the answer is out: Ctrl-C while the interpreter ends would only leave a traceback
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if (execution := sys.modules.get("suite.execution")) is not None:
            execution.leave(code)
    return code


def _command(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    with _ends_cleanly(), _tracking(options):
        try:
            if parent := os.environ.pop(PARENT, None):
                from suite.execution import end_with

                end_with(int(parent), signal.SIGTERM)
            with _lasting(options, quiet=parent is not None):
                return COMMANDS[options.command](options)
        except Fault as fault:
            _report(options, str(fault), fault.exit_code)
            return fault.exit_code
        except OSError as error:
            from store.seal import disk_fault

            place = error.filename or getattr(options, "workspace", None) or Path.cwd()
            if (refusal := disk_fault(Path(str(place)), error)) is None:
                raise
            _report(options, str(refusal), refusal.exit_code)
            return refusal.exit_code
        except KeyboardInterrupt as stop:
            return _stopped(options, stop)


def _stopped(options: argparse.Namespace, stop: KeyboardInterrupt) -> int:
    """End the workers, tell, and return the exit code."""
    if "suite.execution" in sys.modules:
        from suite.execution import stop_workers

        stop_workers()
    how, code = ("terminated", stop.exit_code) if isinstance(stop, Terminated) else ("interrupted", INTERRUPTED)
    left = (
        "the server has ended" if options.command == "ui" else "finished stages are cached, so the same command goes on"
    )
    _report(options, f"{how}; {left}", code)
    return code


def _report(options: argparse.Namespace, message: str, code: int) -> None:
    if getattr(options, "json", False):
        print(json.dumps({"error": message, "exit": code}))
    print(f"dislobench: {printable(message)}", file=sys.stderr)


@contextmanager
def _tracking(options: argparse.Namespace) -> Iterator[None]:
    """Inside the `with` block --tracking-uri decides for this process and its children. Says that an address in the
    environment is not used."""
    before = os.environ.get(TRACKING)
    if "workspace" not in options:
        given = None
    elif (given := options.tracking_uri) is not None:
        os.environ[TRACKING] = given
    elif PARENT not in os.environ and (told := ignored_tracking(options.workspace)):  # the parent has told it
        print(f"dislobench: {told}", file=sys.stderr)
    try:
        yield
    finally:
        if given is not None:
            os.environ.pop(TRACKING)
            os.environ |= {} if before is None else {TRACKING: before}


@contextmanager
def _lasting(options: argparse.Namespace, quiet: bool) -> Iterator[None]:
    """Of a workspace in a bucket: fetch the runs of other machines before the `with` block, and send what has ended
    here after it, unless the command was stopped. Tells of both on standard error, unless `quiet`."""
    from store.objects import bucket_of

    bucket = bucket_of(options.workspace) if "workspace" in options else None
    if bucket is None:
        yield
        return
    from store.runs import Tracker
    from suite.commands.common import make_workspace
    from suite.judge.numbers import group_of

    make_workspace(bucket.folder)
    lasting = Tracker(bucket.folder, group_of).lasting
    assert lasting is not None
    for sentence in lasting.begin():
        if not quiet:
            _say(sentence)
    try:
        yield
    except Fault:
        try:
            lasting.send()
        except Fault as second:
            _say(str(second))
        raise
    for sentence in lasting.send()[1]:
        _say(sentence)
    if (told := bucket.traffic.told()) and not quiet:
        _say(f"{bucket.where}: {told}")


def _say(sentence: str) -> None:
    print(f"dislobench: {printable(sentence)}", file=sys.stderr)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run.run,
    "export": run.export,
    "data": run.data,
    "scan": run.scan,
    "tune": study.tune,
    "sweep": study.sweep,
    "paper": study.paper,
    "verify": study.verify,
    "report": look.report,
    "leaderboard": study.leaderboard,
    "list": look.list_known,
    "check": look.check,
    "plan": look.plan,
    "show": look.show,
    "view": look.view,
    "runs": look.runs,
    "compare": look.compare,
    "repair": look.repair,
    "ui": look.ui,
    "doctor": look.doctor,
    "completion": shell.completion,
}


if __name__ == "__main__":
    sys.exit(main())
