"""The destination: incoming coroutine, commands, load, start of the guest (migration/migration.c, savevm.c).

Source: facts sheet section 3; orders as in the recordings. All of it runs in the destination's main thread.
"""
from __future__ import annotations

from collections.abc import Callable

from . import savevm, switchover_ack, system, vfio
from .state import DST, INCOMING, LISTEN, World
from .stream import MIG_RP_MSG_PONG, MIG_RP_MSG_SHUT, QEMU_VM, Record


def set_state(w: World, new: str) -> None:
    """migrate_set_state() on the destination."""
    w.dst.state = new
    w.destination("migrate_set_state", new)


def migrate_incoming(w: World) -> int:
    """qmp_migrate_incoming(): listen."""
    set_state(w, "setup")
    w.then((incoming_accept,))
    return w.cost.step


def incoming_accept(w: World) -> int | str:
    """The source has connected."""
    if not w.forward.open and not w.forward.messages:
        return "forward"
    w.destination("migration_socket_incoming_accepted")
    w.then((incoming_start,))
    return w.cost.step


def incoming_start(w: World) -> int | str:
    """process_incoming_migration_co(): starts with the first bytes."""
    record = receive(w)
    if not isinstance(record, Record):
        return again(w, record, (incoming_start,))
    set_state(w, "active")
    source, local = w.scfg.binary.machine, w.dcfg.binary.machine
    if source != local:
        return load_fails(w, -22, f"Machine type received is '{source}' and local is '{local}'")
    w.destination("loadvm_state_setup")
    w.then(*(step for i in range(len(w.ddev)) for step in ((vfio.vfio_load_setup, i), (load_setup_check, i))),
           (load_setup_done,), (incoming_receive,))
    return w.cost.step


def load_setup_check(w: World, i: int) -> int:
    """A handler whose load_setup fails ends the load (3 #4)."""
    if not w.dst.ret:
        return 0
    return load_fails(w, w.dst.ret, f"Load state of device {w.ddev[i].idstr} failed: {w.dst.error}")


def load_setup_done(w: World) -> int:
    """After load setup; before p4 the devices are counted here."""
    switchover_ack.loadvm_state_switchover_ack_needed(w)
    return 0


def receive(w: World) -> Record | int | str | None:
    """The next record; "forward" to wait, ns until it arrives, or None at the end of the stream."""
    ch = w.forward
    if not ch.messages:
        return "forward" if ch.open else None
    arrival, charge, record = ch.messages[0]
    if arrival > w.now:
        return arrival - w.now
    ch.messages.popleft()
    ch.charge -= charge
    if ch.charge <= ch.capacity:
        w.signal("socket")
    return record


def again(w: World, got: int | str | None, step: tuple) -> int | str:
    """Nothing to read yet: come back; or the stream has ended where more was expected."""
    if got is None:
        if w.dst.footer_due:
            return load_fails(w, -22, f"Section footer error, section_id: {w.dst.footer_due}")
        return load_fails(w, -5, "")
    if isinstance(got, int):
        w.then(step)
    return got


def incoming_receive(w: World) -> int | str:
    """qemu_loadvm_state_main(): one section or command."""
    record = receive(w)
    if not isinstance(record, Record):
        return again(w, record, (incoming_receive,))
    w.dst.footer_due = 0
    kind = record.kind
    if kind == "MORE":
        note_footer(w, record)
        w.then(*section_items(w, record), (incoming_receive,))
        return 0
    if kind == "VMDESCRIPTION":
        w.then((incoming_receive,))
        return 0
    w.destination("qemu_loadvm_state_section", QEMU_VM[kind])
    w.then((HANDLERS[kind], record))
    return w.cost.step


def load_command(w: World, record: Record) -> int:
    """loadvm_process_command() (3 #7, 8, 12)."""
    name = record.name
    length = 4 if name in ("PING", "PACKAGED") else len(record.payload[0]) if record.payload else 0
    w.destination("loadvm_process_command", name, length)
    w.then((COMMANDS.get(name, command_done), record))
    return 0


def command_done(w: World, record: Record) -> int:
    """Most commands need no more."""
    w.destination("qemu_loadvm_state_section_command", 0)
    w.then((incoming_receive,))
    return w.cost.step


def command_open_return_path(w: World, record: Record) -> int:
    """OPEN_RETURN_PATH; legacy without users acknowledges here."""
    w.dst.to_src_open = True
    switchover_ack.loadvm_switchover_ack_no_users(w)
    return command_done(w, record)


def command_ping(w: World, record: Record) -> int:
    """PING n is answered with PONG n."""
    w.destination("loadvm_process_command_ping", record.payload[0])
    if not w.dst.to_src_open:
        return load_fails(w, -1, f"CMD_PING (0x{record.payload[0]:x}) received with no return path")
    switchover_ack.migrate_send_rp_message(w, MIG_RP_MSG_PONG, 4, record.payload[0])
    return command_done(w, record)


def load_startfull(w: World, record: Record) -> int:
    """QEMU_VM_SECTION_START and _FULL."""
    section = w.acct.section(record)
    w.destination("qemu_loadvm_state_section_startfull", section.section_id, record.name, section.instance_id,
                  section.version_id)
    w.then(*section_items(w, record), (startfull_done, record, w.now))
    return 0


def startfull_done(w: World, record: Record, since: int) -> int:
    """A FULL section's time is traced; globalstate tells whether the guest ran."""
    cost = w.cost.step
    if record.kind == "FULL":
        section = w.acct.section(record)
        if record.name == "globalstate":
            w.dst.vm_was = w.src.vm_old_state
            w.destination("migrate_global_state_post_load", w.dst.vm_was)
        w.destination("vmstate_downtime_load", "non-iterable", record.name, section.instance_id,
                      (w.now - since) // 1000)
        cost = w.cost.loadvm_device
    else:
        note_footer(w, record)
    w.then((next_record,))
    return cost


def note_footer(w: World, record: Record) -> None:
    """ram_save_iterate() flushes before its footer, so that travels with the next write."""
    if record.name == "ram":
        w.dst.footer_due = w.acct.section(record).section_id


def next_record(w: World) -> int:
    """Back to the loop, unless the load has failed."""
    w.then((incoming_receive,))
    return 0


def load_partend(w: World, record: Record) -> int:
    """QEMU_VM_SECTION_PART and _END."""
    w.destination("qemu_loadvm_state_section_partend", w.acct.section(record).section_id)
    w.then(*section_items(w, record), (partend_done, record))
    return 0


def partend_done(w: World, record: Record) -> int:
    """The footer of RAM is checked with what comes next."""
    note_footer(w, record)
    w.then((incoming_receive,))
    return w.cost.step


def section_items(w: World, record: Record) -> tuple:
    """Steps that load a section's payload."""
    if record.name == "ram":
        return ((load_pages, record.payload),) if record.kind != "START" and record.payload else ()
    for i, d in enumerate(w.ddev):
        if d.idstr == record.name:
            return tuple((load_item, i, item) for item in record.payload)
    if record.name.endswith("/vfio"):
        return ((unknown_section, record),)
    return ()


def unknown_section(w: World, record: Record) -> int:
    """A device that the destination does not have."""
    return load_fails(w, -22, f"Unknown section or instance '{record.name}' 0. Make sure that your current VM setup "
                              "matches your saved VM setup, including any hotplugged devices")


def load_pages(w: World, runs: tuple) -> int:
    """ram_load()."""
    return sum(n for _, n, _ in runs) * w.cost.load_page


def load_item(w: World, i: int, item: tuple) -> int:
    """One tag of a VFIO section; an error ends the load."""
    w.then((vfio.vfio_load_state, i, item), (load_item_done, i))
    return 0


def load_item_done(w: World, i: int) -> int:
    """Look at the return value of load_state."""
    d = w.dst
    if not d.ret:
        return 0
    if d.error:
        report(w, d.error)
    return load_fails(w, d.ret, f"Failed to load vmstate version_id: 1, ret: {d.ret}")


def report(w: World, text: str) -> None:
    """error_report(): goes to stderr, not to the trace."""
    w.acct.stderr(DST, text)


def load_eof(w: World, record: Record) -> int:
    """QEMU_VM_EOF: the loop ends well."""
    w.threads[w.tid].clear()
    w.destination("qemu_loadvm_state_post_main", 0)
    w.then((loadvm_completed, 0))
    return w.cost.loadvm_end


def load_fails(w: World, ret: int, text: str) -> int:
    """The loop ends badly."""
    w.threads[w.tid].clear()
    w.dst.error = "load of migration failed: " + savevm.strerror(-ret) + (f": {text}" if text else "")
    w.destination("qemu_loadvm_state_post_main", ret)
    w.then((loadvm_completed, ret))
    return w.cost.step


def loadvm_completed(w: World, ret: int) -> int:
    """process_incoming_migration_co() after qemu_loadvm_state(); a bottom half starts the guest."""
    w.destination("vmstate_downtime_checkpoint", "dst-precopy-loadvm-completed")
    old = w.dcfg.binary.pid_log
    w.destination("process_incoming_migration_co_end", ret, *((0,) if old else ()))
    if ret < 0:
        set_state(w, "failed")
        w.destination("migrate_error", w.dst.error)
        report(w, w.dst.error)
        w.then((incoming_state_destroy, 1))
        return w.cost.step
    w.then((incoming_migration_bh,))
    return w.cost.wake_up


def incoming_migration_bh(w: World) -> int:
    """process_incoming_migration_bh(): announce, disks, the guest if it ran on the source."""
    w.destination("vmstate_downtime_checkpoint", "dst-precopy-bh-enter")
    w.destination("vmstate_downtime_checkpoint", "dst-precopy-bh-announced")
    if system.runstate_is_live(w.dst.vm_was):
        w.destination("migration_block_activation", "active")
    guest_goes_on(w, incoming_started)
    return w.cost.wake_up


def guest_goes_on(w: World, after: Callable) -> None:
    """vm_start() if the guest was live at the source (asleep if it slept), else its run state there."""
    d = w.dst
    d.vm_was_suspended = d.vm_was == "suspended"
    w.then((after,))
    if system.runstate_is_live(d.vm_was):
        w.then((system.vm_start, DST))
    else:
        system.runstate_set(w, DST, d.vm_was or "paused")


def incoming_started(w: World) -> int:
    """Status completed, then everything of the incoming side goes."""
    w.destination("vmstate_downtime_checkpoint", "dst-precopy-bh-vm-started")
    set_state(w, "completed")
    w.then((incoming_state_destroy, 0))
    return w.cost.step


def incoming_state_destroy(w: World, value: int) -> int:
    """migration_incoming_state_destroy(): load_cleanup, then SHUT (3 #15)."""
    w.destination("loadvm_state_cleanup")
    for d in w.ddev:
        d.data_fd = False
        w.destination("vfio_load_cleanup", d.name)
    if w.dst.to_src_open:
        switchover_ack.migrate_send_rp_message(w, MIG_RP_MSG_SHUT, 4, value)
    w.back.open = False
    w.signal("back")
    w.dst.done = True
    if value:
        w.then((incoming_exit,))
        return w.cost.wake_up
    return 0


def incoming_exit(w: World) -> int:
    """exit-on-error: the process ends, its sockets are closed; a write that waits over there fails."""
    w.dst.exited = w.forward.reset_by_peer = True
    w.signal("socket")
    return 0


def kill(w: World) -> None:
    """SIGKILL: no SHUT, no word; both sockets break (row 57 of facts sheet 14)."""
    for tid in (INCOMING, LISTEN):
        w.driver.kill(tid)
    incoming_exit(w)
    w.back.open = False
    w.signal("back")


# --- postcopy (2.8; recordings ram-postcopy, h1-*) ---

def command_packaged(w: World, record: Record) -> int:
    """PACKAGED: its content is a stream of its own, read before what follows."""
    size = w.acct.package_size(record)
    w.destination("loadvm_handle_cmd_packaged", size)
    w.destination("loadvm_handle_cmd_packaged_received", size)
    w.then(*((packaged_record, r) for r in record.payload), (packaged_done,))
    return w.cost.step


def packaged_record(w: World, record: Record) -> int:
    """One command or FULL section of the package."""
    d = w.dst
    if record.kind == "FULL":
        if record.name == "globalstate":
            d.vm_was = w.src.vm_old_state
        return w.cost.loadvm_device
    name = record.name
    w.destination("loadvm_process_command", name, 4 if name == "PING" else 0)
    if name == "PING":
        switchover_ack.migrate_send_rp_message(w, MIG_RP_MSG_PONG, 4, record.payload[0])
    elif name == "POSTCOPY_LISTEN":
        w.then((postcopy_listen,))
        return w.cost.postcopy_listen
    elif name == "POSTCOPY_RUN":
        set_state(w, "postcopy-active")
    return w.cost.step


def postcopy_listen(w: World) -> int:
    """loadvm_postcopy_handle_listen(): a thread of its own reads the rest of the stream."""
    set_state(w, "postcopy-device")
    w.start(LISTEN, (listen_receive,))
    return w.cost.wake_up * 4


def packaged_done(w: World) -> int:
    """The main thread leaves the load and starts the guest (loadvm_postcopy_handle_run_bh)."""
    w.destination("qemu_loadvm_state_post_main", 1)
    w.destination("vmstate_downtime_checkpoint", "dst-precopy-loadvm-completed")
    w.destination("process_incoming_migration_co_end", 1, *((0,) if w.dcfg.binary.pid_log else ()))
    w.then((postcopy_run_bh,))
    return w.cost.wake_up


def postcopy_run_bh(w: World) -> int:
    """Checkpoints of loadvm_postcopy_handle_run_bh()."""
    for what in ("enter", "cpu-synced", "announced", "cache-invalidated"):
        w.destination("vmstate_downtime_checkpoint", f"dst-postcopy-bh-{what}")
    guest_goes_on(w, postcopy_started)
    return w.cost.step


def postcopy_started(w: World) -> int:
    """The guest runs here; its missing pages follow."""
    w.destination("vmstate_downtime_checkpoint", "dst-postcopy-bh-vm-started")
    w.dst.listen_ready = True
    w.signal("forward")
    return w.cost.step


def listen_receive(w: World) -> int | str:
    """postcopy_listen_thread(): PING 4, RAM, end of stream."""
    record = receive(w)
    if not isinstance(record, Record):
        if isinstance(record, int):
            w.then((listen_receive,))
        return 0 if record is None else record
    w.then((listen_receive,))
    if record.kind == "COMMAND":
        w.destination("loadvm_process_command", record.name, 4)
        switchover_ack.migrate_send_rp_message(w, MIG_RP_MSG_PONG, 4, record.payload[0])
    elif record.kind == "EOF":
        w.threads[LISTEN][:] = [(listen_end,)]
    elif record.name == "ram":
        return load_pages(w, record.payload)
    return w.cost.step


def listen_end(w: World) -> int | str:
    """All pages are here."""
    if not w.dst.listen_ready:
        return "forward"
    set_state(w, "completed")
    w.then((incoming_state_destroy, 0))
    return w.cost.step


HANDLERS = {"START": load_startfull, "FULL": load_startfull, "PART": load_partend, "END": load_partend,
            "COMMAND": load_command, "EOF": load_eof}
COMMANDS = {"OPEN_RETURN_PATH": command_open_return_path, "PING": command_ping, "PACKAGED": command_packaged}

