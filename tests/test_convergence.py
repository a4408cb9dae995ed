"""Why the switchover did not come earlier."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim.analysis import Analysis, analyze
from migsim.convergence import Acks, Turns, reason, why_not_earlier
from migsim.folds import fold_of
from migsim.log import read_log

DATA = Path(__file__).parent.parent / "data"


def of(name: str, kind: str = "recordings") -> Analysis:
    folder = DATA / kind / name
    return analyze(read_log(folder / "source.log.xz", folder / "destination.log.xz"))[-1]


@pytest.mark.parametrize(("name", "kind", "longest"), [
    ("a5-ram-half-rate-link-limit-50ms", "recordings-busy", "threshold"),
    ("c1-ram-high-rate-cancel", "recordings-busy", "threshold + rate limit"),
    ("k1-chunk-behind-ram-new", "recordings-busy", "counter"),  # waits for an ACK for ever
    ("l2-src-new-dst-legacy-2dev", "recordings", "counter"),
    ("bb-measured-bandwidth-legacy", "recordings", "threshold"),  # bandwidth is measured while nothing is sent
    ("m-10.0.13-to-11.1.3", "recordings", "threshold"),
    ("j1-stop-while-dirtying", "recordings-busy", "threshold + rate limit")])
def test_what_it_waited_for_most(name: str, kind: str, longest: str) -> None:
    why = of(name, kind).why_not_earlier
    assert max(why, key=why.__getitem__) == longest, why


def test_the_counter_counts_until_management_stops_the_guest() -> None:
    a = of("i5-stop-while-ack-pending-tcp")
    assert a.why_not_earlier == {"counter + unmeasured": 100.0, "counter": 200.0}
    stop = next(e.us for e in a.journal.all("runstate_set", side="source") if e.args[-1] == "paused")
    due = Acks(a.journal, None).due
    found = [fold_of(e) for e in a.journal.all("qemu_savevm_query_pending", side="source") if e.args[7]][:1]
    assert (due(stop - 1, found), due(stop, found), due(stop, [])) == (1, 0, None)


def test_without_the_capability_a_counter_does_not_count() -> None:
    for name in ("ram-no-cap", "k-cap-off-with-reinit"):
        assert not any("counter" in text for text in of(name).why_not_earlier)


def test_rows() -> None:
    """b-one-reinit: 1 GiB of size_hold for 600 ms; avail-switchover-bandwidth 100 MB/s x 300 ms = 30 MB."""
    a = of("b-one-reinit")
    rows = a.convergence
    assert rows[0].reason == "counter + unmeasured" and rows[0].threshold is None
    assert rows[-1].reason == "switchover" and rows[-1].pending_low == 4 << 20
    assert {r.threshold for r in rows[1:]} == {30_000_000} and {r.bandwidth for r in rows[1:]} == {100_000}
    decided = a.journal.first("migration_thread_low_pending").us
    assert sum(a.why_not_earlier.values()) == pytest.approx((rows[-1].us - a.start_us) / 1000)
    assert rows[-1].us <= decided < rows[-1].us + 100_000


def test_queries_are_all_counted() -> None:
    folder = DATA / "recordings" / "b-one-reinit"
    whole = read_log(folder / "source.log.xz", full=True)
    decided = whole.first("migration_thread_low_pending").us
    there = [e for e in whole.all("qemu_savevm_query_pending") if e.us <= decided]
    rows = of("b-one-reinit").convergence
    assert sum(r.queries for r in rows) == len(there)
    assert sum(r.exact for r in rows) == sum(e.args[0] for e in there)


ROW = Turns(0, 2, 1, 50, 60, 0, 100, 10, 0, "")


@pytest.mark.parametrize(("changes", "text"), [
    ({}, "nothing"), ({"acks": 1}, "counter"), ({"pending_low": 101}, "threshold"),
    ({"pending_low": 101, "slept_ms": 50}, "threshold + rate limit"), ({"slept_ms": 50}, "nothing"),
    ({"threshold": None}, "unmeasured"), ({"threshold": None, "pending_low": 0}, "nothing"),
    ({"acks": 2, "pending_low": 101}, "counter + threshold"), ({"acks": None}, "nothing"),
    ({"queries": 0, "slept_ms": 99}, "rate limit")])
def test_reasons(changes: dict, text: str) -> None:
    assert reason(ROW._replace(**changes)) == text


def test_each_window_lasts_until_the_next() -> None:
    rows = [ROW._replace(us=0, reason="counter"), ROW._replace(us=300_000, reason="threshold"),
            ROW._replace(us=400_000, reason="switchover")]
    assert why_not_earlier(rows, 450_000) == {"counter": 300.0, "threshold": 100.0}
