"""Why the switchover did not come earlier: what was pending against the threshold, window by window.

Source: facts sheet 2.3 and 2.4: a switchover needs the ACKs counted and the pending total not above threshold_size
(switchover bandwidth x downtime-limit, set at most every 100 ms); a turn that used up its rate limit sleeps.
"""
from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from .checks import Evidence
from .folds import Fold, turns
from .journal import EPOCH, Journal

WINDOW_US = 100_000  # BUFFER_DELAY: QEMU measures bandwidth over as much
ESTIMATE, EXACT = "migrate_pending_estimate", "migrate_pending_exact"
#: a query's event -> number of its numbers -> where the pending total stands
QUERIES = {"qemu_savevm_query_pending": {5: 4, 6: 5, 8: 5}, ESTIMATE: {3: 0}, EXACT: {3: 0}}


class Turns(NamedTuple):
    """What the loop turns of one window found.

    `pending_low`, `pending_high`, bytes: of its exact queries, if it had any, otherwise of the fast ones (a fast one
    that is low enough is always followed by an exact one). `acks`: the fewest ACKs that were due, None where nothing
    tells. `threshold` bytes and `bandwidth` (for the switchover, bytes per ms): None until they are first measured.
    `slept_ms`: asleep because the rate limit of the window was used up. `reason`: what kept the switchover from coming:
    counter (an ACK is due), threshold (pending is above it), rate limit (asleep), unmeasured (no threshold yet),
    joined by " + "; nothing; or switchover (it came).
    """

    us: int
    queries: int
    exact: int
    pending_low: int
    pending_high: int
    acks: int | None
    threshold: int | None
    bandwidth: int | None
    slept_ms: int
    reason: str


def convergence(journal: Journal, start: int, end: int) -> list[Turns]:
    """One row per tenth of a second of the clock (read_log() folds by the same; a long log by longer ones) in which the
    loop turned, from `start` to the decision to switch over, or to `end`. Times are us of the journal."""
    decided = next((e.us for e in journal.all("migration_thread_low_pending", side="source") if e.us >= start), None)
    last = decided if decided is not None else end
    origin = (journal.start - EPOCH) // timedelta(microseconds=1)
    buckets: dict[int, list[Fold]] = {}
    for fold in turns(journal, *QUERIES, "migration_rate_limit_pre"):
        if start - WINDOW_US < fold.first <= last and fold.last >= start:
            buckets.setdefault((fold.first + origin) // WINDOW_US, []).append(fold)
    measured = [e for e in journal.all("migrate_transferred", side="source") if len(e.args) == 5]
    acks = Acks(journal, decided)
    out, rate = [], None
    for k, folds in buckets.items():
        us = k * WINDOW_US - origin
        while measured and measured[0].us < us + WINDOW_US:
            rate = measured.pop(0)
        found = [f for f in folds if len(f.low) in QUERIES.get(f.name, ())]
        exact = [f for f in found if f.name == EXACT or f.key == "exact"]
        low, high = ([(f.low, f.high)[n][QUERIES[f.name][len(f.low)]] for f in exact or found] for n in (0, 1))
        row = Turns(max(us, start), sum(f.count for f in found), sum(f.count for f in exact), min(low, default=0),
                    max(high, default=0), acks.due(us, found),
                    *((int(rate.args[4]), int(rate.args[3])) if rate else (None, None)),
                    sum(sum(f.total) for f in folds if f.name == "migration_rate_limit_pre"), "")
        came = decided is not None and us <= decided < us + WINDOW_US
        row = row._replace(us=max(us, start))
        out.append(row._replace(reason="switchover" if came else reason(row)))
    return out


class Acks:
    """How many ACKs are due. Before patch 6 a flag, in a legacy source a counter that begins at 1: neither counts if
    the switchover was decided in spite of it (the capability is off), or while management has stopped the guest."""

    def __init__(self, journal: Journal, decided: int | None) -> None:
        self.counted = [e.us for e in journal.all("source_return_path_thread_switchover_acked", side="source")]
        self.stopped = [(e.us, e.args[-1] != "running") for e in journal.all("runstate_set", side="source")]
        self.ignored = decided is not None and not any(us <= decided for us in self.counted) and \
            Evidence(journal).scheme != "new"

    def due(self, us: int, found: list[Fold]) -> int | None:
        """The fewest in the window that begins at `us`; None where nothing tells."""
        if not found:
            return None
        if self.ignored or [False, *(stopped for at, stopped in self.stopped if at <= us)][-1]:
            return 0
        numbers = [f.low[-1] for f in found if len(f.low) == 8]
        return min(numbers) if numbers else int(not any(at < us + WINDOW_US for at in self.counted))


def reason(row: Turns) -> str:
    """What kept the switchover from coming in this window; more than one reason is joined by " + "."""
    if not row.queries:
        return "rate limit"
    out = ["counter"] if row.acks else []
    if row.threshold is None and row.pending_low:
        out.append("unmeasured")
    elif row.pending_low > (row.threshold or 0):
        out.append("threshold")
        out += ["rate limit"] if row.slept_ms >= WINDOW_US // 2000 else []
    return " + ".join(out) or "nothing"


def why_not_earlier(rows: list[Turns], end: int) -> dict[str, float]:
    """Reason -> for how many ms it held, each window until the next one begins; the one of the switchover is left out.
    `end`: of the last window, us."""
    out: dict[str, float] = {}
    for row, after in zip(rows, [*(r.us for r in rows[1:]), end], strict=False):
        if row.reason == "switchover":
            continue
        out[row.reason] = out.get(row.reason, 0.0) + max(0, after - row.us) / 1000
    return out
