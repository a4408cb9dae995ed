"""What the final query does where the series only brushes past: dirty bitmaps, CMMA, COLO, snapshots, CPR."""
from __future__ import annotations

import pytest

from migsim import load_scenario
from migsim.qemu import block_dirty_bitmap, colo, machine, migration, savevm, system
from migsim.qemu.state import MANAGEMENT, MIG, World, bql_lock
from migsim.run import Run

CAPS = {"return-path": True, "switchover-ack": True, "dirty-bitmaps": True}
CONFIG = {"caps": CAPS, "params": {"avail-switchover-bandwidth": 10**9, "max-bandwidth": 0}, "transport": "tcp",
          "guest": {"start_mib": 16, "pages": 1000, "burst": 10, "pause_ms": 10}}
DEVICE = {"source": {"initial": 4096, "stopcopy": 65536}}


class WithModules(Run):
    """A machine that has a dirty bitmap and CMMA as well."""

    def _build(self, raw: list[tuple]) -> object:
        clock = super()._build(raw)
        w = clock.world
        w.acct.modules = {"dirty-bitmap": 7000, "s390-cmma": 300}
        w.handlers += tuple(machine.module_handler(name) for name in w.acct.modules)
        return clock


def modules(base: str) -> tuple[Run, list]:
    """The run, and the final query's (precopy without RAM, postcopy)."""
    result = WithModules(load_scenario(CONFIG), (base, base))
    final = [e for e in result.journal.all("qemu_savevm_query_pending") if e.get("final")]
    return result, [(e.get("precopy") % 4096, e.get("postcopy")) for e in final]


def test_dirty_bitmap_reports_in_the_final_query_of_merged_alone() -> None:
    """10.4, 9.14 #4: v2 says nothing there; merged does, without taking the BQL a second time."""
    for base, postcopy in (("p2", 0), ("v2", 0), ("merged", 7000)):
        result, final = modules(base)
        assert result.outcome["status"] == "completed" and [p for _, p in final] == [postcopy]


def test_cmma_reports_in_the_final_query_of_merged_alone() -> None:
    """10.5, 9.14 #5; 300 bytes beside RAM's whole pages."""
    for base, precopy in (("v2", 0), ("merged", 300)):
        assert [p for p, _ in modules(base)[1]] == [precopy]


def test_the_bql_taken_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dirty bitmap that locked in the final query too would hang QEMU (2.9): the run says so and ends."""
    def careless(w: World, i: int, exact: bool, final: bool) -> int:
        w.then((bql_lock,), (block_dirty_bitmap.report,), (block_dirty_bitmap.unlock,))
        return 0

    monkeypatch.setattr(block_dirty_bitmap, "dirty_bitmap_state_pending", careless)
    result, final = modules("merged")
    assert "already held" in result.deadlock and result.outcome["status"] == "device" and final == []


# --- without a migration: steps of the migration thread or of the main loop, 1 s after the start ---

class Stage(Run):
    """A guest that runs, an outgoing file that takes everything, and these steps of one thread."""

    steps: tuple = ()

    def _build(self, raw: list[tuple]) -> object:
        clock = super()._build(raw)
        clock.world.forward.open = True
        clock.world.threads[MANAGEMENT] = [(begin, self.steps)]
        return clock


def begin(w: World, steps: tuple) -> int:
    """Hand the steps to the migration thread, or a single one to the main loop."""
    if len(steps) == 1:
        system.qemu_bh_schedule(w, steps[0])
    else:
        w.start(MIG, *steps)
    return 0


def guest_writes(w: World) -> int:
    """Half a second of the guest: 500 pages."""
    return 500_000_000


def stage(base: str, steps: tuple, **more: object) -> Run:
    kind = type("Staged", (Stage,), {"steps": steps})
    return kind(load_scenario({**CONFIG, "caps": {**CAPS, "dirty-bitmaps": False}, **more}), (base, base))


SETUP = ((bql_lock,), (savevm.qemu_savevm_state_setup,), (migration.bql_unlock_step,),
         (savevm.qemu_savevm_state_iterate, 0), (guest_writes,))
CHECKPOINT = (*SETUP, (colo.colo_do_checkpoint_transaction,))


def test_colo_checkpoint_without_a_final_query_loses_pages() -> None:
    """10.6, 9.14 #8: old syncs in ram_save_complete, merged in the final query, v2 not at all."""
    for base, syncs, complete in (("old", 2, True), ("v2", 1, False), ("merged", 2, True)):
        result = stage(base, CHECKPOINT)
        w = result.world
        assert len(result.journal.all("migration_bitmap_sync_end")) == syncs
        assert w.acct.ram.dirty == () and w.src.runstate == "colo" and w.src.bql < 0
        assert (w.acct.ram.sync(w.now) == 0) is complete  # v2: what the guest wrote is found only now
        finals = [e for e in result.journal.all("qemu_savevm_query_pending") if e.get("final")]
        assert len(finals) == (base == "merged")


def test_a_request_ends_a_colo_checkpoint() -> None:
    """10.6: the device's request is collected by the checkpoint's own final query."""
    collected_before = (*SETUP, (savevm.qemu_savevm_query_pending, False, False), CHECKPOINT[-1])
    for steps, saved in ((CHECKPOINT, 0), (collected_before, 2)):
        result = stage("merged", steps, devices=[DEVICE])
        assert len(result.journal.all("vmstate_downtime_save")) == saved


def test_snapshot_save_makes_no_final_query() -> None:
    """10.7: the guest stands still from the start, the device is in STOP and asks for nothing."""
    for base in ("old", "v2", "merged"):
        result = stage(base, (colo.qemu_savevm_state,), devices=[DEVICE])
        w, journal = result.world, result.journal
        assert not journal.all("qemu_savevm_query_pending") and not w.sdev[0].request_switchover_ack
        assert w.src.runstate == "save-vm" and w.skern[0].state == "STOP_COPY"
        assert not journal.all("vfio_query_precopy_size")
        assert w.acct.ram.dirty == () and len(journal.all("vmstate_downtime_save")) == 2


def test_cpr_stops_the_guest_before_setup() -> None:
    """2.1 #3, row 54 of 14: the device is in STOP and never asks; the final query is made all the same."""
    result = Run(load_scenario({**CONFIG, "params": {**CONFIG["params"], "mode": "cpr-reboot"}, "devices": [DEVICE]}),
                 (None, None))
    journal = result.journal
    stop, setup = journal.first("migration_completion_vm_stop"), journal.first("savevm_state_setup")
    assert result.outcome["status"] == "completed" and stop.us <= setup.us
    assert not journal.all("vfio_send_init_data_flag")
    assert [e.args[-2:] for e in journal.all("qemu_savevm_query_pending") if e.get("final")] == [(0, 0)]
    assert len(journal.all("migration_completion_vm_stop")) == 1
