"""What an analysis says of each recording, against what QMP said of it; and of simulated runs."""
from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from migsim import Event, Journal, read_journal, run
from migsim.analysis import TABLES, Analysis, analyze, columns, until_quit
from migsim.log import read_log

DATA = Path(__file__).parent.parent / "data"
FOLDERS = sorted(p.parent for p in DATA.glob("recordings*/*/scenario.json"))
COMPARED = ("status", "error", "clock", "downtime_us", "guest_downtime_us", "vfio_bytes", "scheme", "base",
            "ends_agree", "why_not_earlier", "missing")
START = datetime(2026, 1, 1, tzinfo=UTC)


def folded(folder: Path) -> list[Analysis]:
    return analyze(read_log(folder / "source.log.xz", folder / "destination.log.xz"))


def answer(folder: Path, name: str = "source-query-migrate.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_outcome_downtime_and_bytes_are_those_of_qmp(folder: Path) -> None:
    last, said = folded(folder)[-1], answer(folder)
    assert (last.status, last.error) == (said["status"], said.get("error-desc"))
    assert (last.downtime_us is None) == ("downtime" not in said)
    if last.downtime_us is not None:
        assert abs(last.downtime_us / 1000 - said["downtime"]) < 1
    assert sum(s.us for s in last.downtime_ledger) == (last.downtime_us or 0)
    if "vfio" in said:
        assert last.vfio_bytes == said["vfio"]["transferred"]
    assert last.vfio_bytes is not None or last.vfio_bytes_note == "the logs show no VFIO device"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_a_folded_log_tells_the_same_as_a_full_one(folder: Path) -> None:
    full = analyze(read_journal(folder / "source.log.xz", folder / "destination.log.xz"))
    for a, b in zip(full, folded(folder), strict=True):
        assert {n: getattr(a, n) for n in COMPARED} == {n: getattr(b, n) for n in COMPARED}
        for table in ("acks", "downtime_ledger", "kept_out", "ack_would", "convergence"):
            assert a.rows(table) == b.rows(table)
        assert [v[:2] for v in a.rules] == [v[:2] for v in b.rules]


def test_schemes_and_whether_the_ends_agree() -> None:
    expected = {"l2-src-new-dst-legacy-2dev": ("new", "legacy", False), "a-one-device-new-ack": ("new", "new", True),
                "l3-src-legacy-dst-new-2dev": ("legacy", "new", False), "ram-no-cap": ("new", "", None),
                "m-10.0.13-to-11.1.3": ("old", "legacy", True), "ram-legacy-ack-global": ("legacy", "legacy", True)}
    for name, (source, destination, same) in expected.items():
        a = folded(DATA / "recordings" / name)[0]
        assert (a.scheme["source"], a.scheme["destination"], a.ends_agree) == (source, destination, same), name


def test_two_migrations_in_one_log() -> None:
    """The destination's log is the second attempt's alone: its process was a fresh one."""
    folder = DATA / "recordings" / "n-cancel-then-again"
    first, second = folded(folder)
    said = answer(folder, "attempt1-source-query-migrate.json")
    assert (first.status, first.error, first.sides) == (said["status"], said["error-desc"], ("source",))
    assert (second.status, second.sides) == ("completed", ("source", "destination"))
    lines = [x for a in (first, second) for x, e in zip(a.journal.lines or [], a.journal.events, strict=True)
             if e.side == "source" and not e.name.startswith("vfio_migration_")]
    assert len(lines) == len(set(lines))
    other = analyze(read_log(folder / "source.log.xz", folder / "attempt1-destination.log.xz"))
    assert [a.sides for a in other] == [("source", "destination"), ("source",)]


def test_a_process_that_was_a_destination_before() -> None:
    """Its incoming migration is none of the source's."""
    folder = DATA / "recordings" / "b-one-reinit"
    journal = read_log(folder / "source.log.xz", folder / "destination.log.xz")
    came = [e._replace(side="source") for e in journal.side("destination")]
    went = [e._replace(us=e.us + 10_000_000) for e in journal.side("source")]
    found = analyze(Journal(came + went, journal.start))
    assert [(a.status, len(a.acks), a.downtime_us) for a in found] == [("completed", 2, 26124)]


def test_one_side_only() -> None:
    folder = DATA / "recordings" / "a-one-device-new-ack"
    here, there = (analyze(read_log(folder / f"{side}.log.xz"))[0] for side in ("source", "destination"))
    assert (here.status, here.downtime_us, here.vfio_bytes) == ("completed", 26285, 4259840)
    assert {s.what for s in here.downtime_ledger if s.us > 4000} == {"save", "at the destination"}
    assert (there.sides, there.status, there.downtime_us) == (("destination",), "completed", None)
    assert there.downtime_note == "no log of the source" and there.vfio_bytes == 4259840


def test_a_log_that_begins_or_ends_in_the_middle() -> None:
    folder = DATA / "recordings" / "b-one-reinit"
    journal = read_journal(folder / "source.log.xz", folder / "destination.log.xz")
    half = analyze(Journal(journal.events[:len(journal) // 2], journal.start))[0]
    assert (half.status, half.downtime_us, half.downtime_note) == ("active", None, "no switchover was completed")
    rest = analyze(Journal(journal.events[len(journal) // 2:], journal.start))[0]
    assert (rest.status, rest.downtime_us, rest.vfio_bytes) == ("completed", 26124, None)
    assert rest.vfio_bytes_note == "the log begins after this migration did"


def test_guest_downtime() -> None:
    """26.3 ms for QEMU; the vCPUs stop a little later and run a little earlier. A guest that management has stopped
    stays stopped."""
    a = folded(DATA / "recordings" / "a-one-device-new-ack")[0]
    assert a.guest_downtime_us == 26042 and a.downtime_us - 1000 < a.guest_downtime_us < a.downtime_us
    stopped = folded(DATA / "recordings" / "i5-stop-while-ack-pending-tcp")[0]
    assert stopped.guest_downtime_us is None
    assert stopped.guest_downtime_note == "the logs do not show the guest run again"
    failed = folded(DATA / "recordings" / "d-reinit-in-gap")[0]
    assert (failed.downtime_us, failed.guest_downtime_us) == (None, 1196)


def test_the_end_of_qemu_is_no_cancel() -> None:
    def e(name: str, *args: object) -> Event:
        return Event(0, "source", name, args)

    active, cancel = e("migrate_set_state", "active"), e("migration_cancel")
    quits = e("runstate_set", 9, "running", 11, "shutdown")
    cancelled = e("migrate_set_state", "cancelled")
    assert until_quit([active, cancel, e("migrate_set_state", "cancelling"), quits]) == [active]
    assert until_quit([active, cancel, cancelled, quits]) == [active, cancel, cancelled]
    assert until_quit([active, cancel, cancelled]) == [active, cancel, cancelled]


@pytest.mark.parametrize("base", ["old", "p5", "p11", "v2", "merged"])
def test_a_simulated_run_is_a_journal(base: str, tmp_path: Path) -> None:
    done = run(DATA / "scenarios" / "first-migration.yaml", base=base)
    a = analyze(done.journal)[0]
    assert a.status == done.outcome["status"] and a.vfio_bytes == done.outcome["vfio"]["transferred"]
    assert abs(a.downtime_us / 1000 - done.outcome["downtime"]) < 1
    assert sum(s.us for s in a.downtime_ledger) == a.downtime_us
    assert a.clock.ms == 0 and a.missing == [m for m in a.missing if "QEMU before" in m]
    for side in ("source", "destination"):
        (tmp_path / side).write_text(done.journal.log_text(side))
    back = analyze(read_log(tmp_path / "source", tmp_path / "destination"))[0]
    assert (back.rows("acks"), back.rows("downtime_ledger")) == (a.rows("acks"), a.rows("downtime_ledger"))
    k = next(k for k, e in enumerate(a.journal.events) if e.name == "migration_thread_low_pending")
    side, line = a.line(k).split(":")
    assert "migration_thread_low_pending" in (tmp_path / side).read_text().splitlines()[int(line) - 1]


def test_tables() -> None:
    a = folded(DATA / "recordings" / "b-one-reinit")[0]
    for table in TABLES:
        frame = a.frame(table)
        assert list(frame.columns) == columns(table) and len(frame) == len(getattr(a, table)), table
    assert columns("acks")[:3] == ["device", "why", "asked_ms"] and columns("downtime_ledger")[2] == "ms"
    assert a.frame("downtime_ledger").ms.sum() == pytest.approx(a.downtime_us / 1000)
    with pytest.raises(ValueError, match="'ack' is no table: allowed are acks, downtime_ledger"):
        a.frame("ack")


def test_nothing_to_analyze() -> None:
    assert analyze(Journal([], START)) == []
    assert analyze(Journal([Event(0, "source", "runstate_set", (6, "prelaunch", 9, "running"))], START)) == []


def test_bytes_that_a_log_cannot_tell() -> None:
    folder = DATA / "recordings" / "a-one-device-new-ack"
    journal = read_log(folder / "source.log.xz", folder / "destination.log.xz")

    def note(events: list[Event], notes: tuple[str, ...] = ()) -> str:
        a = analyze(Journal(events, journal.start, notes))[0]
        assert a.vfio_bytes is None
        return a.vfio_bytes_note

    less = [e for e in journal if e.name != "vfio_save_block"]
    assert note(less) == "no block of device data is traced"
    assert note(less[:5] + less[6:], ("x: ... 3 lines left out ...",)) == "lines of the log are left out"
    multifd = Event(journal.events[-1].us, "source", "vfio_save_complete_precopy_thread_start", ())
    assert note([*journal, multifd]) == "multifd carries device data, which is not traced block by block"
