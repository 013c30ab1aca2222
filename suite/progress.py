"""How work that takes long tells what it does."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float, str], None]  # what is done, fraction in [0, 1], a note


def silent(what: str, fraction: float, note: str) -> None:
    """Progress that nobody sees."""
