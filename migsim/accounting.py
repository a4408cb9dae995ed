"""What the timed driver counts to answer the model's questions: bytes, windows, bandwidth, threshold, RAM.

None of it is explored state (design: one model, two drivers). Source: facts sheet 2.4, 13; measured facts 2.
Times in ns unless named ms; sizes in bytes.
"""
from __future__ import annotations

from typing import Any, ClassVar

from .qemu.ram import PAGE, RAMState, count
from .qemu.state import SRC, State, World
from .qemu.stream import VFIO_MIG_FLAG_DEV_DATA_STATE as DATA_STATE
from .qemu.stream import Record, package_size

BUFFER_DELAY = 100  # ms, the rate limit's window


def sleep(w: World, ns: int) -> int:
    """Time that passes inside one function, without effect of its own."""
    return ns


class Accounting(State):
    """The questions that depend on time, bytes or rates, and what feeds them."""

    unbuffered = False  # QEMUFile buffers
    drops_empty = False  # a section without data is sent all the same
    modules: ClassVar[dict[str, int]] = {}  # pending bytes of dirty-bitmap and s390-cmma, where registered

    def __init__(self, params: dict[str, float], ram: RAMState, sections: dict[str, Any], cost: Any,
                 link_bytes_per_s: float = 0) -> None:
        self.params = params
        self.ram = ram
        self.sections = sections
        self.cost = cost
        self.link_ns = 0.0  # per byte, with the proxy's overhead
        if link_bytes_per_s:
            self.link_ns = 1e9 / link_bytes_per_s + cost.proxy_overhead / cost.proxy_chunk
        self.link_free = 0
        self.records: list[Record] = []
        self.answers: list[Any] = []
        self.keep_records = False
        self.messages: list[tuple[str, str]] = []
        self.sums = [0, 0, 0]
        self.transferred = self.vfio_transferred = 0
        self.start_ns = self.setup_ns = self.downtime_ns = self.total_ns = -1
        self.stopped_ns = self.vcpus_stopped_ns = self.guest_down_ns = -1
        self.window_bytes = self.window_ms = 0
        self.rate_on = True
        self.bandwidth = self.threshold = 0.0
        self.mbps = 0.0
        self.dirty_sync_count = 0
        self.dirty_bytes_last_sync = self.remaining = 0
        self.period_start_ns = self.period_bytes = 0
        self.high_count = 0
        self.downtime_bytes = 0
        self.dirty_rate = 0
        self.refusal = ""

    def copy(self) -> Accounting:
        """An independent copy."""
        new = super().copy()
        new.ram, new.sums, new.params = self.ram.copy(), self.sums[:], dict(self.params)
        new.records, new.answers, new.messages = self.records[:], self.answers[:], self.messages[:]
        return new

    # --- the life of a migration ---

    def migrate_init(self, w: World) -> None:
        """Counters to zero (2.1 #2)."""
        self.transferred = self.vfio_transferred = self.downtime_bytes = 0
        self.ram.normal_sent = self.ram.zero_sent = self.ram.dirty_pages_period = 0
        self.start_ns, self.setup_ns, self.downtime_ns, self.total_ns = w.now, -1, -1, -1
        self.guest_down_ns = -1
        self.bandwidth = self.threshold = self.mbps = 0.0
        self.rate_on = True
        self.dirty_sync_count = 1 if w.scfg.code.iteration_counter else 0
        self.dirty_bytes_last_sync = self.remaining = self.dirty_rate = 0
        self.ram.throttle, self.high_count = 0, 0
        self.link_free = 0
        self._new_window(w)

    def setup_done(self, w: World) -> None:
        """Setup time, and the first window begins."""
        self.setup_ns = w.now - self.start_ns
        self.period_start_ns, self.period_bytes = w.now, self.transferred
        self._new_window(w)

    def _new_window(self, w: World) -> None:
        self.window_bytes, self.window_ms = self.transferred, w.now // 1_000_000

    def guest_stopped(self, w: World) -> None:
        """The source's vCPUs stop."""
        self.ram.ran_ns, self.ram.running_since = self.ram.guest_ns(w.now), -1
        self.vcpus_stopped_ns = w.now

    def guest_started(self, w: World, side: str) -> None:
        """vCPUs run on `side`; ends the downtime as the guest feels it."""
        if side is SRC:
            self.ram.running_since = w.now
        if self.vcpus_stopped_ns >= 0 and self.start_ns >= 0:
            self.guest_down_ns = w.now - self.vcpus_stopped_ns

    def downtime_start(self, w: World) -> None:
        """Entry of migration_stop_vm()."""
        self.stopped_ns = w.now

    def downtime_end(self, w: World) -> None:
        """migration_completion_end(), or the end of postcopy_start()."""
        self.downtime_ns = w.now - self.stopped_ns

    def total_end(self, w: World) -> None:
        """total_time is taken."""
        self.total_ns = w.now - self.start_ns
        if self.total_ns:
            self.mbps = self.transferred * 8 * 1000 / self.total_ns

    def refused(self, side: str, text: str) -> None:
        """`migrate` itself, or a device at start, was refused."""
        self.refusal = self.refusal or text
        self.stderr(side, text)

    def stderr(self, side: str, text: str) -> None:
        """error_report() of one side."""
        self.messages.append((side, text))

    def warn_once(self, side: str, text: str) -> None:
        """warn_report_once(): the process prints the first message of this kind only."""
        kind = text.rpartition("ioctl(")[2].partition(")")[0]
        if not any(s == side and kind in said for s, said in self.messages):
            self.stderr(side, text)

    def set_parameters(self, w: World, params: dict[str, float]) -> None:
        """migrate-set-parameters: takes effect with the next window."""
        self.params = {**self.params, **params}

    # --- queries ---

    def begin_query(self) -> None:
        """A new MigPendingData."""
        self.sums = [0, 0, 0]

    def add_pending(self, precopy: int, stopcopy: int, postcopy: int) -> None:
        """One module's report."""
        s = self.sums
        s[0] += precopy
        s[1] += stopcopy
        s[2] += postcopy

    def pending(self) -> tuple[int, int, int]:
        """(precopy, stopcopy, postcopy) so far."""
        return tuple(self.sums)  # type: ignore[return-value]

    def end_query(self, update: bool) -> tuple[int, int, int]:
        """The sums; `update` also remembers the system's remaining bytes."""
        if update:
            self.remaining = sum(self.sums)
        return tuple(self.sums)  # type: ignore[return-value]

    def total(self) -> int:
        """total_bytes of the last query."""
        return sum(self.sums)

    # --- the questions (2.3) ---

    def rate_exceeded(self, w: World) -> bool:
        """migration_rate_exceeded(): window used up, or the file has an error."""
        if w.src.to_dst_error:
            return True
        limit = self.params["max-bandwidth"]
        return bool(limit and self.rate_on) and self.transferred - self.window_bytes > limit / 10

    def window_left(self) -> float:
        """Bytes left in the window."""
        limit = self.params["max-bandwidth"]
        return limit / 10 - (self.transferred - self.window_bytes) if limit and self.rate_on else float("inf")

    def within_threshold(self, w: World) -> bool:
        """total <= threshold_size."""
        return sum(self.sums) <= self.threshold

    def estimate_below_threshold(self, w: World) -> bool:
        """old: pending < threshold_size, strictly."""
        return sum(self.sums) < self.threshold

    def no_precopy_bytes(self, w: World) -> bool:
        """Nothing left that could be sent while the guest runs."""
        return self.sums[0] == 0

    def postcopy_within_threshold(self, w: World) -> bool:
        """postcopy_should_start(): what cannot wait fits into the downtime."""
        return self.sums[0] + self.sums[1] <= self.threshold

    def nothing_pending(self, w: World) -> bool:
        """Postcopy is done."""
        return sum(self.sums) == 0

    def go_next(self, w: World) -> None:
        """migration_iteration_go_next(): remember the total, count the pass."""
        self.dirty_bytes_last_sync = sum(self.sums)
        self.dirty_sync_count += 1

    # --- rate limit and bandwidth (2.4) ---

    def rate_limit(self, w: World) -> int:
        """Update the counters; ns to sleep when the window is used up."""
        self.update_counters(w)
        if not self.rate_exceeded(w) or w.src.to_dst_error:
            return 0
        ms = self.window_ms + BUFFER_DELAY - w.now // 1_000_000
        w.source("migration_rate_limit_pre", ms)
        return max(0, ms) * 1_000_000

    def update_counters(self, w: World) -> None:
        """migration_update_counters(): every 100 ms bandwidth, threshold, a new window."""
        now_ms = w.now // 1_000_000
        spent = now_ms - self.window_ms
        if spent < BUFFER_DELAY:
            return
        sent = self.transferred - self.window_bytes
        self.bandwidth = sent / spent
        given = int(self.params.get("avail-switchover-bandwidth", 0))
        switchover = given // 1000 if given else self.bandwidth
        self.threshold = switchover * self.params["downtime-limit"]
        self.mbps = sent * 8 / spent / 1000
        shown = self.mbps if w.scfg.code.single_pending else self.bandwidth
        w.source("migrate_transferred", sent, spent, int(shown), int(switchover), int(self.threshold))
        self._new_window(w)

    def rate_limit_off(self) -> None:
        """No limit during the switchover (2.5 #7)."""
        self.rate_on = False

    # --- the wire ---

    def sent(self, w: World, record: Record, size: int) -> None:
        """Count what leaves."""
        self.transferred += size
        if self.keep_records:
            self.records.append(record)
        if record.name.endswith("vfio") and record.payload:
            self.vfio_transferred += sum(item[1] for item in record.payload if item[0] == DATA_STATE)

    def returned(self, message: Any) -> None:
        """A return-path message."""
        if self.keep_records:
            self.answers.append(message)

    def arrival(self, w: World, size: int) -> int:
        """When the destination can read it: at once, or when the link has carried it."""
        if not self.link_ns:
            return w.now + self.cost.network
        self.link_free = int(max(w.now, self.link_free) + size * self.link_ns)
        return self.link_free + self.cost.network

    def link_behind(self, w: World) -> int:
        """ns until the link has taken enough of the sender's queue."""
        if not self.link_ns:
            return 0
        room = (self.cost.unix_socket + self.cost.proxy_chunk) * self.link_ns
        return max(0, int(self.link_free - w.now - room))

    def delay(self, ns: float) -> tuple:
        """Steps that let time pass."""
        return ((sleep, round(ns)),) if ns else ()

    def section(self, record: Record) -> Any:
        """Table entry of a record's section; repeated names are told apart by the instance in the payload."""
        entry = self.sections.get((record.name, record.payload[0] if record.kind == "FULL" and record.payload
                                   and isinstance(record.payload[0], int) else 0))
        return entry or self.sections[(record.name, 0)]

    def section_id(self, idstr: str) -> int:
        """section_id of the first instance."""
        return self.sections[(idstr, 0)].section_id

    def package_size(self, record: Record) -> int:
        """Bytes inside a PACKAGED command."""
        return package_size(record)

    # --- RAM ---

    def page_costs(self, w: World, link: bool = True) -> tuple[float, float]:
        """ns per normal and per zero page; over a slow link its rate decides."""
        per = self.link_ns if link else 0
        return max(self.cost.normal_page, per * (PAGE + 8)), max(self.cost.zero_page, per * 9)

    def precopy_notify(self, reason: str, last_stage: bool) -> None:
        """Precopy notifiers (10.2): nobody listens in the modelled machine."""

    def bitmap_sync(self, w: World) -> None:
        """migration_bitmap_sync(): pages, rates once a second, auto-converge (measured facts 2.4, 2.10)."""
        ram = self.ram
        ram.dirty_pages_period += ram.sync(w.now)
        if not w.scfg.code.iteration_counter:
            self.dirty_sync_count += 1
        period = w.now - self.period_start_ns
        if period > 1_000_000_000:
            if w.scfg.caps.get("auto-converge"):
                self._trigger_throttle(w)
            self.dirty_rate = ram.dirty_pages_period * 1_000_000_000 // period
            ram.dirty_pages_period = 0
            self.period_start_ns, self.period_bytes = w.now, self.transferred

    def _trigger_throttle(self, w: World) -> None:
        ram, p = self.ram, self.params
        sent = self.transferred - self.period_bytes
        if ram.dirty_pages_period * PAGE <= sent * p.get("throttle-trigger-threshold", 50) / 100:
            return
        self.high_count += 1
        if self.high_count >= 2:
            self.high_count = 0
            ram.ran_ns, ram.running_since = ram.guest_ns(w.now), w.now if ram.running_since >= 0 else -1
            step = p.get("cpu-throttle-increment", 10) if ram.throttle else p.get("cpu-throttle-initial", 20)
            ram.throttle = min(ram.throttle + step, p.get("max-cpu-throttle", 99))

    def downtime_pages(self, runs: tuple) -> None:
        """RAM bytes sent while the guest stood still."""
        self.downtime_bytes = sum(n * (9 if zero else PAGE + 8) for _, n, zero in runs)

    # --- what query-migrate shows (13.1) ---

    def query_migrate(self, w: World) -> dict[str, Any]:
        """The source's query-migrate: status, error-desc, times in ms, ram and vfio."""
        s = w.src
        if s.state == "none":
            return {}
        out: dict[str, Any] = {"status": s.state}
        if s.error:
            out["error-desc"] = s.error
        if s.state in ("failed", "cancelled", "failing", "cancelling"):
            return out
        end = self.total_ns if self.total_ns >= 0 else w.now - self.start_ns
        out["total-time"] = end // 1_000_000
        out["setup-time"] = max(0, self.setup_ns) // 1_000_000
        if self.downtime_ns >= 0:
            out["downtime"] = self.downtime_ns // 1_000_000
        else:
            out["expected-downtime"] = self._expected_downtime()
        out["ram"] = self._query_ram(s.state == "completed")
        if w.sdev:
            out["vfio"] = {"transferred": self.vfio_transferred}
        if w.scfg.code.single_pending and s.state != "completed":
            out["remaining"] = self.remaining
        return out

    def _expected_downtime(self) -> int:
        if self.dirty_sync_count <= 1 or not self.bandwidth:
            return int(self.params["downtime-limit"])
        return int(self.dirty_bytes_last_sync / self.bandwidth)

    def _query_ram(self, completed: bool) -> dict[str, Any]:
        ram = self.ram
        return {"total": ram.pages * PAGE, "transferred": self.transferred, "remaining": count(ram.dirty) * PAGE,
                "normal": ram.normal_sent, "normal-bytes": ram.normal_sent * PAGE, "duplicate": ram.zero_sent,
                "dirty-sync-count": self.dirty_sync_count, "page-size": PAGE,
                "dirty-pages-rate": 0 if completed else self.dirty_rate,
                "downtime-bytes": self.downtime_bytes, "mbps": round(self.mbps, 6)}

