"""The timed driver: order of steps, ties, waiting, limits, copies."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migsim.clock import Clock


class World:
    """Threads that write down what they did."""

    def __init__(self, threads: list[list[tuple]]) -> None:
        self.now = self.tid = 0
        self.threads = threads
        self.log: list[tuple] = []
        self.acct = self
        self.open = False

    def copy(self) -> World:
        new = World([stack[:] for stack in self.threads])
        new.now, new.tid, new.log, new.open = self.now, self.tid, self.log[:], self.open
        return new


def note(w: World, *what: object) -> int:
    """Write it down; the last argument is the cost."""
    w.log.append((w.now, w.tid, *what[:-1]))
    return what[-1]


def plain(w: World) -> int:
    w.log.append((w.now, w.tid, "plain"))
    return 0


def wait(w: World) -> int | str:
    return 0 if w.open else "door"


def open_door(w: World) -> int:
    w.open = True
    w.driver.signal("door")
    return 0


def clock(*threads: list[tuple]) -> Clock:
    made = Clock(World([stack[::-1] for stack in threads]))
    for tid in range(len(threads)):
        made.wake(tid)
    return made


def test_steps_run_by_their_cost() -> None:
    made = clock([(note, "a", 5), (note, "b", 5)], [(note, "c", 3), (note, "d", 9), (note, "e", 0)])
    assert not made.run(100)
    assert made.world.log == [(0, 0, "a"), (0, 1, "c"), (3, 1, "d"), (5, 0, "b"), (12, 1, "e")]


def test_steps_without_cost_are_one() -> None:
    """Nothing comes between them, whatever is ready; any number of arguments."""
    made = clock([(plain,), (note, 0), (note, 1, 2, 3, 0)], [(plain,)])
    made.run(100)
    assert [tid for _, tid, *_ in made.world.log] == [0, 0, 0, 1]


def test_ties_go_to_who_was_there_first() -> None:
    made = clock([(note, "a", 5), (open_door,), (note, "b", 0)], [(wait,), (note, "c", 0)],
                 [(note, "d", 5), (note, "e", 0)])
    made.run(100)
    assert [what for *_, what in made.world.log] == ["a", "d", "b", "e", "c"]


def test_a_signal_wakes_all_who_wait_in_their_order() -> None:
    made = clock([(wait,), (note, "a", 0)], [(wait,), (note, "b", 0)], [(note, "c", 7), (open_door,)])
    assert not made.run(100)
    assert made.world.log == [(0, 2, "c"), (7, 0, "a"), (7, 1, "b")]


def test_what_waits_for_ever_is_not_left() -> None:
    made = clock([(wait,)])
    assert not made.run(100) and made.world.threads[0] == [(wait,)]


def test_it_stops_before_its_time_and_goes_on() -> None:
    made = clock([(note, "a", 50), (note, "b", 60), (note, "c", 0)])
    assert made.run(100) and [e[0] for e in made.world.log] == [0, 50] and made.world.now == 50
    assert not made.run(200) and made.world.log[-1] == (110, 0, "c")


def test_stop() -> None:
    made = clock([(note, "a", 50), (note, "b", 0)], [(plain,)])
    made.run(100, 1)
    made.stop()
    assert not made.run(100) and made.world.log == [(0, 0, "a")]


def test_a_killed_thread_is_gone_wherever_it_was() -> None:
    made = clock([(note, "a", 50), (note, "b", 0)], [(wait,), (note, "c", 0)], [(note, "d", 9), (note, "e", 0)],
                 [(note, "f", 1), (open_door,)])
    made.run(100, 2)  # 0 sleeps, 1 waits; 2 and 3 are ready
    for tid in (0, 1, 2):  # and another takes its place, later
        made.kill(tid)
        made.world.threads[tid] = [(note, "new", 0)]
        made.wake(tid, 80)
    assert not made.run(100)
    assert made.world.log == [(0, 0, "a"), (0, 3, "f"), (80, 0, "new"), (80, 1, "new"), (80, 2, "new")]


def test_a_copy_is_independent() -> None:
    made = clock([(wait,), (note, "a", 0)], [(note, "b", 5), (open_door,)])
    made.run(100, 2)
    other = made.copy()
    made.run(100)
    assert other.world.log == [(0, 1, "b")] and other.world.driver is other
    other.run(100)
    assert other.world.log == made.world.log


stacks = st.lists(st.lists(st.tuples(st.just(note), st.integers(0, 9), st.integers(0, 4)), max_size=6), min_size=1,
                  max_size=4)


@pytest.mark.parametrize("steps", [1, 3])
@given(threads=stacks)
def test_in_pieces_it_is_the_same(steps: int, threads: list) -> None:
    whole, pieces = clock(*threads), clock(*threads)
    whole.run(1000)
    while pieces.run(1000, steps):
        pieces = pieces.copy()
    assert pieces.world.log == whole.world.log
    assert [now for now, *_ in whole.world.log] == sorted(now for now, *_ in whole.world.log)
