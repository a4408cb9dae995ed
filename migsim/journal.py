"""The journal: what happened, as trace events in QEMU's own vocabulary. A simulated run writes one, a QEMU log is read
into one; nothing that takes a journal can tell which it got.
"""
from __future__ import annotations

import gzip
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .events import format_of, parse, text_of

if TYPE_CHECKING:
    from .folds import Fold

SIDES = ("source", "destination")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: a line of QEMU's log backend: with `-msg timestamp=on`, or `pid@time:` (10.0; the number is the thread's)
LINE = re.compile(r"(?:(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{6}))?Z |(\d{1,10})@(\d{1,11})\.(\d{6}):)"
                  r"([a-z_0-9]+)(?: (.*))?", re.ASCII)
LEFT_OUT = re.compile(r"\.\.\. (\d+) lines left out \.\.\.")


class JournalError(ValueError):
    """A log that cannot be read; the message is one line."""


class Event(NamedTuple):
    """One trace event. `us`: microseconds since the journal's start; `side`: source or destination."""

    us: int
    side: str
    name: str
    args: tuple

    @property
    def text(self) -> str:
        """Argument text as QEMU prints it."""
        return text_of(self.name, self.args)

    def get(self, field: str, default: object = None) -> object:
        """An argument by QEMU's name for it."""
        fields = format_of(self.name, self.args).fields
        return self.args[fields.index(field)] if field in fields else default


class DeviceEvent(NamedTuple):
    """What only the device knows, as the recordings' shim logs have it. `what`: initial (a session begins with a first
    chunk of `size` bytes), REINIT (a new initial chunk exists), loaded (the destination's device has loaded one)."""

    us: int
    side: str
    device: str
    what: str
    size: int


class Journal:
    """Events in time order. `start`: UTC of us == 0; `notes`: what was left out when a log was read; `devices`: the
    devices' own view, which a simulated run has and QEMU's log has not (None); `folds`: loop-turn and unknown events
    that read_log() has folded; `lines`: the line of its log of each event (None for a simulated journal)."""

    def __init__(self, events: Iterable[Event], start: datetime, notes: tuple[str, ...] = (),
                 devices: tuple[DeviceEvent, ...] | None = None, folds: tuple[Fold, ...] = (),
                 lines: list[int] | None = None) -> None:
        self.events = list(events)
        self.start = start
        self.notes = notes
        self.devices = devices
        self.folds = folds
        self.lines = lines

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Journal) and self.start == other.start and self.events == other.events

    __hash__ = None  # type: ignore[assignment]

    def side(self, side: str) -> list[Event]:
        """The events of one side."""
        return [e for e in self.events if e.side == side]

    def all(self, *names: str, side: str | None = None) -> list[Event]:
        """Events of these names."""
        return [e for e in self.events if e.name in names and side in (None, e.side)]

    def first(self, name: str, side: str | None = None) -> Event | None:
        """The first event of this name."""
        return next((e for e in self.events if e.name == name and side in (None, e.side)), None)

    def last(self, name: str, side: str | None = None) -> Event | None:
        """The last event of this name."""
        return next((e for e in reversed(self.events) if e.name == name and side in (None, e.side)), None)

    def log_text(self, side: str, pid: int | None = None) -> str:
        """The side's log as QEMU would print it: with timestamps, or as `pid@time:` when `pid` is given."""
        lines = []
        for e in self.events:
            if e.side != side:
                continue
            when = self.start + timedelta(microseconds=e.us)
            if pid is None:
                fraction = f".{when.microsecond:06d}" if when.microsecond else ""
                head = f"{when:%Y-%m-%dT%H:%M:%S}{fraction}Z "
            else:
                total = (when - EPOCH) // timedelta(microseconds=1)
                head = f"{pid}@{total // 1_000_000}.{total % 1_000_000:06d}:"
            lines.append(f"{head}{e.name} {e.text}\n")
        return "".join(lines)


def open_text(path: Path) -> Iterator[str]:
    """Lines of a plain, gzip or xz file, told apart by its first bytes."""
    with path.open("rb") as raw:
        magic = raw.read(6)
    opener = gzip.open if magic[:2] == b"\x1f\x8b" else lzma.open if magic == b"\xfd7zXZ\x00" else open
    with opener(path, "rt", encoding="utf-8", errors="replace") as lines:
        yield from lines


def parse_line(line: str) -> tuple[int, str, str] | None:
    """(microseconds since 1970, event, argument text) of a log line, or None for any other line."""
    found = LINE.fullmatch(line)
    if not found:
        return None
    stamp, fraction, _, seconds, micros, name, text = found.groups()
    if stamp:
        seconds, micros = _seconds(stamp), fraction or 0
        if seconds is None:
            return None
    return int(seconds) * 1_000_000 + int(micros), name, text or ""


@lru_cache(maxsize=64)
def _seconds(stamp: str) -> int | None:
    try:
        return (datetime.fromisoformat(stamp + "+00:00") - EPOCH) // timedelta(seconds=1)
    except ValueError:  # month 13: no line of QEMU's
        return None


def read_events(path: str | Path) -> tuple[list[tuple[int, str, tuple]], list[str]]:
    """The events of one side's log as (microseconds since 1970, name, args), and the lines that are none (QEMU's
    messages on stderr, "... lines left out ...").

    Raises JournalError, one line with path and reason, if the file cannot be read.
    """
    events, others = [], []
    try:
        for line in open_text(Path(path)):
            got = parse_line(line.rstrip("\n"))
            if got:
                events.append((got[0], got[1], parse(got[1], got[2])))
            else:
                others.append(line.rstrip("\n"))
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise JournalError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return events, others


def read_journal(source: str | Path, destination: str | Path | None = None) -> Journal:
    """A journal from the logs of one or both sides (one clock). Raises JournalError."""
    merged, notes = [], []
    for side, path in zip(SIDES, (source, destination), strict=True):
        if path is None:
            continue
        events, others = read_events(path)
        merged += [(us, k, side, name, args) for k, (us, name, args) in enumerate(events)]
        notes += [f"{path}: {line}" for line in others if LEFT_OUT.fullmatch(line)]
        rest = [line for line in others if line and not LEFT_OUT.fullmatch(line)]
        if rest:
            notes.append(f"{path}: {len(rest)} lines are no trace events, the first: {rest[0][:200]}")
    merged.sort(key=lambda e: e[0])
    first = merged[0][0] if merged else 0
    return Journal([Event(us - first, side, name, args) for us, _, side, name, args in merged],
                   EPOCH + timedelta(microseconds=first), tuple(notes))
