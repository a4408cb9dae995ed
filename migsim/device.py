"""The kernel's side of a VFIO device: states and legal arcs, features, precopy info, the data session.

Source: facts sheet section 6 (VFIO uAPI). What the device does when is its script, in the vocabulary of the
recordings' README (`devices[]` keys). A `KernelDevice` is plain state: it copies and compares; the script is shared.
"""
from __future__ import annotations

import errno
from collections import deque
from functools import cache
from typing import Any

STOP_COPY_FLAG, P2P_FLAG, PRE_COPY_FLAG = 1, 2, 4  # mig_flags bits (6.1)

_BASIC = {"RUNNING": ("RUNNING_P2P", "PRE_COPY"), "RUNNING_P2P": ("RUNNING", "STOP", "PRE_COPY_P2P"),
          "STOP": ("RUNNING_P2P", "STOP_COPY", "RESUMING"), "STOP_COPY": ("STOP",), "RESUMING": ("STOP",),
          "PRE_COPY": ("PRE_COPY_P2P", "RUNNING"), "PRE_COPY_P2P": ("PRE_COPY", "STOP_COPY", "RUNNING_P2P")}
_NO_P2P = {"RUNNING": ("STOP", "PRE_COPY"), "STOP": ("RUNNING", "STOP_COPY", "RESUMING"), "STOP_COPY": ("STOP",),
           "RESUMING": ("STOP",), "PRE_COPY": ("STOP_COPY", "RUNNING")}
_SAVING = ("PRE_COPY", "PRE_COPY_P2P", "STOP_COPY")


@cache
def arcs(old: str, new: str, mig_flags: int) -> tuple[str, ...] | None:
    """States the kernel walks through from `old` to `new`, or None if not permitted (facts sheet 6.2).

    Shortest path with no saving-group state as an interior step, but PRE_COPY_P2P on the way from PRE_COPY.
    """
    table = _BASIC if mig_flags & P2P_FLAG else _NO_P2P
    if old == new:
        return ()
    if old == "STOP_COPY" and new.startswith("PRE_COPY"):
        return None
    if old == "PRE_COPY" and new == "STOP_COPY" and mig_flags & P2P_FLAG:
        return ("PRE_COPY_P2P", "STOP_COPY")
    queue: deque[tuple[str, ...]] = deque([(old,)])
    seen = {old}
    while queue:
        path = queue.popleft()
        for step in table.get(path[-1], ()):
            if step in seen or (step.startswith("PRE_COPY") and not mig_flags & PRE_COPY_FLAG):
                continue
            if step == new:
                return (*path[1:], step)
            if step not in _SAVING:
                seen.add(step)
                queue.append((*path, step))
    return None


class KernelDevice:
    """One device as its kernel driver sees it. Sizes in bytes, `now` in ns.

    `unread` is the data session: records (kind, bytes left) in stream order, kind I (initial), R (REINIT chunk),
    D (dirty) or S (stop-copy). `announced` counts the initial chunks produced so far, `loaded` those a destination
    device has loaded.
    """

    def __init__(self, script: Any, triggers: tuple = ()) -> None:
        self.script = script
        self.state = "RUNNING"
        self.data_fd = False
        self.v2 = False
        self.session = 0
        self.since = 0
        self.queries = 0
        self.unread: tuple[tuple[str, int], ...] = ()
        self.reinit_flag = False
        self.all_triggers = self.triggers = triggers
        self.initial_read_at = -1
        self.announced = 0
        self.loaded = 0
        self.records = 0  # complete records written so far, where one of them is to fail
        self.told: tuple[tuple[int, str, int], ...] = ()  # (ns, REINIT | initial | loaded, bytes): what QEMU cannot see
        self.checked = False  # the query at guest stop has been made
        self.fail_next = False  # the next precopy-info query fails (exhaustive driver)

    def copy(self) -> KernelDevice:
        """An independent copy; the script is shared."""
        new = object.__new__(KernelDevice)
        new.__dict__.update(self.__dict__)
        return new

    def key(self) -> tuple:
        """What a later step can see of it: no times, no counts of queries."""
        return (self.state, self.data_fd, self.unread, self.reinit_flag, self.announced, self.loaded, self.checked)

    @property
    def mig_flags(self) -> int:
        """Bits of feature 1: STOP_COPY, P2P, PRE_COPY."""
        s = self.script
        return STOP_COPY_FLAG | (P2P_FLAG if s.p2p else 0) | (PRE_COPY_FLAG if s.precopy else 0)

    def set_precopy_info_v2(self) -> int:
        """Feature 12 SET: 0, or a positive errno; ENOTTY from a kernel without it (6.1)."""
        s = self.script
        if s.v2_errno:
            return s.v2_errno
        if not s.v2:
            return errno.ENOTTY
        self.v2 = True
        return 0

    def set_state(self, new: str, now: int) -> tuple[int, int]:
        """Go to `new`. Returns (errno or 0, ns it takes). Opens and ends data sessions as 6.2 says; a failure
        leaves it where it was on the path."""
        path = arcs(self.state, new, self.mig_flags)
        if path is None:
            return errno.EINVAL, 0
        cost, s = 0, self.script
        for step in path:
            if step == s.fail_state:
                return errno.EIO, int(cost)
            old, self.state = self.state, step
            if step in ("RUNNING", "RUNNING_P2P", "STOP"):
                cost += s.start_ms * 1_000_000 if old == "RESUMING" else 0
                self.data_fd, self.unread, self.reinit_flag = False, (), False
            elif step == "RESUMING":
                cost += s.resume_ms * 1_000_000
                self.data_fd = True
            elif step in ("PRE_COPY", "PRE_COPY_P2P") and old not in _SAVING:
                self._begin_session(now)
            elif step == "STOP_COPY":
                cost += s.stop_ms * 1_000_000
                if old not in _SAVING:
                    self.data_fd, self.unread = True, ()
                self._add_stop_copy()
        return 0, round(cost)

    def reset(self) -> None:
        """VFIO_DEVICE_RESET: back to RUNNING, session lost."""
        self.state, self.data_fd, self.unread, self.reinit_flag = "RUNNING", False, (), False

    def _begin_session(self, now: int) -> None:
        s = self.script
        self.data_fd, self.since, self.queries, self.reinit_flag = True, now, 0, False
        self.session += 1
        self.initial_read_at = -1
        quiet = s.once_only_session and s.once_only_session != self.session
        self.triggers = () if quiet else self.all_triggers
        self.unread = tuple((k, n) for k, n in (("I", s.initial), ("D", s.dirty)) if n)
        self.announced = 1 if s.initial else 0
        self.told += ((now, "initial", s.initial),)
        if not s.initial:
            self.initial_read_at = now

    def _add_stop_copy(self) -> None:
        left, rec, records = self.script.stopcopy, self.script.rec, []
        while left > 0:
            records.append(("S", min(left, rec)))
            left -= rec
        self.unread += tuple(records)

    def reinit(self, size: int, now: int = 0) -> None:
        """The device produces a new initial chunk (6.3): with INFOv2 it is initial data, unread dirty data is
        dropped and the flag goes up; without, the chunk is counted in dirty_bytes."""
        if self.v2:
            self.unread = tuple(r for r in self.unread if r[0] != "D")
            self.reinit_flag = True
        self.unread += (("R", size),)
        self.announced += 1
        self.told += ((now, "REINIT", size),)

    def _fire(self, kinds: tuple[str, ...], now: int) -> None:
        ms, left = (now - self.since) / 1e6, []
        for trigger in self.triggers:
            kind, value, size = trigger
            if kind not in kinds:
                due = False
            elif kind in ("t", "rd"):
                due = ms >= value
            elif kind == "info":
                due = self.queries >= value
            elif kind == "after":
                due = self.initial_read_at >= 0 and (now - self.initial_read_at) / 1e6 >= value
            else:
                due = True
            if due:
                self.reinit(size, now)
            else:
                left.append(trigger)
        self.triggers = tuple(left)

    def precopy_info(self, now: int, at_stop: bool = False) -> tuple[int, int, int, bool]:
        """VFIO_MIG_GET_PRECOPY_INFO: (errno, initial_bytes, dirty_bytes, REINIT flag). EINVAL outside precopy."""
        s = self.script
        if self.state not in ("PRE_COPY", "PRE_COPY_P2P"):
            return errno.EINVAL, 0, 0, False
        self.queries += 1
        self.checked = at_stop
        if self.fail_next:
            self.fail_next = False
            return errno.EIO, 0, 0, False
        if (s.info_fail_at and self.queries >= s.info_fail_at) or (at_stop and s.info_fail_gap):
            return s.info_errno, 0, 0, False
        if self.triggers:
            self._fire(("t", "info", "after", "gap") if at_stop else ("t", "info", "after"), now)
        if s.dirty_floor and now - self.since < s.dirty_until * 1_000_000:
            self._top_up_dirty(s.dirty_floor)
        initial = dirty = 0
        for kind, left in self.unread:
            if kind == "I" or (kind == "R" and self.v2):
                initial += left
            else:
                dirty += left
        flag = self.reinit_flag
        if flag and s.reinit_flag_once:
            self.reinit_flag = False
        if s.bogus_at and self.queries == s.bogus_at:
            initial = s.bogus_init
        return 0, initial, dirty, flag

    def _top_up_dirty(self, floor: int) -> None:
        have = sum(n for k, n in self.unread if k == "D")
        if have < floor:
            self.unread = (*(r for r in self.unread if r[0] != "D"), ("D", floor))

    def data_size(self, now: int) -> tuple[int, int]:
        """Feature 9, MIG_DATA_SIZE: (errno or 0, estimated stop-copy bytes, plus `size_hold` until `dirty_until`)."""
        s = self.script
        if s.size_errno:
            return s.size_errno, 0
        hold = s.size_hold and self.session and self.state != "RUNNING"
        return 0, s.stopcopy + (s.size_hold if hold and now - self.since < s.dirty_until * 1_000_000 else 0)

    def read(self, count: int, now: int) -> tuple[int, str, bool] | None:
        """read(data_fd): (bytes, kind, record finished); bytes 0 is the end in STOP_COPY; None is ENOMSG."""
        if self.triggers and self.state == "PRE_COPY":
            self._fire(("rd",), now)
        if not self.unread:
            return (0, "", False) if self.state == "STOP_COPY" else None
        (kind, left), *rest = self.unread
        size = min(left, count)
        done = size == left
        self.unread = tuple(rest) if done else ((kind, left - size), *rest)
        if done and kind in "IR" and not any(k in "IR" for k, _ in rest):
            self.reinit_flag = self.reinit_flag and self.script.reinit_flag_once
            if self.initial_read_at < 0:
                self.initial_read_at = now
        return size, kind, done

    def write(self, kind: str, done: bool, now: int = 0) -> tuple[int, int]:
        """write(data_fd) while RESUMING: (errno or 0, ns the load takes); all of it when a record is complete."""
        if not done:
            return 0, 0
        s = self.script
        if s.fail_load:
            self.records += 1
            if self.records == s.fail_load:
                return errno.EIO, 0
        ms = {"I": s.load_init_ms, "R": s.load_reinit_ms, "D": s.load_dirty_ms, "S": s.load_stop_ms}[kind]
        if kind in "IR":
            self.loaded += 1
            self.told += ((now + round(ms * 1e6), "loaded", 0),)
        return 0, round(ms * 1e6)
