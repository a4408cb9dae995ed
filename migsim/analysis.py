"""What a journal tells about each migration in it: outcome, ACKs, downtime, convergence, code base, rules, what is
missing. The journal is simulated or read from QEMU's logs; `analyze` cannot tell which.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from .ackledger import AckEntry, ack_ledger
from .checks import Verdict, check
from .clockskew import ClockOffset, clock_offset
from .convergence import Turns, convergence, why_not_earlier
from .downtime import Kept, Share, ack_would, downtime_ledger, kept_out, window
from .events import EVENTS, RawText
from .folds import Fold, turns
from .journal import LEFT_OUT, SIDES, DeviceEvent, Event, Journal, JournalError
from .missing import has_vfio, missing
from .provenance import Base, code_base_of, scheme_of
from .timeline import Moment, timeline

if TYPE_CHECKING:
    import pandas

ENDED = ("completed", "failed", "cancelled", "colo")
#: events that only the sending, only the receiving side of a migration writes
SENDING = ("savevm_state_setup", "savevm_state_header", "migration_thread_setup_complete", "qemu_savevm_query_pending",
           "migrate_pending_estimate", "migration_set_outgoing_channel", "savevm_send_open_return_path",
           "vfio_save_setup")
RECEIVING = ("loadvm_state_setup", "process_incoming_migration_co_end", "migration_set_incoming_channel",
             "migration_socket_incoming_accepted", "loadvm_process_command", "qemu_loadvm_state_section",
             "vfio_load_state")
#: table -> its columns; @ marks a time of the journal, ~ a duration, both us
TABLES = {"acks": "device why asked@ marker@ loaded@ approved@ counted@",
          "downtime_ledger": "what device us~ first@", "kept_out": "device why us~", "ack_would": "device why us~",
          "timeline": "us@ side what device states event",
          "convergence": "us@ queries exact pending_low pending_high acks threshold bandwidth slept_ms reason",
          "rules": "id verdict sentence reason events meaning"}
MOST_MIGRATIONS = 1_000
MOST_CONTEXT = 1_000  # first events of a log that are looked at for what devices said when they were realized
CONTEXT = ("vfio_migration_init", "vfio_migration_realize")


@dataclass
class Analysis:
    """One migration. Times are microseconds of `journal`; where a number cannot be told it is None and its `_note`
    says why.

    `journal`: this migration alone, the destination's events on the source's clock. `number`: 1 for the first of the
    log. `sides`: whose logs there are. `start_us`, `end_us`: setup, and the end (of the log, if it had not ended).
    `status`: the source's last migration status, `active` if it had not ended; `error`: its first migrate_error.
    `downtime_us`: what query-migrate calls downtime; `guest_downtime_us`: from the source's vCPUs stopping to the
    guest's running at the destination (or again at the source). `vfio_bytes`: payload of the devices' data sent.
    `scheme`, `base`: per side; `ends_agree`: None where it cannot be told. `acks`: the ACK ledger; `waited_for`: the
    ACK that was counted last before the switchover was decided. `downtime_ledger` sums to `downtime_us`; `kept_out`,
    `ack_would`: what ACKs kept out of it, and what one more would have. `timeline`, `convergence`: see those modules;
    `why_not_earlier`: reason -> ms. `rules`: the verdicts, events are indexes into `journal`; `missing`: events that
    are not in the logs, and what to enable; `notes`: anything else a reader must know.
    """

    number: int
    journal: Journal
    sides: tuple[str, ...]
    start_us: int
    end_us: int
    status: str
    error: str | None
    clock: ClockOffset
    downtime_us: int | None = None
    downtime_note: str = ""
    guest_downtime_us: int | None = None
    guest_downtime_note: str = ""
    vfio_bytes: int | None = None
    vfio_bytes_note: str = ""
    scheme: dict[str, str] = field(default_factory=dict)
    base: dict[str, Base] = field(default_factory=dict)
    ends_agree: bool | None = None
    acks: list[AckEntry] = field(default_factory=list)
    waited_for: AckEntry | None = None
    downtime_ledger: list[Share] = field(default_factory=list)
    kept_out: list[Kept] = field(default_factory=list)
    ack_would: list[Kept] = field(default_factory=list)
    timeline: list[Moment] = field(default_factory=list)
    convergence: list[Turns] = field(default_factory=list)
    why_not_earlier: dict[str, float] = field(default_factory=dict)
    rules: list[Verdict] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ms(self, us: int | None) -> float | None:
        """A time of the journal as ms after setup."""
        return None if us is None else (us - self.start_us) / 1000

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A table as plain dicts: acks, downtime_ledger, kept_out, ack_would, timeline, convergence or rules. Times are
        ms after setup, durations ms. Raises ValueError for another name."""
        if table not in TABLES:
            raise ValueError(f"{table!r} is no table: allowed are {', '.join(TABLES)}")
        return [dict(zip(columns(table), (self._cell(row, f) for f in TABLES[table].split()), strict=True))
                for row in getattr(self, table)]

    def _cell(self, row: NamedTuple, field_: str) -> Any:
        value = getattr(row, field_.rstrip("@~"))
        return self.ms(value) if field_.endswith("@") else value / 1000 if field_.endswith("~") else value

    def frame(self, table: str) -> pandas.DataFrame:
        """rows() for pandas; what never came is NaN."""
        import pandas

        return pandas.DataFrame(self.rows(table), columns=columns(table))

    def line(self, event: int) -> str:
        """Where event number `event` of `journal` stands: source:123, the line of that side's log."""
        return f"{self.journal.events[event].side}:{(self.journal.lines or [])[event]}"


def columns(table: str) -> list[str]:
    """The names of a table's columns."""
    return [f.rstrip("@~") if f[-1] not in "@~" else "ms" if f[:-1] == "us" else f"{f[:-1]}_ms"
            for f in TABLES[table].split()]


@dataclass
class Part:
    """What one side's log has of one migration. `lines`: of its events, in the log."""

    events: list[Event] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    folds: list[Fold] = field(default_factory=list)

    def later(self, us: int) -> Part:
        """The same on a clock that is `us` ahead."""
        return Part([e._replace(us=e.us + us) for e in self.events], self.lines,
                    [f._replace(first=f.first + us, last=f.last + us) for f in self.folds]) if us else self


def analyze(journal: Journal, clock_offset_ms: float | None = None) -> list[Analysis]:
    """One Analysis per migration of the source's log, in order (of the destination's, if that is all there is).

    `clock_offset_ms`: how far the destination's clock is ahead; estimated from the messages where it is not given.
    Raises JournalError for more than MOST_MIGRATIONS.
    """
    out = []
    parts = pairs(migrations(journal, "source"), migrations(journal, "destination"), clock_offset_ms)
    for number, (here, there) in enumerate(parts, 1):
        clock = clock_offset(here.events + there.events, clock_offset_ms)
        moved = there.later(-round(clock.ms * 1000))
        rows = sorted(zip(here.events + moved.events, here.lines + moved.lines, strict=True), key=lambda r: r[0].us)
        one = Journal([e for e, _ in rows], journal.start, journal.notes, _devices(journal, here.events + there.events),
                      tuple(here.folds + moved.folds), [line for _, line in rows])
        sides = tuple(side for side, part in zip(SIDES, (here, there), strict=True) if part.events)
        out.append(_analysis(number, one, sides, clock))
    return out


def _devices(journal: Journal, events: list[Event]) -> tuple[DeviceEvent, ...] | None:
    """The devices' own view of these events' time, if the journal has one."""
    if journal.devices is None:
        return None
    first, last = min(e.us for e in events), max(e.us for e in events)
    return tuple(d for d in journal.devices if first <= d.us <= last)


def migrations(journal: Journal, side: str) -> list[Part]:
    """What each migration of one side has, from its setup to the next one's; what goes before the first belongs to it,
    and each has what the devices said when they were realized. Migrations of the other direction (this process was a
    destination before it became a source) are left out. A simulated run's lines are those that it would write."""
    rows = [(e, k) for e, k in zip(journal.events, journal.lines or range(len(journal)), strict=True)
            if e.side == side and not (e.args and isinstance(e.args[0], RawText) and e.name in EVENTS)]  # damaged
    if not journal.lines:
        rows = [(e, k) for k, (e, _) in enumerate(rows, 1)]
    starts = [k for k, (e, _) in enumerate(rows) if e.name == "migrate_set_state" and e.args[0] == "setup"]
    if len(starts) > MOST_MIGRATIONS:
        raise JournalError(f"{len(starts)} migrations in one log of the {side}: at most {MOST_MIGRATIONS}, split it")
    cuts = [0, *starts[1:], len(rows)]
    mine, other = (SENDING, RECEIVING) if side == "source" else (RECEIVING, SENDING)
    out = []
    for first, last in pairwise(cuts):
        part = rows[first:last]
        begins = part[0][0].us if first else -1 << 62
        ends = rows[last][0].us if last < len(rows) else 1 << 62
        folds = [f for f in journal.folds if f.side == side and begins <= f.first < ends]
        names = {e.name for e, _ in part} | {f.name for f in folds}
        if names.isdisjoint(mine) and (not names.isdisjoint(other) or "migrate_set_state" not in names):
            continue
        part = [r for r in rows[:first][:MOST_CONTEXT] if r[0].name in CONTEXT] + part
        out.append(Part([e for e, _ in part], [line for _, line in part], folds))
    return out


def begin(events: list[Event]) -> int:
    """When the migration was set up (the first event, if the log begins later), us."""
    return next((e.us for e in events if e.name == "migrate_set_state" and e.args[0] == "setup"),
                events[0].us if events else 0)


def pairs(source: list[Part], destination: list[Part], offset_ms: float | None) -> list[tuple[Part, Part]]:
    """Each of the source's migrations with the destination's: as many on both sides, in order; otherwise that which
    began nearest to it. Without a source, the destination's alone."""
    if not source:
        return [(Part(), there) for there in destination]
    if len(source) == len(destination):
        return list(zip(source, destination, strict=True))
    shift, out = round((offset_ms or 0) * 1000), [(here, Part()) for here in source]
    for there in destination:
        k = min(range(len(source)), key=lambda k: abs(begin(there.events) - shift - begin(source[k].events)))
        out[k] = (source[k], out[k][1] if out[k][1].events else there)
    return out


def until_quit(events: list[Event]) -> list[Event]:
    """Without what QEMU does when it is told to quit: a migration that is on its way then is cancelled."""
    for k, e in enumerate(events):
        if e.name == "runstate_set" and e.args[-1] == "shutdown":
            before = next((n for n in range(k - 1, -1, -1) if events[n].name == "migration_cancel"), k)
            ended = any(x.name == "migrate_set_state" and x.args[0] in ENDED for x in events[before:k])
            return events[:k if ended else before]
    return events


def _analysis(number: int, journal: Journal, sides: tuple[str, ...], clock: ClockOffset) -> Analysis:
    lead = until_quit(journal.side(sides[0]))
    states = [e for e in lead if e.name == "migrate_set_state" and e.args[0] in ENDED]
    errors = [str(e.args[0]) for e in lead if e.name == "migrate_error"]
    status = str(states[-1].args[0]) if states else "active"
    end = states[-1].us if states else lead[-1].us if lead else 0
    out = Analysis(number, journal, sides, begin(lead), end, status, errors[0] if errors else None, clock)
    out.scheme = {side: scheme_of(journal, side) for side in sides}
    out.base = {side: code_base_of(journal, side) for side in sides}
    out.ends_agree = agree(*out.scheme.values()) if len(sides) > 1 else None
    out.rules = check(journal)
    out.missing = [text for side in sides for text in missing(journal, side, out.base[side])]
    _acks(out)
    _downtime(out, lead)
    _bytes(out, lead)
    out.timeline = timeline(journal)
    return out


def agree(source: str, destination: str) -> bool | None:
    """Do both ends use one scheme? old and legacy are the same on the wire; None where one does not tell."""
    if not source or not destination:
        return None
    return (source == "new") == (destination == "new")


def _acks(a: Analysis) -> None:
    """ACKs, and what else kept the switchover from coming."""
    a.acks = ack_ledger(a.journal)
    decided = a.journal.last("migration_thread_low_pending", "source")
    counted = [x for x in a.acks if x.counted is not None and (decided is None or x.counted <= decided.us)]
    a.waited_for = max(counted, key=lambda x: x.counted or 0, default=None)
    if "source" in a.sides:
        a.convergence = convergence(a.journal, a.start_us, a.end_us)
        a.why_not_earlier = why_not_earlier(a.convergence, decided.us if decided else a.end_us)


def _downtime(a: Analysis, lead: list[Event]) -> None:
    """Both downtimes and what they are made of."""
    span = window(lead) if a.sides[0] == "source" else None
    if span is None:
        a.downtime_note = "no log of the source" if a.sides[0] != "source" else \
            "the log shows neither its begin nor its end" if a.status == "completed" else "no switchover was completed"
    else:
        a.downtime_us, a.downtime_note = span.last - span.first, span.note
    a.downtime_ledger = downtime_ledger(a.journal)
    a.kept_out, a.ack_would = kept_out(a.journal, a.acks), ack_would(a.journal)
    a.guest_downtime_us, a.guest_downtime_note = _guest(a, lead)


def _guest(a: Analysis, lead: list[Event]) -> tuple[int | None, str]:
    """From the last stop of the source's vCPUs to the guest's running, here or there."""
    if a.sides[0] != "source":
        return None, "no log of the source"
    stops = [e.us for e in lead if e.name == "vm_state_notify" and not e.args[0]]
    if not stops:
        return None, "the log does not show the guest stop"
    runs = [e.us for e in a.journal.all("vm_state_notify") if e.args[0] and e.us > stops[-1]]
    if not runs:
        return None, "the logs do not show the guest run again"
    return runs[0] - stops[-1], ""


def _bytes(a: Analysis, lead: list[Event]) -> None:
    """Payload of the devices' data: the blocks that the source has traced, or that the destination has loaded."""
    sent = [int(f.total[0]) for f in turns(a.journal, "vfio_save_block") if f.total]
    loaded = [int(f.total[0]) for f in turns(a.journal, "vfio_load_state_device_data", side="destination") if f.total]
    names = {e.name for e in a.journal}
    if not has_vfio(a.journal):
        a.vfio_bytes_note = "the logs show no VFIO device"
    elif any(n.startswith(("vfio_save_complete_precopy_thread", "vfio_load_state_device_buffer")) for n in names):
        a.vfio_bytes_note = "multifd carries device data, which is not traced block by block"
    elif a.sides[0] == "source" and not any(e.name == "migrate_set_state" and e.args[0] == "setup" for e in lead):
        a.vfio_bytes_note = "the log begins after this migration did"
    elif any(LEFT_OUT.search(note) for note in a.journal.notes) and sum(sent) != sum(loaded):
        a.vfio_bytes_note = "lines of the log are left out"
    elif not (sent if a.sides[0] == "source" else loaded) and a.status == "completed":
        a.vfio_bytes_note = "no block of device data is traced"
    else:
        a.vfio_bytes = sum(sent if a.sides[0] == "source" else loaded)
