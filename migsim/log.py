"""QEMU's trace logs, read fast and in bounded memory: protocol events are kept, loop turns and unknown events folded.

Forms of the lines: recordings' README; `-msg timestamp=on` leaves the fraction out when it is 0, 10.0 prints
`pid@time:`. What is kept of the loop turns: what asks for an ACK or fails, the first of each event in a migration, the
lines before each protocol event, and all of a switchover.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from itertools import pairwise
from operator import mul
from pathlib import Path
from typing import Any

from .blocks import BROKEN, blocks
from .events import EVENTS, RawText, parse
from .events import _regexes as regexes
from .folds import Fold, fold_key
from .journal import EPOCH, LEFT_OUT, SIDES, Event, Journal, JournalError, parse_line

WINDOW_US = 100_000  # BUFFER_DELAY, the window of QEMU's rate limit: events are folded over as much
MOST_FOLDS = 20_000  # per log; with more of them windows become twice as long
MOST_NAMES = 1_000  # unknown events by other names are counted together
MOST_EVENTS = 200_000  # kept per log; then data and the turns of a switchover are folded, too
MOST_FULL = 2_000_000  # with full=True
BEFORE = 64  # loop lines kept before a protocol event: more than a turn of four devices
MOST_LINE = 1 << 20  # bytes; longer lines are left out
HOPELESS = 64 << 20  # bytes without any event: no log

STAMP = re.compile(rb"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z |\d{1,10}@\d{1,11}\.\d{6}:)[a-z]")
AT_START = re.compile(rb"\n" + STAMP.pattern)
NAME = re.compile(r"[a-z_0-9]{1,200}")



def asks(text: bytes) -> bool:
    """vfio_state_pending that delivers a request, or is final."""
    return b"ack 1" in text or b"final 1" in text


def collects(text: bytes) -> bool:
    """qemu_savevm_query_pending that collects a request, or is final."""
    return b"final=1" in text or (b"collected" in text and b"ack pending=0, " not in text)


def ends(text: bytes) -> bool:
    """qemu_loadvm_state_section of what only a switchover has: END and FULL."""
    return text in (b"3", b"4")


#: written in each loop turn or more often; with a function that tells those that must not be folded
LOOPS: dict[str, Callable[[bytes], bool] | None] = {
    "savevm_section_start": None, "savevm_section_end": None, "savevm_state_iterate": None,
    "vfio_state_pending": asks, "vfio_state_pending_estimate": None, "vfio_state_pending_exact": None,
    "qemu_savevm_query_pending": collects,
    "migrate_pending_estimate": None, "migrate_pending_exact": None, "migration_bitmap_sync_start": None,
    "migration_bitmap_sync_end": None, "vfio_query_stop_copy_size": None,
    "vfio_query_precopy_size": None, "vfio_save_iterate": None, "migration_rate_limit_pre": None,
    "migration_rate_limit_post": None, "ram_save_iterate_big_wait": None, "dirty_bitmap_state_pending": None,
    "source_return_path_thread_loop_top": None, "vmstate_save": None, "vmstate_load": None, "ram_load_start": None,
    "ram_load_complete": None, "qemu_loadvm_state_section": ends,
    "qemu_loadvm_state_section_partend": None}
#: a line per MiB or per 100 ms: kept, but no reason to keep what stands before it
DATAS = ("vfio_save_block", "vfio_load_state", "vfio_load_state_device_data", "migrate_transferred")
KEPT, DATA, FIRST, UNKNOWN, LOOP = "kept", "data", "first", "unknown", None


def _kinds(plain: str | None, telling: bool) -> dict[bytes, Any]:
    """Event -> what to do with it; a function tells it from the arguments."""
    out: dict[bytes, Any] = {name.encode(): KEPT for name in EVENTS} | {name.encode(): DATA for name in DATAS}
    return out | {name.encode(): tells if tells and telling else plain for name, tells in LOOPS.items()}


TURNING = _kinds(LOOP, True)
STARTING = _kinds(FIRST, False)
SWITCHING = _kinds(DATA, False)
#: what only a source, only a destination writes
ROLES = {"source": {"savevm_state_setup", "migration_set_outgoing_channel", "migration_thread_setup_complete",
                    "vfio_save_setup", "migration_completion_vm_stop", "qemu_savevm_query_pending",
                    "migrate_pending_estimate"},
         "destination": {"loadvm_state_setup", "migration_set_incoming_channel", "process_incoming_migration_co_end",
                         "loadvm_process_command", "vfio_load_state", "qemu_loadvm_state_section"}}

Line = tuple[int, bytes, bytes, bytes]  # number, the line, event, argument text


def microseconds(line: bytes) -> int | None:
    """Since 1970, of a line's stamp; None for no possible time."""
    got = parse_line(STAMP.match(line)[0].decode())  # type: ignore[index]
    return got[0] if got else None


def split(lines: Iterable[tuple[int, bytes]]) -> Iterator[Line]:
    """Lines that begin with a stamp, taken apart."""
    for number, line in lines:
        stamp, _, text = line.partition(b" ")
        if stamp[-1:] == b"Z":
            name, _, text = text.partition(b" ")
            yield number, line, name, text
        else:
            yield number, line, stamp[stamp.find(b":") + 1:], text


@cache
def forms(name: str) -> tuple[tuple[re.Pattern[bytes], tuple[int, ...]], ...]:
    """The forms of an event's argument text, over many lines at once; bases of the arguments (0: text)."""
    return tuple((re.compile(b"^" + regex.pattern.encode() + b"$", re.MULTILINE), bases)
                 for regex, bases in regexes(name))


def fitting(name: str, texts: list[bytes]) -> tuple[list[tuple[bytes, ...]], tuple[int, ...]] | None:
    """The arguments of all these texts and their bases, if one form of the event fits all of them."""
    joined = b"\n".join(texts)
    for form, bases in forms(name):
        rows = form.findall(joined)
        if len(rows) == len(texts):
            return rows if len(bases) > 1 else [(row,) for row in rows], bases
    return None


def folds_of(name: str, counts: Counter[bytes], first: int, last: int) -> Iterator[Fold]:
    """Events of one name, argument text -> how often, as one Fold per key; without numbers where no form fits."""
    found = fitting(name, list(counts)) if name in EVENTS else None
    if not found and name in EVENTS and len(counts) > 1:  # several forms, or damaged
        for text, count in counts.items():
            yield from folds_of(name, Counter({text: count}), first, last)
        return
    if not found:
        yield Fold("", name, "", counts.total(), first, last, (), (), ())
        return
    rows, bases = found
    by_exact = name == "qemu_savevm_query_pending"
    by_key = by_exact or (bases[:1] == (0,) and fold_key(name, ("x",) + (0,) * (len(bases) - 1)) == "x")
    groups: dict[bytes, tuple[list[tuple[bytes, ...]], list[int]]] = {}
    for row, count in zip(rows, counts.values(), strict=True):
        group = groups.setdefault(row[0] if by_key else b"", ([], []))
        group[0].append(row)
        group[1].append(count)
    for key, (some, often) in groups.items():
        columns = [list(map(int, column)) if base == 10 else [int(v, base) for v in column]
                   for base, column in zip(bases, zip(*some, strict=True), strict=False) if base]
        yield Fold("", name, fold_key(name, (int(key),)) if by_exact else key.decode(errors="replace"), sum(often),
                   first, last, tuple(map(min, columns)), tuple(map(max, columns)),
                   tuple(sum(map(mul, column, often)) for column in columns))


class Folder:
    """Collects the folds of one log: at most MOST_FOLDS windows, at most MOST_NAMES names."""

    def __init__(self) -> None:
        self.width = WINDOW_US
        self.unknown: set[str] = set()
        self.part = 0  # counts protocol events: a fold does not reach from before one to after it
        self.rows: dict[tuple[str, str, int, int], Fold] = {}

    def add(self, items: Sequence[Line]) -> int:
        """Fold these lines; how many of them have no possible time."""
        cut = items[0][1].find(b".", 0, 22) + 2 if items else 0  # to a tenth of a second
        bad, names, window, first, last = 0, {}, b"", b"", b""
        for _, line, name, text in items:
            if line[:cut or 20] != window:
                bad += self._run(names, first, last)
                names, window, first = {}, line[:cut or 20], line
            last = line
            group = names.get(name)
            if group is None:
                names[name] = [text]
            else:
                group.append(text)
        return bad + self._run(names, first, last)

    def _run(self, names: dict[bytes, list[bytes]], first: bytes, last: bytes) -> int:
        """Lines of one window, by name."""
        times = [us for us in (microseconds(first), microseconds(last)) if us is not None] if names else []
        for name, texts in names.items():
            if times:
                self._group(name.decode(), min(times), max(times), texts)
        return 0 if times else sum(map(len, names.values()))

    def _group(self, name: str, first: int, last: int, texts: list[bytes]) -> None:
        if name not in EVENTS and name not in self.unknown:
            if len(self.unknown) < MOST_NAMES:
                self.unknown.add(name)
            else:
                name = "(others)"
        for fold in folds_of(name, Counter(texts), first, last):
            self._put(fold)
        while len(self.rows) > MOST_FOLDS:
            self.width, self.part = self.width * 2, 0
            old, self.rows = self.rows, {}
            for row in old.values():
                self._put(row)

    def _put(self, row: Fold) -> None:
        key = row.name, row.key, row.first // self.width, self.part
        there = self.rows.get(key)
        self.rows[key] = there.plus(row) if there else row


class Reader:
    """One log: events in the order of their lines, folds, and what was no event."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.kinds: dict[bytes, Any] = dict(STARTING)
        self.events: list[tuple[int, int, str, tuple]] = []  # (us, line, name, args)
        self.folder = Folder()
        self.pending: list[Line] = []  # loop lines not folded yet
        self.lines = self.folded = 0
        self.others, self.first_other = 0, ""
        self.left_out: list[str] = []
        self.torn: tuple[int, bytes] | None = None

    def feed(self, block: bytes) -> None:
        """Whole lines."""
        lines = (block.replace(b"\r\n", b"\n") if b"\r" in block else block).split(b"\n")
        lines.pop()
        first = self.lines + 1
        self.lines += len(lines)
        numbered: Iterable[tuple[int, bytes]] = enumerate(lines, first)
        items = split(numbered if clean(block, lines) else self._mended(numbered))
        pending, kinds = self.pending, self.kinds
        for item in items:
            kind = kinds.get(item[2], UNKNOWN)
            if kind is LOOP or (kind.__class__ is not str and not kind(item[3])):
                pending.append(item)
            else:
                self._tell(kind, item)
                kinds = self.kinds
        self._fold(BEFORE)

    def _tell(self, kind: Any, item: Line) -> None:
        """One line that may be kept."""
        name = item[2].decode(errors="replace")
        if kind == UNKNOWN and not (name.isascii() and NAME.fullmatch(name)):
            self.other(item[1].decode(errors="replace"))
        elif self.full:
            self._keep(item)
        elif kind == UNKNOWN or (kind == DATA and len(self.events) >= MOST_EVENTS):
            self.pending.append(item)
        elif kind in (DATA, FIRST):
            self._keep(item)
            if kind == FIRST:
                self.kinds[item[2]] = TURNING[item[2]]
        else:
            self._fold(BEFORE)
            if len(self.events) < MOST_EVENTS:
                for before in [p for p in self.pending if p[2] in TURNING]:
                    self._keep(before)
                self.pending[:] = [p for p in self.pending if p[2] not in TURNING]
            self._fold(0)
            self.folder.part += self.folder.width == WINDOW_US
            self._keep(item)
            self._phase(name, item[3])

    def _phase(self, name: str, text: bytes) -> None:
        """A switchover is kept whole; a new migration tells everything once more."""
        if name == "migrate_set_state" and text not in (b"new state device", b"new state pre-switchover"):
            self.kinds = dict(STARTING) if text == b"new state setup" or self.kinds is SWITCHING else self.kinds
        elif text == b"src-downtime-start" or (name == "runstate_set" and text.endswith(b"(finish-migrate)")) \
                or text == b"com=SWITCHOVER_START len=0" or name == "qemu_loadvm_state_section":
            self.kinds = SWITCHING

    def _keep(self, item: Line) -> None:
        number, line, raw, text = item
        name, us = raw.decode(), microseconds(line)
        args = parse(name, text.decode(errors="replace"))
        if us is None or (name in EVENTS and args and isinstance(args[0], RawText)):
            self.other(line.decode(errors="replace"))
        else:
            self.events.append((us, number, name, args))
        if len(self.events) > (MOST_FULL if self.full else 2 * MOST_EVENTS):
            raise JournalError(f"line {number}: more than {len(self.events) - 1} events to keep"
                               + (": read it without full=True" if self.full else ": no log of migrations"))

    def _fold(self, spare: int) -> None:
        """Fold what is pending but for the last lines."""
        done = self.pending[:-spare] if spare else self.pending[:]
        del self.pending[:len(done)]
        bad = self.folder.add(done)
        self.others += bad
        self.folded += len(done) - bad

    def other(self, text: str) -> None:
        """What is no event."""
        if LEFT_OUT.fullmatch(text) and len(self.left_out) < 10:
            self.left_out.append(text)
        elif text:
            self.others += 1
            self.first_other = self.first_other or text[:200]

    def _mended(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        """Lines that concurrent writers have torn, put together again; what belongs to no event is left out.

        A thread's line may stand within another's: `AAA` + `BBB\\n` + `AAA\\n`.
        """
        for number, line in lines:
            starts = [found.start() for found in STAMP.finditer(line)]
            if not starts:
                if self.torn and fits(self.torn[1] + line):
                    yield self.torn[0], self.torn[1] + line
                else:
                    self._give_up_torn()
                    self.other(line.decode(errors="replace"))
                self.torn = None
                continue
            if starts[0]:
                self.other(line[:starts[0]].decode(errors="replace"))
            if len(starts) > 1 and fits(line[starts[0]:]):
                del starts[1:]  # a text that looks like a line
            for first, last in pairwise([*starts, len(line)]):
                piece = line[first:last]
                if last == len(line) or fits(piece):
                    yield number, piece
                else:
                    self._give_up_torn()
                    self.torn = number, piece

    def _give_up_torn(self) -> None:
        if self.torn:
            self.other(self.torn[1].decode(errors="replace"))
        self.torn = None

    def finish(self, rest: bytes) -> None:
        """The end of the file; `rest` has no line end."""
        if rest and fits(rest):
            self.feed(rest + b"\n")
        elif rest:
            self.other(rest.decode(errors="replace"))
        self._give_up_torn()
        self._fold(0)

    @property
    def role(self) -> str | None:
        """The side that wrote this log, if its events tell."""
        names = {e[2] for e in self.events} | {row[0] for row in self.folder.rows}
        return next((side for side, only in ROLES.items() if names & only), None)


def clean(block: bytes, lines: list[bytes]) -> bool:
    """Whether every line begins with a stamp and has no second one: counted, not looked at one by one."""
    if not lines:
        return True
    at = 0 if lines[0][4:5] == b"-" else lines[0].find(b"@")
    begin = lines[0][at:at + 8]  # a month, or 28 hours
    return at >= 0 and block.count(begin) == len(lines) == len(AT_START.findall(b"\n" + block))


def fits(line: bytes) -> bool:
    """Whether this is a whole line of a known event."""
    got = parse_line(line.decode(errors="replace"))
    return got is not None and got[1] in EVENTS and not isinstance((*parse(got[1], got[2]), "")[0], RawText)


def read_one(path: Path, full: bool, progress: Callable[[int, int], None] | None) -> tuple[Reader, list[str]]:
    """One log, and notes. A file that breaks off is read up to there. Raises JournalError."""
    reader, rest, notes, size, good, good_at = Reader(full), b"", [], 0, 0, 0
    try:
        for block in blocks(path, progress):
            size += len(block)
            whole, newline, rest = (rest + block).rpartition(b"\n")
            if newline:
                reader.feed(whole + newline)
            if len(rest) > MOST_LINE:
                rest = b""  # its end will be no event
                reader.other(f"a line of more than {MOST_LINE} bytes")
            if len(reader.events) + reader.folded > good:
                good, good_at = len(reader.events) + reader.folded, size
            elif size - good_at > HOPELESS:
                raise JournalError(f"no trace event in {HOPELESS >> 20} MiB after line {reader.lines}")
    except BROKEN as error:
        if not reader.events:
            raise JournalError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
        notes.append(f"{path}: breaks off after {size} bytes: {getattr(error, 'strerror', None) or error}")
    except JournalError as error:
        raise JournalError(f"{path}: {error}") from None
    reader.finish(rest)
    return reader, notes


def read_log(source: str | Path, destination: str | Path | None = None, *, full: bool = False,
             progress: Callable[[int, int], None] | None = None) -> Journal:
    """A journal from the logs of one or both sides, plain, gzip or xz, on the clocks that they have.

    Which side a log is of is told by its events; the order of the two only counts where they do not tell. `full`:
    nothing is folded, up to MOST_FULL events. `progress` is told (bytes read, bytes of the file) now and then.
    Raises JournalError, one line: which file, what is wrong.
    """
    paths = [Path(p) for p in (source, destination) if p is not None]
    found = [read_one(path, full, progress) for path in paths]
    sides = which(paths, [reader.role for reader, _ in found])
    notes = [note for (_, those), path, side in zip(found, paths, sides, strict=True) for note in those]
    rows = []
    for path, side, (reader, _) in zip(paths, sides, found, strict=True):
        notes += about(path, reader)
        rows += [(us, number, side, name, args) for us, number, name, args in sorted(reader.events, key=_when)]
    rows.sort(key=lambda row: row[0])
    start = min([row[0] for row in rows[:1]] + [f.first for r, _ in found for f in r.folder.rows.values()])
    folds = [f._replace(side=side, first=f.first - start, last=f.last - start)
             for side, (reader, _) in zip(sides, found, strict=True) for f in reader.folder.rows.values()]
    return Journal([Event(us - start, side, name, args) for us, _, side, name, args in rows],
                   EPOCH + timedelta(microseconds=start), tuple(notes), None,
                   tuple(sorted(folds, key=lambda f: f.first)), [row[1] for row in rows])


def _when(row: tuple[int, int, str, tuple]) -> tuple[int, int]:
    return row[:2]


def which(paths: Sequence[Path], roles: Sequence[str | None]) -> list[str]:
    """The side of each log. Raises JournalError if both are of one side."""
    if len(roles) == 1:
        return [roles[0] or "source"]
    if roles[0] and roles[0] == roles[1]:
        raise JournalError(f"{paths[0]}, {paths[1]}: both are logs of a {roles[0]}: give the source's and the "
                           "destination's")
    swapped = roles[0] == "destination" or roles[1] == "source"
    return list(reversed(SIDES) if swapped else SIDES)


def about(path: Path, reader: Reader) -> list[str]:
    """What a reader of the journal must know of the log. Raises JournalError if there is no event in it."""
    if not reader.events and not reader.folder.rows:
        raise JournalError(f"{path}: no trace event in {reader.lines} lines: start QEMU with -trace 'vfio_*' "
                           "-trace 'migrat*' -msg timestamp=on -D FILE")
    out = [f"{path}: {text}" for text in reader.left_out]
    if reader.others:
        out.append(f"{path}: {reader.others} lines are no trace events, the first: {reader.first_other}")
    return out
