"""Which events a log would need for everything that an analysis tells, and how to have them traced."""
from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

from .journal import Journal
from .ladder import CODE_BASES
from .provenance import Base

#: what to enable; every event that an analysis looks at matches one of them
PATTERNS = ("migrat*", "vfio_*", "*savevm_*", "*loadvm_*", "vmstate_downtime_*", "*return_path*", "process_incoming_*",
            "ram_save_complete", "postcopy_*", "runstate_set", "vm_state_notify")
TRACE_OPTIONS = "-msg timestamp=on -D LOG " + " ".join(
    f"-trace '{p}'" if "*" in p else f"-trace {p}" for p in PATTERNS)


class Wanted(NamedTuple):
    """Any of `events` on one side is needed for `what`; only where an event `given` is there, or what CONDITIONS says
    of it ("" always). `since`: the code base (or QEMU version) that brought them, "" if all have them."""

    side: str
    events: str
    given: str
    since: str
    what: str


WANTED = (
    Wanted("source", "migrate_set_state", "", "", "status and begin of each migration"),
    Wanted("source", "runstate_set", "", "", "run states"),
    Wanted("source", "vm_state_notify", "", "", "the guest's downtime"),
    Wanted("source", "vmstate_downtime_checkpoint", "migration_completion_vm_stop", "8.2", "the downtime"),
    Wanted("source", "vmstate_downtime_save", "migration_precopy_complete", "8.2", "what each device's save took"),
    Wanted("source", "qemu_savevm_query_pending", "", "base", "pending bytes and ACKs due"),
    Wanted("source", "migrate_pending_estimate migrate_pending_exact", "old", "", "pending bytes"),
    Wanted("source", "migrate_transferred", "long", "", "bandwidth and threshold"),
    Wanted("source", "source_return_path_thread_entry source_return_path_thread_switchover_acked "
                     "source_return_path_thread_shut source_return_path_thread_pong", "savevm_send_open_return_path",
           "", "ACKs counted, clock offset"),
    Wanted("source", "vfio_migration_set_device_state", "vfio", "", "device states"),
    Wanted("source", "vfio_save_block", "vfio", "", "bytes of device data"),
    Wanted("source", "vfio_query_precopy_size", "precopy", "base", "initial data and REINIT"),
    Wanted("source", "vfio_state_pending vfio_state_pending_estimate", "vfio", "", "requests for ACKs"),
    Wanted("source", "vfio_send_init_data_flag", "acked", "p8", "markers"),
    Wanted("destination", "migrate_set_state", "", "", "status"),
    Wanted("destination", "vm_state_notify", "runs", "", "the guest's downtime"),
    Wanted("destination", "loadvm_process_command", "", "", "clock offset"),
    Wanted("destination", "migrate_send_rp_message", "", "", "ACKs sent, clock offset"),
    Wanted("destination", "vmstate_downtime_load", "loaded", "8.2", "what each device's load took"),
    Wanted("destination", "vfio_load_state", "vfio", "", "markers"),
    Wanted("destination", "vfio_load_state_device_data", "vfio", "", "when device data were loaded"),
)


#: what else than an event may be given
CONDITIONS = {
    "vfio": lambda journal, side: has_vfio(journal),
    "old": lambda journal, side: any(e.name in ("vfio_state_pending_estimate", "loadvm_state_switchover_ack_needed")
                                     for e in journal),
    "acked": lambda journal, side: has_vfio(journal) and any(journal.all("source_return_path_thread_switchover_acked")),
    "precopy": lambda journal, side: any(e.args[1] == "PRE_COPY"
                                         for e in journal.all("vfio_migration_set_device_state")),
    "runs": lambda journal, side: any(e.args[-1] == "running" for e in journal.all("runstate_set", side=side)),
    "loaded": lambda journal, side: any(e.args[0] == 0 for e in journal.all("process_incoming_migration_co_end")),
    "long": lambda journal, side: _longest(journal, side) > 200_000,  # bandwidth is measured every 100 ms
}


def missing(journal: Journal, side: str, base: Base) -> list[str]:
    """One sentence per kind of event that this side's log should have and has not."""
    names = {e.name for e in journal.side(side)} | {f.name for f in journal.folds if f.side == side}
    out = []
    for w in WANTED:
        given = CONDITIONS[w.given](journal, side) if w.given in CONDITIONS else not w.given or w.given in names
        if w.side != side or not given or names & set(w.events.split()):
            continue
        first = w.events.split()[0]
        if w.since in CODE_BASES and base.last and CODE_BASES[base.last].level < CODE_BASES[w.since].level:
            out.append(f"{side}: no {first} events: QEMU before 11.1 has none ({w.what})")
            continue
        since = f", QEMU {w.since} on" if w.since[:1].isdigit() else ""
        out.append(f"{side}: no {first} events: enable `{pattern(first)}`{since} ({w.what})")
    return out


def _longest(journal: Journal, side: str) -> int:
    """us from setup to the decision, or to the end of the log."""
    us = [e.us for e in journal.all("migration_thread_setup_complete", side=side)]
    end = journal.first("migration_thread_low_pending", side) or journal.last("migrate_set_state", side)
    return end.us - us[-1] if us and end else 0


def has_vfio(journal: Journal) -> bool:
    """A VFIO device shows on either side, in its own events or as a section."""
    return any(e.name.startswith("vfio_") or str(e.args[:1]).find("/vfio'") > 0 or str(e.args[1:2]).find("/vfio'") > 0
               for e in journal)


def pattern(event: str) -> str:
    """The pattern of ours that enables an event."""
    return next((p for p in PATTERNS if fnmatchcase(event, p)), event)
