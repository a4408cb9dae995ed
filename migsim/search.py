"""Breadth-first search with digests and a parent index; verdicts (anchors: stateright, SPIN)."""
from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable

from .explore import Explorer, Finding, Result, digest
from .properties import ENDS, PROPERTIES
from .qemu.state import World

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
        self.names: dict[str, int] = {}
        self.edges_from, self.edges_to = array("l"), array("l")
        self.ends: list[int] = []
        self.transitions = self.depth = 0

    def run(self) -> Result:
        """Search, then judge."""
        began = time.perf_counter()
        try:
            complete = self._search()
        except KeyboardInterrupt:
            complete = False
        findings = tuple(self._finding(p, complete) for p in self.ids)
        e = self.explorer
        return Result(e.which, e.limits, complete, len(self.seen), self.transitions, self.depth,
                      time.perf_counter() - began, findings)

    def _search(self) -> bool:
        first = self.explorer.start()
        self._add(digest(first), -1, "", first)
        frontier: deque[tuple[int, int, World]] = deque([(0, 0, first)])
        seen, successors = self.seen, self.explorer.successors
        while frontier:
            number, depth, world = frontier.popleft()
            if world.src.state in ENDS:
                continue
            for label, new in successors(world):
                self.transitions += 1
                d = digest(new)
                to = seen.get(d)
                if to is None:
                    if len(seen) >= self.max_states:
                        return False
                    to = self._add(d, number, label, new)
                    frontier.append((to, depth + 1, new))
                    self.depth = depth + 1
                if label[0] not in MANAGEMENT:
                    self.edges_from.append(number)
                    self.edges_to.append(to)
            if self.progress and not number % 4096:
                self.progress(len(seen), self.transitions, depth)
        return True

    def _add(self, d: int, parent: int, label: str, world: World) -> int:
        number = self.seen[d] = len(self.seen)
        self.parents.append(parent)
        self.labels.append(self.names.setdefault(label, len(self.names)))
        if world.src.state in ENDS:
            self.ends.append(number)
        env = world.env
        for p in self.judged:
            if p.id not in self.broken and p.premise(world, env):
                self.met.add(p.id)
                if not p.holds(world, env):
                    self.broken[p.id] = number
        return number

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
