"""Switchover: completion in precopy, the start of postcopy (migration/migration.c: migration_completion*).

All of it is one BQL critical section, but for the wait of pause-before-switchover (facts sheet 2.5, 2.8, 2.9).
"""
from __future__ import annotations

from . import migration, ram, savevm, switchover_ack, system
from .state import SRC, World, bql_lock, bql_unlock, migrate_error, migrate_set_state
from .stream import Record


def migration_completion(w: World) -> int:
    """migration_completion(): precopy, or the end of postcopy."""
    s = w.src
    s.stop_result = True
    if s.state == "active":
        stop = () if w.scfg.cpr else ((migration_stop_vm,),)
        w.then((bql_lock,), *stop, (migration_switchover_prepare,), (migration_switchover_start,))
    elif s.state == "postcopy-active":
        w.then((completion_postcopy,))
    else:  # cancelled, or failed, since the loop read the status
        text = f"migration_completion: Illegal migration status ({s.state}) detected"
        return fail(w, text if w.scfg.code.completion_errors else "")
    return 0


def migration_stop_vm(w: World) -> int:
    """migration_stop_vm(): the downtime clock starts; checkpoint src-vm-stopped comes after the callbacks."""
    s = w.src
    w.acct.downtime_start(w)
    w.source("vmstate_downtime_checkpoint", "src-downtime-start")
    s.vm_old_state = s.runstate
    w.then((system.vm_stop_force_state, SRC, "finish-migrate"), (vm_stopped,))
    return w.cost.step


def vm_stopped(w: World) -> int:
    """The guest stands still."""
    w.source("vmstate_downtime_checkpoint", "src-vm-stopped")
    w.source("migration_completion_vm_stop", 0)
    return w.cost.step


def migration_switchover_prepare(w: World) -> int:
    """migration_switchover_prepare(): active -> device; with pause-before-switchover by way of pre-switchover."""
    s = w.src
    if s.state == "cancelling":
        return 0
    if not w.scfg.pause:
        migrate_set_state(w, "device")
        return w.cost.step
    migrate_set_state(w, "pre-switchover")
    s.pause_event = False
    bql_unlock(w)
    w.then((pause_wait,), (bql_lock,), (pause_over,))
    return w.cost.step


def pause_wait(w: World) -> int | str:
    """qemu_sem_wait(pause_sem): migrate-continue or cancel."""
    return 0 if w.src.pause_event else "pause"


def pause_over(w: World) -> int:
    """pre-switchover -> device, unless cancelled meanwhile."""
    if w.src.state == "pre-switchover":
        migrate_set_state(w, "device")
    return w.cost.step


def migration_switchover_start(w: World) -> int:
    """migration_switchover_start(): the final query (p2) and the late-request check (p7), then the disks."""
    s = w.src
    if s.state != "device":
        return fail_switchover(w, "Switchover is interrupted")
    if w.scfg.code.final_query:
        w.then((savevm.qemu_savevm_query_pending, True, True),
               (switchover_check_ack, s.switchover_ack_pending_num), (switchover_started,))
    else:
        w.then((switchover_started,))
    return 0


def switchover_check_ack(w: World, before: int) -> int:
    """p7: a request after the decision fails the migration; VFIO cannot go back from STOP_COPY to precopy."""
    error = switchover_ack.late_request(w, before)
    if error:
        w.threads[w.tid].pop()  # switchover_started
        return fail_switchover(w, error)
    return 0


def switchover_started(w: World) -> int:
    """Disks inactive, rate limit off, precopy notifier COMPLETE, SWITCHOVER_START, the rest of the stream."""
    w.source("migration_block_activation", "inactive")
    w.acct.rate_limit_off()
    w.source("migration_precopy_complete")
    if w.scfg.binary.send_switchover_start:
        w.source("savevm_send_switchover_start")
        savevm.send_command(w, "SWITCHOVER_START")
    if w.src.start_postcopy and w.scfg.postcopy:
        w.then((postcopy_after_switchover,))
    else:
        w.then((savevm.qemu_savevm_state_complete_precopy_iterable, False), (complete_non_iterable,))
    return w.cost.step


def complete_non_iterable(w: World) -> int:
    """qemu_savevm_state_complete_precopy(): second half, if the first went well; then the BQL is given back."""
    s = w.src
    if s.to_dst_error:
        prefix = "Failed to save iterable device state: " if w.scfg.code.completion_errors else ""
        text = s.to_dst_error_obj or savevm.strerror(s.to_dst_error)
        w.then((completion_unlock,), (completion_failed, prefix + text))
    else:
        w.then((savevm.qemu_savevm_state_non_iterable, 0), (savevm.non_iterable_saved,), (savevm.send_eof,),
               (completion_unlock,), (migration.close_return_path_on_source,), (completion_check,))
    return 0


def completion_unlock(w: World) -> int:
    """End of the critical section."""
    bql_unlock(w)
    return 0


def completion_check(w: World) -> int:
    """Any error of the return path or the file fails the migration even now (2.5 #11-12)."""
    s = w.src
    if s.rp_error:
        return fail(w, "")
    if s.to_dst_error:
        return fail(w, savevm.file_error_text(w))
    w.then((bql_lock,), (migration_completion_end,))
    return 0


def migration_completion_end(w: World) -> int:
    """migration_completion_end(): downtime and total time are taken; status completed."""
    if w.src.state != "postcopy-active":
        w.source("vmstate_downtime_checkpoint", "src-downtime-end")
        w.acct.downtime_end(w)
    w.acct.total_end(w)
    migrate_set_state(w, "completed")
    bql_unlock(w)
    return w.cost.step


def fail_switchover(w: World, text: str) -> int:
    """A failing step inside the critical section. Before p1 its text is lost: the stream's error is reported, if a
    cancel has shut it down, else EFAULT (patch 1)."""
    if not w.scfg.code.errors_propagated:
        text = savevm.file_error_text(w) if w.src.to_dst_error else "Error in migration completion: Bad address"
    w.then((completion_unlock,), (completion_failed, text))
    return 0


def completion_failed(w: World, text: str) -> int:
    """The `fail` label of migration_completion()."""
    return fail(w, text)


def fail(w: World, text: str) -> int:
    """Record the error (measured facts 13: when cancelling, too); status failing (old, v2: failed) unless cancelling
    (2.6)."""
    if text:
        migrate_error(w, text)
    if w.src.state == "cancelling":
        return w.cost.step
    migrate_set_state(w, "failing" if w.scfg.code.failing_status else "failed")
    return w.cost.step


# --- postcopy, RAM only (2.8, 10.3; recordings ram-postcopy, h1-*) ---

def postcopy_start(w: World) -> int:
    """postcopy_start(): stop the guest and switch over; VFIO never gets here."""
    w.source("postcopy_start")
    w.source("postcopy_start_set_run")
    w.then((bql_lock,), (migration_stop_vm,), (migration_switchover_prepare,), (migration_switchover_start,))
    return w.cost.step


def postcopy_after_switchover(w: World) -> int:
    """Iterables without postcopy, discard bitmaps, PING 2, then the package."""
    w.then((savevm.qemu_savevm_state_complete_precopy_iterable, True), (ram.ram_postcopy_send_discard_bitmap,),
           (postcopy_package,), (savevm.qemu_savevm_state_non_iterable, 0), (postcopy_send_package,))
    return 0


def postcopy_package(w: World) -> int:
    """PING 2 goes out at once; from here commands and sections are gathered in the package."""
    savevm.send_ping(w, 2)
    w.source("savevm_send_postcopy_listen")
    w.src.package = ()
    savevm.send_command(w, "POSTCOPY_LISTEN")
    return w.cost.step


def postcopy_send_package(w: World) -> int:
    """PING 3, PING 0x42, POSTCOPY_RUN complete the package; it is sent; the guest may run over there."""
    w.source("vmstate_downtime_checkpoint", "src-non-iterable-saved")
    savevm.send_ping(w, 3)
    savevm.send_ping(w, 0x42)
    w.source("savevm_send_postcopy_run")
    savevm.send_command(w, "POSTCOPY_RUN")
    w.source("qemu_savevm_send_packaged")
    savevm.send_package(w)
    migration.call_notifiers(w, 1)
    w.source("vmstate_downtime_checkpoint", "src-downtime-end")
    w.acct.downtime_end(w)
    savevm.send_ping(w, 4)
    migrate_set_state(w, "postcopy-device" if w.scfg.return_path else "postcopy-active")
    bql_unlock(w)
    return w.cost.step


def completion_postcopy(w: World) -> int:
    """migration_completion_postcopy(): what is left, EOF; then wait for SHUT."""
    w.source("migration_completion_postcopy_end")
    w.then((bql_lock,), (completion_postcopy_save,), (migration.close_return_path_on_source,), (completion_check,))
    return w.cost.step


def completion_postcopy_save(w: World) -> int:
    """The last RAM section (nothing is pending) and the end of the stream, without a description (recording
    ram-postcopy, ram.transferred)."""
    section_id = w.acct.section_id("ram")
    w.source("savevm_section_start", "ram", section_id)
    savevm.send(w, Record("END", "ram"))
    w.source("savevm_section_end", "ram", section_id, 0)
    savevm.send(w, Record("EOF", ""))
    savevm.flush(w)
    w.source("migration_completion_postcopy_end_after_complete")
    bql_unlock(w)
    return w.cost.step
