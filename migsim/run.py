"""Run a scenario: build both QEMUs, let management act, give back journal, outcome and state at any event.

Management is the recordings' driver: it looks every 20 ms, sends what is due, and 0.6 s after the end (or at its
time-out) asks both ends for their run state (recordings' README).
"""
from __future__ import annotations

import random
from bisect import bisect_right
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from .accounting import Accounting
from .clock import Clock
from .cost import cost_model
from .device import KernelDevice
from .journal import DeviceEvent, Event, Journal
from .ladder import Binary, binary
from .qemu import incoming, machine, system
from .qemu.ram import RAMState
from .qemu.state import DST, INCOMING, MAIN, MANAGEMENT, SRC, Channel, Config, Deadlock, Destination, World
from .scenario import Action, Scenario, load_scenario

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTLE_NS = 600_000_000  # the recordings' driver waits so long before it asks for the run states
LISTEN_NS = 1_000_000  # migrate-incoming comes about 1 ms before migrate (timeline.txt)
MAX_EVENTS = 2_000_000  # a run that spins for longer is given up
DRAIN_NS = 60_000_000_000  # what the destination may still need after the source is done
ENDED = ("completed", "failed", "cancelled")


def check_capabilities(caps: dict[str, bool]) -> tuple[dict[str, bool], str]:
    """migrate_caps_check(): a refused command sets none of its capabilities. Returns (effective, QEMU's error)."""
    if caps.get("switchover-ack") and not caps.get("return-path"):
        return {}, "Capability 'switchover-ack' requires capability 'return-path'"
    return caps, ""


def triggers(script: Any, seed: int, index: int) -> tuple[tuple[str, float, int], ...]:
    """When the device produces new initial chunks: `reinit`, `reinit_every` and `reinit_random` put together."""
    out = [tuple(t) for t in script.reinit]
    if script.reinit_every:
        ms, size, most = script.reinit_every
        out += [("t", ms * k, size) for k in range(1, most + 1)]
    if script.reinit_random:
        mean, size, most = script.reinit_random
        rng, at = random.Random(f"{seed}/{index}"), 0.0
        for _ in range(most):
            at += rng.expovariate(1 / mean)
            out.append(("t", at, size))
    return tuple(out)


def kernel_devices(scenario: Scenario, side: str) -> list[KernelDevice]:
    """The kernel's devices of one host, fresh."""
    return [KernelDevice(getattr(d, side), triggers(getattr(d, side), scenario.seed, i))
            for i, d in enumerate(scenario.devices)]


class Run:
    """A finished run. `journal`: the events; `outcome`: the source's last query-migrate; `run_state`: of both ends.

    `attempts`: (journal index where it begins, outcome) of every attempt; `messages`: (side, text) that QEMU would
    print on stderr; `notes`: what the resolution of machine types changed; `refused`: QEMU's text when it refused
    the capabilities, a device at start or `migrate`.
    """

    def __init__(self, scenario: Scenario, bases: tuple[str | None, str | None], keep_records: bool = False) -> None:
        self.scenario = scenario
        hosts = scenario.source, scenario.destination
        self.binaries: tuple[Binary, Binary] = tuple(
            binary(h.qemu, h.machine, tuple(h.globals), b) for h, b in zip(hosts, bases, strict=True))
        self.notes = [b.note for b in self.binaries if b.note]
        self.raw: list[tuple] = []
        self.attempts: list[tuple[int, dict]] = []
        self.outcome: dict[str, Any] = {}
        self.run_state: dict[str, str | None] = {"source": None, "destination": None}
        self.refused = ""
        self.timed_out = False
        self.deadlock = ""
        self.former: list[list[KernelDevice]] = []  # devices of destinations that were replaced
        self._keep = keep_records
        self._checkpoints: list[tuple[int, Clock]] = []
        self.clock = self._build(self.raw)
        self._go()
        self.refused = self.refused or self.world.acct.refusal

    # --- building ---

    def _build(self, raw: list[tuple]) -> Clock:
        sc = self.scenario
        cost = cost_model(sc.cost)
        caps, self.refused = check_capabilities(dict(sc.caps))
        there, refused = check_capabilities({**dict(sc.caps), **dict(sc.dst_caps)})
        self.refused = self.refused or refused
        configs = [Config(b, c, [f"VFIO_FD{4 + i}" if b.pid_log else d.id for i, d in enumerate(sc.devices)],
                          dict(sc.params)["mode"]) for b, c in zip(self.binaries, (caps, there), strict=True)]
        tcp = sc.transport == "tcp" and not sc.link_bytes_per_s
        sockets = (cost.tcp_socket, cost.tcp_write_charge) if tcp else (cost.unix_socket, cost.write_charge)
        world = World(configs[0], configs[1], kernel_devices(sc, SRC), kernel_devices(sc, DST), sockets, cost,
                      sc.transport == "tcp" or bool(sc.link_bytes_per_s))
        ram = RAMState(sc.mem, sc.guest, cost.idle_tick, int(cost.idle_pages))
        world.sections, sections = machine.sections(len(sc.devices), self.binaries[0].pid_log)
        world.handlers = machine.handlers(world, sections)
        world.acct = Accounting(dict(sc.params), ram, sections, cost, sc.link_bytes_per_s or 0)
        world.acct.keep_records = self._keep
        world.ev = raw.append
        clock = Clock(world)
        world.start(MAIN, (system.boot,))
        world.management = self
        world.threads[MANAGEMENT] = [(manage_attempt, 1), (manage_before, 0)]
        clock.wake(MANAGEMENT, int(sc.boot_s * 1e9))
        return clock

    def _go(self) -> None:
        limit = int((self.scenario.boot_s + 5 + (self.scenario.timeout_ms / 1000 + 2) * self.scenario.attempts) * 1e9)
        try:
            steps = -1
            while self.clock.run(limit + DRAIN_NS, 500_000) and steps != self.clock.steps:
                steps = self.clock.steps
                if len(self.raw) > MAX_EVENTS:
                    self._give_up()
                    break
        except Deadlock as error:
            self.deadlock = str(error)
            self.outcome = self.world.acct.query_migrate(self.world)

    def _give_up(self) -> None:
        w = self.world
        self.timed_out = True
        self.notes.append(f"given up after {len(self.raw)} events at {w.now / 1e9:.1f} s")
        self.outcome = w.acct.query_migrate(w)
        self.run_state = {"source": w.src.runstate, "destination": None if w.dst.exited else w.dst.runstate}
        self.attempts[-1] = (self.attempts[-1][0], self.outcome)

    # --- results ---

    @property
    def world(self) -> World:
        """The state at the end."""
        return self.clock.world

    @property
    def journal(self) -> Journal:
        """All events in time order."""
        return self.journal_of(0, len(self.raw))

    def journal_of(self, first: int, last: int) -> Journal:
        """The journal of a slice of events."""
        events = [Event(ns // 1000, side, name, args) for ns, side, name, args in self.raw[first:last]]
        begin, end = (events[0].us, events[-1].us) if events else (0, 0)
        return Journal(events, START, devices=tuple(e for e in self.device_view() if begin <= e.us <= end))

    def device_view(self) -> list[DeviceEvent]:
        """What the kernel's devices did on their own, both sides, in time order."""
        w = self.world
        ends = [(SRC, w.scfg, w.skern), *((DST, w.dcfg, kernels) for kernels in (*self.former, w.dkern))]
        return sorted(DeviceEvent(ns // 1000, side, name, what, size) for side, cfg, kernels in ends
                      for name, kernel in zip(cfg.device_names, kernels, strict=True)
                      for ns, what, size in kernel.told)

    def attempt_journals(self) -> list[Journal]:
        """One journal per attempt, cut where the next one's destination starts."""
        cuts = [0, *(first for first, _ in self.attempts[1:]), len(self.raw)]
        return [self.journal_of(a, b) for a, b in pairwise(cuts)]

    def state_at(self, index: int) -> World:
        """The world right after the step that wrote event `index` of the journal (0 based)."""
        if not 0 <= index < len(self.raw):
            raise IndexError(f"event {index}: the journal has {len(self.raw)} events")
        if not self._checkpoints:
            self._record_checkpoints()
        starts = [n for n, _ in self._checkpoints]
        count, clock = self._checkpoints[bisect_right(starts, index) - 1]
        clock = clock.copy()
        seen: list[tuple] = []
        clock.world.ev = seen.append
        while count + len(seen) <= index:
            clock.run(1 << 62, 1)
        return clock.world

    def _record_checkpoints(self, every: int = 400) -> None:
        raw: list[tuple] = []
        saved = self.attempts, self.outcome, self.run_state, self.timed_out, self.former
        self.attempts, self.former = [], []
        clock = self._build(raw)
        self._checkpoints = [(0, clock.copy())]
        while len(raw) < len(self.raw) and clock.run(1 << 62, every):
            self._checkpoints.append((len(raw), clock.copy()))
        self.attempts, self.outcome, self.run_state, self.timed_out, self.former = saved


# --- management: the recordings' driver, as steps of a thread ---

def manage_before(w: World, k: int) -> int:
    """Actions before `migrate`, one poll apart."""
    before = w.management.scenario.before
    if k < len(before):
        act(w, before[k])
        w.then((manage_before, k + 1))
        return w.cost.management_poll
    return 0


def act(w: World, action: Action) -> None:
    """A QMP command to the source, or the end of the destination's process."""
    if action.do == "kill-destination":
        incoming.kill(w)
    else:
        system.monitor_command(w, action.do, action.args)


def manage_attempt(w: World, number: int) -> int:
    """migrate-incoming at the destination (a fresh one for each attempt, if the scenario says so), then migrate."""
    run = w.management
    run.attempts.append((len(run.raw) if number > 1 else 0, {}))
    if w.src.exited:
        w.then((manage_ended, number, False))
        return SETTLE_NS
    if number > 1 and run.scenario.destination_per_attempt:
        fresh_destination(w)
    if w.dst.state == "none" and not w.dst.exited:
        w.start(INCOMING, (incoming.migrate_incoming,))
    w.then((manage_migrate, number))
    return LISTEN_NS


def fresh_destination(w: World) -> None:
    """A new destination process, and new sockets."""
    run = w.management
    run.former.append(w.dkern)
    w.dst, w.ddev, w.dkern = Destination(), [], kernel_devices(run.scenario, DST)
    for name in ("forward", "back"):
        old = getattr(w, name)
        setattr(w, name, Channel(old.capacity, old.write_charge, old.reset))
    system.realize(w, DST)


def manage_migrate(w: World, number: int) -> int:
    """The migrate command; from here on management polls."""
    system.monitor_command(w, "migrate")
    w.then((manage_poll, number, 0, w.now))
    return w.cost.management_poll


def manage_poll(w: World, number: int, k: int, since: int) -> int:
    """Send what is due; look whether the migration has ended or the time is over."""
    sc = w.management.scenario
    actions = [a for a in sc.actions if a.attempt == number]
    while k < len(actions) and (w.now - since) >= actions[k].at_ms * 1_000_000:
        act(w, actions[k])
        k += 1
    late = w.now - since >= sc.timeout_ms * 1_000_000
    if w.src.state in ENDED or late or w.src.state == "none":
        w.then((manage_ended, number, late and w.src.state not in ENDED))
        return SETTLE_NS
    w.then((manage_poll, number, k, since))
    return w.cost.management_poll


def manage_ended(w: World, number: int, late: bool) -> int:
    """Run states and query-migrate; the next attempt, or quit."""
    run = w.management
    run.timed_out = late
    run.outcome = w.acct.query_migrate(w)
    run.attempts[-1] = (run.attempts[-1][0], run.outcome)
    run.run_state = {"source": None if w.src.exited else w.src.runstate,
                     "destination": None if w.dst.exited else w.dst.runstate}
    if late:
        w.driver.stop()
    elif number < run.scenario.attempts:
        w.then((manage_attempt, number + 1))
    else:
        system.monitor_command(w, "quit")
    return 0


def run(scenario: Any, base: str | None = None, source_base: str | None = None,
        destination_base: str | None = None) -> Run:
    """Simulate `scenario` (a Scenario, a mapping, a YAML/JSON file or a recording's folder).

    `base` replaces the binary at both ends, `source_base` and `destination_base` at one. Raises ScenarioError or
    ValueError with one line on bad input.
    """
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario)
    return Run(scenario, (source_base or base, destination_base or base))


__all__ = ["Run", "run"]
