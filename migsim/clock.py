"""The timed driver: orders the threads' steps by what they cost and gives one run.

Ties are broken by the order in which threads became ready, so the same scenario gives the same journal.
"""
from __future__ import annotations

from heapq import heappop, heappush

from .qemu.state import World


class Clock:
    """A heap of (ns, order, thread) over the stacks of `world`, and the threads that wait for a signal."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.heap: list[tuple[int, int, int]] = []
        self.order = 0
        self.parked: dict[str, list[int]] = {}
        self.steps = 0
        world.driver = self

    def copy(self) -> Clock:
        """An independent copy, with a copy of the world and its accounting."""
        new = object.__new__(Clock)
        new.__dict__.update(self.__dict__)
        new.heap, new.parked = self.heap[:], {key: tids[:] for key, tids in self.parked.items()}
        new.world = self.world.copy()
        new.world.acct = self.world.acct.copy()
        new.world.driver = new
        return new

    def wake(self, tid: int, ns: int | None = None) -> None:
        """Make a new thread ready, now or at `ns`."""
        for tids in self.parked.values():
            if tid in tids:
                tids.remove(tid)
        self.order += 1
        heappush(self.heap, (self.world.now if ns is None else ns, self.order, tid))

    def signal(self, key: str) -> None:
        """Threads that wait for `key` look again."""
        tids = self.parked.get(key)
        if tids:
            now = self.world.now
            for tid in tids:
                self.order += 1
                heappush(self.heap, (now, self.order, tid))
            tids.clear()

    def connected(self, world: World) -> None:
        """The transport is up."""
        self.signal("forward")

    def ended(self, world: World) -> None:
        """The migration has its final status."""

    def run(self, until_ns: int, steps: int = 1 << 62) -> bool:
        """Run until nothing is ready before `until_ns` or `steps` are spent. Returns whether something is left."""
        w, heap, parked = self.world, self.heap, self.parked
        threads, pop, push = w.threads, heappop, heappush
        left = steps
        while heap and left > 0:
            now, _, tid = pop(heap)
            if now > until_ns:
                heappush(heap, (now, 0, tid))
                break
            w.now, w.tid = now, tid
            stack = threads[tid]
            while stack:
                step = stack.pop()
                left -= 1
                cost = step[0](w, *step[1:])
                if cost:
                    if cost.__class__ is str:
                        stack.append(step)
                        if cost in parked:
                            parked[cost].append(tid)
                        else:
                            parked[cost] = [tid]
                        break
                    now += cost
                    if (heap and heap[0][0] <= now) or now > until_ns or left <= 0:
                        self.order += 1
                        push(heap, (now, self.order, tid))
                        break
                    w.now = now
        self.steps += steps - left
        return bool(heap)
