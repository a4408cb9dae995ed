"""Where the downtime went."""
from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim import Event, Journal, run
from migsim.ackledger import AckEntry
from migsim.analysis import Analysis, analyze
from migsim.downtime import LATE, Kept, Step, Window, clip, downtime_ledger, kept_out, overlay, window
from migsim.journal import EPOCH
from migsim.log import read_log

DATA = Path(__file__).parent.parent / "data"


def of(name: str, kind: str = "recordings") -> Analysis:
    folder = DATA / kind / name
    return analyze(read_log(folder / "source.log.xz", folder / "destination.log.xz"))[-1]


def ms(a: Analysis) -> dict[tuple[str, str], float]:
    return {(s.what, s.device): s.us / 1000 for s in a.downtime_ledger}


def test_every_part_of_a_switchover() -> None:
    """Four records of 1 MiB that take 5 ms each to load; the final check takes 1 ms (scenario.json)."""
    a = of("a-one-device-new-ack")
    assert [s.first for s in a.downtime_ledger] == sorted(s.first for s in a.downtime_ledger)
    parts = ms(a)
    assert list(parts) == [
        ("stop", ""), ("final check", "vfio0"), ("to PRE_COPY_P2P", "vfio0"), ("to STOP_COPY", "vfio0"),
        ("switchover start", ""), ("final query", ""), ("final sync", ""), ("block inactivation", ""), ("save", "ram"),
        ("save", "other devices"), ("save", "vfio0"), ("load", "ram"), ("transfer", "vfio0"), ("load", "vfio0"),
        ("transfer", ""), ("load", "other devices"), ("load config", "vfio0"), ("start", ""),
        ("to RUNNING_P2P", "vfio0"), ("to RUNNING", "vfio0"), ("SHUT", ""), ("end at the source", "")]
    assert 20 < parts["load", "vfio0"] < 23 and 1 < parts["final check", "vfio0"] < 1.2
    assert sum(parts.values()) == pytest.approx(26.285)


def test_what_waited_for_management() -> None:
    assert 200 < ms(of("i2-pause-before-switchover-device", "recordings-busy"))["pause-before-switchover", ""] < 205


def test_data_that_were_sent_before_the_stop() -> None:
    """k: 200 ms of loading a chunk for which nobody waited; i5: management stopped the guest 0.3 s into 3 s of it."""
    assert 170 < ms(of("k-cap-off-with-reinit"))[LATE, "vfio0"] < 200
    assert 2700 < ms(of("i5-stop-while-ack-pending-tcp"))[LATE, "vfio0"] < 2750
    assert not any(what == LATE for what, _ in ms(of("h-with-reinit-run1")))


@pytest.mark.parametrize(("name", "kind", "kept", "would"), [
    ("a-one-device-new-ack", "recordings", [("vfio0", "first", 200)], []),
    ("b-one-reinit", "recordings", [("vfio0", "first", 200), ("vfio0", "REINIT", 200)], []),
    ("d1-device-20MBs-new", "recordings-busy", [("vfio0", "first", 200), ("vfio0", "REINIT", 1600)], []),
    ("e1-device-20MBs-legacy", "recordings-busy", [("vfio0", "legacy", 200)], [("vfio0", "initial", 1600)]),
    ("h-without-reinit-run1", "recordings", [(d, "first", 150) for d in ("busy", "idle1", "idle2", "idle3")],
     [("busy", "sent before the stop", 1513)]),
    ("k-cap-off-with-reinit", "recordings", [], [("vfio0", "sent before the stop", 180)]),
    ("g-no-precopy", "recordings", [], [])])
def test_what_acks_kept_out_of_it(name: str, kind: str, kept: list, would: list) -> None:
    """Loading takes what the recordings' scenarios say (load_init_ms, load_reinit_ms)."""
    a = of(name, kind)
    for found, expected in ((a.kept_out, kept), (a.ack_would, would)):
        assert [(k.device, k.why) for k in found] == [(device, why) for device, why, _ in expected]
        for k, (*_, took) in zip(found, expected, strict=True):
            assert took <= k.us / 1000 < took + 3


@pytest.mark.parametrize("base", ["old", "merged"])
@pytest.mark.parametrize("name", ["first-migration", "pause-before-switchover-gap", "two-devices-reinit-in-one-query"])
def test_a_simulated_downtime_sums_up(name: str, base: str) -> None:
    done = run(DATA / "scenarios" / f"{name}.yaml", base=base)
    total = sum(s.us for s in downtime_ledger(done.attempt_journals()[-1])) / 1000
    assert abs(total - done.outcome.get("downtime", 0)) < 1


def event(us: int, name: str, *args: object) -> Event:
    return Event(us, "source", name, args)


def test_without_checkpoints() -> None:
    stop, end = event(5, "runstate_set", 9, "running", 7, "finish-migrate"), event(9, "migrate_set_state", "completed")
    assert window([stop, end])[:2] == (5, 9) and "no vmstate_downtime_checkpoint" in window([stop, end]).note
    marks = [event(4, "vmstate_downtime_checkpoint", "src-downtime-start"),
             event(8, "vmstate_downtime_checkpoint", "src-downtime-end")]
    assert window([*marks, stop, end]) == Window(4, 8)
    assert window(marks[:1]) is None and window([end]) is None and window([stop]) is None
    assert downtime_ledger(Journal([event(1, "migration_cancel")], of("b-one-reinit").journal.start)) == []


STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted), max_size=6)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=6).map(sorted), STEPS)
def test_overlay_covers_the_base_once(cuts: list[int], busy: list) -> None:
    base = [Step(a, b, "base", str(k)) for k, (a, b) in enumerate(pairwise(cuts))]
    top = list(clip((Step(a, b, "top", "") for a, b in sorted(busy)), cuts[0], cuts[-1]))
    assert all(a.last <= b.first for a, b in pairwise(top))
    out = list(overlay(base, top))
    assert sum(s.last - s.first for s in out) == cuts[-1] - cuts[0]
    assert all(a.last == b.first for a, b in pairwise(out) if b.first < b.last)
    covered = {x for s in out if s.what == "top" for x in range(s.first, s.last)}
    assert covered == {x for a, b in busy for x in range(max(a, cuts[0]), min(b, cuts[-1]))}


def test_dirty_data_before_a_reinit_are_not_what_its_ack_waited_for() -> None:
    """The second marker's chunk is the block after the request, not the one before it."""
    def there(us: int, *args: object) -> list[Event]:
        return [Event(us, "destination", "vfio_load_state", ("vfio0", 0xFFFFFFFFEF100004)),
                Event(us + args[0], "destination", "vfio_load_state_device_data", ("vfio0", 1, 0))]

    events = [event(1, "vfio_save_block", "vfio0", 1), *there(2, 5), event(20, "vfio_save_block", "vfio0", 1),
              *there(21, 300), event(400, "vfio_save_block", "vfio0", 1), *there(401, 70)]
    acks = [AckEntry("vfio0", "first", 0, 10, 7, 8, 9), AckEntry("vfio0", "REINIT", 399, 410, 471, 472, 473)]
    assert kept_out(Journal(events, EPOCH), acks) == [Kept("vfio0", "first", 5), Kept("vfio0", "REINIT", 70)]
