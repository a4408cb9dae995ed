"""The trace keeps the rules of the format that Perfetto insists on, for every recording and for hostile text."""
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim import Event, Journal, read_journal
from migsim.analysis import analyze
from migsim.chrometrace import chrome_trace, fitted, journal_of, summary
from migsim.events import parse
from migsim.journal import EPOCH

RECORDINGS = sorted((Path(__file__).parents[1] / "data").glob("recordings*/*/source.log.xz"))


def recorded(path: Path) -> Journal:
    there = path.with_name("destination.log.xz")
    return read_journal(path, there if there.exists() else None)


def named(name: str) -> dict:
    return chrome_trace(recorded(next(p for p in RECORDINGS if p.parent.name == name)))


def keeps_the_rules(trace: dict) -> None:
    """Slices of a thread nest, times rise from 0 on, each flow has two ends and each end a slice around it."""
    events = json.loads(json.dumps(trace))["traceEvents"]
    timed = [e for e in events if e["ph"] != "M"]
    assert [e["ts"] for e in timed] == sorted(e["ts"] for e in timed)
    assert all(e["ts"] >= 0 for e in timed)
    tracks = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in timed if e["ph"] != "C"} <= tracks
    slices: dict[tuple, list[dict]] = {}
    for e in (e for e in timed if e["ph"] == "X"):
        slices.setdefault((e["pid"], e["tid"]), []).append(e)
    for track in slices.values():
        ends: list[int] = []
        for e in sorted(track, key=lambda e: (e["ts"], -e["dur"])):
            ends = [end for end in ends if end > e["ts"]]
            assert e["dur"] >= 0 and all(e["ts"] + e["dur"] <= end for end in ends)
            ends.append(e["ts"] + e["dur"])
    flows = [e for e in timed if e["ph"] in "sf"]
    assert sorted(e["id"] for e in flows if e["ph"] == "s") == sorted(e["id"] for e in flows if e["ph"] == "f")
    for e in flows:
        around = slices[e["pid"], e["tid"]]
        assert any(s["ts"] <= e["ts"] < s["ts"] + s["dur"] and s["name"].startswith(e["name"]) for s in around)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda p: p.parent.name)
def test_every_recording(path: Path) -> None:
    keeps_the_rules(chrome_trace(recorded(path)))


def test_what_is_in_a_trace() -> None:
    trace = named("b-one-reinit")
    events = trace["traceEvents"]
    threads = {(e["pid"], e["args"]["name"]) for e in events if e["name"] == "thread_name"}
    assert threads == {(3, "guest"), (1, "migration status"), (1, "device vfio0"), (1, "main thread"),
                       (1, "migration thread"), (1, "ACKs awaited"), (1, "return-path thread"),
                       (2, "migration status"), (2, "main thread (incoming)"), (2, "device vfio0")}
    states = [e["name"] for e in events if e["ph"] == "X" and e["cat"] == "state" and (e["pid"], e["tid"]) == (1, 3)]
    assert states[-5:] == ["RUNNING", "PRE_COPY", "PRE_COPY_P2P", "STOP_COPY", "STOP"]
    acks = [e["args"]["ACKs"] for e in events if e["name"] == "ACKs awaited" and e["ph"] == "C"]
    assert acks == [1, 0, 1, 0]
    arrows = [e["name"] for e in events if e["ph"] == "s"]
    assert arrows.count("SWITCHOVER_ACK") == 2 and arrows.count("vfio0 INIT_DATA_SENT") == 2
    pending = [e["args"]["bytes"] for e in events if e["name"] == "pending bytes"]
    journal = recorded(next(p for p in RECORDINGS if p.parent.name == "b-one-reinit"))
    assert pending == [e.get("total") for e in journal.all("qemu_savevm_query_pending")]
    assert trace["otherData"]["setup at us"] == journal.first("migrate_set_state", "source").us


def test_all_migrations_of_a_log_are_in_one_trace() -> None:
    journal = recorded(next(p for p in RECORDINGS if p.parent.name == "n-cancel-then-again"))
    found = analyze(journal)
    assert len(found) == 2
    assert Counter(journal_of(found)) == Counter(journal)
    keeps_the_rules(chrome_trace(journal_of(found)))


def test_the_destinations_clock_is_corrected() -> None:
    journal = recorded(next(p for p in RECORDINGS if p.parent.name == "b-one-reinit"))
    ahead = Journal([e._replace(us=e.us + 7_000_000) if e.side == "destination" else e for e in journal], journal.start)
    events = chrome_trace(journal_of(analyze(ahead)))["traceEvents"]
    arrows = {e["id"]: e["ts"] for e in events if e["ph"] == "s"}
    back = [e["ts"] - arrows[e["id"]] for e in events if e["ph"] == "f"]
    assert back and max(back) < 1_000_000


def test_the_summary() -> None:
    trace = named("ram-no-cap")
    count = [e["ph"] for e in trace["traceEvents"]].count
    assert summary(trace).startswith(f"{count('X')} slices, {count('i')} events, {count('s')} messages, "
                                     f"{count('C')} counter values over ")


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12))
def test_slices_nest(pairs: list[tuple[int, int]]) -> None:
    out = fitted([{"pid": 1, "tid": 1, "ts": a, "dur": d} for a, d in pairs])
    for k, e in enumerate(out):
        for other in out[:k]:
            inside = other["ts"] + other["dur"] >= e["ts"] + e["dur"]
            assert other["ts"] + other["dur"] <= e["ts"] or inside


TEXTS = st.one_of(st.text(max_size=20), st.sampled_from([" (vfio0)", "new state active", "error=<b>\x1b[2J", "7: len 0",
                                                         " (vfio0) state STOP_COPY", "com=0x2 len=4", ""]))
NAMES = st.sampled_from(["migrate_set_state", "migrate_error", "vfio_migration_set_device_state", "savevm_command_send",
                         "migrate_transferred", "vfio_send_init_data_flag", "vfio_load_state", "vfio_migration_init",
                         "source_return_path_thread_switchover_acked", "migrate_send_rp_message", "vm_state_notify"])


@given(st.lists(st.tuples(st.integers(0, 10**7), st.sampled_from(["source", "destination"]), NAMES, TEXTS),
                max_size=30))
def test_whatever_a_log_says(rows: list[tuple]) -> None:
    rows.sort(key=lambda r: r[0])
    trace = chrome_trace(Journal([Event(us, side, name, parse(name, text)) for us, side, name, text in rows], EPOCH))
    keeps_the_rules(trace)
    text = json.dumps(trace)
    assert text.isascii() and all(c.isprintable() for c in text)
