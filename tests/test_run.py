"""Runs as a whole: determinism, bounds, what QEMU refuses, the state at any event, and random scenarios (hypothesis)
against the assertions of facts sheet 16."""
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migsim import run
from migsim.run import Run

N = {"qemu": "11.1.3", "machine": "pc-q35-11.1"}
LEGACY = {**N, "globals": ["migration.switchover-ack-legacy=on"]}
CAPS = {"return-path": True, "switchover-ack": True, "events": True}
PARAMS = {"avail-switchover-bandwidth": 100000000, "downtime-limit": 300}
DEVICE = {"source": {"initial": 65536, "stopcopy": 4194304}, "destination": {"load_init_ms": 50, "load_stop_ms": 2}}


def config(**more: object) -> dict:
    return {"source": N, "destination": N, "caps": CAPS, "params": PARAMS, "devices": [DEVICE], **more}


def source(result: Run, *names: str) -> list:
    return result.journal.all(*names, side="source")


# --- what QEMU refuses or what breaks ---

def test_a_refused_capability_sets_none() -> None:
    result = run(config(caps={"switchover-ack": True, "events": True}))
    assert result.refused == "Capability 'switchover-ack' requires capability 'return-path'"
    assert result.outcome["status"] == "completed" and not source(result, "vfio_send_init_data_flag")


def test_postcopy_with_vfio_is_refused() -> None:
    result = run(config(caps={**CAPS, "postcopy-ram": True}))
    assert result.outcome == {}
    assert ("source", "vfio0: VFIO migration is not supported with postcopy migration") in result.world.acct.messages


def test_second_marker_for_a_legacy_destination() -> None:
    """Facts sheet 8.3, measured l4: source new, destination legacy, one device, a REINIT."""
    device = {**DEVICE, "source": {**DEVICE["source"], "size_hold": 1 << 30, "dirty_until": 400, "reinit": "t300:8192"}}
    result = run(config(destination=LEGACY, devices=[device]))
    assert result.outcome["status"] == "failed" and result.outcome["error-desc"] == "Sibling indicated error 1"
    assert any("approve_switchover failed, err=-22" in text for _, text in result.world.acct.messages)


def test_no_users_mismatch_never_ends() -> None:
    result = run(config(devices=[], destination=LEGACY, timeout_ms=300))
    assert result.timed_out and result.outcome["status"] == "active"
    assert result.outcome["error-desc"] == "Switchover ack pending num underflowed"


def test_retry_after_a_failed_check() -> None:
    device = {**DEVICE, "source": {**DEVICE["source"], "reinit": "gap:4096", "once_only_session": 1}}
    result = run(config(devices=[device], attempts=2, destination_per_attempt=True))
    assert [o["status"] for _, o in result.attempts] == ["failed", "completed"]


def test_a_second_attempt_finds_nobody_where_the_destination_has_ended() -> None:
    """exit-on-error: without a fresh destination the second migrate cannot connect; the guest was never touched."""
    device = {**DEVICE, "source": {**DEVICE["source"], "reinit": "gap:4096", "once_only_session": 1}}
    result = run(config(devices=[device], attempts=2))
    assert [o["status"] for _, o in result.attempts] == ["failed", "failed"]
    assert result.outcome["error-desc"] == "Failed to connect to 'destination': Connection refused"
    second = result.attempt_journals()[1]
    assert [e.args[0] for e in second.all("migrate_set_state", side="source")] == ["setup", "failed"]
    assert result.run_state == {"source": "running", "destination": None} and not second.all("vm_state_notify")


def test_a_killed_destination_is_replaced() -> None:
    """Killed in the middle of a load of 2.5 s; the fresh one loads when that one would have ended."""
    slow = {**DEVICE, "destination": {"load_init_ms": 2500}}
    actions = [{"do": "kill-destination", "at_ms": 300}]
    result = run(config(devices=[slow], attempts=2, destination_per_attempt=True, actions=actions))
    assert [o["status"] for _, o in result.attempts] == ["failed", "completed"]
    fresh = run(config(devices=[slow]))
    assert abs(result.outcome["total-time"] - fresh.outcome["total-time"]) < 30
    before = run(config(before=[{"do": "kill-destination"}]))
    assert before.outcome["error-desc"] == "Failed to connect to 'destination': Connection refused"


def test_a_finished_migration_cannot_be_repeated() -> None:
    result = run(config(attempts=2, destination_per_attempt=True))
    assert result.refused == "Can't migrate the vm that was paused due to previous migration"


def test_a_refused_device_ends_its_qemu_alone() -> None:
    """Feature 12 with another errno than ENOTTY, at one end only (7.2); before p11 nobody asks."""
    broken = {**DEVICE, "destination": {"v2_errno": 5}}
    result = run(config(devices=[broken]))
    assert result.run_state == {"source": "running", "destination": None} and result.outcome["status"] == "failed"
    assert ("destination", "vfio0: VFIO migration init failed: failed to set precopy info v2: Input/output error"
            ) in result.world.acct.messages
    assert run(config(devices=[broken]), base="p10").outcome["status"] == "completed"
    enotty = {**DEVICE, "destination": {"v2_errno": 25}}
    assert run(config(devices=[enotty])).outcome["status"] == "completed"


def test_the_failing_query_is_warned_of_once() -> None:
    """Measured facts 1, 4; old says nothing."""
    device = {**DEVICE, "source": {**DEVICE["source"], "info_fail_at": 2}}
    for base, warnings in (("merged", 1), ("base", 1), ("old", 0)):
        result = run(config(devices=[device, device]), base=base)
        assert len(source(result, "vfio_query_precopy_size")) > 5 or base == "old"
        said = [text for _, text in result.world.acct.messages if "VFIO_MIG_GET_PRECOPY_INFO) failed (-5)" in text]
        assert len(said) == warnings


def test_starvation_behind_ram() -> None:
    """Recordings-busy k1, k2: RAM uses up every window, the chunk is never read; legacy ends."""
    busy = Path(__file__).parent.parent / "data" / "recordings-busy"
    assert run(busy / "k1-chunk-behind-ram-new").timed_out
    assert run(busy / "k2-chunk-behind-ram-legacy").outcome["status"] == "completed"


def test_estimate_collapses_while_an_ack_is_awaited() -> None:
    """Recording bb-measured-bandwidth-legacy."""
    slow = {**DEVICE, "destination": {"load_init_ms": 400}}
    sizes = [e.get("size") for e in source(run(config(params={"downtime-limit": 300}, devices=[slow], timeout_ms=1500)),
                                           "migrate_transferred")]
    assert sizes[0] > 10 * sizes[2]


# --- states ---

def test_state_at_any_event() -> None:
    result = run(config())
    states = [e.args[0] for e in source(result, "migrate_set_state")]
    assert states == ["setup", "active", "device", "completed"]
    for k, event in enumerate(result.journal.events):
        if event.name in ("migrate_set_state", "source_return_path_thread_switchover_acked") and event.side == "source":
            world = result.state_at(k)
            if event.name == "migrate_set_state":
                assert world.src.state == event.args[0]
            else:
                assert world.src.switchover_ack_pending_num == event.args[0]
    assert result.state_at(40).src == result.state_at(40).src
    with pytest.raises(IndexError):
        result.state_at(len(result.raw))


# --- random scenarios ---

trigger = st.builds(lambda kind, at, size: f"{kind}{at if kind != 'gap' else ''}:{size}",
                    st.sampled_from(["t", "rd", "info", "after", "gap"]), st.integers(1, 300), st.integers(1, 1 << 21))
device = st.fixed_dictionaries({
    "source": st.fixed_dictionaries({
        "initial": st.sampled_from([0, 1, 65536, 3 << 20]), "stopcopy": st.sampled_from([0, 4096, 5 << 20]),
        "rec": st.sampled_from([4096 * 100, 1 << 20]), "dirty": st.sampled_from([0, 100000]),
        "query_us": st.integers(500, 20000), "reinit": st.lists(trigger, max_size=3).map(";".join),
        "size_hold": st.sampled_from([0, 1 << 30]), "dirty_until": st.integers(0, 300),
        "reinit_flag_once": st.integers(0, 1)}),
    "destination": st.fixed_dictionaries({k: st.integers(0, 120) for k in
                                          ("load_init_ms", "load_reinit_ms", "load_dirty_ms", "load_stop_ms")}),
    "common": st.fixed_dictionaries({"v2": st.integers(0, 1), "precopy": st.integers(0, 1)})})
scenarios = st.fixed_dictionaries({
    "source": st.just(N), "destination": st.just(N), "caps": st.just(CAPS), "timeout_ms": st.just(600),
    "devices": st.lists(device, max_size=3), "transport": st.sampled_from(["unix", "tcp"]),
    "mem": st.sampled_from([8, 64]),
    "params": st.fixed_dictionaries({"avail-switchover-bandwidth": st.sampled_from([0, 10**8, 10**9]),
                                     "downtime-limit": st.integers(50, 1000),
                                     "max-bandwidth": st.sampled_from([0, 10**7, 134217728])})})
actions = st.lists(st.fixed_dictionaries({
    "at_ms": st.integers(0, 800),
    "do": st.sampled_from(["stop", "cont", "migrate_cancel", "migrate-continue", "migrate-start-postcopy"])}),
    max_size=3)
bases = st.sampled_from(["old", "base", "p1", "p2", "p5", "p6", "p9", "p10", "p11", "p12", "v2", "merged"])


def assertions(result: Run) -> None:
    """Facts sheet 16, for runs without management stop, failing ioctl or mismatch."""
    journal = result.journal
    new = not result.binaries[0].switchover_ack_legacy and result.binaries[0].code.ack_reusable
    requested = received = 0
    for e in journal.side("source"):
        if e.name == "qemu_savevm_query_pending" and len(e.args) == 8:
            requested += e.args[6]
            assert not new or e.args[7] == requested - received  # 1
        elif e.name == "source_return_path_thread_switchover_acked":
            received += 1
            assert not e.args or e.args[0] != 0xFFFFFFFF  # 1
        elif e.name == "migration_thread_low_pending" and new:
            assert requested == received  # 4
    final = [e for e in journal.all("qemu_savevm_query_pending") if e.get("final")]
    stops = source(result, "migration_completion_vm_stop")
    if result.binaries[0].code.final_query and result.outcome.get("status") == "completed":
        assert len(final) == len(stops) == 1  # 5
    for i, d in enumerate(result.world.sdev):
        markers = sum(e.args[0] == d.name for e in source(result, "vfio_send_init_data_flag"))
        if result.binaries[0].code.marker_traced:
            asked = sum(e.args[0] == d.name for e in source(result, "vfio_state_pending")
                        if e.get("request_switchover_ack") and not e.get("final"))
            assert markers <= (max(1, asked) if new else 1)  # 2
        if result.outcome.get("status") in ("failed", "cancelled"):
            assert result.world.skern[i].state == "RUNNING" and not d.data_fd  # 10
        assert result.world.skern[i].data_fd == (result.world.skern[i].state in (
            "PRE_COPY", "PRE_COPY_P2P", "STOP_COPY", "RESUMING"))  # 7


@settings(max_examples=25)
@given(scenarios, bases)
def test_random_runs_keep_the_assertions(scenario: dict, base: str) -> None:
    result = run(scenario, base=base)
    assert len(result.raw) < 1_000_000
    assertions(result)
    again = run(scenario, base=base)
    assert again.raw == result.raw and again.outcome == result.outcome


@settings(max_examples=60)
@given(scenarios, bases, bases, actions, st.booleans(), st.integers(0, 1), st.integers(0, 1))
def test_random_management_and_mixed_bases_never_raise_or_hang(scenario: dict, source_base: str, there: str,
                                                               does: list, pause: bool, p2p: int, fail: int) -> None:
    """Assertions 1, 2, 4 and 10 may break here: a stop lets a switchover pass with ACKs outstanding, a mismatch
    of schemes underflows, a failing ioctl counts as a REINIT."""
    for d in scenario["devices"]:
        d["common"] = {**d["common"], "p2p": p2p}
        d["source"] = {**d["source"], "info_fail_gap": fail}
    caps = {**CAPS, "pause-before-switchover": pause}
    machine = {"qemu": "11.1.3", "machine": "pc-q35-11.0"}
    result = run({**scenario, "source": machine, "destination": machine, "caps": caps, "actions": does},
                 source_base=source_base, destination_base=there)
    assert len(result.raw) < 1_000_000 and result.outcome.get("status") in (
        "completed", "failed", "cancelled", "active", "pre-switchover", "device", "cancelling", None)
