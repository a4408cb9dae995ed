"""The timed driver: orders the threads' steps by what they cost and gives one run.

Ties are broken by the order in which threads became ready, so the same scenario gives the same journal.
"""
from __future__ import annotations

from collections import defaultdict, deque
from heapq import heappop, heappush

from .qemu.state import World


class Clock:
    """Threads that sleep, a heap of (ns, order, thread); that are ready now; and that wait for a signal."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.heap: list[tuple[int, int, int]] = []
        self.ready: deque[int] = deque()
        self.order = 0
        self.parked: defaultdict[str, list[int]] = defaultdict(list)
        self.steps = 0
        world.driver = self

    def copy(self) -> Clock:
        """An independent copy, with a copy of the world and its accounting."""
        new = object.__new__(Clock)
        new.__dict__.update(self.__dict__)
        new.heap, new.ready = self.heap[:], self.ready.copy()
        new.parked = defaultdict(list, {key: tids[:] for key, tids in self.parked.items()})
        new.world = self.world.copy()
        new.world.acct = self.world.acct.copy()
        new.world.driver = new
        return new

    def kill(self, tid: int) -> None:
        """The thread is gone, asleep or ready; one that waits has nothing to do when it looks."""
        self.world.threads[tid].clear()
        self.heap[:] = sorted(entry for entry in self.heap if entry[2] != tid)
        while tid in self.ready:
            self.ready.remove(tid)

    def wake(self, tid: int, ns: int | None = None) -> None:
        """Make a new thread ready, now or at `ns`."""
        for tids in self.parked.values():
            if tid in tids:
                tids.remove(tid)
        if ns is None:
            self.ready.append(tid)
        else:
            self.order += 1
            heappush(self.heap, (ns, self.order, tid))

    def signal(self, key: str) -> None:
        """Threads that wait for `key` look again."""
        tids = self.parked[key]
        if tids:
            self.ready += tids
            tids.clear()

    def stop(self) -> None:
        """Nothing runs any more."""
        self.heap.clear()
        self.ready.clear()

    def connected(self, world: World) -> None:
        """The transport is up."""
        self.signal("forward")

    def ended(self, world: World) -> None:
        """The migration has its final status."""

    def run(self, until_ns: int, steps: int = 1 << 62) -> bool:
        """Run until nothing is ready before `until_ns` or `steps` that cost time are spent. Returns whether something
        is left. A sleeper whose time has come goes before those made ready since: it was there first."""
        w, heap, ready, parked = self.world, self.heap, self.ready, self.parked
        threads, left = w.threads, steps
        while left > 0:
            if ready and not (heap and heap[0][0] <= w.now):
                tid = ready.popleft()
            elif heap and heap[0][0] <= until_ns:
                w.now, _, tid = heappop(heap)
            else:
                break
            now, w.tid, stack = w.now, tid, threads[tid]
            while stack:
                step = stack.pop()
                count = len(step)
                if count == 2:  # by number: unpacking a slice costs more than most steps
                    cost = step[0](w, step[1])
                elif count == 1:
                    cost = step[0](w)
                else:
                    cost = step[0](w, *step[1:])
                if cost:
                    left -= 1
                    if cost.__class__ is str:
                        stack.append(step)
                        parked[cost].append(tid)
                        break
                    now += cost
                    if ready or left <= 0 or now > until_ns or (heap and heap[0][0] <= now):
                        self.order += 1
                        heappush(heap, (now, self.order, tid))
                        break
                    w.now = now
        self.steps += steps - left
        return bool(heap or ready)
