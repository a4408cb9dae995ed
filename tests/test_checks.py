"""Rules over a journal: the same verdicts for a recording and for its simulation, each rule seen broken."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from migsim import Event, Journal, read_journal, run
from migsim.checks import RULES, check
from migsim.properties import PROPERTIES

RECORDINGS = Path(__file__).parent.parent / "data" / "recordings"
BUSY = RECORDINGS.with_name("recordings-busy")
#: what is broken in real runs of QEMU 11.1: (rule, words of the reason)
BROKEN = {
    "i6-stop-with-reinit-at-stop-tcp": {"abort-implies-guest-was-running": "paused"},
    "l3-src-legacy-dst-new-2dev": {"counter-never-underflows": "nobody had asked for"},
    "e1-device-20MBs-legacy": {"initial-data-loaded": "STOP_COPY"},
    "f2-four-devices-legacy": {"initial-data-loaded": "STOP_COPY"},
    "k2-chunk-behind-ram-legacy": {"initial-data-loaded": "STOP_COPY"},
}
#: two migrations of one source in one log are no journal of one migration
FOLDERS = [p for p in sorted([*RECORDINGS.iterdir(), *BUSY.iterdir()])
           if p.is_dir() and not (p / "attempt1-destination.log.xz").exists()]


def real(folder: Path) -> Journal:
    return read_journal(folder / "source.log.xz", folder / "destination.log.xz")


def broken(journal: Journal) -> dict[str, str]:
    return {v.id: v.reason for v in check(journal) if v.verdict == "violated"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_recording_and_simulation_get_the_same_verdicts(folder: Path) -> None:
    """Where the log can tell; the simulated run also knows what the device did."""
    recorded, simulated = check(real(folder)), check(run(folder).journal)
    assert broken(real(folder)).keys() == BROKEN.get(folder.name, {}).keys()
    for a, b in zip(recorded, simulated, strict=True):
        assert a.verdict in (b.verdict, "unknown"), (a, b)
    for rule, words in BROKEN.get(folder.name, {}).items():
        assert words in broken(real(folder))[rule]


def test_every_property_of_explore_is_a_rule() -> None:
    assert list(PROPERTIES) == list(RULES)[:len(PROPERTIES)]


def test_only_the_device_knows_of_a_chunk_without_infov2() -> None:
    """Without INFOv2 QEMU's log cannot tell; the devices' own view can."""
    folder = RECORDINGS / "h-without-reinit-run1"
    rule = "initial-data-loaded"
    assert [v.verdict for v in check(real(folder), rule)] == ["unknown"]
    [verdict] = check(run(folder).journal, rule)
    assert verdict.verdict == "violated" and verdict.reason.startswith("busy entered STOP_COPY with 2 of 4")
    [verdict] = check(run(RECORDINGS / "h-with-reinit-run1").journal, rule)
    assert verdict.verdict == "holds"


CASES = {
    "abort-implies-new-request": ("stop-while-ack-pending", "v2", "merged"),
    "initial-data-loaded": ("first-migration", "p12", "p13"),
}


@pytest.mark.parametrize("rule", CASES)
def test_a_patch_keeps_what_was_broken_before(rule: str) -> None:
    name, before, after = CASES[rule]
    path = RECORDINGS.parent / "scenarios" / f"{name}.yaml"
    verdicts = [check(run(path, base=base).journal, rule)[0].verdict for base in (before, after)]
    assert verdicts[0] == "violated" and verdicts[1] in ("holds", "vacuous")


def changed(journal: Journal, name: str, change: Callable[[Event], list[Event]], every: bool) -> Journal:
    """The journal with the last (or every) event of this name replaced by what `change` gives."""
    found = [k for k, e in enumerate(journal.events) if e.name == name and e.side == "source"]
    found = found if every else found[-1:]
    events = [new for k, e in enumerate(journal.events) for new in (change(e) if k in found else [e])]
    return Journal(events, journal.start, devices=journal.devices)


def without(e: Event) -> list[Event]:
    return []


def with_args(*args: object) -> Callable[[Event], list[Event]]:
    return lambda e: [e._replace(args=args)]


MUTATIONS = {
    "acks-balance": ("first-migration", "source_return_path_thread_switchover_acked", without),
    "counter-never-underflows": ("first-migration", "source_return_path_thread_switchover_acked",
                                 with_args((1 << 32) - 1)),
    "no-switchover-while-ack-pending": ("first-migration", "migration_thread_low_pending",
                                        lambda e: [e._replace(name="qemu_savevm_query_pending",
                                                              args=(1, 0, 0, 0, 0, 0, 0, 1)), e]),
    "one-final-query": ("first-migration", "migrate_set_state", lambda e: [e._replace(args=("device",)), e]),
    "no-sync-after-final-query": ("first-migration", "migration_precopy_complete",
                                  lambda e: [e, e._replace(name="migration_bitmap_sync_start", args=()),
                                             e._replace(name="migration_bitmap_sync_start", args=())]),
    "failure-has-a-reason": ("reinit-in-gap", "migrate_error", without),
    "guest-runs-again": ("reinit-in-gap", "vfio_migration_set_device_state",
                         lambda e: [e._replace(args=(e.args[0], "STOP_COPY"))]),
    "late-request-prevents-completion": ("reinit-in-gap", "migrate_set_state", with_args("completed")),
}


@pytest.mark.parametrize("rule", MUTATIONS)
def test_a_changed_journal_breaks_the_rule(rule: str) -> None:
    name, event, change = MUTATIONS[rule]
    journal = run(RECORDINGS.parent / "scenarios" / f"{name}.yaml").journal
    assert rule not in broken(journal)
    assert rule in broken(changed(journal, event, change, every=change is without))


def test_the_events_show_it() -> None:
    folder = RECORDINGS / "i6-stop-with-reinit-at-stop-tcp"
    journal = real(folder)
    [verdict] = check(journal, "abort-implies-guest-was-running")
    names = [journal.events[k].name for k in verdict.events]
    assert names[0] == "migration_thread_low_pending" and "migrate_error" in names


def test_an_underflow_is_no_ack_that_is_due() -> None:
    got = broken(run(RECORDINGS.parent / "scenarios" / "capability-at-destination-only-legacy.yaml").journal)
    assert "counter-never-underflows" in got and "no-switchover-while-ack-pending" not in got


def test_a_journal_without_its_source_tells_nothing() -> None:
    folder = RECORDINGS / "a-one-device-new-ack"
    journal = Journal(real(folder).side("destination"), real(folder).start)
    assert {v.verdict for v in check(journal)} == {"unknown"}
    assert {v.verdict for v in check(Journal([], journal.start))} == {"unknown"}
