"""The state of two QEMUs and what is between them. Plain attributes that copy, compare and hash.

A thread is a stack of pending steps `(function, *arguments)`. Running a step pops it, changes state, appends trace
events and may push the steps it "calls" with `World.then`. A step returns what it costs in ns, or the name of what
it waits for (a key of `World.signal`) after having changed nothing. Steps are the unit of atomicity: BQL, atomics and
channels decide where one ends (facts sheet 2.9). Nothing in the model knows which driver runs it.
"""
from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

from ..device import KernelDevice
from ..ladder import Binary, CodeBase

SRC, DST = "source", "destination"
#: threads: source main loop, migration thread, return-path thread; destination main loop, postcopy listen thread
MAIN, MIG, RP, INCOMING, LISTEN, MANAGEMENT = range(6)
#: threads that hold or take the source's BQL

Step = tuple  # (function, *arguments)


class State:
    """Attributes only; `copy` is shallow, so every value must be immutable or copied by the owner."""

    def copy(self) -> Any:
        """An independent copy."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def key(self) -> tuple:
        """The values, for comparison and hashing."""
        return tuple(self.__dict__.values())

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


class Config:
    """What one end was started with; never changes during a run (facts sheet 2.1, 8.2)."""

    def __init__(self, binary: Binary, caps: dict[str, bool], devices: list[str], mode: str = "normal") -> None:
        self.binary = binary
        self.code: CodeBase = binary.code
        self.legacy = binary.switchover_ack_legacy
        self.caps = caps
        self.ack = caps.get("switchover-ack", False)
        self.return_path = caps.get("return-path", False)
        self.postcopy = caps.get("postcopy-ram", False)
        self.pause = caps.get("pause-before-switchover", False)
        self.cpr = mode != "normal"
        self.device_names = devices

    @property
    def new_ack(self) -> bool:
        """migrate_switchover_ack() && !migrate_switchover_ack_legacy()."""
        return self.ack and not self.legacy


class VFIODevice(State):
    """VFIODevice and its VFIOMigration (facts sheet 7.1). Sizes in bytes."""

    def __init__(self, name: str, idstr: str, mig_flags: int) -> None:
        self.name = name
        self.idstr = idstr
        self.device_state = "RUNNING"
        self.data_fd = False
        self.mig_flags = mig_flags
        self.precopy_init_size = 0
        self.precopy_dirty_size = 0
        self.stopcopy_size = 0
        self.data_buffer_size = 0
        self.precopy_info_v2_used = False
        self.initial_data_sent = False
        self.request_switchover_ack = False
        self.event_save_iterate_started = False
        self.event_precopy_empty_hit = False


class Source(State):
    """MigrationState and the process around it (facts sheet 2)."""

    def __init__(self) -> None:
        self.state = "none"
        self.runstate = "prelaunch"
        self.vm_old_state = ""
        self.vm_was_suspended = False
        self.bql = -1
        self.switchover_ack_pending_num = 0
        self.switchover_acked = False
        self.pending_ack = 0  # this query's MigPendingData.switchover_ack_pending
        self.can_switchover = False
        self.final_collected = False  # the final query has collected a request
        self.decided_running = False  # the run state that migration_can_switchover() read
        self.error = ""
        self.to_dst_error = 0
        self.to_dst_error_obj = ""  # its Error, where it has one
        self.to_dst_open = False
        self.rp_open = False
        self.rp_thread = False
        self.rp_thread_created = False
        self.rp_error = False
        self.start_postcopy = False
        self.package_loaded = False
        self.pause_event = False
        self.stop_result = True
        self.commands: tuple = ()
        self.bottom_halves: tuple = ()
        self.exited = False
        self.buffered: tuple = ()  # QEMUFile's buffer: (record, size)
        self.buffered_size = 0
        self.package: tuple | None = None
        self.collected = 0  # requests collected and ACKs received so far: for the properties
        self.acks = 0


class Destination(State):
    """MigrationIncomingState and its process (facts sheet 3)."""

    def __init__(self) -> None:
        self.state = "none"
        self.runstate = "inmigrate"
        self.switchover_ack_pending_num_legacy = 0
        self.to_src_open = False
        self.footer_due = 0  # section whose footer travels with the next write
        self.vm_was = "running"  # global_state of the source
        self.vm_was_suspended = False
        self.listening = False
        self.listen_ready = False
        self.ret = 0
        self.error = ""
        self.done = False
        self.exited = False


class Channel(State):
    """One direction of the connection: messages on the way, and whether the sender closed it.

    `charge` is what the unread messages occupy of the socket buffer (recordings' README, transport).
    """

    def __init__(self, capacity: float, write_charge: float, reset: bool = False) -> None:
        self.reset = reset  # TCP: a write after the peer's shutdown still succeeds; a unix socket gives EPIPE
        self.messages: deque = deque()  # (arrival in ns, charge, record)
        self.charge = 0.0
        self.open = False
        self.reset_by_peer = False
        self.capacity = capacity
        self.write_charge = write_charge

    def copy(self) -> Channel:
        """An independent copy."""
        new = super().copy()
        new.messages = self.messages.copy()
        return new

    def key(self) -> tuple:
        """What is on the way, without times."""
        return (self.open, *(m for _, _, m in self.messages))


class World:
    """Both QEMUs, their kernels' devices, the channels, the threads; plus what belongs to the driver (not state)."""

    def __init__(self, scfg: Config, dcfg: Config, skern: list[KernelDevice], dkern: list[KernelDevice],
                 sockets: tuple[float, float], cost: SimpleNamespace, tcp: bool) -> None:
        self.scfg, self.dcfg, self.cost = scfg, dcfg, cost
        self.src, self.dst = Source(), Destination()
        self.sdev: list[VFIODevice] = []
        self.ddev: list[VFIODevice] = []
        self.skern, self.dkern = skern, dkern
        self.forward, self.back = Channel(*sockets), Channel(1e9, 0, tcp)
        self.threads: list[list[Step]] = [[] for _ in range(6)]
        # the driver's
        self.tid = MAIN
        self.now = 0
        self.ev: Any = deque(maxlen=0).append
        self.handlers: tuple = ()
        self.sections: tuple = ()  # non-iterable sections: idstr, instance, version, id, size
        self.acct: Any = None
        self.driver: Any = None

    def then(self, *steps: Step) -> None:
        """Make the current thread run these steps, in this order, before what it was about to do."""
        self.threads[self.tid] += steps[::-1]

    def start(self, tid: int, *steps: Step) -> None:
        """Create a thread."""
        self.threads[tid] = list(steps[::-1])
        self.driver.wake(tid)

    def signal(self, key: str) -> None:
        """Something that threads may wait for has changed."""
        self.driver.signal(key)

    def source(self, name: str, *args: Any) -> None:
        """Trace on the source."""
        self.ev((self.now, SRC, name, args))

    def destination(self, name: str, *args: Any) -> None:
        """Trace on the destination."""
        self.ev((self.now, DST, name, args))

    def shallow(self) -> World:
        """A copy that shares every part."""
        new = object.__new__(World)
        new.__dict__ = self.__dict__.copy()
        return new

    def copy(self) -> World:
        """An independent copy; configuration and driver are shared."""
        new = object.__new__(World)
        new.__dict__.update(self.__dict__)
        new.src, new.dst = self.src.copy(), self.dst.copy()
        new.sdev, new.ddev = [d.copy() for d in self.sdev], [d.copy() for d in self.ddev]
        new.skern, new.dkern = [k.copy() for k in self.skern], [k.copy() for k in self.dkern]
        new.forward, new.back = self.forward.copy(), self.back.copy()
        new.threads = [t[:] for t in self.threads]
        return new


class Deadlock(RuntimeError):
    """A thread takes a lock that it holds: QEMU would hang here (facts sheet 2.9, 10.4)."""


def bql_lock(w: World) -> str | None:
    """bql_lock(): waits, or raises Deadlock when the thread has it already."""
    s = w.src
    if s.bql == w.tid:
        raise Deadlock("bql_lock: the BQL is already held by this thread")
    if s.bql >= 0:
        return "bql"
    s.bql = w.tid
    return None


def bql_unlock(w: World) -> None:
    """bql_unlock()."""
    w.src.bql = -1
    w.signal("bql")


def migrate_set_state(w: World, new: str) -> None:
    """migrate_set_state() on the source."""
    w.src.state = new
    w.source("migrate_set_state", f"new state {new}"[10:])


def migrate_error(w: World, text: str) -> None:
    """migrate_error_propagate(): the first error stays (facts sheet 13.1 error-desc)."""
    w.source("migrate_error", text)
    if not w.src.error:
        w.src.error = text
