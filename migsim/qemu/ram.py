"""RAM as a SaveVMHandler (migration/ram.c): dirty pages as runs, syncs, 50 ms turns, flushes.

Source: facts sheet section 10, measured facts 2. A page is 4096 bytes; what is dirty is kept as sorted runs
[first, end). Page contents: zero, or not.
"""
from __future__ import annotations

from . import savevm
from .state import State, World, bql_lock, bql_unlock
from .stream import Record

PAGE = 4096
EXTRA_PAGES = 130  # ROMs and video memory beside `mem` of the modelled q35, recordings (532480 bytes)
HEAD, TAIL = 32, 84  # non-zero pages of an idle guest: 116 (ram.normal of recording ram-no-cap, captured stream s1)
FLUSH_NORMAL = 32  # pages: 64 iovecs fill QEMUFile's vector, measured facts 2.1
FLUSH_ZERO = 32768 // 9  # pages: the 32 KiB buffer, 9 bytes each
TURN_NS = 50_000_000  # ram_save_iterate gives way after 50 ms (2.3)

Run = tuple[int, int]


def add_run(runs: tuple[Run, ...], a: int, b: int) -> tuple[Run, ...]:
    """Union of sorted disjoint runs with [a, b)."""
    out, placed = [], False
    for x, y in runs:
        if y < a:
            out.append((x, y))
        elif x > b:
            if not placed:
                out.append((a, b))
                placed = True
            out.append((x, y))
        else:
            a, b = min(a, x), max(b, y)
    if not placed:
        out.append((a, b))
    return tuple(out)


def count(runs: tuple[Run, ...]) -> int:
    """Pages in the runs."""
    return sum(b - a for a, b in runs)


class RAMState(State):
    """RAMState and the guest that writes. Accounting, not explored state."""

    def __init__(self, mem: int, guest: object | None, tick_ns: int, tick_pages: int) -> None:
        self.pages = mem * 256 + EXTRA_PAGES
        self.guest = guest
        self.dirty: tuple[Run, ...] = ()
        self.scan = 0
        self.normal: tuple[Run, ...] = ((0, min(HEAD, self.pages)), (max(0, self.pages - TAIL), self.pages))
        self.tick_ns, self.tick_pages = tick_ns, tick_pages
        self.written = 0  # pages the guest has written since it began
        self.ran_ns = 0  # guest time until `running_since`
        self.running_since = -1
        self.synced_written = 0
        self.synced_ticks = 0
        self.throttle = 0
        self.normal_sent = self.zero_sent = 0
        self.dirty_pages_period = 0
        if guest:
            first = guest.start_mib * 256
            self.normal = add_run(self.normal, first, min(self.pages, first + guest.pages))

    def guest_ns(self, now: int) -> int:
        """Time the guest has run, in ns."""
        running = now - self.running_since if self.running_since >= 0 else 0
        return self.ran_ns + running * (100 - self.throttle) // 100

    def setup(self) -> None:
        """Bitmap all ones."""
        self.dirty, self.scan = ((0, self.pages),), 0

    def _writes(self, now: int) -> int:
        g = self.guest
        ns = self.guest_ns(now)
        if g.spin:
            return int(ns / (g.spin * 2.5 + 1500))
        return int(ns // (g.pause_ms * 1_000_000)) * g.burst

    def sync(self, now: int) -> int:
        """migration_bitmap_sync(): pages written since the last one join the bitmap. Returns new dirty pages."""
        before = count(self.dirty)
        ticks = self.guest_ns(now) // self.tick_ns
        if ticks > self.synced_ticks and self.tick_pages:
            self.dirty = add_run(self.dirty, 4, 4 + self.tick_pages)
        self.synced_ticks = ticks
        g = self.guest
        if g:
            written = self._writes(now)
            new = written - self.synced_written
            first = g.start_mib * 256
            if new >= g.pages:
                self.dirty = add_run(self.dirty, first, first + g.pages)
            elif new > 0:
                a = self.synced_written % g.pages
                self.dirty = add_run(self.dirty, first + a, first + min(a + new, g.pages))
                if a + new > g.pages:
                    self.dirty = add_run(self.dirty, first, first + a + new - g.pages)
            self.synced_written = written
        return count(self.dirty) - before

    def _next_run(self) -> tuple[int, int, bool]:
        for a, b in self.dirty:
            if b > self.scan:
                a = max(a, self.scan)
                for x, y in self.normal:
                    if x <= a < y:
                        return a, min(b, y), False
                    if a < x:
                        return a, min(b, x), True
                return a, b, True
        self.scan = 0
        return self._next_run()

    def take(self, budget: float, ns: float, cost_normal: float, cost_zero: float) -> tuple[tuple, int, int]:
        """Pages for one turn: until `budget` bytes are flushed, `ns` have passed or nothing is dirty.

        Returns (runs of (first, count, zero), bytes, ns spent). Whole flushes count against the budget.
        """
        runs: list[tuple[int, int, bool]] = []
        size, spent = 0, 0.0
        while self.dirty and size < budget and spent < ns:
            a, b, zero = self._next_run()
            per, each, flush = (9, cost_zero, FLUSH_ZERO) if zero else (PAGE + 8, cost_normal, FLUSH_NORMAL)
            n = b - a
            if budget < float("inf"):
                n = min(n, int(-(-(budget - size) // (per * flush))) * flush)
            if ns < float("inf"):
                n = min(n, (int((ns - spent) / each) // 64 + 1) * 64)
            runs.append((a, n, zero))
            self._clear(a, a + n)
            self.scan = a + n
            size += n * per
            spent += n * each
            if zero:
                self.zero_sent += n
            else:
                self.normal_sent += n
        return tuple(runs), size, int(spent)

    def _clear(self, a: int, b: int) -> None:
        out = []
        for x, y in self.dirty:
            if y <= a or x >= b:
                out.append((x, y))
            else:
                out += [(p, q) for p, q in ((x, min(y, a)), (max(x, b), y)) if p < q]
        self.dirty = tuple(out)


# --- the handler ---

def ram_save_setup(w: World, _: int) -> int:
    """ram_save_setup(): block list, bitmap all ones, then one sync, which finds nothing new."""
    w.source("migration_bitmap_sync_start")
    w.acct.ram.setup()
    w.acct.bitmap_sync(w)
    w.then((ram_setup_done,))
    return w.cost.bitmap_sync


def ram_setup_done(w: World) -> int:
    """SECTION_START of RAM."""
    w.source("migration_bitmap_sync_end", 0)
    savevm.send(w, Record("START", "ram", (w.acct.ram.pages * PAGE,)))
    return w.cost.step


def ram_state_pending(w: World, _: int, exact: bool, final: bool) -> int:
    """ram_state_pending(): an exact query syncs under BQL; the final one has it already (patch 2)."""
    if exact and w.src.state not in ("postcopy-device", "postcopy-active"):
        lock, unlock = (), ()
        if not final:
            lock, unlock = ((bql_lock,),), ((ram_unlock,),)
        w.then(*lock, (migration_bitmap_sync_precopy, final), (bitmap_sync_done,), *unlock, (ram_report_pending,))
        return 0
    return ram_report_pending(w)


def ram_unlock(w: World) -> int:
    """bql_unlock() after the sync."""
    bql_unlock(w)
    return 0


def migration_bitmap_sync_precopy(w: World, last_stage: bool) -> int:
    """migration_bitmap_sync_precopy(): notifiers BEFORE and AFTER, the sync between them (10.1, 10.2)."""
    w.acct.precopy_notify("BEFORE_BITMAP_SYNC", last_stage)
    w.source("migration_bitmap_sync_start")
    w.acct.bitmap_sync(w)
    w.acct.precopy_notify("AFTER_BITMAP_SYNC", last_stage)
    return w.cost.bitmap_sync


def bitmap_sync_done(w: World) -> int:
    """Trace with the period's dirty pages so far (measured facts 2.4)."""
    w.source("migration_bitmap_sync_end", w.acct.ram.dirty_pages_period)
    return 0


def ram_report_pending(w: World) -> int:
    """Dirty pages; with postcopy-ram they can all wait until then (10.1)."""
    size = count(w.acct.ram.dirty) * PAGE
    if w.scfg.postcopy:
        w.acct.add_pending(0, 0, size)
    else:
        w.acct.add_pending(size, 0, 0)
    return 0


def ram_save_iterate(w: World, _: int) -> int:
    """ram_save_iterate(): pages until the window is used up, 50 ms have passed or nothing is dirty (2.3)."""
    return ram_turn(w, w.now)


def ram_turn(w: World, since: int, kind: str = "PART") -> int:
    """As many pages as the socket takes. A write that blocks counts in the 50 ms: then the devices get their turn
    although the window is not used up (recording f1-four-devices-new)."""
    acct, ch = w.acct, w.forward
    room = float("inf") if acct.link_ns else max(0, ch.capacity - ch.charge) + FLUSH_NORMAL * (PAGE + 8)
    window = acct.window_left()
    runs, size, spent = acct.ram.take(min(window, room), TURN_NS - (w.now - since), *acct.page_costs(w))
    if acct.link_ns:  # the link decides: socket_wait takes the time
        spent = 0
    if room <= size < window and acct.ram.dirty:
        w.then((ram_put, runs, kind), (ram_turn_again, since))
    elif runs:
        w.then((ram_put, runs, kind), (ram_turn_end, since))
    else:
        return ram_put(w, (), kind) + ram_turn_end(w, since)
    return spent


def ram_put(w: World, runs: tuple, kind: str) -> int:
    """The pages leave; RAM_SAVE_FLAG_EOS and flush. The footer travels with the next write."""
    savevm.send(w, Record(kind, "ram", runs))
    return w.cost.step * 2


def ram_turn_again(w: World, since: int) -> int:
    """The write has returned: go on if there is time left."""
    if w.now - since < TURN_NS and w.acct.ram.dirty and not w.acct.rate_exceeded(w):
        return ram_turn(w, since, "MORE")
    return ram_turn_end(w, since)


def ram_turn_end(w: World, since: int) -> int:
    """The turn is over: 1 when nothing is dirty any more."""
    if w.now - since >= TURN_NS:
        w.source("ram_save_iterate_big_wait", (w.now - since) // 1_000_000, 0)
    w.source("savevm_section_end", "ram", w.acct.section_id("ram"), 0 if w.acct.ram.dirty else 1)
    return 0


def ram_save_complete(w: World, _: int) -> int:
    """ram_save_complete(): before p2 with its own last sync; then all that is dirty, without rate limit."""
    if not w.scfg.code.final_query and w.src.state not in ("postcopy-device", "postcopy-active"):
        w.then((migration_bitmap_sync_precopy, True), (bitmap_sync_done,), (ram_complete_pages,))
        return 0
    return ram_complete_pages(w)


def ram_complete_pages(w: World) -> int:
    """The rest of RAM in SECTION_END."""
    inf = float("inf")
    runs, _, spent = w.acct.ram.take(inf, inf, *w.acct.page_costs(w, link=False))
    w.acct.downtime_pages(runs)
    w.then((ram_send_end, runs))
    return spent


def ram_send_end(w: World, runs: tuple) -> int:
    """SECTION_END of RAM."""
    savevm.send(w, Record("END", "ram", runs))
    return w.cost.step


def ram_postcopy_send_discard_bitmap(w: World) -> int:
    """ram_postcopy_send_discard_bitmap(): merged relies on the final query, before it syncs itself (10.3)."""
    if w.scfg.code.discard_syncs:
        w.then((ram_discard_sync,), (bitmap_sync_done,), (ram_discard_send,))
    else:
        w.then((ram_discard_send,))
    return 0


def ram_discard_sync(w: World) -> int:
    """Before merged: a sync with last_stage false and without precopy notifiers (patch 2 review)."""
    w.source("migration_bitmap_sync_start")
    w.acct.bitmap_sync(w)
    return w.cost.bitmap_sync


def ram_discard_send(w: World) -> int:
    """The dirty runs as POSTCOPY_RAM_DISCARD; one command for the modelled block."""
    runs = max(1, len(w.acct.ram.dirty))
    w.source("qemu_savevm_send_postcopy_ram_discard", "pc.ram", runs)
    savevm.send_command(w, "POSTCOPY_RAM_DISCARD", 9 + 16 * runs)
    return w.cost.step
