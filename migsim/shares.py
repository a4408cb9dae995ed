"""Whose milliseconds the downtime was: the downtime ledger in as few numbers as a bar can show."""
from __future__ import annotations

from .downtime import LATE, OTHER, Share, downtime_ledger
from .journal import Journal

STOP = ("stop", "final check", "final sync", "pause-before-switchover")
NOBODY = ("", "ram", OTHER)
OURS = ("stop", "late chunks", "rest")


def downtime_shares(journal: Journal) -> dict[str, float]:
    """Whose -> ms; it sums to the downtime, and is empty without one.

    `stop`: vCPUs, final check, final sync; `late chunks`: loads of what was sent before the stop; each device in the
    order of its data; `rest`: RAM, other devices, the start.
    """
    parts = downtime_ledger(journal)
    if not parts:
        return {}
    first = [p for p in parts if p.what in ("save", "transfer", "load")]
    shares = dict.fromkeys(["stop", "late chunks", *(n for n in map(_whose, first) if n not in OURS), "rest"], 0.0)
    for part in parts:
        name = _whose(part)
        shares[name if name in shares else "rest"] += part.us / 1000
    return shares


def _whose(part: Share) -> str:
    if part.what in STOP:
        return "stop"
    if part.what == LATE:
        return "late chunks"
    if part.device in NOBODY:
        return "rest"
    return f"{part.device} (device)" if part.device in OURS else part.device
