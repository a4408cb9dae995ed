"""block-dirty-bitmap as far as pending queries and the BQL go (migration/block-dirty-bitmap.c; facts sheet 10.4)."""
from __future__ import annotations

from .state import World, bql_lock, bql_unlock


def is_active(w: World) -> bool:
    """Only with the capability dirty-bitmaps."""
    return bool(w.scfg.caps.get("dirty-bitmaps"))


def dirty_bitmap_state_pending(w: World, _: int, exact: bool, final: bool) -> int:
    """Takes the BQL in every query but the final one, where it is held; v2 reports nothing there (9.14 #4)."""
    if final and not w.scfg.code.final_query_for_all:
        return 0
    if final:
        return report(w)
    w.then((bql_lock,), (report,), (unlock,))
    return 0


def report(w: World) -> int:
    """Always postcopy bytes."""
    w.acct.add_pending(0, 0, w.acct.modules.get("dirty-bitmap", 0))
    w.source("dirty_bitmap_state_pending", w.acct.modules.get("dirty-bitmap", 0))
    return w.cost.step


def unlock(w: World) -> int:
    """bql_unlock() after the walk over the list."""
    bql_unlock(w)
    return 0
