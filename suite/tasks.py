"""Tasks for a cluster, and the order in which they may begin.

Runs that share a world would compute it once each if they began together, or wait for each other with idle workers. So
the first of them begins alone, and the others when what it makes is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """One call for a cluster: `function(*arguments)`, importable by its name, with arguments and a result that can be
    pickled.

    `kind` and `name` say what is computed; a dashboard counts the tasks of one kind together. `makes` are keys of what
    the task computes on its way and leaves for others.
    """

    kind: str
    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    makes: tuple[str, ...] = ()


class Order:
    """Indices of tasks in the order in which they may begin: never two at once that would make the same thing.

    order = Order([task.makes for task in tasks])
    while (index := order.next()) is not None: ...     # begin this task
    order.ended(index, made=True)                      # more may begin now
    """

    def __init__(self, makes: Sequence[Sequence[str]]) -> None:
        self._waiting: dict[frozenset[str], deque[int]] = {}
        for index, keys in enumerate(makes):
            self._waiting.setdefault(frozenset(keys), deque()).append(index)
        self._begun: dict[int, frozenset[str]] = {}  # what each of them is making
        self._made: set[str] = set()

    def next(self) -> int | None:
        """The next task that may begin, which counts as begun; None when there is none now."""
        busy = frozenset().union(*self._begun.values())
        for keys, indices in self._waiting.items():
            missing = keys - self._made
            if missing & busy:
                continue
            index = indices.popleft()
            if not indices:
                del self._waiting[keys]
            self._begun[index] = missing
            return index
        return None

    def ended(self, index: int, made: bool) -> None:
        """A task has ended; `made` says whether what it makes is there now. If not, another task has to make it."""
        keys = self._begun.pop(index)
        if made:
            self._made |= keys

    @property
    def left(self) -> int:
        """How many tasks have not begun."""
        return sum(map(len, self._waiting.values()))
