"""s390 CMMA as far as pending queries go (hw/s390x/s390-stattrib.c; facts sheet 10.5)."""
from __future__ import annotations

from .state import World


def cmma_state_pending(w: World, _: int, exact: bool, final: bool) -> int:
    """Asks the backend, never takes the BQL; v2 reports nothing in the final query (9.14 #5, inferred)."""
    if final and not w.scfg.code.final_query_for_all:
        return 0
    w.acct.add_pending(w.acct.modules.get("s390-cmma", 0), 0, 0)
    return w.cost.step
