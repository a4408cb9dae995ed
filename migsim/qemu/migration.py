"""The source: QMP command, migration thread, return-path thread, failure, cancel, cleanup (migration/migration.c).

Source: facts sheet section 2 and 9; orders and traces as in the recordings. One function is one atomic step.
"""
from __future__ import annotations

from . import completion, savevm, switchover_ack, system, vfio
from .state import MIG, RP, SRC, World, bql_lock, bql_unlock, migrate_error, migrate_set_state
from .stream import MIG_RP_MSG_PONG, MIG_RP_MSG_SHUT, MIG_RP_MSG_SWITCHOVER_ACK, Record

RUNNING_STATES = ("setup", "active", "postcopy-device", "postcopy-active", "device", "pre-switchover", "cancelling")


# --- from the QMP command to the loop (2.1) ---

def qmp_migrate(w: World) -> int:
    """qmp_migrate() and migrate_init(): save_prepare, counters to their start, status setup."""
    s = w.src
    if s.state in RUNNING_STATES:
        return w.cost.step
    after = "Can't migrate the vm that was paused due to previous migration"
    refusal = after if s.runstate == "postmigrate" else savevm.qemu_savevm_state_prepare(w)
    if refusal:
        w.acct.refused(SRC, refusal)
        return w.cost.step
    s.error, s.vm_old_state, s.to_dst_error, s.to_dst_error_obj, s.rp_error = "", "", 0, "", False
    s.start_postcopy = s.package_loaded = s.pause_event = False
    s.collected = s.acks = 0
    s.buffered, s.buffered_size, s.package = (), 0, None
    switchover_ack.init(w)
    w.acct.migrate_init(w)
    migrate_set_state(w, "setup")
    w.then((migration_connect,))
    return w.cost.connect


def migration_connect(w: World) -> int:
    """migration_connect(): notifiers SETUP, return path, the migration thread."""
    s = w.src
    if w.dst.exited or w.dst.state not in ("none", "setup"):
        return connect_fails(w)
    w.source("migration_socket_outgoing_connected")
    s.to_dst_open = w.forward.open = True
    call_notifiers(w, 0)
    w.then(*(((completion.migration_stop_vm,),) if w.scfg.cpr else ()), (connect_start_threads,))
    return 0


def connect_start_threads(w: World) -> int:
    """The second half of migration_connect(); in CPR modes the guest stands still by now (2.1 #3)."""
    s = w.src
    if w.scfg.return_path or w.scfg.postcopy:
        w.source("open_return_path_on_source")
        s.rp_open = s.rp_thread = s.rp_thread_created = w.back.open = True
        w.source("open_return_path_on_source_continue")
        w.start(RP, (source_return_path_thread,))
    w.start(MIG, (migration_thread,))
    w.driver.connected(w)
    return w.cost.step


def connect_fails(w: World) -> int:
    """Nobody listens there: migration_connect_error_propagate() and cleanup; the guest was never touched."""
    migrate_set_state(w, "failed")
    migrate_error(w, "Failed to connect to 'destination': Connection refused")
    w.then((migration_cleanup,))
    return w.cost.step


def call_notifiers(w: World, number: int) -> None:
    """migration_call_notifiers(): VFIO's listener traces; its FAILED action is steps of its own."""
    if w.scfg.code.single_pending:
        w.source("migration_call_notifiers", number)
    for i in range(len(w.sdev) - 1, -1, -1):
        w.source("vfio_migration_state_notifier", w.sdev[i].name, number)


def migration_thread(w: World) -> int:
    """migration_thread(): header, return path, setup under BQL."""
    w.source("savevm_state_header")
    savevm.send(w, Record("HEADER", w.scfg.binary.machine))
    if w.src.rp_thread:
        w.source("savevm_send_open_return_path")
        savevm.send_command(w, "OPEN_RETURN_PATH")
        savevm.send_ping(w, 1)
    if w.scfg.postcopy:
        w.source("qemu_savevm_send_postcopy_advise")
        savevm.send_command(w, "POSTCOPY_ADVISE", 16)
    w.then((bql_lock,), (savevm.qemu_savevm_state_setup,), (bql_unlock_step,), (setup_done,))
    return w.cost.step


def bql_unlock_step(w: World) -> int:
    """bql_unlock() as a step of its own."""
    bql_unlock(w)
    return 0


def setup_done(w: World) -> int:
    """Status active, unless cancelled or failed meanwhile; then the loop."""
    s = w.src
    if s.state == "setup":
        migrate_set_state(w, "active")
        if s.error and s.to_dst_error:
            migrate_set_state(w, "failing" if w.scfg.code.failing_status else "failed")
    w.acct.setup_done(w)
    w.source("migration_thread_setup_complete")
    w.then((migration_loop,))
    return w.cost.step


# --- the loop (2.2, 2.3) ---

def migration_is_active(state: str) -> bool:
    """migration_is_active(): the states in which the loop goes on."""
    return state in ("active", "postcopy-active", "postcopy-device", "recover-setup")


def migration_loop(w: World) -> int:
    """The while loop of migration_thread(): reads the status once a turn."""
    if not migration_is_active(w.src.state):
        w.then((migration_thread_after_loop,))
        return 0
    if w.acct.rate_exceeded(w):
        w.then((migration_detect_error,))
    else:
        w.then((migration_iteration_run,), (migration_detect_error,))
    return 0


def migration_iteration_run(w: World) -> int:
    """migration_iteration_run(): base and later query first and decide after; old decides first (2.3)."""
    postcopy = w.src.state != "active"
    if not w.scfg.code.single_pending:
        w.then(*switchover_ack.CAN_SWITCHOVER, (savevm.qemu_savevm_query_pending, False, False),
               (iteration_after_estimate, postcopy))
    else:
        first = () if w.scfg.code.ack_reusable else switchover_ack.CAN_SWITCHOVER
        w.then(*first, (savevm.qemu_savevm_query_pending, False, False), (iteration_after_fast_query, postcopy))
    return 0


def iteration_after_estimate(w: World, postcopy: bool) -> int:
    """old: an exact query only when the estimate is below the threshold (2.3, intro table 455a6167)."""
    if not postcopy and w.acct.estimate_below_threshold(w):
        w.then((savevm.qemu_savevm_query_pending, True, False), (iteration_decide, postcopy))
    else:
        w.then((iteration_decide, postcopy))
    return 0


def iteration_after_fast_query(w: World, postcopy: bool) -> int:
    """migration_iteration_next_ready(): total <= threshold or no precopy bytes left; then go_next and decide."""
    if postcopy:
        w.then((iteration_decide_postcopy,))
        return 0
    steps: tuple = ()
    if w.acct.within_threshold(w) or w.acct.no_precopy_bytes(w):
        steps = (savevm.qemu_savevm_query_pending, True, False), (migration_iteration_go_next,)
    if w.scfg.code.ack_reusable:  # p6: can_switchover is read after the queries
        steps += switchover_ack.CAN_SWITCHOVER
    w.then(*steps, (iteration_decide, False))
    return 0


def migration_iteration_go_next(w: World) -> int:
    """migration_iteration_go_next(): remember the total, count the pass."""
    w.acct.go_next(w)
    return 0


def iteration_decide_postcopy(w: World) -> int:
    """In postcopy: package loaded turns postcopy-device into postcopy-active; done when nothing is pending."""
    s = w.src
    if s.state == "postcopy-device" and s.package_loaded:
        migrate_set_state(w, "postcopy-active")
    if s.state == "postcopy-active" and w.acct.nothing_pending(w):
        w.source("migration_thread_low_pending", 0)
        w.then((completion.migration_completion,))
        return 0
    w.then((savevm.qemu_savevm_state_iterate, 0))
    return 0


def iteration_decide(w: World, postcopy: bool) -> int:
    """postcopy_should_start(), then complete or iterate (2.3 steps 5-8)."""
    s = w.src
    if postcopy:
        return iteration_decide_postcopy(w)
    if s.can_switchover and s.start_postcopy and w.acct.postcopy_within_threshold(w):
        w.then((completion.postcopy_start,))
    elif s.can_switchover and w.acct.within_threshold(w):
        w.source("migration_thread_low_pending", w.acct.total())
        w.then((completion.migration_completion,))
    else:
        w.then((savevm.qemu_savevm_state_iterate, 0))
    return 0


def migration_detect_error(w: World) -> int:
    """migration_detect_error(): cancel or an error of the outgoing file end the loop; an RP error does not (2.2)."""
    s = w.src
    if s.state in ("completed", "failing", "failed", "cancelling"):
        w.then((migration_thread_after_loop,))
    elif s.to_dst_error:
        migrate_error(w, savevm.file_error_text(w))
        migrate_set_state(w, "failing" if w.scfg.code.failing_status else "failed")
        w.then((migration_thread_after_loop,))
    else:
        w.then((migration_rate_limit,))
    return 0


def migration_rate_limit(w: World) -> int:
    """migration_rate_limit(): update the counters every 100 ms, sleep for the rest of a used-up window (2.2, 2.4)."""
    sleep = w.acct.rate_limit(w)
    w.then(*(((rate_limit_post,),) if sleep else ()), (migration_loop,))
    return sleep


def rate_limit_post(w: World) -> int:
    """The sleep is over; the next turn finds the window ended."""
    w.source("migration_rate_limit_post", 0)
    return 0


# --- after the loop: finish and clean up (2.6) ---

def migration_thread_after_loop(w: World) -> int:
    """Leave the loop; migration_iteration_finish() needs the BQL."""
    w.source("migration_thread_after_loop")
    w.then((bql_lock,), (migration_iteration_finish,), (bql_unlock_step,))
    return w.cost.step


def migration_iteration_finish(w: World) -> int:
    """migration_iteration_finish(): postmigrate, or disks and guest back; cleanup goes to the main loop."""
    s = w.src
    done = (finish_schedule_cleanup,)
    if s.state in ("completed", "postcopy-active"):
        system.runstate_set(w, SRC, "postmigrate")
        w.then(done)
        return w.cost.step
    w.source("migration_block_activation", "active")
    if w.scfg.code.failing_status:  # merged: FAILED notifiers before the guest runs again
        call_notifiers(w, 3)
        w.then(*notifier_failed(w), (finish_restart_vm,), done)
    else:
        w.then((finish_restart_vm,), done)
    return w.cost.step


def notifier_failed(w: World) -> tuple:
    """VFIO's listener on FAILED: every device back to RUNNING, last registered first (7.7)."""
    return tuple((vfio.vfio_migration_state_notifier_failed, i) for i in range(len(w.sdev) - 1, -1, -1))


def finish_restart_vm(w: World) -> int:
    """The guest goes on if it ran before; else its old run state returns (2.6)."""
    s = w.src
    if system.runstate_is_live(s.vm_old_state):
        if s.runstate != "shutdown":
            w.then((system.vm_start, SRC))
    elif s.runstate == "finish-migrate":
        system.runstate_set(w, SRC, s.vm_old_state)
    return w.cost.step


def finish_schedule_cleanup(w: World) -> int:
    """migration_bh_schedule(migration_cleanup_bh)."""
    system.qemu_bh_schedule(w, migration_cleanup)
    return w.cost.step


def migration_cleanup(w: World) -> int:
    """migration_cleanup() in the main loop: handlers, return path, channel, final status, notifiers (2.5 #14, 2.6)."""
    w.source("migration_cleanup")
    w.source("savevm_state_cleanup")
    w.then(*(step for h in w.handlers if h.save_cleanup for step in h.save_cleanup(w, h.index)),
           (close_return_path_on_source,), (cleanup_close_channel,))
    return w.cost.cleanup


def close_return_path_on_source(w: World) -> int:
    """close_return_path_on_source(): on an error the socket is shut down, so that the thread sees it; then join."""
    s = w.src
    if s.rp_thread_created:
        w.source("migration_return_path_end_before")
        if s.to_dst_error or s.state in ("failing", "failed", "cancelling"):
            shutdown_return_path(w)
        w.then((join_return_path,))
    return w.cost.step


def shutdown_return_path(w: World) -> None:
    """qemu_file_shutdown() of the return path."""
    w.src.rp_open = w.back.open = False
    w.signal("back")


def join_return_path(w: World) -> int | str:
    """Wait for the return-path thread to end."""
    s = w.src
    if s.rp_thread:
        return "rp-joined"
    s.rp_thread_created = False
    w.source("migration_return_path_end_after")
    return w.cost.step


def cleanup_close_channel(w: World) -> int:
    """Close the channel, then the final status and the DONE (old: also FAILED) notifiers."""
    s, code = w.src, w.scfg.code
    s.to_dst_open = s.rp_open = w.back.open = w.forward.open = False
    w.signal("forward")
    if s.state == "cancelling":
        migrate_set_state(w, "cancelled")
    elif s.state == "failing":
        migrate_set_state(w, "failed")
    done = 2 if code.single_pending else 1
    if s.state == "completed":
        call_notifiers(w, done)
    elif not code.failing_status:
        call_notifiers(w, done + 1)
        w.then(*notifier_failed(w))
    w.driver.ended(w)
    return w.cost.step


# --- cancel (2.7) ---

def migration_cancel(w: World) -> int:
    """migration_cancel(): shut the return path, status cancelling, shut the outgoing socket."""
    s = w.src
    w.source("migration_cancel")
    if s.state in ("postcopy-device", "postcopy-active"):
        return w.cost.step  # "Postcopy migration in progress, cannot cancel."
    shutdown_return_path(w)
    w.then((migration_cancel_set_state,))
    return w.cost.step


def migration_cancel_set_state(w: World) -> int:
    """The status changes in one compare-and-swap; a waiting switchover is kicked."""
    s = w.src
    if s.state not in RUNNING_STATES or s.state == "cancelling":
        return w.cost.step
    if s.state == "pre-switchover":
        s.pause_event = True
    migrate_set_state(w, "cancelling")
    w.signal("pause")
    w.then((migration_cancel_shutdown,))
    return w.cost.step


def migration_cancel_shutdown(w: World) -> int:
    """qemu_file_shutdown(to_dst_file): a blocked write fails, the destination reads what was sent and then the end."""
    s = w.src
    if s.state == "cancelling" and s.to_dst_open:
        s.to_dst_error = 5
        w.forward.open = False
        w.signal("forward")
        w.signal("socket")
    return w.cost.step


# --- the return-path thread (section 4) ---

def source_return_path_thread(w: World) -> int:
    """source_return_path_thread()."""
    w.source("source_return_path_thread_entry")
    w.then((rp_loop,))
    return w.cost.step


def rp_loop(w: World) -> int:
    """Top of its loop: it goes on while the migration runs."""
    w.source("source_return_path_thread_loop_top")
    w.then((rp_receive,))
    return 0


def rp_receive(w: World) -> int | str:
    """Read and handle one message; a closed or broken return path ends the thread with an error."""
    ch = w.back
    if not w.src.rp_open or (not ch.messages and not ch.open):
        return rp_bad_end(w, "Channel error: Input/output error")
    if not ch.messages:
        return "back"
    arrival, _, message = ch.messages[0]
    if arrival > w.now:
        w.then((rp_receive,))
        return arrival - w.now
    ch.messages.popleft()
    if message.type == MIG_RP_MSG_SWITCHOVER_ACK:
        w.then((switchover_ack.source_switchover_acked,), (rp_after_message,))
    elif message.type == MIG_RP_MSG_PONG:
        w.source("source_return_path_thread_pong", message.value)
        if message.value == 0x42:
            w.source("source_return_path_thread_postcopy_package_loaded")
            w.src.package_loaded = True
        w.then((rp_loop,))
    elif message.type == MIG_RP_MSG_SHUT:
        w.source("source_return_path_thread_shut", message.value)
        if message.value:
            return rp_bad_end(w, f"Sibling indicated error {message.value}")
        w.then((rp_end,))
    return w.cost.step


def rp_after_message(w: World) -> int:
    """An underflow of the ACK counter ends the thread (patch 6)."""
    if w.src.rp_error:
        return rp_bad_end(w, "Switchover ack pending num underflowed")
    w.then((rp_loop,))
    return 0


def rp_bad_end(w: World, text: str) -> int:
    """Record the error; the loop of the migration thread does not look at it (2.2, 4)."""
    migrate_error(w, text)
    w.src.rp_error = True
    w.source("source_return_path_thread_bad_end")
    w.then((rp_end,))
    return 0


def rp_end(w: World) -> int:
    """The thread is gone."""
    w.source("source_return_path_thread_end")
    w.src.rp_thread = False
    w.signal("rp-joined")
    return 0

