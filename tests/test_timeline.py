"""The timeline in QEMU's triples."""
from __future__ import annotations

from pathlib import Path

from migsim import Event, Journal, run
from migsim.analysis import analyze
from migsim.journal import EPOCH
from migsim.log import read_log
from migsim.timeline import timeline

DATA = Path(__file__).parent.parent / "data"


def test_a_switchover_as_vfio_rst_has_it() -> None:
    folder = DATA / "recordings" / "a-one-device-new-ack"
    a = analyze(read_log(folder / "source.log.xz", folder / "destination.log.xz"))[0]
    triples = list(dict.fromkeys(m.states for m in a.timeline if m.side == "source" and m.us >= a.start_us))
    assert triples == [
        "(RUNNING, _SETUP, _RUNNING)", "(RUNNING, _SETUP, _PRE_COPY)", "(RUNNING, _ACTIVE, _PRE_COPY)",
        "(FINISH_MIGRATE, _ACTIVE, _PRE_COPY)", "(FINISH_MIGRATE, _ACTIVE, _PRE_COPY_P2P)",
        "(FINISH_MIGRATE, _ACTIVE, _STOP_COPY)", "(FINISH_MIGRATE, _DEVICE, _STOP_COPY)",
        "(FINISH_MIGRATE, _COMPLETED, _STOP_COPY)", "(POSTMIGRATE, _COMPLETED, _STOP_COPY)",
        "(POSTMIGRATE, _COMPLETED, _STOP)"]
    there = list(dict.fromkeys(m.states for m in a.timeline if m.side == "destination" and m.us <= a.end_us))
    assert there[0] == "(INMIGRATE, _SETUP, _RUNNING)" and there[-1] == "(RUNNING, _COMPLETED, _RUNNING)"
    for m in a.timeline:
        assert a.journal.events[m.event].us == m.us and a.journal.events[m.event].side == m.side


def test_devices_that_differ() -> None:
    moments = timeline(run(DATA / "scenarios" / "two-devices-two-acks.yaml").journal)
    first = next(m for m in moments if m.what == "device PRE_COPY_P2P")
    assert first.states.endswith("_PRE_COPY_P2P)") and first.device
    between = [m for m in moments if m.us == first.us and m.what == "VM stopped"]
    assert all("/" not in m.states for m in between)


def words(name: str, *args: object) -> str:
    return timeline(Journal([Event(0, "source", name, args)], EPOCH))[0].what


def test_words() -> None:
    assert words("source_return_path_thread_switchover_acked", 2) == "ACK counted, 2 due"
    assert words("source_return_path_thread_switchover_acked") == "ACK counted"  # before patch 6
    assert words("migrate_error", "a {b} %s") == "error: a {b} %s"
    assert words("loadvm_approve_switchover_legacy", "vfio0", 1) == "approved, 1 not yet"
    assert words("loadvm_approve_switchover", "vfio0") == "approved"
    assert words("runstate_set", 6, "prelaunch", 9, "running") == "VM prelaunch -> running"
