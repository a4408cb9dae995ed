"""The comparison's rules one by one, recordings against each other, and the simulation against every recording."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim.compare import (
    DATA_STATE,
    Agreement,
    Recording,
    RecordingError,
    busy_measures,
    common,
    compare,
    compare_events,
    compare_outcome,
    describe,
    load_recording,
    protocol_events,
    until_end,
)
from migsim.journal import JournalError, open_text
from migsim.run import run

DATA = Path(__file__).parents[1] / "data"
IDLE = sorted(p.name for p in (DATA / "recordings").iterdir() if p.is_dir())
BUSY = sorted(p.name for p in (DATA / "recordings-busy").iterdir() if p.is_dir())


@cache
def recorded(name: str) -> Recording:
    return load_recording(DATA / ("recordings" if name in IDLE else "recordings-busy") / name)


def events(*named: tuple) -> list[tuple]:
    """Events one us apart, from (name, *args)."""
    return [(us, name, tuple(args)) for us, (name, *args) in enumerate(named)]


def keys(side: str, *named: tuple) -> list[tuple]:
    return protocol_events(events(*named), side)[0]


# --- recordings against each other ---


@pytest.mark.parametrize("kind", ["with", "without"])
@pytest.mark.parametrize("pair", ["12", "13", "23"])
def test_recordings_of_one_scenario_agree_fully(kind: str, pair: str) -> None:
    one, other = (recorded(f"h-{kind}-reinit-run{n}") for n in pair)
    got = compare_events(one.events, other)
    assert (got.ratio, got.differences) == ({"source": 1.0, "destination": 1.0}, [])
    assert got.counts["source"][0] == got.counts["source"][1] > 80


def test_recordings_of_two_scenarios_do_not_agree() -> None:
    got = compare_events(recorded("h-without-reinit-run1").events, recorded("h-with-reinit-run1"))
    assert 0.5 < got.worst < 0.95
    assert got.differences[0] == "source: only recorded: vfio_migration_init busy 7 1 1"


def test_of_a_cut_log_only_what_it_holds_is_looked_for() -> None:
    recording = recorded("bb-measured-bandwidth-legacy")
    assert recording.cut == {"source": True, "destination": False}
    held = {s: [e for e in log if e[0] <= recording.result["quit_time"] * 1e6] for s, log in recording.events.items()}
    more = held["source"] + events(*[("vfio_send_init_data_flag", "vfio0")] * 9)
    got = compare_events({**held, "source": more}, recording)
    assert got.ratio == {"source": 1.0, "destination": 1.0} and not got.differences
    less = [e for e in held["source"] if e[1] != "vfio_save_setup"]
    got = compare_events({**held, "source": less}, recording)
    assert got.ratio["source"] < 1.0 and "only recorded" in got.differences[0]


def test_a_recording_that_did_not_end_counts_up_to_quit_time() -> None:
    recording = recorded("l2-src-new-dst-legacy-2dev")
    quit_us = recording.result["quit_time"] * 1e6
    late = [e for e in recording.events["source"] if e[0] > quit_us]
    assert "migrate_error" in {name for _, name, _ in late}
    got = compare_events({s: [e for e in log if e[0] <= quit_us] for s, log in recording.events.items()}, recording)
    assert got.ratio == {"source": 1.0, "destination": 1.0}
    without = recording._replace(result={k: v for k, v in recording.result.items() if k != "quit_time"})
    last = max(us for us, name, _ in recording.events["source"] if name == "migration_cancel")
    upto = {s: [e for e in log if e[0] <= last] for s, log in recording.events.items()}
    assert compare_events(upto, without).ratio == {"source": 1.0, "destination": 1.0}


# --- the simulation against the recordings ---


@pytest.mark.parametrize("name", IDLE)
def test_the_simulation_agrees_with_the_recording(name: str) -> None:
    got = compare(run(DATA / "recordings" / name), recorded(name))
    assert got.differences == [] and set(got.ratio.values()) == {1.0}
    assert got.same_outcome, got.outcome
    assert ("attempt1-destination" in got.ratio) == (name == "n-cancel-then-again")


@pytest.mark.parametrize("name", BUSY)
def test_the_simulation_has_the_outcome_of_the_busy_recording(name: str) -> None:
    got = compare(run(DATA / "recordings-busy" / name), recorded(name))
    assert got.same_outcome, got.outcome
    assert got.worst > 0.95  # f1: two REINITs may fall together


def test_another_base_does_not_agree() -> None:
    got = compare(run(DATA / "recordings" / "d-reinit-in-gap", base="p10"), recorded("d-reinit-in-gap"))
    assert got.worst < 0.9 and not got.same_outcome
    assert got.outcome["status"] == ("completed", "failed", False)


# --- rules ---


def test_only_protocol_events_count() -> None:
    assert keys("source", ("savevm_state_iterate",), ("migrate_set_state", "setup"), ("vfio_load_cleanup", "a")) == [
        ("migrate_set_state", "setup")]
    assert keys("destination", ("migration_cancel",), ("vfio_load_cleanup", "a")) == [("vfio_load_cleanup", "a")]


@pytest.mark.parametrize(("args", "key"), [
    ((0, 0, 1, 2, 3, 6, 0, 1), None), ((0, 0, 1, 2, 3, 6, 2, 2), (0, 0, 2, 2)),
    ((1, 1, 1, 2, 3, 6, 0, 0), (1, 1, 0, 0)), ((True, True, 1, 2, 3, 6, 1, 2), (1, 1, 1, 2)),
    ((1, 1, 1, 2, 3, 6), (1, 1)), ((1, 0, 1, 2, 3, 6), None),
    ((1, 1, 2, 3, 6), None), (("exact=?",), None)])
def test_queries_count_that_collect_or_are_final(args: tuple, key: tuple | None) -> None:
    name = "qemu_savevm_query_pending"
    assert keys("source", (name, *args)) == ([(name, *key)] if key else [])
    assert keys("destination", (name, *args)) == []


def test_a_run_of_device_data_counts_as_one() -> None:
    data, other = ("vfio_load_state", "a", DATA_STATE), ("vfio_load_state", "a", DATA_STATE + 1)
    another = ("vfio_load_state", "b", DATA_STATE)
    got = keys("destination", data, data, ("loadvm_state_setup",), data, other, data, another)
    assert got == [data, other, data, another]
    assert keys("destination", data, ("migrate_send_rp_message", 7, 0), data) == [
        data, ("migrate_send_rp_message", 7, 0), data]


def test_discards_count_as_one_without_length() -> None:
    def discard(n: int) -> tuple:
        return ("loadvm_process_command", "POSTCOPY_RAM_DISCARD", n)
    listen = ("loadvm_process_command", "POSTCOPY_LISTEN", 0)
    assert keys("destination", discard(73), discard(12), listen) == [
        ("loadvm_process_command", "POSTCOPY_RAM_DISCARD"), listen]


def test_the_return_path_thread_has_its_own_order() -> None:
    log = events(("migrate_error", "mine"), ("source_return_path_thread_loop_top",),
                 ("source_return_path_thread_pong", 1), ("migration_cancel",), ("migrate_error", "its"),
                 ("vfio_save_cleanup", "a"), ("source_return_path_thread_bad_end",), ("migrate_error", "later"),
                 ("source_return_path_thread_switchover_acked",), ("source_return_path_thread_shut", 0))
    rest, thread = protocol_events(log, "source")
    assert rest == [("migrate_error", "mine"), ("migration_cancel",), ("vfio_save_cleanup", "a"),
                    ("migrate_error", "later")]
    assert thread == [("source_return_path_thread_pong", 1), ("migrate_error", "its"),
                      ("source_return_path_thread_switchover_acked",), ("source_return_path_thread_shut", 0)]


def test_a_second_bad_end_takes_no_error_of_the_first() -> None:
    log = events(("migrate_error", "one"), ("migrate_error", "two"), ("source_return_path_thread_bad_end",),
                 ("source_return_path_thread_bad_end",))
    assert protocol_events(log, "source") == ([("migrate_error", "one")], [("migrate_error", "two")])


def test_a_log_ends_at_shutdown() -> None:
    log = events(("migration_cleanup",), ("runstate_set", 9, "running", 7, "finish-migrate"),
                 ("runstate_set", 9, "running", 11, "shutdown"), ("migration_cancel",))
    assert until_end(log, None) == log[:2] and until_end(log, 0) == log[:2] and until_end(log[:1], 5) == log[:1]
    assert until_end([(5, "a", ()), (9, "b", ())], 7) == [(5, "a", ())]


def test_both_logs_end_at_shutdown() -> None:
    recording = recorded("a-one-device-new-ack")
    cut = {s: until_end(log, None) for s, log in recording.events.items()}
    assert len(cut["destination"]) < len(recording.events["destination"])
    assert set(compare_events(cut, recording).ratio.values()) == {1.0}
    assert set(compare_events(recording.events, recording._replace(events=cut)).ratio.values()) == {1.0}


def longest(a: list, b: list) -> int:
    """The common subsequence by its definition."""
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + longest(a[1:], b[1:])
    return max(longest(a[1:], b), longest(a, b[1:]))


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_common_is_the_longest_common_subsequence(a: list, b: list) -> None:
    assert common(a, b) == longest(a, b)


def test_the_ratio_counts_both_sequences() -> None:
    pong = ("source_return_path_thread_pong", 1)
    recording = Recording("r", Path(), {}, {"outcome": {}}, {"source": events(
        ("migrate_set_state", "setup"), ("migrate_set_state", "active"), pong, ("migration_cancel",))},
        {"source": False}, {})
    got = compare_events({"source": events(pong, ("migrate_set_state", "setup"), ("migration_cancel",))}, recording)
    assert got.ratio == {"source": 2 * 3 / 7} and got.counts == {"source": (3, 4)}
    assert got.differences == ["source: only recorded after migrate_set_state setup: migrate_set_state active"]
    assert compare_events({}, recording).ratio == {"source": 0.0}


def test_differences_are_said_in_words_and_not_all() -> None:
    a, b = [("a", 1), ("b",)], [("a", 1), ("c",), ("d",), ("e",)]
    assert describe(a, b, "source", False) == [
        "source: only recorded after a 1: b", "source: only simulated after a 1: c",
        "source: only simulated after a 1: d", "source: ... 1 more"]
    assert describe(a, b, "source", True) == ["source: only recorded after a 1: b"]


@pytest.mark.parametrize(("ours", "theirs", "agrees"), [
    (20, 30, True), (19, 30, False), (41, 30, False), (900, 1000, True), (899, 1000, False), (1100, 1000, True),
    (None, None, True), (None, 0, False), (5, None, False), ("x", 30, False)])
def test_downtime_agrees_within_10_ms_or_a_tenth(ours: Any, theirs: Any, agrees: bool) -> None:
    got = Agreement("")
    compare_outcome(got, {"downtime": ours}, {}, {"outcome": {"downtime": theirs}})
    assert got.same_outcome == agrees and got.outcome["downtime"] == (ours, theirs, agrees)


@pytest.mark.parametrize(("what", "other"), [
    ("status", {"status": "failed"}), ("error-desc", {"status": "completed", "error-desc": "oh"})])
def test_status_and_error_must_be_equal(what: str, other: dict) -> None:
    got = Agreement("")
    compare_outcome(got, other, {"source": "paused"}, {"outcome": {"status": "completed"},
                                                       "run_state": {"source": "paused", "destination": "running"}})
    assert [k for k, (_, _, ok) in got.outcome.items() if not ok] == [what, "destination run state"]


# --- a recording's folder ---


def test_both_layouts_are_read(tmp_path: Path) -> None:
    packed = DATA / "recordings" / "n-cancel-then-again"
    shutil.copy(packed / "scenario.json", tmp_path)
    for end, log in ((".log.gz", "source"), (".log", "destination"), (".log.gz", "attempt1-destination")):
        text = lzma.decompress((packed / f"{log}.log.xz").read_bytes())
        (tmp_path / f"{log}{end}").write_bytes(gzip.compress(text) if end == ".log.gz" else text)
    one, other = load_recording(packed), load_recording(tmp_path)
    assert one.events == other.events and set(one.events) == {"source", "destination", "attempt1-destination"}
    assert one.result == other.result and other.query_migrate == {}
    assert one.query_migrate["source"]["status"] == one.result["outcome"]["status"] == "completed"
    assert set(compare(run(tmp_path), other).ratio.values()) == {1.0}


@pytest.mark.parametrize("name", [*IDLE, *BUSY])
def test_a_recording_has_what_readme_says(name: str) -> None:
    recording = recorded(name)
    assert recording.result["outcome"]["status"] and set(recording.result["run_state"]) == {"source", "destination"}
    assert recording.config["source"]["qemu"] in ("11.1.3", "10.0.13") and all(recording.events.values())
    assert set(recording.query_migrate) == {"source", "destination"}
    assert json.loads((recording.folder / "scenario.json").read_text())["note"]
    for log in recording.folder.glob("*.log.xz"):
        assert next(open_text(log))


def test_the_recordings_stay_small() -> None:
    assert sum(p.stat().st_size for p in DATA.rglob("*") if p.is_file()) < 2_500_000


GOOD = {"config": {}, "result": {"outcome": {}, "quit_time": 1.5}}


@pytest.mark.parametrize(("scenario", "words"), [
    ("{", "scenario.json: Expecting"), ("[]", "scenario.json: an object is needed, not list"),
    ({}, "'config' must be an object"), ({**GOOD, "result": 5}, "'result' must be an object"),
    ({**GOOD, "result": {"outcome": 5}}, "'outcome' must be an object"),
    ({**GOOD, "result": {"quit_time": "soon"}}, "'quit_time' must be seconds"),
    ('{"config": {}, "result": {"quit_time": NaN}}', "'quit_time' must be seconds"),
    (GOOD, "source.log (.gz, .xz) is missing"), ("[" * 100_000, "scenario.json: ")])
def test_a_folder_that_is_no_recording_is_one_line(scenario: Any, words: str, tmp_path: Path) -> None:
    text = scenario if isinstance(scenario, str) else json.dumps(scenario)
    (tmp_path / "scenario.json").write_text(text)
    with pytest.raises(RecordingError) as error:
        load_recording(tmp_path)
    assert words in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_folder_and_a_broken_log_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"scenario.json: No such file"):
        load_recording(tmp_path / "none")
    (tmp_path / "scenario.json").write_text(json.dumps(GOOD))
    (tmp_path / "source.log.xz").write_bytes(b"\xfd7zXZ\x00 not")
    with pytest.raises(JournalError, match=r"source.log.xz: "):
        load_recording(tmp_path)


# --- a busy guest ---

SYNC = ("migration_bitmap_sync_start",)


def query(collected: int, total: int) -> tuple:
    return ("qemu_savevm_query_pending", 0, 0, 1, 2, 3, 6, collected, total)


@pytest.mark.parametrize(("log", "outside"), [
    ((SYNC, query(1, 1), SYNC, ("source_return_path_thread_switchover_acked", 0), SYNC), 2),
    ((SYNC, query(2, 2), ("source_return_path_thread_switchover_acked", 1), SYNC), 1),
    ((SYNC, query(0, 1), SYNC, ("source_return_path_thread_switchover_acked", 0), query(0, 0), SYNC), 1),  # legacy
    ((SYNC, SYNC, ("source_return_path_thread_switchover_acked",), SYNC), 1)])  # old
def test_syncs_outside_an_ack_wait(log: tuple, outside: int) -> None:
    syncs = log.count(SYNC)
    assert busy_measures(events(*log)) == {"syncs": syncs, "outside": outside}
    assert busy_measures(events(*log), switchover_ack=False) == {"syncs": syncs, "outside": syncs}


@pytest.mark.parametrize("name", ["a1-ram-low-rate", "d1-device-20MBs-new", "k1-chunk-behind-ram-new"])
def test_a_simulated_busy_run_syncs_as_often_outside_an_ack_wait(name: str) -> None:
    ours = [(e.us, e.name, e.args) for e in run(DATA / "recordings-busy" / name).journal.side("source")]
    assert busy_measures(ours)["outside"] == busy_measures(recorded(name).events["source"])["outside"]
