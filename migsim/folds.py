"""Events that say the same again and again, turn after turn, folded: how often, when, and between which values."""
from __future__ import annotations

from typing import NamedTuple

from .events import format_of
from .journal import Event, Journal


class Fold(NamedTuple):
    """Events of one name and `key` (the device; exact or fast, of a query) within one window of time.

    `first`, `last`: us of the journal; `low`, `high`, `total`: least, greatest and sum of each argument that is a
    number, in order of the arguments (texts are left out); () for an event whose arguments are not known.
    """

    side: str
    name: str
    key: str
    count: int
    first: int
    last: int
    low: tuple[int, ...]
    high: tuple[int, ...]
    total: tuple[int, ...]

    def plus(self, other: Fold) -> Fold:
        """Both together; of different forms of one event only the counts are kept."""
        same = len(self.low) == len(other.low)
        low, high, total = ((tuple(map(f, a, b)) if same else ()) for f, a, b in (
            (min, self.low, other.low), (max, self.high, other.high), (_add, self.total, other.total)))
        return self._replace(count=self.count + other.count, first=min(self.first, other.first),
                             last=max(self.last, other.last), low=low, high=high, total=total)


def _add(a: int, b: int) -> int:
    return a + b


def fold_of(e: Event) -> Fold:
    """One event as a fold of one."""
    numbers = tuple(a for a in e.args if isinstance(a, int))
    return Fold(e.side, e.name, fold_key(e.name, e.args), 1, e.us, e.us, numbers, numbers, numbers)


def fold_key(name: str, args: tuple) -> str:
    """What events of one name are told apart by."""
    if name == "qemu_savevm_query_pending":
        return "exact" if args[0] else "fast"
    return str(args[0]) if args and format_of(name, args).fields[:1] == ("name",) else ""


def turns(journal: Journal, *names: str, side: str = "source") -> list[Fold]:
    """Everything that the journal has of these events of one side, folded or not, by time."""
    wanted = [f for f in journal.folds if f.name in names and f.side == side]
    return sorted([*wanted, *map(fold_of, journal.all(*names, side=side))], key=lambda f: f.first)
