"""The exhaustive driver: follows every order of steps that the BQL, the atomics and the channels allow.

The protocol code is the one that the timed driver runs. Time, bandwidth and RAM are abstracted away: `Choices`
answers each question about them both ways. A transition runs one thread up to its next visible step, that is one
that reads or writes what another thread can see (facts sheet 2.9); `LOCAL` lists the steps that do not.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

from .cost import cost_model
from .device import KernelDevice
from .ladder import CODE_BASES, P7_DIFF, Binary, CodeBase
from .properties import PROPERTIES, Environment
from .qemu import completion, incoming, machine, migration, savevm, switchover_ack, system, vfio
from .qemu.state import INCOMING, MAIN, MIG, RP, Config, World, bql_lock
from .qemu.stream import Record

NAMES = {MIG: "M", RP: "R", INCOMING: "D", MAIN: "B"}
THREADS = {letter: tid for tid, letter in NAMES.items()}
WHO = {"M": "migration thread", "R": "return-path thread", "D": "destination", "B": "source main loop",
       "S": "management stops the guest", "C": "management continues the guest", "X": "management cancels",
       "E": "device produces a new initial chunk"}

#: steps that touch nothing another thread can see, or only what the BQL keeps to this thread: they run with the
#: visible step before them
LOCAL: set[Callable] = {
    savevm.qemu_savevm_query_pending, migration.iteration_after_fast_query, migration.iteration_after_estimate,
    migration.migration_iteration_go_next, migration.iteration_decide, migration.migration_iteration_run,
    vfio.vfio_query_stop_copy_size,
    vfio.set_device_state_done, vfio.vmstate_change_done, vfio.vfio_vmstate_change_prepare, vfio.vfio_vmstate_change,
    vfio.vfio_final_precopy_reinit_check, system.vm_state_notify, system.bdrv_drain_all, completion.vm_stopped,
    vfio.save_complete_trace, savevm.complete_one_done, savevm.iterable_saved, savevm.non_iterable_saved,
    savevm.complete_one, vfio.vfio_save_complete_precopy, migration.rp_loop, switchover_ack.source_switchover_acked,
    migration.rp_after_message, migration.rp_end,
    savevm.qemu_savevm_state_complete_precopy_iterable, system.resume_all_vcpus, savevm.socket_wait,
    completion.completion_unlock, migration.bql_unlock_step, system.main_loop_unlock, system.qmp_command,
    completion.complete_non_iterable, migration.migration_rate_limit, migration.finish_schedule_cleanup,
    vfio.vfio_migration_state_notifier_failed, system.vm_start,
}
#: the destination handles one message in one step, answer included
LOCAL |= {f for f in vars(incoming).values() if callable(f) and getattr(f, "__module__", "") == incoming.__name__
          and f is not incoming.incoming_receive}
LOCAL |= {vfio.vfio_load_state, vfio.load_device_data}


#: steps of the loop that put nothing on a channel and take nothing off: the channels are shared, not copied
NO_CHANNEL: set[Callable] = {
    migration.migration_loop, migration.migration_detect_error, savevm.qemu_savevm_query_pending,
    savevm.query_pending_done, savevm.qemu_savevm_state_iterate, vfio.vfio_state_pending, vfio.vfio_report_pending,
    vfio.clear_request, vfio.vfio_query_precopy_size, vfio.clear_initial_data_sent, vfio.reinit_request_ack,
    vfio.request_ack, vfio.vfio_save_iterate, vfio.vfio_send_init_data_flag, vfio.set_state, bql_lock,
    switchover_ack.migration_can_switchover, switchover_ack.can_switchover_counter, completion.migration_completion,
    completion.migration_stop_vm, completion.migration_switchover_prepare, completion.migration_switchover_start,
    completion.switchover_check_ack, system.vm_stop_force_state, system.main_loop,
}
#: where a step carries the index of the device that it touches; all others touch no device
DEVICE_ARG: dict[Callable, int] = {
    **{f: 1 for f in (
        vfio.vfio_state_pending, vfio.vfio_report_pending, vfio.clear_request, vfio.vfio_query_precopy_size,
        vfio.clear_initial_data_sent, vfio.reinit_request_ack, vfio.request_ack, vfio.vfio_save_iterate,
        vfio.vfio_send_init_data_flag, vfio.save_iterate_send, vfio.vfio_query_stop_copy_size,
        vfio.vfio_save_complete_precopy, vfio.save_complete_block, vfio.save_complete_put, vfio.save_complete_trace,
        vfio.vfio_final_precopy_reinit_check, vfio.vfio_migration_state_notifier_failed, vfio.save_cleanup_done)},
    **{f: 2 for f in (vfio.set_state, vfio.set_state_failed, vfio.set_device_state_done,
                      vfio.vfio_vmstate_change_prepare, vfio.vfio_vmstate_change)},
}


#: steps that see no device, and steps of the loop that see only the device they are about
NO_DEVICE: set[Callable] = {
    migration.migration_loop, migration.migration_detect_error, savevm.query_pending_done, bql_lock,
    switchover_ack.migration_can_switchover, switchover_ack.can_switchover_counter, completion.migration_completion,
    completion.migration_switchover_prepare, completion.switchover_check_ack}
ONE_DEVICE: set[Callable] = {
    vfio.vfio_state_pending, vfio.vfio_report_pending, vfio.clear_request, vfio.vfio_query_precopy_size,
    vfio.clear_initial_data_sent, vfio.reinit_request_ack, vfio.request_ack, vfio.vfio_save_iterate,
    vfio.vfio_send_init_data_flag, vfio.save_iterate_send, savevm.qemu_savevm_state_iterate}


#: steps of the migration thread that commute with everything once management can do nothing any more: they touch
#: neither the ACK counter nor what the kernel's device shows; taken alone when reducing (a partial order)
QUIET: set[Callable] = (NO_CHANNEL - {
    savevm.query_pending_done, switchover_ack.can_switchover_counter, vfio.vfio_query_precopy_size,
    vfio.vfio_save_iterate, vfio.set_state, system.vm_stop_force_state, completion.switchover_check_ack,
    system.main_loop,
}) | {vfio.save_iterate_send, vfio.save_complete_put, savevm.qemu_savevm_state_non_iterable, savevm.send_eof,
      completion.switchover_started}


#: quiet steps that look at a device's state, and what is left of a stop once all checks have been made
SEES_STATE: set[Callable] = {vfio.vfio_state_pending, savevm.qemu_savevm_state_iterate}
TAIL: set[Callable] = {vfio.set_state, vfio.vmstate_change_done, vfio.vfio_vmstate_change, vfio.set_device_state_done,
                       system.bdrv_drain_all, system.main_loop_unlock, system.main_loop}


class Limits(NamedTuple):
    """What the environment may do, exactly as the command line says it."""

    devices: int = 1
    reinits: int = 1
    management: str = "none"  # none, stop, stop-cont
    cancel: bool = False
    ioctl_failure: bool = False
    p2p: bool = True
    late_event: bool = False


class Variant(NamedTuple):
    """Which QEMUs: code base and scheme of both ends."""

    name: str
    source: CodeBase
    destination: CodeBase
    source_legacy: bool
    destination_legacy: bool


def variant(base: str = "merged", scheme: str | None = None, source_base: str | None = None,
            destination_base: str | None = None, source_scheme: str | None = None,
            destination_scheme: str | None = None) -> Variant:
    """Resolve code bases and schemes; `scheme` is "legacy", "new" or None for the base's default."""
    def one(code: CodeBase, forced: str | None) -> bool:
        return not code.ack_reusable or (forced == "legacy" if forced else not code.new_ack_by_default)

    codes = {**CODE_BASES, P7_DIFF.name: P7_DIFF}
    src, dst = codes[source_base or base], codes[destination_base or base]
    return Variant(base, src, dst, one(src, source_scheme or scheme), one(dst, destination_scheme or scheme))


class Choices:
    """Answers the model's questions about time, bytes and rates from a list of bits; counts what it was asked."""

    unbuffered = True  # a section leaves in the step that sends it
    drops_empty = True  # a section with nothing but its terminator has no effect at the destination

    def __init__(self) -> None:
        self.bits: tuple[bool, ...] = ()
        self.asked = 0
        self.sections: dict = {}

    def _ask(self, *_: Any) -> bool:
        k = self.asked
        self.asked += 1
        return self.bits[k] if k < len(self.bits) else False

    rate_exceeded = within_threshold = estimate_below_threshold = no_precopy_bytes = _ask

    def nothing_pending(self, w: World) -> bool:
        """No postcopy here."""
        return False

    postcopy_within_threshold = nothing_pending

    def section(self, record: Any) -> Any:
        """The section's table entry."""
        return self.sections[(record.name, 0)]

    def section_id(self, idstr: str) -> int:
        """section_id of a device."""
        return self.sections[(idstr, 0)].section_id

    def end_query(self, update: bool = True) -> tuple[int, int, int]:
        """No sizes."""
        return 0, 0, 0

    def total(self) -> int:
        """No sizes."""
        return 0

    pending = end_query

    def arrival(self, w: World, size: int) -> int:
        """At once."""
        return 0

    def none(self, *_: Any) -> Any:
        """Accounting is left out."""
        return 0

    link_behind = rate_limit = none

    def delay(self, ns: float) -> tuple:
        """No time passes."""
        return ()

    def __getattr__(self, name: str) -> Callable:
        return self.none


class Explorer:
    """Breadth-first search over the world's states. `Result` says what it found."""

    def __init__(self, which: Variant, limits: Limits, reduce: bool = True) -> None:
        self.which, self.limits = which, limits
        self.reduce = reduce
        self.local = LOCAL if reduce else set()
        self.acct = Choices()
        self.env = Environment(limits.reinits, limits.management != "none", limits.management == "stop-cont",
                               limits.cancel, limits.ioctl_failure)

    # the timed driver's interface: nothing to do here
    def wake(self, tid: int, ns: int | None = None) -> None:
        """Every thread is looked at in every state."""

    signal = connected = ended = wake

    def start(self, ev: Callable = deque(maxlen=0).append) -> World:
        """Status active, before the first query, both ends set up, one unread initial chunk per device."""
        lim, v = self.limits, self.which
        script = SimpleNamespace(precopy=1, p2p=int(lim.p2p), v2=1, v2_errno=0, initial=1, dirty=0, stopcopy=1, rec=1,
                                 reinit_flag_once=1, size_hold=0, size_errno=0, dirty_until=0, dirty_floor=0,
                                 query_us=0, info_fail_at=0, info_fail_gap=0, info_errno=5, bogus_at=0, bogus_init=0,
                                 load_init_ms=0, load_reinit_ms=0, load_dirty_ms=0, load_stop_ms=0, stop_ms=0,
                                 start_ms=0, resume_ms=0, fail_state="", fail_load=0, once_only_session=0)
        caps = {"switchover-ack": True, "return-path": True}
        names = [f"vfio{i}" for i in range(lim.devices)]
        src = Config(Binary(v.source, v.source.name, "pc-q35", v.source_legacy, True), caps, names)
        dst = Config(Binary(v.destination, v.destination.name, "pc-q35", v.destination_legacy, True), caps, names)
        kernels = [[KernelDevice(script) for _ in names] for _ in range(2)]
        w = World(src, dst, *kernels, (1e9, 0), cost_model({"network": 0}), False)
        w.acct, w.driver, w.ev = self.acct, self, ev
        _, table = machine.sections(lim.devices, False)
        self.acct.sections = table
        w.handlers = tuple(h for h in machine.handlers(w, table) if h.idstr != "ram")
        w.sections = tuple(s for s in table.values() if s.idstr.endswith("/vfio"))
        w.threads[MAIN] = [(system.boot,)]
        self._settle(w, MAIN)
        w.threads[INCOMING] = [(incoming.migrate_incoming,)]
        system.monitor_command(w, "migrate")
        while not (w.src.state == "active" and w.threads[MIG] and w.threads[MIG][-1][0] is migration.migration_loop):
            for tid in (MAIN, MIG, RP, INCOMING):
                self._settle(w, tid, until=migration.migration_loop)
        for tid in (INCOMING, RP, INCOMING, RP, MAIN):
            self._settle(w, tid)
        w.env = self.env
        return w

    def _settle(self, w: World, tid: int, until: Callable | None = None) -> None:
        w.tid, stack = tid, w.threads[tid]
        while stack and stack[-1][0] is not until:
            step = stack.pop()
            cost = step[0](w, *step[1:])
            if cost.__class__ is str:
                stack.append(step)
                return

    # --- transitions ---

    def step(self, w: World, tid: int, bits: tuple[bool, ...], fail: bool = False) -> World | None:
        """One transition of a thread with the given answers; None if it has to wait."""
        stack = w.threads[tid]
        step = stack[-1]
        new = clone(w, tid, tid == INCOMING or step[0] not in NO_CHANNEL)
        acct, local, stack = self.acct, self.local, new.threads[tid]
        acct.bits, acct.asked = bits, 0
        new.tid = tid
        touched: list[int] = []
        while True:
            stack.pop()
            at = DEVICE_ARG.get(step[0])
            if at and tid != INCOMING and step[at] not in touched:
                touched.append(step[at])
                own_device(new, step[at])
            if fail:
                new.skern[step[1]].fail_next, fail = True, False
                new.env = new.env._replace(failures=0)
            cost = step[0](new, *step[1:])
            if cost.__class__ is str:
                if step is w.threads[tid][-1]:
                    return None
                stack.append(step)
                break
            if not stack:
                break
            step = stack[-1]
            if step[0] not in local:
                break
        return new

    def environment(self, w: World) -> list[str]:
        """Labels of what the environment may do now."""
        e, s, out = w.env, w.src, []
        if e.reinits:
            out += [f"E{i}" for i, kernel in enumerate(w.skern) if self._may_reinit(w, i, kernel)]
        main = w.threads[MAIN]
        if s.bql >= 0 or s.bottom_halves or not main or main[-1][0] is not system.main_loop:
            return out
        if e.stops and s.runstate == "running":
            out.append("S")
        if e.conts and e.stopped and s.runstate == "paused":
            out.append("C")
        if e.cancels and s.state in migration.RUNNING_STATES and s.state != "cancelling":
            out.append("X")
        return out

    def act(self, w: World, label: str) -> World:
        """The world after the environment has done something."""
        e = w.env
        if label[0] != "E":
            name, env = {"S": ("stop", e._replace(stops=0, stopped=True)), "C": ("cont", e._replace(conts=0)),
                         "X": ("migrate_cancel", e._replace(cancels=0))}[label]
            return self._command(w, name, env)
        new = clone(w, MIG, False)
        own_device(new, int(label[1:]))
        new.skern[int(label[1:])].reinit(1)
        new.env = e._replace(reinits=e.reinits - 1)
        return new

    def answers(self, w: World, tid: int, label: str) -> Iterator[tuple[str, World]]:
        """One thread's transition with every combination of answers to the questions it asks."""
        open_: list[tuple[bool, ...]] = [()]
        while open_:
            bits = open_.pop()
            new = self.step(w, tid, bits, label.endswith("f"))
            for k in range(len(bits), self.acct.asked):
                open_.append((*bits, *(False,) * (k - len(bits)), True))
            if new is not None:
                yield label + "".join("01"[b] for b in bits), new

    def thread(self, w: World, tid: int) -> Iterator[tuple[str, World]]:
        """(label, world) of all that a thread can do next."""
        if not w.threads[tid] or blocked(w, w.threads[tid][-1]):
            return
        step = w.threads[tid][-1]
        yield from self.answers(w, tid, NAMES[tid])
        if w.env.failures and step[0] is vfio.vfio_query_precopy_size and step[2]:
            yield from self.answers(w, tid, NAMES[tid] + "f")

    def _may_reinit(self, w: World, i: int, kernel: KernelDevice) -> bool:
        if kernel.state not in ("PRE_COPY", "PRE_COPY_P2P"):
            return False
        if w.src.runstate == "running":
            return True
        code, d = w.scfg.code, w.sdev[i]
        checks = code.reinit_check_at_stop and vfio.has_prepare(d) and d.precopy_info_v2_used and w.scfg.new_ack
        return self.limits.late_event and (kernel.checked or not checks)

    def _command(self, w: World, name: str, env: Environment) -> World:
        new = clone(w, MAIN)
        for i in range(len(new.sdev)):
            own_device(new, i)
        new.env = env
        new.src.commands = ((name, ()),)
        new.tid, stack = MAIN, new.threads[MAIN]
        while True:  # take the BQL and begin
            step = stack.pop()
            step[0](new, *step[1:])
            if not stack or stack[-1][0] not in self.local | {system.vm_stop_force_state, system.qmp_command}:
                return new

    # --- addresses ---

    def apply(self, w: World, label: str) -> World | None:
        """The world after one labelled transition; None if it is not possible here."""
        if label[0] in "SCXE":
            return self.act(w, label) if label in self.environment(w) else None
        if label[0] not in THREADS:
            return None
        new = next((x for name, x in self.thread(w, THREADS[label[0]]) if name == label), None)
        if new is not None:
            watch(w, new)
        return new


def watch(old: World, new: World) -> None:
    """Note when a device enters STOP_COPY while an initial chunk that it has announced is not loaded."""
    for before, after, there in zip(old.skern, new.skern, new.dkern, strict=True):
        if after.state == "STOP_COPY" != before.state and there.loaded < after.announced:
            new.env = new.env._replace(unloaded=True)


def quiet(record: Record) -> bool:
    """Whether the destination takes a record without an answer and without loading initial data."""
    return not any(item[0] == vfio.INIT_DATA_SENT or (len(item) > 2 and item[2] in "IR")
                   for item in record.payload if isinstance(item, tuple)) and record.kind != "EOF"


def blocked(w: World, step: tuple) -> bool:
    """Whether a thread's next step would only wait."""
    guard = GUARDS.get(step[0])
    return guard is not None and guard(w)


GUARDS: dict[Callable, Callable[[World], bool]] = {
    bql_lock: lambda w: w.src.bql >= 0,
    migration.rp_receive: lambda w: w.src.rp_open and w.back.open and not w.back.messages,
    incoming.incoming_receive: lambda w: w.forward.open and not w.forward.messages,
    system.main_loop: lambda w: w.src.bql >= 0 or not (w.src.bottom_halves or w.src.commands),
    migration.join_return_path: lambda w: w.src.rp_thread,
    completion.pause_wait: lambda w: not w.src.pause_event,
}


def clone(w: World, tid: int, channels: bool = True) -> World:
    """A copy for a step of one thread: what that thread cannot touch is shared. Source devices are copied by
    `own_device` when a step touches one."""
    new = object.__new__(World)
    new.__dict__ = d = w.__dict__.copy()
    threads = w.threads[:]
    threads[tid] = threads[tid][:]
    d["threads"] = threads
    if tid == INCOMING:
        d["dst"], d["ddev"], d["dkern"] = w.dst.copy(), [x.copy() for x in w.ddev], [x.copy() for x in w.dkern]
    else:
        d["src"] = w.src.copy()
        if tid != RP:
            d["sdev"], d["skern"] = w.sdev[:], w.skern[:]
    if channels:
        d["forward"], d["back"] = w.forward.copy(), w.back.copy()
    return new


def own_device(w: World, i: int) -> None:
    """Copy source device `i` before it is changed."""
    w.sdev[i], w.skern[i] = w.sdev[i].copy(), w.skern[i].copy()


class Finding(NamedTuple):
    """One property's verdict: holds, violated, n/a, vacuous or unknown."""

    id: str
    verdict: str
    reason: str = ""
    path: tuple[str, ...] = ()


class Result(NamedTuple):
    """What a search found. `depth`: longest shortest path; `complete`: every reachable state was seen."""

    variant: Variant
    limits: Limits
    complete: bool
    states: int
    transitions: int
    depth: int
    seconds: float
    properties: tuple[Finding, ...]


def explore(which: Variant, limits: Limits, properties: tuple[str, ...] = tuple(PROPERTIES), reduce: bool = True,
            max_states: int = 30_000_000, progress: Callable[[int, int, int], None] | None = None) -> Result:
    """Search all states. Stops at `max_states` or on KeyboardInterrupt with what is known (`complete` False)."""
    from .search import Search

    search = Search(Explorer(which, limits, reduce), properties, max_states, progress)
    return search.run()

