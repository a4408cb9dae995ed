"""The ladder: which code base a QEMU is built from, and what that switches.

Code bases (facts sheet, introduction): `old` (10.0 to 11.0, before everything), `base` (11.1-dev just before the
series), `p1` ... `p13` (base plus the first k patches of v2), `v2` (= p13) and `merged` (11.1). Each patch is one
named condition here; the model asks for it at the place where QEMU changes. Machine types and `-global` decide the
compat properties beside it (facts sheet 8.2).
"""
from __future__ import annotations

import difflib
import re
from typing import NamedTuple

OLD, BASE, V2, MERGED = -1, 0, 13, 14

#: what the step from p(k-1) to p(k) is called in the series (thread, "Avihai Horon (13)")
PATCHES = {
    1: "migration: Propagate errors in migration_completion_precopy()",
    2: "migration: Run final save_query_pending at switchover",
    3: "migration: Log the approver in qemu_loadvm_approve_switchover()",
    4: "migration: Replace switchover_ack_needed SaveVMHandler",
    5: "migration: Rename switchover-ack code to legacy",
    6: "migration: Make switchover-ack re-usable",
    7: "migration: Fail migration if switchover-ack is requested after switchover decision",
    8: "vfio/migration: Extract VFIO_MIG_FLAG_DEV_INIT_DATA_SENT sending to helper",
    9: "vfio/migration: Add Error ** parameter to vfio_migration_init()",
    10: "vfio/migration: Add new switchover-ack mechanism",
    11: "vfio/migration: Implement VFIO_PRECOPY_INFO_REINIT feature",
    12: "vfio/migration: Check VFIO_PRECOPY_INFO_REINIT during switchover",
    13: "migration: Enable new switchover-ack",
}


class CodeBase(NamedTuple):
    """One step of the ladder. `level`: -1 old, 0 base, k after patch k, 14 merged."""

    name: str
    level: int

    # the clean-up series between old and base (facts sheet, table of preparatory commits)
    single_pending = property(lambda self: self.level >= BASE, doc="one save_query_pending (a94a867e)")
    iteration_counter = property(lambda self: self.level >= BASE, doc="dirty_sync_count outside RAM (9519d366)")
    # the series
    errors_propagated = property(lambda self: self.level >= 1, doc="p1 migration_completion_precopy(errp)")
    final_query = property(lambda self: self.level >= 2, doc="p2 qemu_savevm_query_pending_final()")
    approver_named = property(lambda self: self.level >= 3, doc="p3 trace_loadvm_approve_switchover(approver)")
    ack_requested_by_call = property(lambda self: self.level >= 4, doc="p4 migration_request_switchover_ack()")
    ack_renamed_legacy = property(lambda self: self.level >= 5, doc="p5 *_legacy names")
    ack_reusable = property(lambda self: self.level >= 6, doc="p6 counter on the source, switchover-ack-legacy")
    late_request_fails = property(lambda self: self.level >= 7, doc="p7 migration_switchover_start()")
    marker_traced = property(lambda self: self.level >= 8, doc="p8 vfio_send_init_data_flag()")
    init_errors = property(lambda self: self.level >= 9, doc="p9 vfio_migration_init(errp)")
    vfio_requests_ack = property(lambda self: self.level >= 10, doc="p10 vfio_save_setup()")
    reinit = property(lambda self: self.level >= 11, doc="p11 VFIO_PRECOPY_INFO_REINIT")
    reinit_check_at_stop = property(lambda self: self.level >= 12, doc="p12 vfio_final_precopy_reinit_check()")
    new_ack_by_default = property(lambda self: self.level >= V2, doc="p13 switchover-ack-legacy default")
    # what review changed (facts sheet 9.14); `failing` and the early FAILED notifier came from elsewhere
    late_request_counts_query = property(lambda self: self.level >= MERGED, doc="9.14 #1-3")
    late_request_compares = property(lambda self: self.name == "p7-diff", doc="review of p7, first diff")
    final_query_for_all = property(lambda self: self.level >= MERGED, doc="9.14 #4-6: all modules report")
    discard_syncs = property(lambda self: self.level < MERGED, doc="9.14 #7: postcopy's own sync")
    completion_errors = property(lambda self: self.level >= MERGED, doc="9.14 #10")
    failing_status = property(lambda self: self.level >= MERGED, doc="9.14 #14")

    @property
    def newest_machine(self) -> tuple[int, int]:
        """Newest versioned machine type this code base knows."""
        return (11, 0) if self.level == OLD else (11, 1)


CODE_BASES: dict[str, CodeBase] = {
    "old": CodeBase("old", OLD), "base": CodeBase("base", BASE),
    **{f"p{k}": CodeBase(f"p{k}", k) for k in range(1, V2 + 1)},
    "v2": CodeBase("v2", V2), "merged": CodeBase("merged", MERGED),
}
#: `merged` with the first diff posted in the review of patch 7 (compare the counter before and after)
P7_DIFF = CodeBase("p7-diff", MERGED)


def code_base(name: str) -> CodeBase:
    """The code base called `name`. Raises ValueError with the nearest name."""
    try:
        return CODE_BASES[name]
    except KeyError:
        near = difflib.get_close_matches(name, CODE_BASES, 1, 0.0)[0]
        raise ValueError(f"unknown code base {name!r}: allowed are {', '.join(CODE_BASES)}; "
                         f"nearest is {near!r}") from None


class Binary(NamedTuple):
    """A QEMU as started: code base plus what its machine type and `-global` set (facts sheet 8.2)."""

    code: CodeBase
    version: str
    machine: str
    switchover_ack_legacy: bool
    send_switchover_start: bool
    note: str = ""

    @property
    def pid_log(self) -> bool:
        """10.0.x logs `pid@time:` and calls devices VFIO_FD<n> (recordings' README)."""
        return self.version.startswith("10.0")


def _version(text: str) -> tuple[int, int] | None:
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _global(globals_: tuple[str, ...], name: str, default: bool) -> bool:
    for item in globals_:
        key, _, value = item.partition("=")
        if key == name:
            default = value in ("on", "true", "yes")
    return default


def binary(qemu: str, machine: str, globals_: tuple[str, ...] = (), base: str | None = None) -> Binary:
    """Resolve a scenario's host. `base` replaces the binary; a machine type it does not know becomes its newest."""
    if base is not None or qemu in CODE_BASES:
        code, version = code_base(base or qemu), qemu
        newest = code.newest_machine
    else:
        number = _version(qemu) or (11, 1)
        code, version = CODE_BASES["merged" if number >= (11, 1) else "old"], qemu
        newest = number
    if base is not None:
        version = base
    note, wanted = "", _version(machine)
    if wanted is None or wanted > newest:
        known = re.sub(r"\d+\.\d+$", "", machine)
        known = (known if known.endswith("-") else f"pc-{machine}-") + f"{newest[0]}.{newest[1]}"
        if wanted is not None:
            note = f"machine {machine} is unknown to {version}: {known} used"
        machine, wanted = known, newest
    legacy = True
    if code.ack_reusable:
        legacy = _global(globals_, "migration.switchover-ack-legacy", not code.new_ack_by_default or wanted <= (11, 0))
    start = _global(globals_, "migration.send-switchover-start", wanted > (9, 2))
    return Binary(code, version, machine, legacy, start, note)
