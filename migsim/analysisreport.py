"""An analysis as text for a terminal and as JSON for a program."""
from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from .analysis import Analysis
from .journal import Journal
from .missing import TRACE_OPTIONS
from .report import clean

WIDTH = 120
MOST_WINDOWS = 12  # of the convergence table, if not all are asked for
MOST_LINES = 200  # of any other table
SMALL = 0.01  # parts of the downtime below a hundredth share a line


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
    """When the migration was set up, UTC."""
    return (a.journal.start + timedelta(microseconds=a.start_us)).isoformat()


def summary(found: Sequence[Analysis], journal: Journal, everything: bool = False) -> str:
    """What `migsim analyze` prints. `everything`: each window, part of the downtime, moment and rule."""
    lines = [] if found else [f"no migration in {len(journal)} events"]
    for a in found:
        lines += _head(a, len(found))
        for title, rows in (("ACKs, ms after setup", _acks(a, everything)), ("downtime", _downtime(a, everything)),
                            ("why the switchover did not come earlier (windows in ms after setup; bytes)",
                             _convergence(a, everything)),
                            ("timeline, ms after setup", _timeline(a, everything)), ("rules", _rules(a, everything))):
            lines += ["", title, *(f"  {row}".rstrip() for row in rows)] if rows else []
        lines += ["", *(f"missing: {clean(text)}" for text in a.missing)] if a.missing else []
        lines += [""] if a is not found[-1] else []
    lines += [f"note: {clean(note)}" for note in dict.fromkeys([*journal.notes, *(n for a in found for n in a.notes)])]
    if not found or any(a.missing for a in found):
        lines.append(f"QEMU traces what is read here with {TRACE_OPTIONS}")
    return "\n".join(lines) + "\n"


def _head(a: Analysis, count: int) -> list[str]:
    """The outcome in a few lines."""
    lead = a.sides[0]
    ends = ", ".join(f"{side} {a.base[side]} ({a.scheme[side] or 'unknown'} ack)" for side in a.sides)
    agree = {True: "; both ends agree", False: "; THE ENDS DISAGREE", None: ""}[a.ends_agree]
    lines = [f"migration {a.number} of {count}: {a.status}" + (f": {clean(a.error)}" if a.error else ""),
             f"begun       {_start(a)} by the {lead}'s clock", f"written by  {ends}{agree}"]
    if a.clock.low is not None or a.clock.high is not None or a.clock.how == "given":
        lines.append(f"clock       the destination's is {a.clock.ms:.3f} ms ahead{_sure(a)}")
    lines += [f"downtime    {_or_why(a.downtime_us, a.downtime_note)} as QEMU reports it",
              f"            {_or_why(a.guest_downtime_us, a.guest_downtime_note)} as the guest feels it"]
    size = f"{a.vfio_bytes} bytes" if a.vfio_bytes is not None else f"unknown ({a.vfio_bytes_note})"
    return [*lines, f"VFIO data   {size}"]


def _sure(a: Analysis) -> str:
    """How sure the clock offset is."""
    low, high = ("?" if x is None else f"{x:.3f}" for x in (a.clock.low, a.clock.high))
    against = "" if a.clock.low is None or a.clock.high is None or a.clock.low <= a.clock.high else \
        ": THE MESSAGES CONTRADICT EACH OTHER"
    return f" ({'given; ' if a.clock.how == 'given' else ''}messages allow {low} to {high} ms{against})"


def _or_why(us: int | None, note: str) -> str:
    """A downtime, or why there is none."""
    return f"{us / 1000:.1f} ms" + (f" ({note})" if note else "") if us is not None else f"none ({note})"


def _acks(a: Analysis, everything: bool) -> list[str]:
    """The ACK ledger, who was waited for last, what never came."""
    rows = [list(r.values()) for r in a.rows("acks")]
    if not rows:
        return ["none was asked for"]
    out = capped(table("device why asked marker loaded approved counted", rows), everything)
    if a.waited_for:
        out.append(f"waited for last: {clean(a.waited_for.device) or 'the destination'} ({a.waited_for.why})")
    never = [x for x in a.acks if x.counted is None] if a.scheme.get("source") == "new" else []
    return out + capped([f"never counted: {clean(x.device)} ({x.why})" for x in never], everything)


def _downtime(a: Analysis, everything: bool) -> list[str]:
    """The ledger; small parts together; what ACKs kept out of it."""
    least = 0 if everything else SMALL * (a.downtime_us or 0)
    rows = [[s.what, s.device, s.us / 1000] for s in a.downtime_ledger if s.us >= least]
    small = [s.us for s in a.downtime_ledger if s.us < least]
    rows += [[f"{len(small)} small parts", "", sum(small) / 1000]] * bool(small)
    total = ["sum", "", sum(s.us for s in a.downtime_ledger) / 1000]
    out = capped(table("what device ms", [*rows, total]), everything) if rows else []
    acks = (("switchover-ack kept out", a.kept_out), ("one more ACK would have kept out", a.ack_would))
    for text, kept in acks if a.downtime_us is not None else ():
        out += [f"{text}: {k.us / 1000:.1f} ms of {clean(k.device)} ({k.why})" for k in kept]
    return out


def _convergence(a: Analysis, everything: bool) -> list[str]:
    """The windows before the switchover, the last ones if there are many."""
    some = a.convergence if everything else a.convergence[-MOST_WINDOWS:]
    out = [", ".join(f"{reason} {ms:.1f} ms" for reason, ms in a.why_not_earlier.items())] if a.why_not_earlier else []
    if len(some) < len(a.convergence):
        out.append(f"the last {len(some)} of {len(a.convergence)} windows; --all shows all")
    rows = [[a.ms(r.us), r.queries, r.exact, r.pending_low, r.pending_high, r.threshold, r.acks, r.reason]
            for r in some]
    return out + (table("from queries exact pending_low pending_high threshold ACKs_due reason", rows) if rows else [])


def _timeline(a: Analysis, everything: bool) -> list[str]:
    """From setup to the end, with states as QEMU's documentation writes them: (VM, migration, device)."""
    rows = [[a.ms(m.us), m.side, m.device, m.states, m.what] for m in a.timeline
            if a.start_us - 100_000 <= m.us <= a.end_us + 100_000]
    return capped(table("ms side device states what", rows), everything) if rows else []


def _rules(a: Analysis, everything: bool) -> list[str]:
    """What is violated, with the lines that show it; the others by verdict."""
    out = []
    for v in a.rules:
        if v.verdict == "violated" or everything:
            lines = ", ".join(a.line(k) for k in v.events[:8]) + (" ..." if len(v.events) > 8 else "")
            verdict = v.verdict.upper() if v.verdict == "violated" else v.verdict
            out.append(f"{verdict:8s} {v.id}" + (f": {clean(v.reason)}" if v.reason else "")
                       + (f" ({lines})" if lines else ""))
    for verdict in () if everything else ("holds", "vacuous", "n/a", "unknown"):
        ids = ", ".join(v.id for v in a.rules if v.verdict == verdict)
        out += textwrap.wrap(ids, WIDTH - 11, break_on_hyphens=False, initial_indent=f"{verdict:8s} ",
                             subsequent_indent=" " * 9) if ids else []
    return out


def capped(lines: list[str], everything: bool) -> list[str]:
    """No more than MOST_LINES of a table, or all."""
    if everything or len(lines) <= MOST_LINES:
        return lines
    return [*lines[:MOST_LINES], f"... {len(lines) - MOST_LINES} more; --all shows all"]


def table(titles: str, rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table; numbers stand right, None is a dash."""
    cells = [[title.replace("_", " ") for title in titles.split()], *([_cell(v) for v in row] for row in rows)]
    right = [all(v is None or isinstance(v, int | float) for v in column) for column in zip(*rows, strict=True)]
    width = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{c:>{w}}" if r else f"{c:{w}}" for c, w, r in zip(row, width, right, strict=True))
            for row in cells]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else clean(str(value))
