"""The timeline of both sides: what changed, with the states as QEMU's vfio.rst writes them, (VM state, migration state,
device state): (RUNNING, _ACTIVE, _PRE_COPY).
"""
from __future__ import annotations

from typing import NamedTuple

from .journal import SIDES, Event, Journal

MOST_DEVICES = 16  # whose states are written out
#: events that are steps of their own; what they say, with their first argument
MILESTONES = {
    "migration_thread_setup_complete": "setup complete", "savevm_send_open_return_path": "return path opened",
    "vfio_query_precopy_size_request_switchover_ack": "REINIT: asks for an ACK",
    "vfio_send_init_data_flag": "INIT_DATA_SENT", "source_return_path_thread_switchover_acked": "ACK counted, {} due",
    "migration_thread_low_pending": "switchover decided, {} bytes pending",
    "migration_completion_vm_stop": "VM stopped", "savevm_send_switchover_start": "SWITCHOVER_START sent",
    "migrate_error": "error: {}", "migration_cancel": "cancel", "source_return_path_thread_shut": "SHUT {}",
    "source_return_path_thread_bad_end": "return path ends badly", "vfio_save_cleanup": "save cleanup",
    "loadvm_approve_switchover": "approved", "loadvm_approve_switchover_legacy": "approved, {1} not yet",
    "migration_request_switchover_ack_legacy": "counts an ACK, {1} in all", "vfio_load_cleanup": "load cleanup",
    "migration_request_switchover_ack": "counts an ACK, {1} in all", "postcopy_start": "postcopy starts",
    "process_incoming_migration_co_end": "loading ended, {}",
}


class Moment(NamedTuple):
    """A change. `us` of the journal; `what` in words; `device` "" where it is no device's; `states`: the triple after
    it, of that device, or of all where they agree. `event`: index into the journal."""

    us: int
    side: str
    what: str
    device: str
    states: str
    event: int


def timeline(journal: Journal) -> list[Moment]:
    """Every change of a state and every milestone, both sides, in order of time. A simulated journal has the same."""
    vm = {side: _first(journal, side) for side in SIDES}
    status: dict[str, str] = {}
    devices: dict[str, dict[str, str]] = {"source": {}, "destination": {}}
    out = []
    for k, e in enumerate(journal.events):
        what, device = _change(e)
        if e.name == "runstate_set" and len(e.args) == 4:
            vm[e.side] = str(e.args[3])
        elif e.name == "migrate_set_state":
            status[e.side] = str(e.args[0])
        elif e.name == "vfio_migration_set_device_state":
            devices[e.side][device] = str(e.args[1])
        elif e.name == "vfio_migration_realize":
            devices[e.side].setdefault(str(e.args[0]), "RUNNING")
        if what:
            there = devices[e.side]
            of = f"_{there[device]}" if device in there else _together(there)
            words = [vm[e.side].upper().replace("-", "_") or "?", "_" + (status.get(e.side) or "none").upper(), of]
            out.append(Moment(e.us, e.side, what, device, f"({', '.join(w for w in words if w)})", k))
    return out


def _together(devices: dict[str, str]) -> str:
    """The state of all devices of one side."""
    if len(devices) > MOST_DEVICES:
        return f"of {len(devices)} devices"
    return "/".join(f"_{s}" for s in (set(devices.values()) if len(set(devices.values())) == 1 else devices.values()))


def _first(journal: Journal, side: str) -> str:
    """The run state before the first change of it."""
    e = journal.first("runstate_set", side)
    return str(e.args[1]) if e and len(e.args) == 4 else "inmigrate" if side == "destination" else ""


def _change(e: Event) -> tuple[str, str]:
    """(what, device) of an event that is a step, otherwise "" for what."""
    device = str(e.args[0]) if e.args and (e.name.startswith("vfio_") or "switchover" in e.name) and \
        isinstance(e.args[0], str) else ""
    if e.name == "runstate_set" and len(e.args) == 4:
        return f"VM {e.args[1]} -> {e.args[3]}", ""
    if e.name == "migrate_set_state":
        return f"status {e.args[0]}", ""
    if e.name == "vfio_migration_set_device_state":
        return f"device {e.args[1]}", device
    text = MILESTONES.get(e.name, "")
    needed = 2 if "{1}" in text else int("{}" in text)
    return (text.format(*e.args) if len(e.args) >= needed else text.split(",")[0].replace("{}", "")), device
