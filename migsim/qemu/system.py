"""The process around migration: run states, vm_stop/vm_start, the main loop and its commands (system/cpus.c,
system/runstate.c, monitor). Source: facts sheet 2.5, 2.6, 7.6, 13; orders as in the recordings.
"""
from __future__ import annotations

from . import migration, vfio
from .state import DST, SRC, World, bql_lock, bql_unlock

RUN_STATES = ("debug", "inmigrate", "internal-error", "io-error", "paused", "postmigrate", "prelaunch",
              "finish-migrate", "restore-vm", "running", "save-vm", "shutdown", "suspended", "watchdog",
              "guest-panicked", "colo")


def runstate_set(w: World, side: str, new: str) -> None:
    """runstate_set(): trace and store."""
    end = w.src if side is SRC else w.dst
    old, end.runstate = end.runstate, new
    w.ev((w.now, side, "runstate_set", (RUN_STATES.index(old), old, RUN_STATES.index(new), new)))


def runstate_is_live(state: str) -> bool:
    """runstate_is_live(): running or suspended."""
    return state in ("running", "suspended")


def vm_state_notify(w: World, side: str, running: bool, reason: str) -> int:
    """All prepare callbacks, then all change callbacks; when stopping, the last registered first (7.6)."""
    w.ev((w.now, side, "vm_state_notify", (running, RUN_STATES.index(reason), reason)))
    count = len(w.sdev if side is SRC else w.ddev)
    order = range(count) if running else range(count - 1, -1, -1)
    devices = w.sdev if side is SRC else w.ddev
    w.then(*((vfio.vfio_vmstate_change_prepare, side, i, running, reason) for i in order
             if vfio.has_prepare(devices[i])),
           *((vfio.vfio_vmstate_change, side, i, running, reason) for i in order))
    return w.cost.step


def vm_stop_force_state(w: World, side: str, state: str) -> int:
    """vm_stop_force_state(): stop the vCPUs, or only change the run state when they are stopped already."""
    end = w.src if side is SRC else w.dst
    live, suspended = runstate_is_live(end.runstate), end.runstate == "suspended"
    runstate_set(w, side, state)
    if not live:
        return w.cost.step
    end.vm_was_suspended = suspended
    if side is SRC:
        w.acct.guest_stopped(w)
    w.then((vm_state_notify, side, False, state), (bdrv_drain_all,))
    return w.cost.pause_vcpus


def bdrv_drain_all(w: World) -> int:
    """Block drain and flush at the end of do_vm_stop()."""
    return w.cost.block_drain


def vm_start(w: World, side: str) -> int:
    """vm_start(): run state, then callbacks in order of registration, then the vCPUs unless the guest sleeps (S3)."""
    end = w.src if side is SRC else w.dst
    state, end.vm_was_suspended = "suspended" if end.vm_was_suspended else "running", False
    runstate_set(w, side, state)
    w.then((vm_state_notify, side, True, state), *(((resume_all_vcpus, side),) if state == "running" else ()))
    return w.cost.step


def qemu_system_suspend(w: World) -> int:
    """The guest enters S3: its vCPUs stop, the devices are not told (facts sheet 14 #27, inferred)."""
    if w.src.runstate == "running":
        w.acct.guest_stopped(w)
        runstate_set(w, SRC, "suspended")
    return w.cost.step


def resume_all_vcpus(w: World, side: str) -> int:
    """The guest runs."""
    w.acct.guest_started(w, side)
    return w.cost.step


def realize(w: World, side: str) -> None:
    """The devices of one machine; a device that is refused ends the process (recordings' README)."""
    refusal = vfio.vfio_migration_refusal(w, side)
    if refusal:
        (w.src if side is SRC else w.dst).exited = True
        w.acct.refused(side, refusal)
        return
    for i in range(len(w.skern if side is SRC else w.dkern)):
        vfio.vfio_migration_realize(w, side, i)


def boot(w: World) -> int:
    """The source machine is realized and started (-S absent); the destination waits with -incoming."""
    realize(w, SRC)
    realize(w, DST)
    if w.src.exited:
        return 0
    w.source("migration_block_activation", "active")
    w.then((vm_start, SRC), (main_loop,))
    return 0


def main_loop(w: World) -> int | str:
    """os_host_main_loop_wait() without the BQL; then one bottom half or monitor command with it."""
    s = w.src
    if not s.bottom_halves and not s.commands:
        return "main"
    if bql_lock(w):
        return "bql"
    if s.bottom_halves:
        step, s.bottom_halves = s.bottom_halves[0], s.bottom_halves[1:]
    else:
        step, s.commands = (qmp_command, *s.commands[0]), s.commands[1:]
    w.then(step, (main_loop_unlock,), (main_loop,))
    return 0


def main_loop_unlock(w: World) -> int:
    """The main loop goes back to poll."""
    bql_unlock(w)
    return 0


def qemu_bh_schedule(w: World, *step: object) -> None:
    """Hand a bottom half to the main loop."""
    w.src.bottom_halves += (step,)
    w.signal("main")


def monitor_command(w: World, name: str, args: tuple = ()) -> None:
    """Management sends a command; the main loop takes it when it can."""
    w.src.commands += ((name, args),)
    w.signal("main")


def qmp_command(w: World, name: str, args: tuple) -> int:
    """One QMP command in the main loop, BQL held. Commands that QEMU would refuse have no effect."""
    s = w.src
    if name == "migrate":
        return migration.qmp_migrate(w)
    if name == "stop":
        if runstate_is_live(s.runstate):
            w.then((vm_stop_force_state, SRC, "paused"))
    elif name == "cont":
        if s.runstate in ("paused", "prelaunch"):
            w.then((vm_start, SRC))
    elif name == "guest-suspend-ram":
        return qemu_system_suspend(w)
    elif name == "migrate_cancel":
        return migration.migration_cancel(w)
    elif name == "migrate-continue":
        if s.state == "pre-switchover":
            s.pause_event = True
            w.signal("pause")
    elif name == "migrate-start-postcopy":
        if w.scfg.postcopy and s.state != "none":
            s.start_postcopy = True
    elif name == "migrate-set-parameters":
        w.acct.set_parameters(w, dict(args))
    elif name == "quit":
        return quit_(w)
    return w.cost.step


def quit_(w: World) -> int:
    """qemu_cleanup(): migration_shutdown() cancels what is left; the log of interest ends here."""
    w.src.exited = True
    w.source("migration_cancel")
    return 0

