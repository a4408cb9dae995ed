"""An analysis as plain text and as JSON. What comes from a log is data: control characters are shown, not obeyed."""
from __future__ import annotations

import textwrap
from typing import Any

from .analysis import Analysis
from .journal import Journal
from .missing import TRACE_OPTIONS
from .report import clean

WIDTH = 110
MOST_ROWS = 40  # of the timeline and the convergence; --json has them all


def table(rows: list[dict[str, Any]], names: dict[str, str], indent: str = "  ") -> list[str]:
    """Rows as columns; `names`: column -> its heading. Numbers stand right, None is a dash."""
    cells = [list(names.values())] + [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(len(line[k]) for line in cells) for k in range(len(names))]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in names]
    return [(indent + "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
             ).rstrip() for line in cells]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else clean(str(value))[:60]


def ms(us: int | None, note: str) -> str:
    """A duration, or why there is none."""
    return f"{us / 1000:.3f} ms" + (f" ({note})" if note else "") if us is not None else f"unknown: {note}"


def summary(analyses: list[Analysis], journal: Journal) -> str:
    """What `migsim analyze` prints."""
    lines: list[str] = []
    for a in analyses:
        lines += one(a) + [""]
    lines += [f"note: {clean(note)}" for note in journal.notes]
    if any(a.missing for a in analyses):
        lines.append(f"to have everything traced: {TRACE_OPTIONS}")
    return "\n".join(lines).rstrip("\n") + "\n"


def one(a: Analysis) -> list[str]:
    """One migration."""
    error = f": {clean(a.error)}" if a.error else ""
    lines = [f"migration {a.number}: {a.status}{error}",
             "  " + ", ".join(f"{side} {a.base[side]} ({a.scheme[side] or 'unknown'} ack)" for side in a.sides)
             + {None: "", True: "", False: "; the ends DO NOT AGREE on the scheme"}[a.ends_agree],
             f"  downtime        {ms(a.downtime_us, a.downtime_note)}",
             f"  guest downtime  {ms(a.guest_downtime_us, a.guest_downtime_note)}",
             "  VFIO data       " + (f"{a.vfio_bytes} bytes" if a.vfio_bytes is not None
                                     else f"unknown: {a.vfio_bytes_note}"),
             f"  clock offset    {clock(a)}", *acks(a), *downtime(a), *waiting(a), *events(a), *rules(a)]
    return lines + [f"  missing: {clean(text)}" for text in a.missing] + [f"  note: {clean(n)}" for n in a.notes]


def clock(a: Analysis) -> str:
    """The offset and its interval."""
    if a.clock.how == "one side":
        return "unknown: nothing to compare with"
    bounds = [f"{x:+.3f}" if x is not None else "?" for x in (a.clock.low, a.clock.high)]
    odd = "" if None in (a.clock.low, a.clock.high) or a.clock.low <= a.clock.high else "; THEY CONTRADICT EACH OTHER"
    return (f"destination {a.clock.ms:+.3f} ms ({'given; ' if a.clock.how == 'given' else ''}messages allow "
            f"{bounds[0]} to {bounds[1]}{odd})")


def acks(a: Analysis) -> list[str]:
    """The ACK ledger."""
    if not a.acks:
        return ["ACKs: none was asked for, none came"]
    out = ["ACKs (ms after setup)", *table(a.rows("acks"), {
        "device": "device", "why": "why", "asked_ms": "asked", "marker_ms": "marker", "loaded_ms": "loaded",
        "approved_ms": "approved", "counted_ms": "counted"})]
    return [*out, f"  waited for last: {clean(a.waited_for.device) or 'no device'} ({a.waited_for.why})"] \
        if a.waited_for else out


def downtime(a: Analysis) -> list[str]:
    """The downtime ledger; steps below 10 us are summed up."""
    if not a.downtime_ledger:
        return []
    rows = a.rows("downtime_ledger")
    large = [r for r in rows if r["ms"] >= 0.01]
    rest = sum(s.us for s in a.downtime_ledger if s.us < 10) / 1000
    large += [{"what": f"{len(rows) - len(large)} shorter steps", "device": "", "ms": rest}] if rest else []
    total = {"what": "sum", "device": "", "ms": sum(s.us for s in a.downtime_ledger) / 1000}
    out = ["downtime", *table([*large, total], {"what": "what", "device": "device", "ms": "ms"})]
    for text, kept in (("ACKs kept out of it", a.kept_out), ("one more ACK would have kept out", a.ack_would)):
        out += [f"  {text}: " + ", ".join(f"{clean(k.device)} {k.us / 1000:.3f} ms ({k.why})" for k in kept)] \
            if kept else []
    return out


def waiting(a: Analysis) -> list[str]:
    """Why the switchover did not come earlier."""
    if not a.convergence:
        return []
    why = ", ".join(f"{reason} {spent:.0f} ms" for reason, spent in a.why_not_earlier.items()) or "nothing"
    return [f"no switchover earlier because of: {why}",
            *table(thinned(a.rows("convergence")), {
                "ms": "ms", "queries": "queries", "exact": "exact", "pending_low": "pending", "threshold": "threshold",
                "bandwidth": "bytes/ms", "acks": "ACKs due", "slept_ms": "slept", "reason": "reason"})]


def thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of long stretches with one reason the first and the last row."""
    keep = [k for k, row in enumerate(rows) if k in (0, len(rows) - 1) or row["reason"] != rows[k - 1]["reason"]
            or row["reason"] != rows[k + 1]["reason"]]
    return [rows[k] for k in keep][-MOST_ROWS:]


def events(a: Analysis) -> list[str]:
    """The timeline, of this migration alone."""
    rows = [r for r in a.rows("timeline") if -100 <= r["ms"] <= (a.ms(a.end_us) or 0) + 100]
    left = len(rows) - MOST_ROWS
    out = ["timeline (ms after setup)", *table(rows[:MOST_ROWS // 2] + rows[max(MOST_ROWS // 2, left + MOST_ROWS // 2):],
                                               {n: n for n in ("ms", "side", "device", "what", "states")})]
    return [*out, f"  {left} steps left out here; --json has them"] if left > 0 else out


def rules(a: Analysis) -> list[str]:
    """The verdicts; a violated rule with its lines and meaning."""
    out = ["rules"]
    for v in a.rules:
        out.append(f"  {v.verdict:9s} {v.id}" + (f": {clean(v.reason)}" if v.reason else ""))
        if v.verdict == "violated":
            out.append(f"            at {', '.join(map(a.line, v.events))}")
            out += textwrap.wrap(v.meaning, WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 12)
    return out


def as_dict(a: Analysis) -> dict[str, Any]:
    """One migration for `--json`; times are ms after setup. What cannot be told is null, with a reason beside it."""
    side = a.sides[0]
    low_high = [a.clock.low, a.clock.high]
    rows = {name: a.rows(name) for name in ("timeline", "convergence")}
    return {
        "status": a.status, "error": a.error, "sides": list(a.sides),
        "vfio_bytes": a.vfio_bytes, "vfio_bytes_note": a.vfio_bytes_note,
        "downtime_ms": None if a.downtime_us is None else a.downtime_us / 1000, "downtime_note": a.downtime_note,
        "guest_downtime_ms": None if a.guest_downtime_us is None else a.guest_downtime_us / 1000,
        "guest_downtime_note": a.guest_downtime_note,
        "scheme": a.scheme[side], "schemes": a.scheme, "ends_agree": a.ends_agree,
        "base": a.base[side].name, "bases": {s: str(b) for s, b in a.base.items()},
        "clock_offset_ms": None if a.clock.how == "one side" else a.clock.ms, "clock_offset_interval_ms": low_high,
        "downtime_ledger": a.rows("downtime_ledger"), "kept_out": a.rows("kept_out"), "ack_would": a.rows("ack_would"),
        "ack_ledger": a.rows("acks"), "waited_for": a.waited_for.device if a.waited_for else None,
        "why_not_earlier": a.why_not_earlier, **rows,
        "rules": [{"id": v.id, "verdict": v.verdict, "reason": v.reason, "lines": [a.line(k) for k in v.events],
                   "meaning": v.meaning} for v in a.rules],
        "missing": a.missing, "notes": a.notes}
