"""Each file of data/scenarios: what its `shows` claims is what a run gives. Numbers: rows of facts sheet 14.

A line of SEEN: status of each attempt; error-desc; every query that collects a request or is the final one, as
kind:collected/total; the source's counter after each ACK; markers sent; run states at the end.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from migsim import Run, load_scenario, run

SCENARIOS = Path(__file__).parent.parent / "data" / "scenarios"
NAMES = sorted(p.stem for p in SCENARIOS.glob("*.yaml"))
LATE = "Switchover ACK was requested by 1 devices during switchover"
UNDERFLOW = "Switchover ack pending num underflowed"
EIO = "Input/output error"
UNDER = 0xFFFFFFFF
MOVED, BACK = ("postmigrate", "running"), ("running", None)

SEEN: dict[str, tuple] = {
    "absurd-size-at-final-check": ("failed", LATE, "fast:1/1 final:1/1", [0], 1, BACK),  # 19
    "ack-never-comes-by-scheme-mismatch": ("active", "", "", [], 0, ("running", "inmigrate")),  # 35
    "acks-without-return-path": ("completed", "", "final:0/0", [], 0, MOVED),  # 8.3
    "both-guests-run-by-scheme-mismatch": ("failed", UNDERFLOW, "final:0/0", [0, UNDER], 2, ("running", "running")),
    "cancel-in-pre-switchover": ("cancelled", f"Channel error: {EIO}", "fast:1/1", [0], 1, BACK),  # 32
    "cancel-with-ack-outstanding": ("cancelled completed", "", "fast:1/1 fast:1/1 final:0/0", [0], 2, MOVED),  # 29
    "capability-at-destination-only-legacy": (
        "failed", UNDERFLOW, f"final:0/{UNDER}", [UNDER], 0, ("running", "running")),  # 36
    "capability-at-source-only": ("failed", "Sibling indicated error 1", "fast:1/1", [], 1, BACK),  # 36
    "capability-at-source-only-legacy-no-device": ("active", "", "", [], 0, ("running", "inmigrate")),  # 36
    "capability-off": ("completed", "", "final:0/0", [], 0, MOVED),  # 59
    "cover-letter": ("completed", "", "fast:4/4 exact:1/2 exact:1/1 final:0/0", [3, 2, 1, 1, 0, 0], 6, MOVED),  # 15.2
    "cpr-reboot": ("completed", "", "final:0/0", [], 0, MOVED),  # 54
    "destination-dies-while-ack-is-due": ("failed", f"Channel error: {EIO}", "fast:1/1", [], 1, BACK),  # 57
    "destination-load-fails": ("failed", "Sibling indicated error 1", "fast:1/1 final:0/0", [0], 1, BACK),  # 58
    "destination-setup-fails": ("failed", f"Channel error: {EIO}", "fast:1/1", [], 0, BACK),  # section 3 #4
    "destination-start-fails": ("completed", "", "fast:1/1 final:0/0", [0], 1, MOVED),  # 7.6
    "feature-12-fails": ("None", "", "", [], 0, (None, "inmigrate")),  # 41
    "first-migration": ("completed", "", "fast:1/1 exact:1/1 final:0/0", [0, 0], 2, MOVED),  # 5
    "info-ioctl-fails-at-final-check": ("failed", LATE, "fast:1/1 final:1/1", [0], 1, BACK),  # 18
    "info-ioctl-fails-at-setup": ("failed", LATE, "fast:1/1 final:1/1", [0], 1, BACK),  # 21, 18
    "legacy-one-device-late": ("completed", "", "final:0/0", [0], 2, MOVED),  # 37
    "machine-11.0-on-11.1": ("completed", "", "final:0/0", [0], 1, MOVED),  # 15.2 tests, 38
    "machine-types-differ": ("failed", f"Channel error: {EIO}", "fast:1/1", [], 0, BACK),  # 8.2
    "no-device-legacy-ack": ("completed", "", "final:0/0", [0], 0, MOVED),  # 2
    "no-initial-data": ("completed", "", "fast:1/1 final:0/0", [0], 1, MOVED),  # 42
    "no-precopy-support": ("completed", "", "final:0/0", [], 0, MOVED),  # 15.2 tests
    "no-reinit-support": ("completed", "", "fast:1/1 final:0/0", [0], 1, MOVED),  # 15.2 tests, 40
    "one-ack-for-two-by-scheme-mismatch": ("active", "", "fast:2/2", [1], 2, ("running", "inmigrate")),  # 35
    "pause-before-switchover-gap": ("failed", LATE, "fast:1/1 final:1/1", [0], 1, BACK),  # 31
    "paused-before-migrate": ("completed", "", "final:0/0", [], 0, ("postmigrate", "paused")),  # 28
    "postcopy-refused": ("None", "", "", [], 0, ("running", "inmigrate")),  # 49
    "postcopy-without-device": ("completed", "", "final:0/0", [], 0, MOVED),  # 50
    "precopy-beside-none": ("completed", "", "fast:1/1 final:0/0", [0], 1, MOVED),  # 39
    "qemu-11.0-to-11.1": ("completed", "", "", [None], 0, MOVED),  # 15.2 tests
    "qemu-11.1-to-11.0": ("completed", "", "final:0/0", [0], 1, MOVED),  # 15.2 tests
    "ram-starves-device": ("active", "", "fast:1/1 exact:1/1", [0], 1, ("running", "inmigrate")),  # 44
    "reinit-before-marker": ("completed", "", "fast:1/1 final:0/0", [0], 1, MOVED),  # 3
    "reinit-in-gap": ("failed", LATE, "fast:1/1 final:1/1", [0], 1, BACK),  # 12
    "reinit-in-gap-legacy": ("completed", "", "final:0/0", [0], 1, MOVED),  # 15
    "reinit-in-gap-without-infov2": ("completed", "", "fast:1/1 final:0/0", [0], 1, MOVED),  # 14
    "reinit-in-gap-without-p2p": ("completed", "", "fast:1/1 final:0/0", [0], 1, MOVED),  # 13
    "reinit-storm": ("completed", "", "fast:1/1 exact:1/2 exact:1/2 exact:1/3 exact:1/3 exact:1/3 final:0/0",
                     [1, 2, 2, 2, 1, 0], 6, MOVED),  # 60
    "reinit-while-ack-in-flight": ("completed", "", "fast:1/1 exact:1/2 final:0/0", [1, 0], 2, MOVED),  # 4
    "retry-after-failed-check": ("failed completed", "", "fast:1/1 final:1/1 fast:1/1 final:0/0", [0, 0], 2,
                                 MOVED),  # 30
    "second-marker-refused-by-scheme-mismatch": (
        "failed", "Sibling indicated error 1", "fast:1/1 exact:1/1", [0], 2, BACK),  # 35
    "source-p2p-fails-at-stop": (
        "failed", "Failed to save iterable device state: nic0: Failed setting device state to PRE_COPY_P2P.: " + EIO,
        "fast:1/1 final:0/0", [0], 1, BACK),  # 56
    "source-setup-fails": ("failed", f"nic0: Failed setting device state to PRE_COPY.: {EIO}", "", [], 0, BACK),  # 2.1
    "stop-while-ack-pending": ("completed", "", "fast:1/1 final:0/1", [0], 1, ("postmigrate", "paused")),  # 23
    "stop-with-reinit-at-stop": ("failed", LATE, "fast:1/1 final:1/2", [], 1, ("paused", "inmigrate")),  # 25, 26
    "stopcopy-above-threshold": ("completed", "", "fast:1/1 final:0/0", [0], 1, MOVED),  # 48b
    "stopcopy-size-unknown": ("completed", "", "fast:1/1 final:0/0", [0], 1, MOVED),  # 22
    "surplus-ack-by-scheme-mismatch": ("active", UNDERFLOW, "", [UNDER], 0, ("running", "inmigrate")),  # 33
    "suspended-guest": ("completed", "", "fast:1/1 final:0/1", [0], 1, ("postmigrate", "suspended")),  # 27
    "two-devices-reinit-in-one-query": ("completed", "", "fast:2/2 exact:2/2 final:0/0", [1, 0, 1, 0], 4, MOVED),  # 7
    "two-devices-two-acks": ("completed", "", "fast:2/2 final:0/0", [1, 0], 2, MOVED),  # 1
    "two-devices-without-p2p": ("None", "", "", [], 0, (None, None)),  # 7.2
    "waiting-starves-the-estimate": ("active", "", "fast:1/1", [0], 1, ("running", "inmigrate")),  # measured 1, 12
}


@cache
def done(name: str, **changes: str) -> Run:
    return run(load_scenario(SCENARIOS / f"{name}.yaml"), **changes)


def source(result: Run, *names: str) -> list:
    return result.journal.all(*names, side="source")


def seen(result: Run) -> tuple:
    queries = [e for e in source(result, "qemu_savevm_query_pending") if len(e.args) == 8]
    asked = [("final" if e.get("final") else "exact" if e.get("exact") else "fast", *e.args[-2:]) for e in queries
             if e.get("final") or e.args[-2]]
    acks = [e.args[0] if e.args else None for e in source(result, "source_return_path_thread_switchover_acked")]
    return (" ".join(str(outcome.get("status")) for _, outcome in result.attempts),
            result.outcome.get("error-desc", ""), " ".join(f"{kind}:{new}/{total}" for kind, new, total in asked),
            acks, len(source(result, "vfio_send_init_data_flag")), tuple(result.run_state.values()))


def test_each_has_its_line() -> None:
    assert sorted(SEEN) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_it_shows(name: str) -> None:
    scenario = load_scenario(SCENARIOS / f"{name}.yaml")
    assert scenario.name == name and scenario.shows.endswith(".")
    assert seen(done(name)) == SEEN[name]


# --- what a line of SEEN cannot say ---

def times(result: Run, name: str, side: str = "source") -> list[int]:
    return [e.us for e in result.journal.all(name, side=side)]


def says(result: Run, text: str) -> bool:
    return any(text in said for _, said in result.world.acct.messages)


def exact_queries_after(result: Run, us: int) -> int:
    return sum(e.us > us and e.get("exact") and not e.get("final") for e in source(result, "qemu_savevm_query_pending"))


def asked_in_gap(result: Run) -> bool:
    """A device was asked for its precopy info between the decision and the disks' hand-over."""
    first, last = times(result, "migration_thread_low_pending")[0], times(result, "migration_precopy_complete")[0]
    return any(first < us < last for us in times(result, "vfio_query_precopy_size"))


def load_in_downtime(result: Run) -> bool:
    """The device of first-migration, without its second ACK."""
    return result.outcome["downtime"] > done("first-migration").outcome["downtime"] + 80


CLAIMS: dict[str, Callable[[Run], bool]] = {
    "acks-without-return-path": lambda r: "requires capability 'return-path'" in r.refused,
    "cancel-in-pre-switchover": lambda r: not r.journal.first("migration_precopy_complete"),
    "capability-at-source-only": lambda r: says(r, "Received INIT_DATA_SENT but switchover ack is not used"),
    "capability-off": lambda r: r.outcome["downtime"] > 300,
    "destination-dies-while-ack-is-due": lambda r: not r.journal.all("migrate_error", side="destination"),
    "destination-load-fails": lambda r: -5 in [e.args[-1] for e in r.journal.all("vfio_load_state_device_data")],
    "destination-setup-fails": lambda r: says(r, "Load state of device 0000:00:04.0/vfio failed: nic0: Failed setting"),
    "destination-start-fails": lambda r: says(r, "Failed setting device state to RUNNING"),
    "feature-12-fails": lambda r: "failed to set precopy info v2" in r.refused,
    "info-ioctl-fails-at-setup": lambda r: (
        times(r, "vfio_send_init_data_flag")[0] - times(r, "vfio_save_block")[0] < 1000),
    "legacy-one-device-late": lambda r: (times(r, "source_return_path_thread_switchover_acked")[0]
                                         > times(r, "loadvm_approve_switchover_legacy", "destination")[1]),
    "machine-types-differ": lambda r: says(r, "Machine type received is 'pc-q35-11.1'"),
    "machine-11.0-on-11.1": load_in_downtime,
    "no-device-legacy-ack": lambda r: not source(r, "vfio_migration_realize"),
    "no-initial-data": lambda r: times(r, "vfio_send_init_data_flag")[0] < times(r, "vfio_save_block")[0],
    "no-reinit-support": load_in_downtime,
    "pause-before-switchover-gap": lambda r: (
        times(r, "migrate_error")[0] - times(r, "migration_completion_vm_stop")[0] > 700_000),
    "postcopy-refused": lambda r: "not supported with postcopy" in r.refused,
    "postcopy-without-device": lambda r: "postcopy-active" in [e.args[0] for e in source(r, "migrate_set_state")],
    "qemu-11.0-to-11.1": load_in_downtime,
    "ram-starves-device": lambda r: r.timed_out,
    "reinit-before-marker": lambda r: (
        next(e.us for e in source(r, "vfio_query_precopy_size") if e.get("reinit"))
        < times(r, "vfio_send_init_data_flag")[0]),
    "reinit-in-gap-legacy": lambda r: not asked_in_gap(r),
    "reinit-in-gap-without-infov2": lambda r: not asked_in_gap(r),
    "reinit-in-gap-without-p2p": lambda r: not asked_in_gap(r),
    "stopcopy-above-threshold": lambda r: (r.outcome["total-time"] > 1000
                                           and exact_queries_after(r, 2_300_000) > 100),
    "stopcopy-size-unknown": lambda r: (
        {e.args[1:] for e in source(r, "vfio_query_stop_copy_size")} == {(100 << 30, -5)}
        and r.outcome["total-time"] > 1000
        and sum("VFIO_DEVICE_FEATURE_MIG_DATA_SIZE failed (-5)" in text for _, text in r.world.acct.messages) == 1),
    "suspended-guest": lambda r: asked_in_gap(r),
    "two-devices-without-p2p": lambda r: "all of them support P2P" in r.refused,
    "waiting-starves-the-estimate": lambda r: source(r, "migrate_transferred")[-1].get("size") < 4 << 20,
}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_rest_of_what_it_shows(name: str) -> None:
    assert CLAIMS[name](done(name))


@pytest.mark.parametrize("name", ["stop-while-ack-pending", "suspended-guest"])
def test_v2_fails_without_need(name: str) -> None:
    """Review of patch 7: v2 looks at the global counter (9.14 #1-3)."""
    assert seen(done(name, base="v2"))[:3] == ("failed", LATE, "fast:1/1 final:0/1")


def test_starvation_ends_in_the_legacy_scheme() -> None:
    """Measured facts 2, B (k1, k2)."""
    scenario = load_scenario(SCENARIOS / "ram-starves-device.yaml")
    legacy = {f"{end}.machine": "pc-q35-11.0" for end in ("source", "destination")}
    assert run(scenario.replace(**legacy)).outcome["status"] == "completed"


# --- the cover letter's numbers (facts sheet 15.2) ---

def share(result: Run, device: str) -> float:
    """ms of the downtime in which the destination loads this device's data."""
    begin = times(result, "migration_completion_vm_stop")[0]
    names = ("vfio_load_state", "vfio_load_state_device_data")
    events = [e for e in result.journal.all(*names, side="destination") if e.args[0] == device]
    return sum(max(0, then.us - max(began.us, begin)) for began, then in pairwise(events)
               if then.name == names[1]) / 1000


@pytest.mark.parametrize("v2, total, busy", [(1, 1335, 520), (0, 2352, 1600)])
def test_the_cover_letters_numbers(v2: int, total: int, busy: int) -> None:
    result = run(load_scenario(SCENARIOS / "cover-letter.yaml").with_value("devices.0.common.v2", v2))
    assert result.outcome["downtime"] == pytest.approx(total, rel=0.05)
    assert share(result, "busy") == pytest.approx(busy, rel=0.05)
