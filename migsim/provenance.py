"""Which code base and which switchover-ack scheme wrote a log, told by the events and their forms.

Source: facts sheet 11 (trace events of old, v2 and 11.1.3), 9 (what each patch shows), 9.14.
"""
from __future__ import annotations

from typing import NamedTuple

from .journal import Event, Journal
from .ladder import CODE_BASES

#: event, number of arguments (None: any) -> first and last code base that print it so
FORMS: tuple[tuple[str, int | None, str, str], ...] = (
    ("migrate_pending_estimate", None, "old", "old"),
    ("migrate_pending_exact", None, "old", "old"),
    ("vfio_state_pending_estimate", None, "old", "old"),
    ("vfio_state_pending_exact", None, "old", "old"),
    ("qemu_savevm_query_pending", 5, "base", "p1"),
    ("qemu_savevm_query_pending", 6, "p2", "p5"),
    ("qemu_savevm_query_pending", 8, "p6", "merged"),
    ("vfio_query_precopy_size", 4, "base", "p10"),
    ("vfio_query_precopy_size", 5, "p11", "merged"),
    ("vfio_state_pending", 5, "base", "p9"),
    ("vfio_state_pending", 6, "p10", "p11"),
    ("vfio_state_pending", 7, "p12", "merged"),
    ("vfio_migration_init", 4, "p11", "merged"),
    ("vfio_send_init_data_flag", None, "p8", "merged"),
    ("vfio_query_precopy_size_request_switchover_ack", None, "p11", "merged"),
    ("loadvm_state_switchover_ack_needed", None, "old", "p3"),
    ("migration_request_switchover_ack", None, "p4", "p4"),
    ("migration_request_switchover_ack_legacy", None, "p5", "merged"),
    ("loadvm_approve_switchover", 2, "p3", "p4"),
    ("loadvm_approve_switchover_legacy", None, "p5", "merged"),
    ("source_return_path_thread_switchover_acked", 0, "old", "p5"),
    ("source_return_path_thread_switchover_acked", 1, "p6", "merged"),
)


class Base(NamedTuple):
    """The code bases that can have written a log, first and last of the ladder; "" and "" if its events say nothing.

    `mixed`: its events fit no single code base.
    """

    first: str
    last: str
    mixed: bool = False

    @property
    def name(self) -> str:
        """The likeliest: `merged` and `old` were released, what lies between them was not."""
        return self.first if self.first == "old" else self.last

    def __str__(self) -> str:
        if self.mixed:
            return "of no single code base"
        return self.first or "unknown" if self.first == self.last else f"{self.first} to {self.last}"


def code_base_of(journal: Journal, side: str) -> Base:
    """The code bases whose events this side's log has."""
    order = list(CODE_BASES)
    low, high, told = 0, len(order) - 1, False
    for e in journal.side(side):
        for first, last in _bounds(e):
            low, high, told = max(low, order.index(first)), min(high, order.index(last)), True
    if not told:
        return Base("", "")
    return Base(order[low], order[high]) if low <= high else Base(order[high], order[low], True)


def _bounds(e: Event) -> list[tuple[str, str]]:
    """What one event says."""
    if e.name == "loadvm_approve_switchover" and len(e.args) == 1:  # a number until patch 2, a name from patch 6
        return [("old", "p2")] if isinstance(e.args[0], int) else [("p6", "merged")]
    if e.name == "migrate_set_state" and e.args[0] == "failing":
        return [("merged", "merged")]
    return [(first, last) for name, count, first, last in FORMS if name == e.name and count in (None, len(e.args))]


def scheme_of(journal: Journal, side: str) -> str:
    """old (a flag, before patch 6), legacy, new, or "" where this side's events do not tell."""
    names = {e.name for e in journal.side(side)}
    if side == "destination":
        if names & {"migration_request_switchover_ack_legacy", "loadvm_approve_switchover_legacy"}:
            return "legacy"
        approvals = journal.all("loadvm_approve_switchover", side=side)
        if "loadvm_state_switchover_ack_needed" in names or any(len(e.args) != 1 or isinstance(e.args[0], int)
                                                                for e in approvals):
            return "old"
        if not approvals and any(e.args[0] == 7 for e in journal.all("migrate_send_rp_message", side=side)):
            return "legacy"  # an ACK that no device had to give: only the legacy scheme, and old, send it
        return "new" if approvals else ""
    from .checks import Evidence

    return Evidence(journal).scheme
