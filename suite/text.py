"""Text and numbers on their way to a terminal."""

from __future__ import annotations

import unicodedata
from typing import Any

REPLACEMENT = "�"


def printable(text: str) -> str:
    """`text` with every control and direction character replaced, but for line breaks and tabs.

    Names of runs and keys of specs are other people's text: an escape code among them could move the cursor, rewrite
    lines that were printed before, or set the title of the window.
    """
    return "".join(REPLACEMENT if _acts(character) else character for character in text)


def _acts(character: str) -> bool:
    if character in "\n\t":
        return False
    # Cc: control characters; Cf: invisible ones, among them those that turn the direction of a line; Cs: half a pair
    return unicodedata.category(character) in ("Cc", "Cf", "Cs")


def short(value: Any) -> str:
    """A value in a table: a float with four digits, "-" for None."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
