"""Foreseen failures: one class for each exit code of the command line.

A message of a fault names what is wrong, where, and the cure, so that the command line prints it without a traceback.
Any other exception is a defect of dislobench.
"""


class Fault(Exception):
    """A foreseen failure; `exit_code` is that of the command it ends."""

    exit_code = 1


class BadInput(Fault):
    """What the user asked for cannot be done: a bad spec, an unknown name, an impossible combination."""

    exit_code = 2


class FailedOutcome(Fault):
    """A calculation that ended without a usable result: an unstable crystal, a relaxation that ran away.

    It is a result about the potential or the settings; a ladder of runs records it and goes on.
    """

    exit_code = 3


class BadStore(Fault):
    """A workspace, a store, or a run that is missing, damaged, or cannot be written."""

    exit_code = 4
