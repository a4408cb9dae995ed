"""The exhaustive driver: verdicts, pinned state counts, soundness of the reduction, mutations, recorded races."""
from __future__ import annotations

from pathlib import Path

import pytest

from migsim.checks import check
from migsim.compare import load_recording, until_end
from migsim.explore import Explorer, Limits, explore, variant
from migsim.ladder import CodeBase
from migsim.properties import ENDS, PROPERTIES
from migsim.qemu import migration, savevm, switchover_ack, vfio
from migsim.replay import ReplayError, from_string, replay, to_string, words
from migsim.space import Space

DATA = Path(__file__).parent.parent / "data"
VARIANTS = {"old": ("old", None), "legacy": ("merged", "legacy"), "p6": ("p6", "new"), "p10": ("p10", "new"),
            "p11": ("p11", "new"), "v2": ("v2", None), "merged": ("merged", None), "p7-diff": ("p7-diff", None)}


def verdicts(name: str, limits: Limits, **more: object) -> dict[str, str]:
    result = explore(variant(*VARIANTS[name]), limits, **more)
    assert result.complete
    return {f.id: f.verdict for f in result.properties}


# --- verdicts and counts ---

@pytest.mark.parametrize("name, limits, states", [
    ("old", Limits(1, 1), 1349), ("legacy", Limits(1, 1), 1848), ("merged", Limits(1, 0), 322),
    ("merged", Limits(1, 1), 2316), ("merged", Limits(1, 1, "stop"), 52079), ("v2", Limits(1, 1, "stop"), 46284),
    ("merged", Limits(2, 1), 23828), ("merged", Limits(2, 0, "stop"), 71367)])
def test_state_counts_are_pinned(name: str, limits: Limits, states: int) -> None:
    assert explore(variant(*VARIANTS[name]), limits).states == states


#: property -> variants that break it, with one device, one REINIT and without management
BROKEN = {"initial-data-loaded": {"old", "legacy", "p6", "p10", "p11"}, "counter-never-underflows": {"p6"},
          "always-ends": {"p6"}}
#: ... and those broken only when management may stop the guest
BROKEN_BY_STOP = {"counter-never-underflows": {"v2", "merged", "p7-diff"},
                  "abort-implies-new-request": {"p10", "p11", "v2"},
                  "abort-implies-guest-was-running": {"p10", "p11", "v2", "merged", "p7-diff"},
                  "late-request-prevents-completion": {"v2", "p7-diff"}}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("management", ["none", "stop"])
def test_verdict_matrix(name: str, management: str) -> None:
    got = verdicts(name, Limits(1, 1, management))
    expected = {p for p, names in BROKEN.items() if name in names}
    if management == "stop":
        expected |= {p for p, names in BROKEN_BY_STOP.items() if name in names}
    assert {p for p, v in got.items() if v == "violated"} == expected


def test_not_applicable_and_vacuous_are_not_called_holds() -> None:
    old = explore(variant("old"), Limits(1, 1))
    assert {f.id for f in old.properties if f.verdict == "n/a"} == {
        "counter-never-underflows", "acks-balance", "abort-implies-new-request", "abort-implies-guest-was-running",
        "late-request-prevents-completion"}
    assert all(f.reason for f in old.properties if f.verdict == "n/a")
    assert verdicts("merged", Limits(1, 0))["late-request-prevents-completion"] == "vacuous"


def test_incomplete_search_never_says_holds() -> None:
    result = explore(variant("merged"), Limits(2, 1, "stop"), max_states=2000)
    assert not result.complete and result.states <= 2000
    assert "holds" not in {f.verdict for f in result.properties}


def test_late_event_and_no_p2p_break_what_the_check_cannot_see() -> None:
    assert verdicts("merged", Limits(1, 1, late_event=True))["initial-data-loaded"] == "violated"
    assert verdicts("merged", Limits(1, 1, p2p=False))["initial-data-loaded"] == "violated"
    assert verdicts("merged", Limits(1, 0, ioctl_failure=True))["initial-data-loaded"] == "holds"


def test_stop_and_cont_leave_a_request_that_nobody_answers() -> None:
    """After stop and cont the device is out of PRE_COPY: no marker can follow (measured facts 1, number 11)."""
    assert verdicts("merged", Limits(1, 0, "stop-cont"))["always-ends"] == "violated"


def test_schemes_that_differ() -> None:
    """Facts sheet 8.3: source legacy, destination new, two devices: the second ACK underflows."""
    which = variant("merged", source_scheme="legacy", destination_scheme="new")
    got = {f.id: f.verdict for f in explore(which, Limits(2, 0)).properties}
    assert got["counter-never-underflows"] == "violated" and got["initial-data-loaded"] == "violated"
    which = variant("merged", source_scheme="new", destination_scheme="legacy")
    assert {f.id: f.verdict for f in explore(which, Limits(2, 0)).properties}["always-ends"] == "violated"


# --- soundness of the reduction ---

@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("limits", [Limits(1, 1), Limits(1, 1, late_event=True), Limits(1, 1, p2p=False),
                                    Limits(1, 1, ioctl_failure=True)], ids=str)
def test_reduction_changes_no_verdict(name: str, limits: Limits) -> None:
    assert verdicts(name, limits) == verdicts(name, limits, reduce=False)


@pytest.mark.parametrize("name", ["old", "p10"])
def test_reduction_changes_no_verdict_with_management(name: str) -> None:
    limits = Limits(1, 0, "stop")
    assert verdicts(name, limits) == verdicts(name, limits, reduce=False)


def test_look_ups_agree_with_the_model() -> None:
    """Every vector reached by look-ups is what the model itself reaches, along a long path."""
    explorer = Explorer(variant("merged"), Limits(2, 1, "stop", cancel=True, ioctl_failure=True))
    space = Space(explorer)
    vector, world = space.first, explorer.start()
    for turn in range(400):
        changes = space.changes(vector)
        if not changes or world.src.state in ENDS:
            break
        change, vector = changes[(turn * 7) % len(changes)]
        world = explorer.apply(world, change.label)
        assert world is not None and tuple(space._all(world)) == vector
    assert turn > 20


# --- counterexamples ---

@pytest.mark.parametrize("name, limits, broken", [
    ("old", Limits(1, 1), "initial-data-loaded"), ("p6", Limits(1, 0), "counter-never-underflows"),
    ("v2", Limits(1, 0, "stop"), "abort-implies-new-request"),
    ("v2", Limits(1, 1, "stop"), "late-request-prevents-completion"),
    ("merged", Limits(1, 1, "stop"), "abort-implies-guest-was-running"),
    ("merged", Limits(1, 1, "stop"), "counter-never-underflows"),
    ("p7-diff", Limits(1, 1, "stop"), "late-request-prevents-completion")])
def test_counterexamples_replay_and_break_the_rule(name: str, limits: Limits, broken: str) -> None:
    which = variant(*VARIANTS[name])
    finding = next(f for f in explore(which, limits).properties if f.id == broken)
    text = to_string(which, limits, finding.path)
    assert from_string(text) == (which._replace(name=which.source.name), limits, finding.path)
    explorer = Explorer(which, limits)
    world = explorer.start()
    for label in finding.path:
        world = explorer.apply(world, label)
        assert world is not None
    rule = PROPERTIES[broken]
    assert rule.premise(world, world.env) and not rule.holds(world, world.env)
    journal, steps = replay(*from_string(text))
    assert len(steps) == len(finding.path) and journal.first("migrate_set_state", "source") and words(steps)
    [verdict] = check(journal, broken)
    assert verdict.verdict == "violated", verdict


@pytest.mark.parametrize("text", ["", "merged", "merged~n1r1~Z", "nonsenseNN~n1r1~M", "mergedNN~n1r1~M.S",
                                  "mergedNN~n1r1~M*99999999.M"])
def test_bad_replay_strings_are_one_line(text: str) -> None:
    with pytest.raises(ReplayError) as error:
        replay(*from_string(text))
    assert "\n" not in str(error.value)


# --- mutations: each must turn a verdict ---

def test_without_the_check_of_patch_12(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdicts("merged", Limits(1, 1))["initial-data-loaded"] == "holds"
    monkeypatch.setattr(CodeBase, "reinit_check_at_stop", property(lambda self: False))
    assert verdicts("merged", Limits(1, 1))["initial-data-loaded"] == "violated"


def test_with_can_switchover_before_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    def decide_first(w: object) -> int:
        w.then(*switchover_ack.CAN_SWITCHOVER, (savevm.qemu_savevm_query_pending, False, False),
               (query_then_decide,))
        return 0

    def query_then_decide(w: object) -> int:
        steps = ((savevm.qemu_savevm_query_pending, True, False),) if w.acct.within_threshold(w) else ()
        w.then(*steps, (migration.iteration_decide, False))
        return 0

    monkeypatch.setattr(migration, "migration_iteration_run", decide_first)
    assert verdicts("merged", Limits(1, 1))["initial-data-loaded"] == "violated"


def test_without_the_reset_of_initial_data_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdicts("merged", Limits(1, 1))["always-ends"] == "holds"
    monkeypatch.setattr(vfio, "clear_initial_data_sent", lambda w, i: 0)
    assert verdicts("merged", Limits(1, 1))["always-ends"] == "violated"


# --- recorded races are among the explored behaviours ---

HANDSHAKE = {"migrate_set_state", "vfio_query_precopy_size_request_switchover_ack", "vfio_send_init_data_flag",
             "loadvm_approve_switchover", "source_return_path_thread_switchover_acked",
             "vfio_migration_set_device_state"}


def project(side: str, name: str, args: tuple) -> tuple | None:
    if name == "qemu_savevm_query_pending":
        return (side, "final", args[6], args[7]) if args[1] else None
    return (side, name, *args) if name in HANDSHAKE else None


def recorded_handshake(folder: str, side: str) -> list[tuple]:
    out, active = [], False
    for _, name, args in until_end(load_recording(DATA / "recordings" / folder).events[side], None):
        key = project(side, name, args)
        if active and key:
            out.append(key)
            if side == "source" and name == "migrate_set_state" and args[0] in ENDS:
                break
        active = active or (name, args) == ("migrate_set_state", ("active",))
    return [k for k in out if k[1:] != ("vfio_migration_set_device_state", "vfio0", "RESUMING")]


@pytest.mark.parametrize("folder, limits", [
    ("d-reinit-in-gap", Limits(1, 1)), ("p-no-p2p-reinit-in-gap", Limits(1, 0, p2p=False)),
    ("y2-reinit-while-ack-in-flight", Limits(1, 1)), ("i6-stop-with-reinit-at-stop-tcp", Limits(1, 1, "stop"))])
def test_recorded_races_are_explored(folder: str, limits: Limits) -> None:
    """A path exists whose events, per side, are the recorded handshake up to the source's end."""
    there = {side: recorded_handshake(folder, side) for side in ("source", "destination")}
    assert len(there["source"]) >= 6
    space = Space(Explorer(variant("merged"), limits), record=True)
    start = (space.first, 0, 0)
    stack, seen = [start], {start}
    while stack:
        vector, i, j = stack.pop()
        if i == len(there["source"]):
            return
        for change, new in space.changes(vector):
            a, b, fits = i, j, True
            for side, name, args in change.events:
                key = project(side, name, args)
                if key is None:
                    continue
                at = a if side == "source" else b
                fits = fits and at < len(there[side]) and there[side][at] == key
                a, b = (a + 1, b) if side == "source" else (a, b + 1)
            node = (new, a, b)
            if fits and node not in seen:
                seen.add(node)
                stack.append(node)
    pytest.fail(f"no path has the handshake of {folder}: {len(seen)} nodes")
