"""Round trips per second of a two-thread ping-pong: the timed driver next to SimPy, in one process, alternating."""
from __future__ import annotations

import statistics
import time
from types import SimpleNamespace

import simpy

from migsim.clock import Clock

TRIPS = 50_000
KEYS = "box0", "box1"


class World:
    """The least that the driver needs: stacks, the clock, and two boxes."""

    def __init__(self) -> None:
        self.now = self.tid = 0
        self.threads: list[list] = [[(send, 0)], [(receive, 1)]]
        self.boxes = [0, 0]
        self.left = TRIPS
        self.driver: Clock | None = None
        self.src = SimpleNamespace()

    def then(self, *steps: tuple) -> None:
        """As in the model."""
        self.threads[self.tid] += steps[::-1]


def send(w: World, me: int) -> int:
    """Put a message into the other's box."""
    w.boxes[1 - me] += 1
    w.driver.signal(KEYS[1 - me])
    w.then((receive, me))
    return 0


def receive(w: World, me: int) -> int | str:
    """Take a message; thread 0 counts the round trips."""
    if not w.boxes[me]:
        return KEYS[me]
    w.boxes[me] -= 1
    w.left -= me == 0
    if w.left:
        w.then((send, me))
    return 0


def ours() -> float:
    """Round trips per second."""
    world = World()
    clock = Clock(world)
    began = time.perf_counter()
    clock.wake(0)
    clock.wake(1)
    clock.run(1 << 62)
    assert world.left == 0
    return TRIPS / (time.perf_counter() - began)


def theirs() -> float:
    """The same two processes with SimPy."""
    env = simpy.Environment()
    boxes = simpy.Store(env), simpy.Store(env)

    def player(me: int) -> object:
        for _ in range(TRIPS):
            if me == 0:
                yield boxes[1].put(1)
                yield boxes[0].get()
            else:
                yield boxes[1].get()
                yield boxes[0].put(1)

    env.process(player(0))
    env.process(player(1))
    began = time.perf_counter()
    env.run()
    return TRIPS / (time.perf_counter() - began)


def main() -> None:
    """Print both and the ratio, median of 5 pairs."""
    pairs = [(ours(), theirs()) for _ in range(6)][1:]
    a, b = (statistics.median(x) for x in zip(*pairs, strict=True))
    ratio = statistics.median(x / y for x, y in pairs)
    print(f"ping-pong: timed driver {a:9.0f} round trips/s, SimPy {b:9.0f}, ratio {ratio:.1f} (aim at least 2)")


if __name__ == "__main__":
    main()
