"""Which outcome of a command is right: rules that all parts share. Each returns what is wrong, or ""."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from processes import ROOT, TRACEBACK, Done


def of_ending(done: Done, codes: Sequence[int]) -> str:
    """A command ends, without a traceback, with one of `codes`, and says why when that is not 0."""
    if done.hung:
        return f"hangs: ended after {done.seconds:.0f} s"
    if done.traced:
        return f"a traceback: {_cause(done)}"
    if done.code < 0 and done.code not in codes:
        return f"died of {signal.Signals(-done.code).name}: {done.last_words()}"
    if done.code not in codes:
        return f"exit {done.code}, not {' or '.join(map(str, codes))}: {done.last_words()}"
    if done.code > 0 and not re.search(r"^dislobench: \S", done.err, re.MULTILINE):
        return f"exit {done.code} without a sentence"
    return ""


def of_word(done: Done, names: Sequence[str], also: str = "") -> bool:
    """Whether the command names one of `names`; long lines may be broken by a table."""
    told = re.sub(r"\s+", "", done.out + done.err + also)
    return any(re.sub(r"\s+", "", name) in told for name in names)


def _cause(done: Done) -> str:
    """The last frame of our own and the error of the last traceback."""
    text = done.err if TRACEBACK in done.err else done.out
    return cause_of(text[text.rindex(TRACEBACK) :])


def cause_of(trace: str) -> str:
    """The error of a traceback and the last frame of dislobench in it."""
    frames = re.findall(rf'File "{re.escape(str(ROOT))}/((?:suite|store)/[^"]+)", line \d+, in (\S+)', trace)
    errors = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception|Interrupt|Warning|Fault|Exit)\b.*)$", trace, re.MULTILINE)
    where = " ".join(frames[-1]) if frames else "outside suite and store"
    return f"{errors[-1][:200] if errors else trace.strip().splitlines()[-1][:200]} ({where})"


def signature_of(text: str) -> str:
    """`text` without what differs between cases of one defect: quotes, numbers, places."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "'…'", text.splitlines()[0] if text else "")
    text = re.sub(r"\S*/\S+", "PATH", text)
    return re.sub(r"[0-9a-f]{8,}|-?\d+(\.\d+)?(e[+-]?\d+)?", "#", text)[:160]
