"""The offset between two hosts' clocks, from messages."""
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim import Event, Journal, run
from migsim.analysis import analyze
from migsim.clockskew import ClockOffset, clock_offset
from migsim.log import read_log

DATA = Path(__file__).parent.parent / "data"
FOLDERS = sorted(p.parent for p in DATA.glob("recordings*/*/scenario.json"))
B = read_log(*(DATA / "recordings" / "b-one-reinit" / f"{side}.log.xz" for side in ("source", "destination")))


def moved(events: list[Event], us: int) -> list[Event]:
    return [e._replace(us=e.us + us) if e.side == "destination" else e for e in events]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_one_host_has_one_clock(folder: Path) -> None:
    for a in analyze(read_log(folder / "source.log.xz", folder / "destination.log.xz")):
        if len(a.sides) == 2:
            assert a.clock.ms == 0 and a.clock.low <= 0 <= a.clock.high and a.clock.high - a.clock.low < 1


@given(st.integers(-10**10, 10**10))
def test_an_offset_is_found_within_its_interval(us: int) -> None:
    found = clock_offset(moved(B.events, us))
    assert found.low <= us / 1000 <= found.high and found.how == "messages"
    assert found.low <= found.ms <= found.high or found.ms == 0
    assert abs(found.ms - us / 1000) <= found.high - found.low


def test_an_analysis_with_another_clock_is_the_same() -> None:
    here = analyze(B)[0]
    there = analyze(Journal(moved(B.events, 3_600_000_000), B.start))[0]
    assert there.clock.ms == pytest.approx(3_600_000.2, abs=0.3)
    assert (there.status, there.downtime_us, there.vfio_bytes) == (here.status, here.downtime_us, here.vfio_bytes)
    for a, b in zip(here.acks, there.acks, strict=True):
        assert a[:4] == b[:4] and abs(a.loaded - b.loaded) < 300 and a.counted == b.counted
    assert sum(s.us for s in there.downtime_ledger) == there.downtime_us


def test_given() -> None:
    found = clock_offset(moved(B.events, 5_000), 5)
    assert found.ms == 5 and found.how == "given" and found.low < 5 < found.high
    assert analyze(Journal(moved(B.events, 5_000), B.start), 5)[0].rows("acks") == analyze(B)[0].rows("acks")


def test_one_side_and_one_direction() -> None:
    assert clock_offset([e for e in B if e.side == "source"]) == ClockOffset(0.0, None, None, "one side")
    forth = [e for e in moved(B.events, -7_000) if e.name != "migrate_send_rp_message"]
    found = clock_offset(forth)
    assert found.low is None and found.high == found.ms < -6


def test_messages_that_contradict_each_other_show_it() -> None:
    late = [e._replace(us=e.us + 50_000) if e.name == "migrate_send_rp_message" and e.args[0] == 1 else e for e in B]
    found = clock_offset(late)
    assert found.low > found.high


def test_a_simulated_run_has_one_clock() -> None:
    found = clock_offset(run(DATA / "scenarios" / "two-devices-two-acks.yaml").journal.events)
    assert found.ms == 0 and found.low <= 0 <= found.high
