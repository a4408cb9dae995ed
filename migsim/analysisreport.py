"""An analysis as text for a terminal and as JSON for a program."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .analysis import Analysis
from .journal import Journal
from .missing import TRACE_OPTIONS
from .report import clean

MOST_WINDOWS = 12


def as_dict(found: Sequence[Analysis]) -> dict[str, Any]:
    """What `migsim analyze --json` prints: one entry per migration; where a number is null, its `_note` says why."""
    return {"migrations": [_entry(a) for a in found]}


def _entry(a: Analysis) -> dict[str, Any]:
    lead = a.sides[0]
    return {
        "status": a.status, "error": a.error, "sides": list(a.sides), "start": _start(a),
        "vfio_bytes": a.vfio_bytes, "vfio_bytes_note": a.vfio_bytes_note,
        "downtime_ms": _ms(a.downtime_us), "downtime_note": a.downtime_note,
        "guest_downtime_ms": _ms(a.guest_downtime_us), "guest_downtime_note": a.guest_downtime_note,
        "scheme": a.scheme.get(lead) or None, "base": a.base[lead].name or None, "ends_agree": a.ends_agree,
        "ends": {side: {"scheme": a.scheme[side] or None, "base": a.base[side].name or None,
                        "bases": str(a.base[side])} for side in a.sides},
        "clock_offset_ms": a.clock.ms, "clock_offset_low_ms": a.clock.low, "clock_offset_high_ms": a.clock.high,
        "clock_offset_how": a.clock.how,
        "downtime_ledger": [{"what": s.what, "device": s.device, "ms": s.us / 1000} for s in a.downtime_ledger],
        "kept_out": a.rows("kept_out"), "ack_would": a.rows("ack_would"),
        "ack_ledger": a.rows("acks"), "why_not_earlier_ms": a.why_not_earlier, "convergence": a.rows("convergence"),
        "rules": [{"id": v.id, "verdict": v.verdict, "reason": v.reason, "lines": [a.line(k) for k in v.events]}
                  for v in a.rules],
        "timeline": a.rows("timeline"), "missing": a.missing, "notes": [*a.journal.notes, *a.notes]}


def _ms(us: int | None) -> float | None:
    return None if us is None else us / 1000


def _start(a: Analysis) -> str:
    from datetime import timedelta

    return (a.journal.start + timedelta(microseconds=a.start_us)).isoformat()
