"""The ladder: what each patch changes in a journal, and that it changes nothing else (thread, facts sheet 9 and 9.14).

`Same` maps the named difference away; what is left of both journals must be equal, event for event.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from migsim import Scenario, load_scenario, run
from migsim.journal import Event
from migsim.ladder import CODE_BASES, PATCHES, binary, code_base
from migsim.qemu import completion

DATA = Path(__file__).parent.parent / "data" / "scenarios"
FIRST = load_scenario(DATA / "first-migration.yaml")
GAP = load_scenario(DATA / "reinit-in-gap.yaml")
STOPPED = load_scenario(DATA / "stop-while-ack-pending.yaml")


def forced(scenario: Scenario) -> Scenario:
    """The new scheme at both ends before patch 13 makes it the default."""
    off = ["migration.switchover-ack-legacy=off"]
    return scenario.with_value("source.globals", off).with_value("destination.globals", off)


Rewrite = Callable[[Event], Event | None]


def journal(scenario: Scenario, base: str, rewrite: Rewrite | None = None) -> list[tuple]:
    events = run(scenario, base=base).journal.events
    if rewrite:
        events = [e for e in map(rewrite, events) if e]
    return [(e.side, e.name, e.args) for e in events]


def renamed(**names: str) -> Rewrite:
    return lambda e: e._replace(name=names.get(e.name, e.name))


def without(*names: str) -> Rewrite:
    return lambda e: None if e.name in names else e


def cut(name: str, *keep: int) -> Rewrite:
    """Keep only these arguments of an event."""
    return lambda e: e._replace(args=tuple(e.args[k] for k in keep)) if e.name == name else e


def both(*rewrites: Rewrite) -> Rewrite:
    def rewrite(e: Event) -> Event | None:
        for r in rewrites:
            if e is None:
                return None
            e = r(e)
        return e
    return rewrite


def same_but_for(scenario: Scenario, before: str, after: str, old: Rewrite, new: Rewrite) -> None:
    assert journal(scenario, before) != journal(scenario, after), "the patch shows nothing"
    assert journal(scenario, before, old) == journal(scenario, after, new)


def no_final(e: Event) -> Event | None:
    """Drop the final query and RAM's sync around it, and the `final` argument."""
    if e.name == "qemu_savevm_query_pending":
        return None if e.args[1] else e._replace(args=(e.args[0], *e.args[2:]))
    return e


def keep(e: Event) -> Event:
    return e


def test_names() -> None:
    assert list(CODE_BASES) == ["old", "base", *(f"p{k}" for k in range(1, 14)), "v2", "merged"]
    assert code_base("v2").level == code_base("p13").level == len(PATCHES)
    with pytest.raises(ValueError, match="nearest is 'merged'"):
        code_base("mergd")


def test_p1_errors_of_completion() -> None:
    """The text of a failing switchover, before and after (migration_completion's fail label)."""
    def text(base: str) -> str:
        class World:
            scfg = type("C", (), {"code": code_base(base)})
            src = type("S", (), {"to_dst_error": 0})
            steps: tuple = ()

            def then(self, *steps: tuple) -> None:
                self.steps = steps

        w = World()
        completion.fail_switchover(w, "Switchover is interrupted")
        return w.steps[-1][1]

    assert text("base") == "Error in migration completion: Bad address"
    assert text("p1") == "Switchover is interrupted"
    assert journal(FIRST, "base") == journal(FIRST, "p1")
    # a cancel in pre-switchover has shut the stream down, so before p1 its error is told a second time
    cancelled = load_scenario(DATA / "cancel-in-pre-switchover.yaml")
    last = [run(cancelled, base=base).journal.all("migrate_error", side="source")[-1].get("error")
            for base in ("base", "p1")]
    assert last == ["Channel error: Input/output error", "Switchover is interrupted"]


def test_p2_final_query() -> None:
    sync = ("migration_bitmap_sync_start", "migration_bitmap_sync_end")
    for base, finals in (("p1", 0), ("p2", 1)):
        events = [e for e in run(FIRST, base=base).journal.events if e.side == "source"]
        queries = [e for e in events if e.name == "qemu_savevm_query_pending" and e.get("final")]
        assert len(queries) == finals
        last = max(k for k, e in enumerate(events) if e.name == sync[0])
        disks = max(k for k, e in enumerate(events) if e.name == "migration_block_activation")
        assert (last < disks) == bool(finals)  # before disks are inactive instead of inside RAM's END section
    drop = without(*sync, "vmstate_downtime_save")
    same_but_for(FIRST, "p1", "p2", drop, both(no_final, drop))


def test_p3_name_of_the_approver() -> None:
    same_but_for(FIRST, "p2", "p3", keep, lambda e: cut("loadvm_approve_switchover", 1)(e))


def test_p4_function_instead_of_handler() -> None:
    same_but_for(FIRST, "p3", "p4", without("loadvm_state_switchover_ack_needed"),
                 without("migration_request_switchover_ack"))


def test_p5_name_legacy() -> None:
    same_but_for(FIRST, "p4", "p5", renamed(
        migration_request_switchover_ack="migration_request_switchover_ack_legacy",
        loadvm_approve_switchover="loadvm_approve_switchover_legacy"), keep)


def test_p6_counts_in_the_traces() -> None:
    """Legacy by default: only the two ACK numbers and the counter are new; can_switchover is read after the queries."""
    same_but_for(FIRST, "p5", "p6", cut("source_return_path_thread_switchover_acked"),
                 both(cut("qemu_savevm_query_pending", *range(6)), cut("source_return_path_thread_switchover_acked")))


def test_p6_one_ack_per_marker_when_forced() -> None:
    for base, acks in (("p5", 1), ("p10", 2)):
        two = GAP.with_value("devices", [dict(d) for d in GAP.config["devices"]] +
                             [{**GAP.config["devices"][0], "id": "nic1"}])
        sent = [e for e in run(forced(two), base=base).journal.all("migrate_send_rp_message") if e.args[0] == 7]
        assert len(sent) == acks


def test_p7_fails_where_the_counter_is_not_zero() -> None:
    """The review's corner case: p10 asks, management stops the guest, p7's check looks at the whole counter."""
    assert run(forced(STOPPED), base="p10").outcome["status"] == "failed"
    assert journal(FIRST, "p6") == journal(FIRST, "p7")


def test_p8_trace_of_the_marker() -> None:
    same_but_for(FIRST, "p7", "p8", keep, without("vfio_send_init_data_flag"))


def test_p9_errors_of_init() -> None:
    assert not code_base("p8").init_errors and code_base("p9").init_errors
    assert journal(FIRST, "p8") == journal(FIRST, "p9")


def test_p10_request_in_the_first_query() -> None:
    same_but_for(FIRST, "p9", "p10", keep, cut("vfio_state_pending", 0, 1, 2, 3, 5))  # legacy: the trace only
    events = run(forced(FIRST), base="p10").journal.all("qemu_savevm_query_pending", side="source")
    collected = [(e.get("exact"), e.get("switchover_ack_pending")) for e in events if e.get("switchover_ack_pending")]
    assert collected == [(False, 1)]


def test_p11_reinit() -> None:
    for base, used, requests in (("p10", None, 1), ("p11", 1, 2)):
        journal_ = run(forced(FIRST), base=base).journal
        init = journal_.first("vfio_migration_init", "source")
        assert (init and init.get("precopy_info_v2_used")) == used
        assert sum(e.get("switchover_ack_pending") for e in journal_.all("qemu_savevm_query_pending")) == requests
    # legacy: the flag is traced, sizes follow, nothing is asked for
    legacy = run(FIRST, base="p11").journal
    assert any(e.get("reinit") for e in legacy.all("vfio_query_precopy_size"))
    assert not legacy.all("vfio_query_precopy_size_request_switchover_ack")


def test_p12_check_at_the_stop() -> None:
    assert run(forced(GAP), base="p11").outcome["status"] == "completed"
    failed = run(forced(GAP), base="p12")
    assert failed.outcome["error-desc"] == "Switchover ACK was requested by 1 devices during switchover"
    # legacy: only `final`, and VFIO's own line in the final query
    numbers = both(cut("qemu_savevm_query_pending", 0), without("vmstate_downtime_save"))
    same_but_for(FIRST, "p11", "p12", numbers, both(final_line_of_vfio, numbers))


def final_line_of_vfio(e: Event) -> Event | None:
    """vfio_state_pending as before p12."""
    if e.name != "vfio_state_pending":
        return e
    return None if e.get("final") else e._replace(args=e.args[:6])


def test_p13_is_the_default() -> None:
    for base, legacy in (("p12", True), ("p13", False), ("merged", False)):
        assert binary("11.1.3", "pc-q35-11.1", base=base).switchover_ack_legacy == legacy
        assert binary("11.1.3", "pc-q35-11.0", base=base).switchover_ack_legacy
    assert journal(forced(FIRST), "p12") == journal(FIRST, "p13")


# --- what review changed (9.14) ---

def test_merged_counts_what_the_final_query_collected() -> None:
    assert run(STOPPED, base="v2").outcome["status"] == "failed"
    assert run(STOPPED, base="merged").outcome["status"] == "completed"
    assert journal(FIRST, "v2") == journal(FIRST, "merged")


def test_merged_status_failing_and_early_notifier() -> None:
    states = {base: [e.args[0] for e in run(GAP, base=base).journal.all("migrate_set_state", side="source")]
              for base in ("v2", "merged")}
    assert states["v2"][-2:] == ["device", "failed"] and states["merged"][-3:] == ["device", "failing", "failed"]
    for base, first in (("v2", "RUNNING_P2P"), ("merged", "RUNNING")):
        events = run(GAP, base=base).journal.side("source")
        stop = next(k for k, e in enumerate(events) if e.name == "migration_completion_vm_stop")
        moves = [e.args[1] for e in events[stop:] if e.name == "vfio_migration_set_device_state"]
        assert moves[0] == first


def test_merged_updates_remaining_in_the_final_query() -> None:
    """9.14 #6: the device's size changes at the stop; v2 keeps what the last turn of the loop had."""
    for base in ("v2", "merged"):
        result = run(DATA / "absurd-size-at-final-check.yaml", base=base)
        *_, before, final = [e.get("total") for e in result.journal.all("qemu_savevm_query_pending")]
        assert before != final and result.world.acct.remaining == (final if base == "merged" else before)


def test_remaining_is_shown_until_the_end() -> None:
    """39ab94e4; of the recordings those that had not ended have it (k1, bb, l2)."""
    stuck = DATA / "waiting-starves-the-estimate.yaml"
    for base in ("old", "base", "merged"):
        assert "remaining" not in run(FIRST, base=base).outcome
        got = run(load_scenario(stuck).replace(timeout_ms=2000), base=base).outcome
        assert got["status"] == "active" and ("remaining" in got) == (base != "old")


def test_old_decides_on_an_estimate_base_asks_exactly() -> None:
    """455a6167: with everything sent, old needs no exact query to go on; base makes one in every turn."""
    old, base = (run(FIRST, base=b).journal for b in ("old", "base"))
    assert len(old.all("migrate_pending_exact")) < len(old.all("migrate_pending_estimate")) / 2
    exact = [e.get("exact") for e in base.all("qemu_savevm_query_pending")]
    assert exact.count(True) > len(exact) / 2 - 3
    assert not base.all("migrate_pending_estimate") and not old.all("qemu_savevm_query_pending")


def test_cross_version_machine_types() -> None:
    """Facts sheet 8.2: both ends choose the same scheme by the machine type."""
    assert binary("11.0", "pc-q35-11.0").code.name == "old"
    assert binary("11.1.3", "pc-q35-11.0").switchover_ack_legacy
    assert not binary("11.1.3", "pc-q35-11.0", ("migration.switchover-ack-legacy=off",)).switchover_ack_legacy
    assert not binary("11.1.3", "pc-q35-9.2").send_switchover_start
    assert binary("10.0.13", "pc-q35-11.1").machine == "pc-q35-10.0" and binary("10.0.13", "pc-q35-11.1").note
