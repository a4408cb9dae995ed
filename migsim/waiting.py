"""Why a migration does not end: what its switchover waits for at the end of a run (measured facts 2, A to E)."""
from __future__ import annotations

from .run import Run


def pending_at_end(done: Run) -> int | None:
    """Bytes that the source's last exact query found; None without one."""
    for _, _, name, args in reversed(done.raw):
        if name == "qemu_savevm_query_pending" and args[0]:
            return args[5]
        if name == "migrate_pending_exact":
            return args[0]
    return None


def why_not_ended(done: Run) -> str:
    """One sentence, without numbers, so that equal reasons can be counted."""
    w = done.world
    if w.src.state != "active":
        return f"still {w.src.state} at the time-out"
    waits = bool(w.src.switchover_ack_pending_num) if w.scfg.code.ack_reusable else not w.src.switchover_acked
    if w.scfg.ack and waits and w.src.runstate == "running":
        return _ack_missing(done)
    pending = pending_at_end(done)
    if pending is None:
        return "what is pending never fell to the threshold"
    if sum(d.stopcopy_size for d in w.sdev) > w.acct.threshold:
        return _stop_copy(done)
    if pending > w.acct.threshold:
        return "data gets dirty as fast as it is sent"
    return "it was about to switch over"


def _ack_missing(done: Run) -> str:
    w = done.world
    if any(d.precopy_init_size and not d.initial_data_sent for d in w.sdev):
        window = w.acct.params["max-bandwidth"] / 10
        behind_ram = window and (pending_at_end(done) or 0) - sum(d.stopcopy_size for d in w.sdev) > window
        return ("an ACK is awaited for initial data that is never sent: RAM uses up the rate limit of each window"
                if behind_ram else "an ACK is awaited: new initial data is not sent yet")
    if any(d.initial_data_sent for d in w.sdev):
        return "an ACK is awaited: the initial data is sent, its approval has not come back"
    return "an ACK is awaited that nobody will send"


def _stop_copy(done: Run) -> str:
    """Too much for the link in the given time, or only for what was measured (measured facts 2, E)."""
    w = done.world
    params = w.acct.params
    limit, size = params["max-bandwidth"] or float("inf"), sum(d.stopcopy_size for d in w.sdev)
    if params["avail-switchover-bandwidth"] or limit / 1000 * params["downtime-limit"] < size:
        return "the devices' stop-copy data is more than bandwidth x downtime-limit"
    return ("the devices' stop-copy data is more than the threshold: bandwidth is measured while only what gets dirty "
            "is sent")
