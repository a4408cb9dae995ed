"""The state space as vectors. A global state is a tuple of part digests (source, destination, its devices, channels,
source devices, threads, environment); the parts themselves are kept once. What a thread can do depends only on the
parts that it sees, so each is worked out once for every value of these and then put together with whatever the others
are: most transitions are a table look-up.
"""
from __future__ import annotations

from typing import Any, NamedTuple

from .explore import NO_CHANNEL, NO_DEVICE, ONE_DEVICE, QUIET, SEES_STATE, TAIL, Explorer, quiet
from .properties import Environment
from .qemu import incoming, system, vfio
from .qemu.state import INCOMING, MAIN, MIG, RP, World, bql_lock

SRC_, DST_, DSTDEV, CHANNEL, FIRST = range(5)
Vector = tuple[int, ...]


class Change(NamedTuple):
    """What one transition does to a vector: new digests by position; devices that enter STOP_COPY with the number
    of chunks they have announced; whether it used up the failing ioctl."""

    label: str
    slots: tuple[tuple[int, int], ...]
    entered: tuple[tuple[int, int], ...]
    failed: bool
    events: tuple[tuple, ...] = ()  # (side, name, args), where the space records them


class Space:
    """Successors of vectors, with tables that grow as states are met."""

    def __init__(self, explorer: Explorer, record: bool = False) -> None:
        self.explorer = explorer
        self.base = explorer.start()
        self.recorded: list[tuple] = []
        if record:
            self.base.ev = self.recorded.append
        n = self.n = len(self.base.skern)
        self.env_slot = FIRST + n + 4
        self.threads = {tid: FIRST + n + k for k, tid in enumerate((MIG, RP, INCOMING, MAIN))}
        self.objects: list[dict[int, Any]] = [{} for _ in range(self.env_slot + 1)]
        self.cache: dict[tuple, Any] = {}
        self.sight: dict[int, tuple[bool, int]] = {}
        self.facts: dict[Any, Any] = {}
        self.failures: dict[int, int] = {}
        self.first = tuple(self._all(self.base))

    # --- worlds and vectors ---

    def _put(self, slot: int, key: Any, value: Any) -> int:
        digest = hash(key)
        self.objects[slot].setdefault(digest, value)
        return digest

    def _all(self, w: World) -> list[int]:
        out = [self._put(SRC_, w.src.key(), w.src), self._put(DST_, w.dst.key(), w.dst), self._dstdev(w),
               self._channel(w)]
        out += [self._device(w, i) for i in range(self.n)]
        out += [self._thread(w, tid) for tid in self.threads]
        return [*out, self._put(self.env_slot, w.env, w.env)]

    def _dstdev(self, w: World) -> int:
        return self._put(DSTDEV, tuple([k.key() for k in w.dkern] + [d.key() for d in w.ddev]), (w.ddev, w.dkern))

    def _channel(self, w: World) -> int:
        return self._put(CHANNEL, (w.forward.key(), w.back.key()), (w.forward, w.back))

    def _device(self, w: World, i: int) -> int:
        return self._put(FIRST + i, (w.sdev[i].key(), w.skern[i].key()), (w.sdev[i], w.skern[i]))

    def _thread(self, w: World, tid: int) -> int:
        return self._put(self.threads[tid], tuple(w.threads[tid]), w.threads[tid])

    def world(self, v: Vector) -> World:
        """The world of a vector; its parts are shared and must not be changed."""
        w = self.base.shallow()
        o, n = self.objects, self.n
        w.src, w.dst = o[SRC_][v[SRC_]], o[DST_][v[DST_]]
        w.ddev, w.dkern = o[DSTDEV][v[DSTDEV]]
        w.forward, w.back = o[CHANNEL][v[CHANNEL]]
        devices = [o[FIRST + i][v[FIRST + i]] for i in range(n)]
        w.sdev, w.skern = [d for d, _ in devices], [k for _, k in devices]
        w.threads = self.base.threads[:]
        for tid, slot in self.threads.items():
            w.threads[tid] = o[slot][v[slot]]
        w.env = o[self.env_slot][v[self.env_slot]]
        return w

    def _change(self, v: Vector, old: World, new: World, label: str) -> Change:
        slots = []

        def note(slot: int, digest: int) -> None:
            if digest != v[slot]:
                slots.append((slot, digest))

        if new.src is not old.src:
            note(SRC_, self._put(SRC_, new.src.key(), new.src))
        if new.dst is not old.dst:
            note(DST_, self._put(DST_, new.dst.key(), new.dst))
            note(DSTDEV, self._dstdev(new))
        if new.forward is not old.forward:
            note(CHANNEL, self._channel(new))
        for i in range(self.n):
            if new.skern[i] is not old.skern[i]:
                note(FIRST + i, self._device(new, i))
        for tid, slot in self.threads.items():
            if new.threads[tid] is not old.threads[tid]:
                note(slot, self._thread(new, tid))
        failed = new.env.failures < old.env.failures
        if not failed and new.env != old.env:
            note(self.env_slot, self._put(self.env_slot, new.env, new.env))
        entered = tuple((i, k.announced) for i, (k, was) in enumerate(zip(new.skern, old.skern, strict=True))
                        if k.state == "STOP_COPY" != was.state)
        events = tuple(e[1:] for e in self.recorded)
        self.recorded.clear()
        return Change(label, tuple(slots), entered, failed, events)

    def apply(self, v: Vector, change: Change) -> Vector:
        """The vector after a change."""
        new = list(v)
        for slot, digest in change.slots:
            new[slot] = digest
        if change.entered or change.failed:
            env: Environment = self.objects[self.env_slot][new[self.env_slot]]
            if change.failed:
                env = env._replace(failures=0)
            kernels = self.objects[DSTDEV][v[DSTDEV]][1]
            if any(kernels[i].loaded < announced for i, announced in change.entered):
                env = env._replace(unloaded=True)
            new[self.env_slot] = self._put(self.env_slot, env, env)
        return tuple(new)

    # --- successors ---

    def successors(self, v: Vector) -> list[tuple[str, Vector]]:
        """(label, vector) of everything that can happen next."""
        return [(change[0], new) for change, new in self.changes(v)]

    def changes(self, v: Vector) -> list[tuple[Change, Vector]]:
        """(change, vector) of everything that can happen next."""
        cache, apply, devices = self.cache, self.apply, v[FIRST:FIRST + self.n]
        src, channel = v[SRC_], v[CHANNEL]
        mig, rp, inc, main, env = v[FIRST + self.n:]
        failures = self.failures.get(env)
        if failures is None:
            failures = self.failures[env] = self.objects[self.env_slot][env].failures
        keys: list[tuple] = []
        alone = self._alone(src, channel, mig, inc, main, env) if self.explorer.reduce else -1
        if alone in (-1, MIG):
            channels, slot = self.sight.get(mig) or self._sight(MIG, mig)
            keys.append((MIG, src, mig, channel if channels else 0, failures,
                         devices if slot < 0 else v[slot] if slot else 0))
        if alone in (-1, RP):
            keys.append((RP, src, rp, channel))
        if alone in (-1, INCOMING):
            keys.append((INCOMING, v[DST_], v[DSTDEV], inc, channel))
        if alone in (-1, MAIN):
            keys.append((MAIN, src, main, channel, failures, devices))
        if alone == -1:
            keys.append((-1, src, main, env, devices))
        out = []
        for key in keys:
            changes = cache.get(key)
            if changes is None:
                changes = cache[key] = self._work_out(v, key[0])
            for change in changes:
                out.append((change, apply(v, change)))
        return out

    def _work_out(self, v: Vector, tid: int) -> tuple[Change, ...]:
        w, explorer = self.world(v), self.explorer
        if tid < 0:
            return tuple(self._change(v, w, explorer.act(w, label), label) for label in explorer.environment(w))
        return tuple(self._change(v, w, new, label) for label, new in explorer.thread(w, tid))

    def _sight(self, tid: int, digest: int) -> tuple[bool, int]:
        """What the next step of the migration thread sees beside the source: the channels? and which device: its
        slot, 0 for none, -1 for all."""
        stack = self.objects[self.threads[tid]][digest]
        step = stack[-1] if stack else (None,)
        slot = 0 if step[0] in NO_DEVICE else FIRST + step[1] if step[0] in ONE_DEVICE else -1
        got = self.sight[digest] = (step[0] not in NO_CHANNEL, slot)
        return got

    def _alone(self, src: int, channel: int, mig: int, inc: int, main: int, env: int) -> int:
        """A thread whose next step commutes with all that others can do and that no property sees: exploring its
        step alone loses no behaviour. -1: there is none."""
        facts = self.facts
        if (facts.get((channel, inc)) if (channel, inc) in facts else self._quiet(channel, inc)):
            return INCOMING
        stopped, busy, locked = facts.get(src) or self._source(src)
        m_p2p, m_quiet, m_sees, m_lock = facts.get(mig) or self._migration(mig)
        b_p2p, b_idle, b_tail = facts.get(main) or self._main(main)
        if stopped and not self.explorer.limits.late_event and (b_p2p or m_p2p):
            return MAIN if b_p2p else MIG  # both precopy states look the same from outside
        if not m_quiet or busy or (m_lock and locked) or self._management(env):
            return -1
        return MIG if b_idle or (b_tail and not m_sees) else -1

    def _quiet(self, channel: int, inc: int) -> bool:
        messages = self.objects[CHANNEL][channel][0].messages
        stack = self.objects[self.threads[INCOMING]][inc]
        got = self.facts[channel, inc] = bool(
            messages and stack and stack[-1][0] is incoming.incoming_receive and quiet(messages[0][2]))
        return got

    def _source(self, src: int) -> tuple[bool, bool, bool]:
        s = self.objects[SRC_][src]
        got = self.facts[src] = (s.runstate != "running", bool(s.bottom_halves or s.commands), s.bql >= 0)
        return got

    def _migration(self, mig: int) -> tuple[bool, bool, bool, bool]:
        stack = self.objects[self.threads[MIG]][mig]
        step = stack[-1] if stack else (None,)
        got = self.facts[mig] = (_to_p2p(step), step[0] in QUIET, step[0] in SEES_STATE, step[0] is bql_lock)
        return got

    def _main(self, main: int) -> tuple[bool, bool, bool]:
        stack = self.objects[self.threads[MAIN]][main]
        step = stack[-1] if stack else (None,)
        got = self.facts[main] = (_to_p2p(step), step[0] is system.main_loop, all(s[0] in TAIL for s in stack))
        return got

    def _management(self, env: int) -> bool:
        """Whether management can still do something that any step may meet."""
        e = self.objects[self.env_slot][env]
        return bool(e.stops or e.cancels or (e.conts and e.stopped))


def _to_p2p(step: tuple) -> bool:
    return step[0] is vfio.set_state and step[3] == "PRE_COPY_P2P"
