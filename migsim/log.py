"""QEMU's trace logs, read fast and with flat memory: protocol events are kept, loop turns and unknown events folded.

`read_log` gives a Journal, so everything that takes one works. In progress: the fast path and the folds.
"""
from __future__ import annotations

from pathlib import Path

from .journal import Journal, read_journal


def read_log(source: str | Path | None, destination: str | Path | None = None, *, full: bool = False) -> Journal:
    """A journal from the logs of one or both sides, plain, gzip or xz. Raises JournalError, one line.

    `full`: fold nothing (up to a limit).
    """
    if source is None:
        raise ValueError("read_log: give the source's log, the destination's or both")
    return read_journal(source, destination)
