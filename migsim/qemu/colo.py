"""A COLO checkpoint and a snapshot, as far as the final query goes (colo.c, savevm.c; facts sheet 10.6, 10.7)."""
from __future__ import annotations

from . import savevm, system
from .state import SRC, World, bql_lock, bql_unlock


def colo_do_checkpoint_transaction(w: World) -> int:
    """The guest is stopped, then merged makes a final query of all modules under BQL; v2 has no sync at all here,
    old syncs in ram_save_complete()."""
    query = ((savevm.qemu_savevm_query_pending, True, True), (checkpoint_query_done,)) \
        if w.scfg.code.final_query_for_all else ()
    w.then((bql_lock,), (system.vm_stop_force_state, SRC, "colo"), *query, (checkpoint_live_part,))
    return 0


def checkpoint_query_done(w: World) -> int:
    """A request in the final query would end the checkpoint."""
    if w.scfg.new_ack and w.src.pending_ack:
        w.threads[w.tid].clear()
        bql_unlock(w)
    return 0


def checkpoint_live_part(w: World) -> int:
    """qemu_savevm_live_state(): the iterables' save_complete."""
    bql_unlock(w)
    w.then((savevm.qemu_savevm_state_complete_precopy_iterable, False))
    return 0


def qemu_savevm_state(w: World) -> int:
    """snapshot-save: stopped from the start, no return path, no final query, no ACK logic (10.7)."""
    w.then((bql_lock,), (system.vm_stop_force_state, SRC, "save-vm"), (savevm.qemu_savevm_state_setup,),
           (savevm.qemu_savevm_state_iterate, 0), (savevm.qemu_savevm_state_complete_precopy_iterable, False),
           (snapshot_done,))
    return 0


def snapshot_done(w: World) -> int:
    """The stream is complete."""
    bql_unlock(w)
    return 0
