"""The modelled machine's registry: which handlers and sections it has, in QEMU's order (savevm.c; stream READMEs)."""
from __future__ import annotations

from typing import Any

from . import block_dirty_bitmap, ram, s390_stattrib, savevm, stream, vfio
from .state import World


def always(w: World, *_: int) -> bool:
    """The handler is active."""
    return True


def never(w: World, *_: int) -> bool:
    """The handler does not iterate."""
    return False


def nothing(w: World, *_: Any) -> int:
    """A callback that the model leaves out."""
    return 0


def sections(n_vfio: int, old: bool) -> tuple[tuple, dict[tuple[str, int], Any]]:
    """(SECTION_FULL sections in stream order, table (idstr, instance) -> section)."""
    full = stream.sections(n_vfio, old)
    return full, {(s.idstr, s.instance_id): s for s in (stream.RAM, *full)}


def ram_handler(section_id: int) -> savevm.SaveVMHandlers:
    """RAM comes first."""
    return savevm.SaveVMHandlers("ram", -1, section_id, ram.ram_save_setup, ram.ram_state_pending, always, always,
                                 ram.ram_save_iterate, ram.ram_save_complete, None, True)


def vfio_handler(index: int, idstr: str, section_id: int) -> savevm.SaveVMHandlers:
    """One VFIO device."""
    return savevm.SaveVMHandlers(idstr, index, section_id, vfio.vfio_save_setup, vfio.vfio_state_pending, always,
                                 vfio.vfio_is_active_iterate, vfio.vfio_save_iterate,
                                 vfio.vfio_save_complete_precopy, vfio.vfio_save_cleanup)


def module_handler(name: str) -> savevm.SaveVMHandlers:
    """block-dirty-bitmap or CMMA: pending queries only."""
    pending, active = {"dirty-bitmap": (block_dirty_bitmap.dirty_bitmap_state_pending, block_dirty_bitmap.is_active),
                       "s390-cmma": (s390_stattrib.cmma_state_pending, always)}[name]
    return savevm.SaveVMHandlers(name, -1, 2, nothing, pending, active, never, nothing, nothing, None, True)


def handlers(w: World, table: dict[tuple[str, int], Any]) -> tuple[savevm.SaveVMHandlers, ...]:
    """Handlers in order of priority, then registration: RAM, then the VFIO devices."""
    names = [f"0000:00:{4 + i:02x}.0/vfio" for i in range(len(w.scfg.device_names))]
    return (ram_handler(table["ram", 0].section_id),
            *(vfio_handler(i, name, table[name, 0].section_id) for i, name in enumerate(names)))
