"""Rules over a journal: the handshake's properties, judged on what was traced, simulated or real.

The first seven are the properties of `migsim explore` under the same ids; the others are the facts sheet's section 16.
A journal tells only what its code base traces: where that is not enough the verdict is `unknown` or `n/a`, not `holds`.
"""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import NamedTuple

from .journal import Event, Journal
from .properties import ABORT, ENDS, PROPERTIES

UNDERFLOW = "Switchover ack pending num underflowed"
UINT32_MAX = (1 << 32) - 1


class Verdict(NamedTuple):
    """`verdict`: holds, violated, n/a (this code base or scheme cannot express it), vacuous (its premise was not met),
    or unknown (this journal cannot tell). `events`: indexes into the journal that show it."""

    id: str
    verdict: str
    sentence: str
    reason: str
    events: tuple[int, ...]
    meaning: str


class Query(NamedTuple):
    """One qemu_savevm_query_pending that prints ACKs: index, final, requests collected, total pending."""

    at: int
    final: bool
    collected: int
    total: int


class Evidence:
    """What the rules look at, gathered once from one migration's journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        source = [(k, e) for k, e in enumerate(journal.events) if e.side == "source"]
        quit_ = next((n for n, (_, e) in enumerate(source)
                      if e.name == "runstate_set" and e.args[-1] == "shutdown"), len(source))
        self.source = source[:quit_]  # what comes later is QEMU's own end

    def named(self, *names: str) -> list[tuple[int, Event]]:
        """The source's events of these names with their indexes."""
        return [(k, e) for k, e in self.source if e.name in names]

    @cached_property
    def status(self) -> str:
        """The source's last migration status, "" if none was traced."""
        states = self.named("migrate_set_state")
        return str(states[-1][1].args[0]) if states else ""

    @cached_property
    def status_at(self) -> tuple[int, ...]:
        """Where that status was set."""
        return tuple(k for k, _ in self.named("migrate_set_state")[-1:])

    @cached_property
    def errors(self) -> list[tuple[int, str]]:
        """Errors that the source recorded."""
        return [(k, str(e.args[0])) for k, e in self.named("migrate_error")]

    @cached_property
    def queries(self) -> list[Query]:
        """The pending queries of patch 6 and later."""
        return [Query(k, bool(e.args[1]), int(e.args[6]), int(e.args[7]))
                for k, e in self.named("qemu_savevm_query_pending") if len(e.args) >= 8]

    @cached_property
    def final_queries(self) -> list[int]:
        """Where a final query (patch 2 and later) was made."""
        return [k for k, e in self.named("qemu_savevm_query_pending") if len(e.args) >= 6 and e.args[1]]

    @cached_property
    def acks(self) -> list[tuple[int, int | None]]:
        """ACKs that the source counted; the counter after each (None before patch 6)."""
        return [(k, int(e.args[0]) if e.args else None)
                for k, e in self.named("source_return_path_thread_switchover_acked")]

    @cached_property
    def scheme(self) -> str:
        """old (a flag, before patch 6), legacy, new, or "" where no query was traced."""
        if not self.queries:
            return "old" if self.named("migrate_pending_estimate", "qemu_savevm_query_pending") else ""
        first = self.queries[0]
        early = sum(k < first.at for k, _ in self.acks)  # legacy, no device: acknowledged before the first query
        return "legacy" if first.total + early > first.collected else "new"

    @cached_property
    def stops(self) -> list[int]:
        """Where management stopped the guest while this migration was on its way."""
        started = next((k for k, e in self.named("migrate_set_state") if e.args[0] == "setup"), 0)
        return [k for k, e in self.named("runstate_set") if str(e.args[-1]) == "paused" and k > started
                and str(e.args[1]) == "running"]

    @cached_property
    def decisions(self) -> list[tuple[int, bool]]:
        """(index, guest running?) of each decision to switch over."""
        return [(k, self.runstate(k) == "running") for k, _ in self.named("migration_thread_low_pending")]

    @cached_property
    def runstates(self) -> list[tuple[int, Event]]:
        """The source's changes of run state."""
        return self.named("runstate_set")

    def runstate(self, at: int) -> str:
        """The source's run state before event `at`."""
        k = bisect_left(self.runstates, at, key=lambda change: change[0])
        if k:
            return str(self.runstates[k - 1][1].args[-1])
        return str(self.runstates[0][1].args[1]) if self.runstates else ""

    @cached_property
    def stop_copy(self) -> dict[str, int]:
        """device -> where it entered STOP_COPY."""
        return {str(e.args[0]): k for k, e in reversed(self.named("vfio_migration_set_device_state"))
                if e.args[1] == "STOP_COPY"}


Found = tuple[str, str, Iterable[int]]  # verdict, reason, events


class Rule(NamedTuple):
    """`meaning` says where in QEMU the rule is kept (patch, function) and what a violation costs."""

    sentence: str
    meaning: str
    judge: Callable[[Evidence], Found]


def vacuous(why: str) -> Found:
    """The premise was not met."""
    return "vacuous", why, ()


def completed_unstopped(e: Evidence) -> Found | None:
    """The premise "completes, never stopped by management", or what to say instead."""
    if e.status != "completed":
        return vacuous(f"the migration did not complete ({e.status or 'no status traced'})")
    return vacuous("management stopped the guest") if e.stops else None


def initial_data_loaded(e: Evidence) -> Found:
    """Every initial chunk announced before STOP_COPY is loaded by then."""
    if unmet := completed_unstopped(e):
        return unmet
    if not e.stop_copy:
        return vacuous("no VFIO device entered STOP_COPY")
    return _by_devices(e) if e.journal.devices is not None else _by_trace(e)


def _by_devices(e: Evidence) -> Found:
    """By the devices' own view; the n-th device of one side is the n-th of the other."""
    order = {side: list(dict.fromkeys([str(x.args[0]) for x in e.journal.all("vfio_migration_realize", side=side)]
                                      + [d.device for d in e.journal.devices or () if d.side == side]))
             for side in ("source", "destination")}
    late = []
    for name, k in e.stop_copy.items():
        us, here = e.journal.events[k].us, order["source"].index(name) if name in order["source"] else -1
        announced = loaded = 0
        for d in e.journal.devices or ():
            if d.side == "source" and d.device == name and d.us <= us:
                announced = int(d.size > 0) if d.what == "initial" else announced + 1
            elif d.side == "destination" and d.us <= us and order["destination"].index(d.device) == here:
                loaded += 1
        if loaded < announced:
            late.append((k, f"{name} entered STOP_COPY with {announced - loaded} of {announced} initial chunks not "
                            "loaded at the destination"))
    return ("violated", late[0][1], [k for k, _ in late]) if late else ("holds", "", e.stop_copy.values())


def _by_trace(e: Evidence) -> Found:
    """By what QEMU saw: the last REINIT, or unread initial bytes, against the approvals of the destination."""
    queries = [(k, x) for k, x in e.named("vfio_query_precopy_size") if x.get("reinit") is not None]
    v2 = {str(x.args[0]): x.args[2] for _, x in e.named("vfio_migration_init") if len(x.args) > 2}
    unsure = []
    for name, at in e.stop_copy.items():
        mine = [(k, x) for k, x in queries if str(x.args[0]) == name and k < at]
        if not mine or not v2.get(name, 1):
            unsure.append(f"{name} is not asked in the new way (no REINIT in this log)")
        elif int(mine[-1][1].args[1]) > 0:
            return "violated", f"{name} entered STOP_COPY with unread initial bytes", (mine[-1][0], at)
        else:
            asked = max((k for k, x in mine if x.get("reinit")), default=-1)
            approved = [k for k, x in enumerate(e.journal.events[:at]) if x.side == "destination" and x.args
                        and x.name.startswith("loadvm_approve_switchover") and str(x.args[0]) == name]
            if not approved or approved[-1] < asked:
                unsure.append(f"{name}: no approval of the destination between the last initial data and STOP_COPY")
    return ("unknown", unsure[0], ()) if unsure else ("holds", "", e.stop_copy.values())


def counter_never_underflows(e: Evidence) -> Found:
    """The counter of patch 6 stays at 0 or above."""
    if e.scheme in ("old", ""):
        return "n/a", "this log shows no counter: it came with patch 6", ()
    bad = [k for k, text in e.errors if text.startswith(UNDERFLOW)] + [k for k, n in e.acks if n == UINT32_MAX]
    return ("violated", "an ACK arrived that nobody had asked for", bad) if bad else ("holds", "", ())


def acks_balance(e: Evidence) -> Found:
    """At completion nothing is owed."""
    if e.scheme in ("old", ""):
        return "n/a", "this log shows no counter: it came with patch 6", ()
    if unmet := completed_unstopped(e):
        return unmet
    if e.scheme == "legacy" and not e.acks:
        return vacuous("no ACK was ever due: the capability is off")
    total = next((n for k, n in reversed(e.acks) if k > e.queries[-1].at), e.queries[-1].total)
    collected = sum(q.collected for q in e.queries)
    if total:
        return "violated", f"{total} ACKs were still due at completion", (e.queries[-1].at, *e.status_at)
    if e.scheme == "new" and collected != len(e.acks):
        return "violated", f"{collected} requests were collected, {len(e.acks)} ACKs counted", e.status_at
    return "holds", "", e.status_at


def aborts(e: Evidence) -> list[int]:
    """Where the ACK check failed a switchover."""
    return [k for k, text in e.errors if text.startswith(ABORT)]


def no_check(e: Evidence) -> Found | None:
    """Where the check of patch 7 does not exist."""
    if e.scheme in ("old", ""):
        return "n/a", "no request can be collected before patch 6", ()
    return ("n/a", "nothing is requested in the legacy scheme", ()) if e.scheme == "legacy" else None


def abort_implies_new_request(e: Evidence) -> Found:
    """The error is due to something that the final query found."""
    if found := no_check(e):
        return found
    at = aborts(e)
    if not at:
        return vacuous("the ACK check failed no switchover")
    new = [q.at for q in e.queries if q.final and q.collected]
    return ("holds", "", (*new, *at)) if new else \
        ("violated", "the switchover failed although its final query collected nothing new",
         (*(q.at for q in e.queries if q.final), *at))


def abort_implies_guest_was_running(e: Evidence) -> Found:
    """A guest that management has stopped needs no ACK."""
    if found := no_check(e):
        return found
    at = aborts(e)
    if not at:
        return vacuous("the ACK check failed no switchover")
    k, running = ([d for d in e.decisions if d[0] < at[0]] or [(0, True)])[-1]
    return ("holds", "", (k, *at)) if running else \
        ("violated", f"the guest was {e.runstate(k)} when the switchover was decided", (k, *at))


def late_request_prevents_completion(e: Evidence) -> Found:
    """What the final query collects must not be lost."""
    if found := no_check(e):
        return found
    late = [q.at for q in e.queries if q.final and q.collected]
    if not late:
        return vacuous("no final query collected a request")
    return ("violated", "the migration completed with an ACK requested at the switchover", (*late, *e.status_at)) \
        if e.status == "completed" else ("holds", "", (*late, *e.status_at))


def always_ends(e: Evidence) -> Found:
    """One journal can only show that it ended; that an end stays reachable is judged by `migsim explore`."""
    if e.status in ENDS:
        return "holds", "", e.status_at
    return "unknown", f"the journal ends with status {e.status or 'none'}", e.status_at


def no_switchover_while_ack_pending(e: Evidence) -> Found:
    """The source does not stop a running guest by its own decision while an ACK is due."""
    if e.scheme in ("old", ""):
        return "n/a", "this log shows no counter: it came with patch 6", ()
    if e.scheme == "legacy" and not e.acks:
        return vacuous("no ACK was ever due: the capability is off")
    decided = [k for k, running in e.decisions if running]
    for k in decided:
        query = [q for q in e.queries if q.at < k][-1:]
        total = next((n for a, n in reversed(e.acks) if query and query[0].at < a < k), query[0].total if query else 0)
        if total and total != UINT32_MAX:  # an underflow is another rule's business
            return "violated", f"{total} ACKs were due when the switchover was decided", (query[0].at, k)
    return ("holds", "", decided) if decided else vacuous("the source never decided to stop a running guest")


def one_final_query(e: Evidence) -> Found:
    """Each switchover asks everybody once more, with the guest stopped."""
    if e.queries == [] and not any(len(x.args) >= 6 for _, x in e.named("qemu_savevm_query_pending")):
        return "n/a", "there is no final query before patch 2", ()
    devices = [k for k, x in e.named("migrate_set_state") if x.args[0] == "device"]
    if not devices:
        return vacuous("no switchover was begun")
    early = [k for k in e.final_queries if e.runstate(k) == "running"]
    if early or len(e.final_queries) != len(devices):
        return "violated", f"{len(devices)} switchovers, {len(e.final_queries)} final queries", (*devices, *early)
    return "holds", "", e.final_queries


def no_sync_after_final_query(e: Evidence) -> Found:
    """The final query syncs RAM for the last time."""
    if not e.final_queries:
        return vacuous("no final query was traced")
    end = next((k for k, _ in e.named("migration_bitmap_sync_end") if k > e.final_queries[-1]), len(e.journal))
    syncs = [k for k, _ in e.named("migration_bitmap_sync_start") if e.final_queries[-1] < k < end]
    return ("violated", "the dirty bitmap was synced again after the final query", (e.final_queries[-1], *syncs)) \
        if syncs else ("holds", "", e.final_queries)


def guest_runs_again(e: Evidence) -> Found:
    """After a failure or a cancel the guest is as before, and so are its devices."""
    if e.status not in ("failed", "cancelled"):
        return vacuous(f"the migration did not fail ({e.status or 'no status traced'})")
    states = last_states(e)
    if e.runstate(len(e.journal)) not in ("running", ""):
        return ("holds", "", e.status_at) if e.stops else \
            ("violated", f"the guest stays {e.runstate(len(e.journal))} although nobody stopped it", e.status_at)
    bad = {name: k for name, (k, state) in states.items() if state != "RUNNING"}
    if bad:
        name = next(iter(bad))
        return "violated", f"{name} is left in {states[name][1]}", bad.values()
    return "holds", "", (*e.status_at, *(k for k, _ in states.values()))


def last_states(e: Evidence) -> dict[str, tuple[int, str]]:
    """device -> (index, state) of its last change."""
    return {str(x.args[0]): (k, str(x.args[1])) for k, x in e.named("vfio_migration_set_device_state")}


def failure_has_a_reason(e: Evidence) -> Found:
    """A failed migration says why before it says that it failed."""
    if e.status != "failed":
        return vacuous(f"the migration did not fail ({e.status or 'no status traced'})")
    first = next(k for k, x in e.named("migrate_set_state") if x.args[0] in ("failing", "failed"))
    said = [k for k, _ in e.errors if k < first]
    return ("holds", "", (*said[:1], first)) if said else \
        ("violated", "the migration failed and query-migrate has no error-desc", (first,))


RULES: dict[str, Rule] = {
    "initial-data-loaded": Rule(
        PROPERTIES["initial-data-loaded"].sentence,
        "Patches 10 and 11 (vfio_query_precopy_size requests an ACK for each REINIT), patch 12 (the check at the "
        "switchover). A chunk loaded after the stop is downtime.", initial_data_loaded),
    "counter-never-underflows": Rule(
        PROPERTIES["counter-never-underflows"].sentence,
        "Patch 6, migration_switchover_acked: an ACK too many is an error of the protocol; the return-path thread ends "
        "and no later ACK is read.", counter_never_underflows),
    "acks-balance": Rule(
        PROPERTIES["acks-balance"].sentence,
        "Patch 6, qemu_savevm_query_pending adds what devices request, the return-path thread counts down.",
        acks_balance),
    "abort-implies-new-request": Rule(
        PROPERTIES["abort-implies-new-request"].sentence,
        "Patch 7 compared the whole counter; what was merged fails only on what the final query itself collects.",
        abort_implies_new_request),
    "abort-implies-guest-was-running": Rule(
        PROPERTIES["abort-implies-guest-was-running"].sentence,
        "Patch 7, review: migration_can_switchover does not wait for an ACK once management has stopped the guest, so "
        "a failure at the switchover protects nobody.", abort_implies_guest_was_running),
    "late-request-prevents-completion": Rule(
        PROPERTIES["late-request-prevents-completion"].sentence,
        "Patches 7 and 12: the check after the final query in migration_completion_precopy.",
        late_request_prevents_completion),
    "always-ends": Rule(PROPERTIES["always-ends"].sentence,
                        "A migration that waits for an ACK that cannot come ends only by migrate_cancel.", always_ends),
    "no-switchover-while-ack-pending": Rule(
        "the source never decides to stop a running guest while an ACK is due",
        "Patch 6, migration_can_switchover after the queries of the same turn.", no_switchover_while_ack_pending),
    "one-final-query": Rule("each switchover makes one final query, with the guest stopped",
                            "Patch 2, migration_completion_precopy, after migration_switchover_start.",
                            one_final_query),
    "no-sync-after-final-query": Rule("the dirty bitmap is not synced after the final query",
                                      "Patch 2, ram_save_complete leaves the last sync to the final query.",
                                      no_sync_after_final_query),
    "guest-runs-again": Rule("after a failure or a cancel guest and devices are as before",
                             "vfio_migration_state_notifier and migration_iteration_finish.", guest_runs_again),
    "failure-has-a-reason": Rule("a failed migration records an error before it fails",
                                 "Patch 1, migration_completion: errors of the completion are propagated.",
                                 failure_has_a_reason),
}


def check(journal: Journal, *rules: str) -> list[Verdict]:
    """Judge the rules (all, or those named) over the journal of one migration. Raises KeyError for an unknown rule."""
    evidence = Evidence(journal)
    out = []
    for rule_id in rules or RULES:
        rule = RULES[rule_id]
        verdict, reason, events = rule.judge(evidence) if evidence.source else ("unknown", "no log of the source", ())
        out.append(Verdict(rule_id, verdict, rule.sentence, reason, tuple(sorted(events)), rule.meaning))
    return out
