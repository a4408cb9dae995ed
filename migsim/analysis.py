"""What a journal tells about each migration in it: outcome, ACKs, downtime, convergence, code base, rules, what is
missing. The journal is simulated or read from QEMU's logs; `analyze` cannot tell which.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .ackledger import AckEntry, ack_ledger
from .checks import Verdict, check
from .clockskew import ClockOffset, clock_offset
from .journal import SIDES, Event, Journal
from .provenance import Base, code_base_of, scheme_of

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
    `scheme`, `base`: per side; `ends_agree`: None with one side only. `acks`: the ACK ledger; `waited_for`: the ACK that
    was counted last before the switchover was decided. `rules`: the verdicts; `missing`: events that are not in the
    logs, and what to enable; `notes`: anything else a reader must know.
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
    rules: list[Verdict] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ms(self, us: int | None) -> float | None:
        """A time of the journal as ms after setup."""
        return None if us is None else (us - self.start_us) / 1000

    def frame(self, what: str) -> pandas.DataFrame:
        """A table as pandas has it: acks, rules."""
        import pandas

        rows = {"acks": [{"device": a.device, "why": a.why, **{f"{k}_ms": self.ms(getattr(a, k)) for k in (
                    "asked", "marker", "loaded", "approved", "counted")}} for a in self.acks],
                "rules": [v._asdict() for v in self.rules]}
        return pandas.DataFrame(rows[what])


def analyze(journal: Journal, clock_offset_ms: float | None = None) -> list[Analysis]:
    """One Analysis per migration of the source's log, in order (of the destination's, if that is all there is).

    `clock_offset_ms`: how far the destination's clock is ahead; estimated from the messages where it is not given.
    """
    parts = {side: migrations(journal.side(side), side) for side in SIDES}
    sides = tuple(side for side in SIDES if parts[side])
    if not sides:
        return []
    out = []
    for number, (here, there) in enumerate(pairs(parts["source"], parts["destination"], clock_offset_ms), 1):
        clock = clock_offset(here + there, clock_offset_ms)
        shift = round(clock.ms * 1000)
        moved = [e._replace(us=e.us - shift) for e in there] if shift else there
        one = Journal(sorted(here + moved, key=lambda e: e.us), journal.start, journal.notes,
                      _devices(journal, here + moved))
        out.append(_analysis(number, one, tuple(s for s, events in zip(SIDES, (here, there), strict=True) if events),
                             clock))
    return out


def _devices(journal: Journal, events: list[Event]) -> tuple | None:
    """The devices' own view of these events' time, if the journal has one."""
    if journal.devices is None:
        return None
    first, last = min(e.us for e in events), max(e.us for e in events)
    return tuple(d for d in journal.devices if first <= d.us <= last)


def migrations(events: list[Event], side: str) -> list[list[Event]]:
    """The events of each migration of one side, from its setup to the next one's; what goes before the first belongs
    to it, and each has what the devices said when they were realized. Migrations of the other direction (this process
    was a destination before it became a source) are left out."""
    starts = [k for k, e in enumerate(events) if e.name == "migrate_set_state" and e.args[0] == "setup"]
    cuts = [0, *starts[1:], len(events)]
    mine, other = (SENDING, RECEIVING) if side == "source" else (RECEIVING, SENDING)
    out = []
    for first, last in zip(cuts, cuts[1:], strict=False):
        part = events[first:last]
        names = {e.name for e in part}
        if names.isdisjoint(mine) and (not names.isdisjoint(other) or "migrate_set_state" not in names):
            continue
        out.append([e for e in events[:first] if e.name in CONTEXT] + part)
    return out


def begin(events: list[Event]) -> int:
    """When the migration was set up (the first event, if the log begins later), us."""
    return next((e.us for e in events if e.name == "migrate_set_state" and e.args[0] == "setup"),
                events[0].us if events else 0)


def pairs(source: list[list[Event]], destination: list[list[Event]],
          offset_ms: float | None) -> list[tuple[list[Event], list[Event]]]:
    """Each of the source's migrations with the destination's: as many on both sides, in order; otherwise that which
    began nearest to it. Without a source, the destination's alone."""
    if not source:
        return [([], there) for there in destination]
    if len(source) == len(destination):
        return list(zip(source, destination, strict=True))
    shift, out = round((offset_ms or 0) * 1000), [(here, []) for here in source]
    for there in destination:
        k = min(range(len(source)), key=lambda k: abs(begin(there) - shift - begin(source[k])))
        out[k] = (source[k], out[k][1] or there)
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
    states = [str(e.args[0]) for e in lead if e.name == "migrate_set_state"]
    status = states[-1] if states and states[-1] in ENDED else "active"
    ended = [e.us for e in lead if e.name == "migrate_set_state" and e.args[0] in ENDED]
    errors = [str(e.args[0]) for e in lead if e.name == "migrate_error"]
    acks = ack_ledger(journal)
    decided = journal.last("migration_thread_low_pending", "source")
    counted = [a for a in acks if a.counted is not None and (decided is None or a.counted <= decided.us)]
    out = Analysis(number, journal, sides, begin(lead), ended[-1] if ended else lead[-1].us if lead else 0, status,
                   errors[0] if errors else None, clock, acks=acks,
                   waited_for=max(counted, key=lambda a: a.counted or 0, default=None),
                   scheme={s: scheme_of(journal, s) for s in sides},
                   base={s: code_base_of(journal, s) for s in sides},
                   rules=check(journal))
    _numbers(out, lead)
    return out


def _numbers(a: Analysis, lead: list[Event]) -> None:
    """Downtime, guest downtime and bytes."""
    marks = {str(e.args[0]): e.us for e in lead if e.name == "vmstate_downtime_checkpoint"}
    start, end = marks.get("src-downtime-start"), marks.get("src-downtime-end")
    if start is not None and end is not None:
        a.downtime_us = end - start
    else:
        a.downtime_note = "the switchover was not completed" if a.status != "completed" else "no checkpoints traced"
    a.vfio_bytes = sum(int(e.args[1]) for e in lead if e.name == "vfio_save_block")
