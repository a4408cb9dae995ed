"""The registry of SaveVMHandlers, queries, iteration, completion; sending (migration/savevm.c).

Source: facts sheet 2.3, 2.5 #9, 9.14, 10.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from . import switchover_ack, vfio
from .state import World, migrate_error
from .stream import MIG_CMD, Record, description_size, record_size

IO_BUF_SIZE = 32768
FLUSHED = ("HEADER", "COMMAND", "VMDESCRIPTION")


class SaveVMHandlers(NamedTuple):
    """One SaveStateEntry with its callbacks; each callback is `(world, index, ...)` and runs or pushes steps."""

    idstr: str
    index: int
    section_id: int
    save_setup: Callable
    save_query_pending: Callable
    is_active: Callable
    is_active_iterate: Callable
    save_live_iterate: Callable
    save_complete: Callable
    save_cleanup: Callable | None
    has_postcopy: bool = False


def strerror(number: int) -> str:
    """errno text as glibc prints it."""
    return os.strerror(number)


# --- sending ---

def send(w: World, record: Record) -> None:
    """Put a record into QEMUFile's buffer. RAM sections and commands flush it, and so does a full buffer; a VFIO
    section waits for the next of these (recording a-*: the destination loads after the next turn's RAM section)."""
    s, size = w.src, record_size(record)
    if s.package is not None:
        s.package += (record,)
        return
    w.acct.sent(w, record, size)
    if s.buffered and s.buffered_size + size > IO_BUF_SIZE:
        flush(w)
    s.buffered += ((record, size),)
    s.buffered_size += size
    if record.kind in FLUSHED or record.name == "ram" or w.acct.unbuffered:
        flush(w)


def flush(w: World) -> None:
    """qemu_fflush(). The sender then waits in `socket_wait` while the socket is full."""
    s, ch = w.src, w.forward
    buffered, s.buffered, s.buffered_size = s.buffered, (), 0
    if not ch.open:
        s.to_dst_error = s.to_dst_error or 32  # EPIPE
        return
    if ch.reset_by_peer:  # the destination has gone; unread data make it ECONNRESET
        file_error(w, 104 if ch.messages else 32)
        return
    for record, size in buffered:
        charge = size + ch.write_charge
        ch.charge += charge
        ch.messages.append((w.acct.arrival(w, size), charge, record))
    w.signal("forward")
    if ch.charge > ch.capacity or w.acct.link_behind(w):
        w.then((socket_wait,))


def socket_wait(w: World) -> int | str:
    """A blocking write: returns when the socket has room again, or with an error when it was shut down."""
    if w.forward.reset_by_peer:
        file_error(w, 104 if w.forward.messages else 32)
    if w.src.to_dst_error:
        return 0
    behind = w.acct.link_behind(w)
    if behind:
        w.then((socket_wait,))
        return behind
    return "socket" if w.forward.charge > w.forward.capacity else 0


def send_command(w: World, name: str, length: int = 0, value: int = 0) -> None:
    """qemu_savevm_command_send()."""
    w.source("savevm_command_send", MIG_CMD[name], length)
    send(w, Record("COMMAND", name, (value,) if name == "PING" else (bytes(length),) if length else ()))


def send_ping(w: World, value: int) -> None:
    """qemu_savevm_send_ping()."""
    w.source("savevm_send_ping", value)
    send_command(w, "PING", 4, value)


def send_package(w: World) -> None:
    """qemu_savevm_send_packaged(): what was gathered since POSTCOPY_LISTEN goes out in one command."""
    records, w.src.package = w.src.package, None
    w.source("savevm_command_send", MIG_CMD["PACKAGED"], 4)
    send(w, Record("COMMAND", "PACKAGED", records))


# --- setup ---

def qemu_savevm_state_prepare(w: World) -> str:
    """save_prepare of all handlers: VFIO refuses postcopy-ram and background-snapshot (2.1 #2). Returns the error."""
    for d in w.sdev:
        for cap, what in (("postcopy-ram", "postcopy migration"), ("background-snapshot", "background snapshot")):
            if w.scfg.caps.get(cap):
                return f"{d.name}: VFIO migration is not supported with {what}"
    return ""


def qemu_savevm_state_setup(w: World) -> int:
    """SECTION_START and save_setup of each handler, under BQL (2.1 #8)."""
    w.source("savevm_state_setup")
    w.then(*((h.save_setup, h.index) for h in w.handlers if h.is_active(w)), (state_setup_done,))
    return w.cost.step


def state_setup_failed(w: World) -> None:
    """A handler's save_setup has failed: no other is asked."""
    migrate_error(w, file_error_text(w))
    stack = w.threads[w.tid]
    while stack[-1][0] is not state_setup_done:
        stack.pop()


def state_setup_done(w: World) -> int:
    """All handlers are set up, or one has failed."""
    return 0


# --- queries (2.3, 9.14) ---

def qemu_savevm_query_pending(w: World, exact: bool, final: bool) -> int:
    """qemu_savevm_query_pending[_iter|_final](): every active handler reports, then the sum is taken."""
    w.src.pending_ack = 0
    w.acct.begin_query()
    w.then(*((h.save_query_pending, h.index, exact, final) for h in w.handlers if h.is_active(w)),
           (query_pending_done, exact, final))
    return 0


def query_pending_done(w: World, exact: bool, final: bool) -> int:
    """Add newly requested ACKs (p6), remember the total (v2: not in the final query), trace."""
    code, s = w.scfg.code, w.src
    total = switchover_ack.add_requests(w)
    s.final_collected = final and s.pending_ack > 0
    precopy, stopcopy, postcopy = w.acct.end_query(not final or code.final_query_for_all)
    everything = precopy + stopcopy + postcopy
    if not code.single_pending:
        kind = "exact" if exact else "estimate"
        w.source("migrate_pending_" + kind, everything, precopy + stopcopy, postcopy)
    elif not code.final_query:
        w.source("qemu_savevm_query_pending", exact, precopy, stopcopy, postcopy, everything)
    elif not code.ack_reusable:
        w.source("qemu_savevm_query_pending", exact, final, precopy, stopcopy, postcopy, everything)
    else:
        w.source("qemu_savevm_query_pending", exact, final, precopy, stopcopy, postcopy, everything,
                 s.pending_ack, total)
    return w.cost.step


# --- iterate (2.3) ---

def qemu_savevm_state_iterate(w: World, position: int) -> int:
    """qemu_savevm_state_iterate(): handlers in order; stops at the first one reached with the window used up."""
    if position == 0:
        w.source("savevm_state_iterate")
    if position == len(w.handlers) or w.acct.rate_exceeded(w):
        return w.cost.step
    h = w.handlers[position]
    if not h.is_active(w) or not h.is_active_iterate(w, h.index):
        w.then((qemu_savevm_state_iterate, position + 1))
        return 0
    w.source("savevm_section_start", h.idstr, h.section_id)
    w.then((h.save_live_iterate, h.index), (qemu_savevm_state_iterate, position + 1))
    return 0


# --- complete (2.5 #9) ---

def qemu_savevm_state_complete_precopy_iterable(w: World, postcopy: bool) -> int:
    """SECTION_END and save_complete of each handler; with postcopy only of those that cannot do it."""
    w.then(*((complete_one, k) for k, h in enumerate(w.handlers)
             if h.is_active(w) and not (postcopy and h.has_postcopy)), (iterable_saved,))
    return 0


def complete_one(w: World, position: int) -> int:
    """save_complete of one handler, timed by trace vmstate_downtime_save."""
    h = w.handlers[position]
    w.source("savevm_section_start", h.idstr, h.section_id)
    w.then((h.save_complete, h.index), (complete_one_done, position, w.now))
    return 0


def complete_one_done(w: World, position: int, since: int) -> int:
    """The section's footer and trace."""
    h = w.handlers[position]
    w.source("savevm_section_end", h.idstr, h.section_id, 0)
    w.source("vmstate_downtime_save", "iterable", h.idstr, 0, (w.now - since) // 1000)
    return w.cost.step


def iterable_saved(w: World) -> int:
    """Checkpoint src-iterable-saved."""
    if not w.src.to_dst_error:
        w.source("vmstate_downtime_checkpoint", "src-iterable-saved")
    return w.cost.step


def qemu_savevm_state_non_iterable(w: World, position: int) -> int:
    """Every vmstate device as SECTION_FULL; VFIO's is its config space."""
    if position == len(w.sections) or w.src.to_dst_error:
        return 0
    idstr, instance, _, section_id, _ = w.sections[position]
    w.source("savevm_section_start", idstr, section_id)
    device = next((d for d in w.sdev if d.idstr == idstr), None)
    if device:
        vfio.vfio_save_state(w, device)
    else:
        send(w, Record("FULL", idstr, (instance,)))
    if idstr == "globalstate":
        w.source("migrate_global_state_pre_save", w.src.vm_old_state)
    w.source("savevm_section_end", idstr, section_id, 0)
    w.source("vmstate_downtime_save", "non-iterable", idstr, instance, w.cost.savevm_device // 1000)
    w.then((qemu_savevm_state_non_iterable, position + 1))
    return w.cost.savevm_device


def non_iterable_saved(w: World) -> int:
    """Checkpoint src-non-iterable-saved; EOF and the JSON description follow."""
    w.source("vmstate_downtime_checkpoint", "src-non-iterable-saved")
    return w.cost.step


def send_eof(w: World) -> int:
    """QEMU_VM_EOF, VMDESCRIPTION, flush."""
    send(w, Record("EOF", ""))
    send(w, Record("VMDESCRIPTION", "", (description_size(len(w.sdev), w.scfg.binary.pid_log),)))
    return w.cost.step


def file_error_text(w: World) -> str:
    """qemu_file_get_error_obj(): the Error, if one came along; a broken socket speaks for itself."""
    number = w.src.to_dst_error
    socket = "Unable to write to socket: " if number in (32, 104) else "Channel error: "
    return w.src.to_dst_error_obj or socket + strerror(number)


def file_error(w: World, number: int, text: str = "") -> None:
    """qemu_file_set_error_obj() on the outgoing file; the first stays."""
    if not w.src.to_dst_error:
        w.src.to_dst_error, w.src.to_dst_error_obj = number, text


