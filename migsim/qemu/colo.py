"""A COLO checkpoint and a snapshot, as far as the final query goes (colo.c, savevm.c; facts sheet 10.6, 10.7)."""
from __future__ import annotations

from . import savevm, system
from .state import SRC, World, bql_lock, bql_unlock


def colo_do_checkpoint_transaction(w: World) -> int:
    """In the migration thread: the guest is stopped; merged then makes a final query of all modules under BQL. Old
    syncs RAM in ram_save_complete() instead; from p2 to v2 nobody does (9.14 #8, inferred from the diff)."""
    final = ((savevm.qemu_savevm_query_pending, True, True),) if w.scfg.code.final_query_for_all else ()
    w.then((bql_lock,), (system.vm_stop_force_state, SRC, "colo"), *final, (checkpoint_live_state,))
    return 0


def checkpoint_live_state(w: World) -> int:
    """qemu_savevm_live_state(): the iterables' save_complete; a request in the final query ends the checkpoint."""
    bql_unlock(w)
    if not w.src.final_collected:
        w.then((savevm.qemu_savevm_state_complete_precopy_iterable, False))
    return 0


def qemu_savevm_state(w: World) -> int:
    """snapshot-save, in the main thread, which has the BQL: the guest is stopped from the start, there is no return
    path, no final query and no ACK logic; without a last sync nothing is lost, for nothing runs."""
    w.then((system.vm_stop_force_state, SRC, "save-vm"), (savevm.qemu_savevm_state_setup,),
           (savevm.qemu_savevm_state_iterate, 0), (savevm.qemu_savevm_state_complete_precopy_iterable, False))
    return 0
