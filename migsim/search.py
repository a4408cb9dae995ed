"""Breadth-first search with digests and a parent index; verdicts (anchors: stateright, SPIN)."""
from __future__ import annotations

import gc
import time
from array import array
from collections import deque
from collections.abc import Callable

from .explore import Explorer, Finding, Result
from .properties import ENDS, PROPERTIES
from .space import Space, Vector

MANAGEMENT = "SCX"


class Search:
    """One search. States are numbered in the order found; each keeps its digest, its parent and the label from it."""

    def __init__(self, explorer: Explorer, properties: tuple[str, ...], max_states: int,
                 progress: Callable[[int, int, int], None] | None = None) -> None:
        self.explorer, self.max_states, self.progress = explorer, max_states, progress
        self.ids = properties
        code, legacy = explorer.which.source, explorer.which.source_legacy
        self.reasons = {p: PROPERTIES[p].not_applicable(code, legacy) for p in properties}
        self.judged = [PROPERTIES[p] for p in properties if not self.reasons[p] and p != "always-ends"]
        self.met: set[str] = set()
        self.broken: dict[str, int] = {}
        self.seen: dict[int, int] = {}
        self.parents, self.labels = array("l"), array("H")
        self.space: Space
        self.names: dict[str, int] = {"": 0}
        self.verdicts: dict[tuple[int, int], tuple[bool, list[str], list[str]]] = {}
        self.edges_from, self.edges_to = array("l"), array("l")
        self.ends: list[int] = []
        self.transitions = self.depth = 0

    def run(self) -> Result:
        """Search, then judge."""
        began = time.perf_counter()
        collecting = gc.isenabled()
        gc.disable()  # worlds hold no cycles; scanning millions of them would take most of the time
        try:
            complete = self._search()
        except KeyboardInterrupt:
            complete = False
        finally:
            if collecting:
                gc.enable()
        findings = tuple(self._finding(p, complete) for p in self.ids)
        e = self.explorer
        return Result(e.which, e.limits, complete, len(self.seen), self.transitions, self.depth,
                      time.perf_counter() - began, findings)

    def _search(self) -> bool:
        space = self.space = Space(self.explorer)
        seen, parents, labels = self.seen, self.parents, self.labels
        edges_from, edges_to, names = self.edges_from, self.edges_to, self.names
        changes, judge = space.changes, self._judge
        frontier: deque[Vector] = deque()
        following: deque[Vector] = deque([space.first])
        seen[hash(space.first)] = 0
        parents.append(-1)
        labels.append(0)
        judge(space.first, 0)
        number, count, transitions = 0, 1, 0
        while following:
            frontier, following = following, deque()
            for vector in frontier:
                if vector:  # an end has nothing after it
                    for change, new in changes(vector):
                        label = change[0]
                        transitions += 1
                        digest = hash(new)
                        to = seen.get(digest)
                        if to is None:
                            if count >= self.max_states:
                                return False
                            to = seen[digest] = count
                            count += 1
                            parents.append(number)
                            labels.append(names.setdefault(label, len(names)))
                            following.append(() if judge(new, to) else new)
                        if label[0] not in MANAGEMENT:
                            edges_from.append(number)
                            edges_to.append(to)
                number += 1
                if not number & 8191:
                    self.transitions = transitions
                    if self.progress:
                        self.progress(count, transitions, self.depth)
            self.depth += bool(following)
            self.transitions = transitions
        return True

    def _judge(self, vector: Vector, number: int) -> bool:
        """Judge the properties in a new state; tells whether it is an end. What they see are source and environment."""
        key = vector[0], vector[-1]
        got = self.verdicts.get(key)
        if got is None:
            world = self.space.world(vector)
            env = world.env
            met = [p for p in self.judged if p.premise(world, env)]
            got = self.verdicts[key] = (world.src.state in ENDS, [p.id for p in met],
                                        [p.id for p in met if not p.holds(world, env)])
            self.met.update(got[1])
        end, _, broken = got
        for p in broken:
            self.broken.setdefault(p, number)
        if end:
            self.ends.append(number)
        return end

    def path(self, number: int) -> tuple[str, ...]:
        """Labels from the start to a state."""
        names, out = list(self.names), []
        while number > 0:
            out.append(names[self.labels[number]])
            number = self.parents[number]
        return tuple(reversed(out))

    def _finding(self, p: str, complete: bool) -> Finding:
        if self.reasons[p]:
            return Finding(p, "n/a", self.reasons[p])
        if p in self.broken:
            return Finding(p, "violated", PROPERTIES[p].sentence, self.path(self.broken[p]))
        if not complete:
            return Finding(p, "unknown", "the search was not complete")
        if p == "always-ends":
            stuck = self._stuck()
            return Finding(p, "holds") if stuck is None else Finding(
                p, "violated", PROPERTIES[p].sentence, self.path(stuck))
        if p not in self.met:
            return Finding(p, "vacuous", "no explored run meets its premise")
        return Finding(p, "holds")

    def _stuck(self) -> int | None:
        """First state from which no end can be reached without management."""
        count = len(self.seen)
        first, following = array("l", [-1]) * count, array("l", [-1]) * len(self.edges_to)
        for k, to in enumerate(self.edges_to):
            following[k], first[to] = first[to], k
        good = bytearray(count)
        queue = deque(self.ends)
        for n in self.ends:
            good[n] = 1
        while queue:
            k = first[queue.popleft()]
            while k >= 0:
                n = self.edges_from[k]
                if not good[n]:
                    good[n] = 1
                    queue.append(n)
                k = following[k]
        stuck = good.find(0)
        return None if stuck < 0 else stuck
