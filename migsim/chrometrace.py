"""A journal in Chrome's trace event format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

A process per side and one for the guest, a thread per QEMU thread and device; states, phases and folded loops are
slices, single events instants, messages flows, awaited ACKs and pending bytes counters. Times: microseconds since the
journal's first event. Source: the format's description ("Trace Event Format"), the model of picture.py.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from .analysis import Analysis
from .journal import Event, Journal
from .picture import Lane, Picture, picture
from .svg import us_text

PIDS = {"source": 1, "destination": 2, "": 3}
PROCESS = {1: "source QEMU", 2: "destination QEMU", 3: "guest"}
#: events that show pending bytes and their threshold: (counter, QEMU's name of the argument)
COUNTED = {"qemu_savevm_query_pending": ("pending bytes", "total"), "migrate_pending_exact": ("pending bytes", "size"),
           "migrate_pending_estimate": ("pending bytes", "size"), "migrate_transferred": ("threshold bytes", "size")}

Dict = dict[str, Any]


def chrome_trace(journal: Journal) -> Dict:
    """The trace as an object to be written as JSON."""
    p = picture(journal)
    shift = -min(0, p.span[0])
    places = {lane.key: {"pid": PIDS[lane.side], "tid": tid} for tid, lane in enumerate(p.lanes, 1)}
    p.items = [i for i in p.items if i.lane in places]  # a source's event in the destination's log has no lane
    slices = fitted([*bands(p, places), *folds(p, places), *ends(p, places)])
    events = [*slices, *instants(p, places), *flows(p, places), *counters(p, journal)]
    for e in events:
        e["ts"] += shift
    events.sort(key=lambda e: e["ts"])
    told = {"made by": "migsim", "notes": [*p.notes, *journal.notes], "setup at us": shift}
    return {"traceEvents": [*names(p, places), *events], "displayTimeUnit": "ms", "otherData": told}


def journal_of(analyses: Sequence[Analysis]) -> Journal:
    """The journal of all migrations of a log, the destination's events on the source's clock. What the devices said
    when they were realized is in each of them, here once."""
    events: Counter[Event] = Counter()
    for a in analyses:
        events |= Counter(a.journal)
    first = analyses[0].journal
    return Journal(sorted(events.elements(), key=lambda e: e.us), first.start, first.notes, first.devices)


def names(p: Picture, places: dict[str, Dict]) -> Iterator[Dict]:
    """What processes and threads are called, in the picture's order."""
    for pid in sorted({place["pid"] for place in places.values()}):
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": PROCESS[pid]}}
    for place, lane in zip(places.values(), p.lanes, strict=True):
        yield {"ph": "M", "name": "thread_name", **place, "args": {"name": thread_name(lane)}}
        yield {"ph": "M", "name": "thread_sort_index", **place, "args": {"sort_index": place["tid"]}}


def thread_name(lane: Lane) -> str:
    """A lane's name where its side is already told."""
    return {"status": "migration status", "guest": "guest", "device": f"device {lane.label}"}.get(lane.kind, lane.label)


def bands(p: Picture, places: dict[str, Dict]) -> Iterator[Dict]:
    """Status, device states, the guest."""
    for b in p.bands:
        yield {"ph": "X", "cat": "state", "name": b.label, **places[b.lane], "ts": b.us, "dur": b.end - b.us}


def folds(p: Picture, places: dict[str, Dict]) -> Iterator[Dict]:
    """Events that repeat, as one slice."""
    for i in p.items:
        if i.kind == "fold":
            yield {"ph": "X", "cat": "loop", "name": i.text, **places[i.lane], "ts": i.us, "dur": i.end - i.us,
                   "args": {"what": i.what, "why": i.why}}


def ends(p: Picture, places: dict[str, Dict]) -> Iterator[Dict]:
    """Where messages leave and arrive: a slice of 1 us each, which the flow binds to."""
    for m in p.messages:
        both = {"ph": "X", "cat": m.kind, "dur": 1, "args": {"count": m.count}}
        yield {**both, "name": f"{m.label} sent", **places[m.sender], "ts": m.us}
        if m.at is not None:
            yield {**both, "name": f"{m.label} received", **places[m.receiver], "ts": max(m.at, m.us)}


def flows(p: Picture, places: dict[str, Dict]) -> Iterator[Dict]:
    """An arrow for each message that arrives."""
    for number, m in enumerate(p.messages, 1):
        if m.at is not None:
            both = {"cat": m.kind, "name": m.label, "id": number}
            yield {"ph": "s", **both, **places[m.sender], "ts": m.us}
            yield {"ph": "f", "bp": "e", **both, **places[m.receiver], "ts": max(m.at, m.us)}


def instants(p: Picture, places: dict[str, Dict]) -> Iterator[Dict]:
    """Single events."""
    for i in p.items:
        if i.kind != "fold":
            yield {"ph": "i", "s": "t", "cat": i.kind, "name": i.name, **places[i.lane], "ts": i.us,
                   "args": {"text": i.text, "what": i.what, "why": i.why, "function": i.function}}


def counters(p: Picture, journal: Journal) -> Iterator[Dict]:
    """Awaited ACKs; pending bytes of each query and what may be pending at the switchover."""
    for c in p.counter:
        if c.value.isdigit():
            yield {"ph": "C", "name": "ACKs awaited", "pid": 1, "tid": 0, "ts": c.us, "args": {"ACKs": int(c.value)}}
    setup = next((e.us for e in journal if e.side == "source" and e.name == "migrate_set_state"), 0)
    for e in journal.all(*COUNTED, side="source"):
        name, field = COUNTED[e.name]
        value = e.get(field)
        if isinstance(value, int):
            yield {"ph": "C", "name": name, "pid": 1, "tid": 0, "ts": e.us - setup, "args": {"bytes": value}}


def fitted(slices: list[Dict]) -> list[Dict]:
    """Slices of one thread nest: one that would outlive the slice it begins in ends with it."""
    out = []
    slices.sort(key=lambda e: (e["pid"], e["tid"], e["ts"], -e["dur"]))
    for _, same in groupby(slices, key=lambda e: (e["pid"], e["tid"])):
        open_until: list[int] = []
        for e in same:
            while open_until and open_until[-1] <= e["ts"]:
                open_until.pop()
            if open_until:
                e["dur"] = min(e["dur"], open_until[-1] - e["ts"])
            open_until.append(e["ts"] + e["dur"])
            out.append(e)
    return out


def summary(trace: Dict) -> str:
    """One line: what is in the trace."""
    phases = [e["ph"] for e in trace["traceEvents"]]
    last = max((e.get("ts", 0) for e in trace["traceEvents"]), default=0)
    return (f"{phases.count('X')} slices, {phases.count('i')} events, {phases.count('s')} messages, "
            f"{phases.count('C')} counter values over {us_text(last)}")
