"""RAM: runs of dirty pages, the guest that writes, turns and their limits (facts sheet 10.1, measured facts 2)."""
from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim import run
from migsim.qemu.ram import EXTRA_PAGES, FLUSH_NORMAL, FLUSH_ZERO, PAGE, RAMState, add_run, count
from migsim.scenario import Guest

MS = 1_000_000
INF = float("inf")
COSTS = (1900.0, 500.0)
runs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda r: (r[0], r[0] + r[1])), max_size=8)


def pages(spans: tuple) -> set[int]:
    return {p for a, b in spans for p in range(a, b)}


def ram(mem: int = 8, guest: Guest | None = None) -> RAMState:
    """Set up at 0 with a guest that runs since then; no timer ticks."""
    state = RAMState(mem, guest, 1 << 60, 0)
    state.running_since = 0
    state.setup()
    return state


def drain(state: RAMState) -> None:
    state.take(INF, INF, *COSTS)


@given(runs)
def test_runs_are_a_set_of_pages(spans: list) -> None:
    got: tuple = ()
    for a, b in spans:
        got = add_run(got, a, b)
    assert pages(got) == pages(tuple(spans)) and count(got) == len(pages(got))
    assert list(got) == sorted(got) and all(x[1] < y[0] for x, y in pairwise(got))


def test_setup_makes_every_page_dirty() -> None:
    assert ram(8).dirty == ((0, 8 * 256 + EXTRA_PAGES),)


@given(st.lists(st.tuples(st.integers(1, 200_000) | st.just(INF), st.integers(1, 400_000) | st.just(INF)), max_size=6))
def test_each_dirty_page_is_taken_once(turns: list) -> None:
    state = ram(4, Guest(start_mib=1, pages=300))
    whole = pages(state.dirty)
    taken: list[int] = []
    for budget, ns in [*turns, (INF, INF)]:
        got, size, spent = state.take(budget, ns, *COSTS)
        for first, n, zero in got:
            taken += range(first, first + n)
            assert all((p in pages(state.normal)) != zero for p in (first, first + n - 1))
        assert size == sum(n * (9 if zero else PAGE + 8) for _, n, zero in got)
        assert spent == int(sum(n * COSTS[zero] for _, n, zero in got))
    assert sorted(taken) == sorted(whole) and state.dirty == ()
    assert state.normal_sent + state.zero_sent == len(whole)


def test_a_turn_ends_with_the_flush_that_uses_up_the_window() -> None:
    state = ram(8, Guest(start_mib=0, pages=2048))
    _, size, _ = state.take(1_000_000, INF, *COSTS)
    flush = FLUSH_NORMAL * (PAGE + 8)
    assert 1_000_000 <= size < 1_000_000 + flush and size % flush == 0


def test_zero_pages_are_flushed_by_the_buffer() -> None:
    state = ram(64)
    drain(state)
    state.dirty = ((1000, 1000 + 3 * FLUSH_ZERO),)
    assert state.take(1, INF, *COSTS)[1] == FLUSH_ZERO * 9


def test_a_turn_ends_after_its_time() -> None:
    """Checked every 64 pages (2.3)."""
    state = ram(8, Guest(start_mib=0, pages=2048))
    (first,), _, spent = state.take(INF, 1_000_000, *COSTS)
    assert first[1] % 64 == 0 and 1_000_000 <= spent < 1_000_000 + 64 * COSTS[0] + 1


def test_it_goes_on_where_it_stopped() -> None:
    state = ram(8, Guest(start_mib=0, pages=2048))
    (a,), *_ = state.take(PAGE, INF, *COSTS)
    state.dirty = add_run(state.dirty, 0, 4)
    (b,), *_ = state.take(PAGE, INF, *COSTS)
    assert b[0] == a[0] + a[1]


# --- the guest ---

def test_a_timed_guest() -> None:
    """10 pages every 10 ms, round and round in its range."""
    state = ram(8, Guest(start_mib=1, pages=25, burst=10, pause_ms=10))
    drain(state)
    assert state.sync(9 * MS) == 0
    assert (state.sync(20 * MS), state.dirty) == (20, ((256, 276),))
    assert (state.sync(30 * MS), state.dirty) == (5, ((256, 281),))  # 276..280, and 256..260 once more
    drain(state)
    assert (state.sync(40 * MS), state.dirty) == (10, ((261, 271),))
    drain(state)
    assert (state.sync(60 * MS), state.dirty) == (20, ((256, 266), (271, 281)))
    assert state.sync(1000 * MS) == 5 and count(state.dirty) == 25


def test_a_spinning_guest() -> None:
    state = ram(8, Guest(start_mib=1, pages=1000, spin=600))
    drain(state)
    assert state.sync(3 * MS) == 1000  # 3000 ns a page


def test_throttle_and_stop() -> None:
    state = ram(8, Guest(start_mib=1, pages=1000, burst=1, pause_ms=1))
    drain(state)
    state.throttle = 75
    assert state.sync(100 * MS) == 25
    state.ran_ns, state.running_since = state.guest_ns(100 * MS), -1
    assert state.sync(900 * MS) == 0


def test_an_idle_guest_ticks() -> None:
    state = RAMState(8, None, 55 * MS, 4)
    state.running_since = 0
    state.setup()
    drain(state)
    assert [state.sync(ms * MS) for ms in (54, 55, 109, 110)] == [0, 4, 0, 0]


# --- the handler in a run ---

CONFIG = {"caps": {"return-path": True}, "mem": 32, "params": {"max-bandwidth": 10_000_000},
          "guest": {"start_mib": 16, "pages": 500, "burst": 20, "pause_ms": 10}}


@pytest.mark.parametrize("base, last", [("old", "savevm_section_start"), ("base", "savevm_section_start"),
                                        ("p2", "vmstate_downtime_checkpoint"),
                                        ("merged", "vmstate_downtime_checkpoint")])
def test_where_the_last_sync_is(base: str, last: str) -> None:
    """10.1: before p2 in RAM's save_complete, after the disks' hand-over; since p2 in the final query, before it."""
    events = run(CONFIG, base=base).journal.side("source")
    at = max(k for k, e in enumerate(events) if e.name == "migration_bitmap_sync_end")
    disks = next(k for k, e in enumerate(events) if e.name == "migration_block_activation" and e.args[0] == "inactive")
    assert (at > disks) == (last == "savevm_section_start")
    assert not any(e.name == "migration_bitmap_sync_start" for e in events[at:])


def test_dirty_sync_count() -> None:
    """Measured facts 2.5: old counts every sync, 11.1 the passes of the loop, not the last one."""
    for base, less in (("old", 0), ("merged", 1)):
        result = run(CONFIG, base=base)
        syncs = len(result.journal.all("migration_bitmap_sync_end"))
        assert syncs > 2 and result.outcome["ram"]["dirty-sync-count"] == syncs - less


def test_a_window_is_used_up_and_slept_out() -> None:
    """Measured facts 2.1."""
    journal = run(CONFIG).journal
    windows = journal.all("migrate_transferred")
    assert windows and all(95 <= e.get("time_spent") <= 105 for e in windows)
    assert 1_000_000 <= max(e.get("transferred") for e in windows) < 1_000_000 + 2 * FLUSH_NORMAL * (PAGE + 8)
    assert any(e.args[0] > 90 for e in journal.all("migration_rate_limit_pre"))


def test_postcopy_ram_can_wait() -> None:
    journal = run({**CONFIG, "caps": {"return-path": True, "postcopy-ram": True}}).journal
    assert {e.get("precopy") for e in journal.all("qemu_savevm_query_pending")} == {0}
