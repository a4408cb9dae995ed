"""switchover-ack, both schemes side by side (facts sheet section 8; patches 3-7).

legacy: the destination counts its devices once, in load setup, and sends one ACK when the count is back at 0.
new: the source counts; devices request through save_query_pending, the destination answers each INIT_DATA_SENT.
"""
from __future__ import annotations

from .state import World
from .stream import MIG_RP_MSG_SWITCHOVER_ACK, RPMessage

UINT32_MAX = 0xFFFFFFFF


# --- source ---

def init(w: World) -> None:
    """migrate_init(): the flag (before p6), or the counter: 1 in legacy, 0 in new, whatever the capability says."""
    s = w.src
    s.switchover_acked = False
    s.switchover_ack_pending_num = 1 if w.scfg.code.ack_reusable and w.scfg.legacy else 0


def migration_can_switchover(w: World) -> int:
    """migration_can_switchover(): capability, then the run state; the counter is read after it (2.3)."""
    s = w.src
    s.can_switchover = True
    s.decided_running = s.runstate == "running"
    if w.scfg.ack and s.decided_running:
        w.then((can_switchover_counter,))
    return 0


def can_switchover_counter(w: World) -> int:
    """... and the flag (before p6) or qatomic_read() of the counter."""
    s = w.src
    s.can_switchover = s.switchover_ack_pending_num == 0 if w.scfg.code.ack_reusable else s.switchover_acked
    return 0


CAN_SWITCHOVER = ((migration_can_switchover,),)


def add_requests(w: World) -> int:
    """The qatomic_add of qemu_savevm_query_pending() (p6). Returns the new total."""
    s = w.src
    if w.scfg.new_ack and s.pending_ack:
        s.switchover_ack_pending_num = (s.switchover_ack_pending_num + s.pending_ack) & UINT32_MAX
        s.collected += s.pending_ack
    return s.switchover_ack_pending_num


def late_request(w: World, before: int) -> str:
    """p7: the error of a switchover that was decided while a device now wants another ACK, or "".

    v2 looks at the global counter; 11.1 at what this (final) query collected; the first diff posted in the review
    compares the counter with its value `before` the query.
    """
    code, s = w.scfg.code, w.src
    if not code.late_request_fails or not w.scfg.new_ack:
        return ""
    if code.late_request_compares:
        number = max(0, s.switchover_ack_pending_num - before)
    else:
        number = s.pending_ack if code.late_request_counts_query else s.switchover_ack_pending_num
    return f"Switchover ACK was requested by {number} devices during switchover" if number else ""


def source_switchover_acked(w: World) -> int:
    """MIG_RP_MSG_SWITCHOVER_ACK in source_return_path_thread(); looks neither at capability nor scheme (4)."""
    s = w.src
    s.acks += 1
    if not w.scfg.code.ack_reusable:
        s.switchover_acked = True
        w.source("source_return_path_thread_switchover_acked")
        return w.cost.step
    s.switchover_ack_pending_num = (s.switchover_ack_pending_num - 1) & UINT32_MAX
    w.source("source_return_path_thread_switchover_acked", s.switchover_ack_pending_num)
    if s.switchover_ack_pending_num == UINT32_MAX:
        s.rp_error = True
    return w.cost.step


# --- destination ---

def loadvm_state_switchover_ack_needed(w: World) -> None:
    """Before p4: one pass over the handlers after load setup."""
    if w.dcfg.code.ack_requested_by_call or not w.dcfg.ack:
        return
    w.dst.switchover_ack_pending_num_legacy = sum(1 for d in w.ddev if d.mig_flags & 4)
    w.destination("loadvm_state_switchover_ack_needed", w.dst.switchover_ack_pending_num_legacy)


def migration_request_switchover_ack(w: World, requester: str) -> None:
    """p4 migration_request_switchover_ack(), p5 migration_request_switchover_ack_legacy(): a device counts itself in
    its load setup."""
    code, d = w.dcfg.code, w.dst
    if not code.ack_requested_by_call or not w.dcfg.ack or not w.dcfg.legacy:
        return
    d.switchover_ack_pending_num_legacy += 1
    name = "migration_request_switchover_ack" + ("_legacy" if code.ack_renamed_legacy else "")
    w.destination(name, requester, d.switchover_ack_pending_num_legacy)


def loadvm_switchover_ack_no_users(w: World) -> None:
    """Legacy at OPEN_RETURN_PATH: nobody will ever approve, so send the one ACK now."""
    if w.dcfg.ack and w.dcfg.legacy and not w.dst.switchover_ack_pending_num_legacy:
        migrate_send_rp_message(w, MIG_RP_MSG_SWITCHOVER_ACK, 0)


def qemu_loadvm_approve_switchover(w: World, approver: str) -> int:
    """qemu_loadvm_approve_switchover(): 0, -22 (nobody left to approve, legacy) or -5 (return path gone)."""
    code, d = w.dcfg.code, w.dst
    if code.ack_reusable and not w.dcfg.ack:
        return 0
    if not w.dcfg.legacy:
        w.destination("loadvm_approve_switchover", approver)
        return migrate_send_rp_message(w, MIG_RP_MSG_SWITCHOVER_ACK, 0)
    if not d.switchover_ack_pending_num_legacy:
        return -22
    d.switchover_ack_pending_num_legacy -= 1
    left = d.switchover_ack_pending_num_legacy
    args = (approver, left) if code.approver_named else (left,)
    w.destination("loadvm_approve_switchover" + ("_legacy" if code.ack_renamed_legacy else ""), *args)
    return 0 if left else migrate_send_rp_message(w, MIG_RP_MSG_SWITCHOVER_ACK, 0)


def migrate_send_rp_message(w: World, message_type: int, length: int, value: int = 0) -> int:
    """migrate_send_rp_message(): 0, or -5 (EIO) when the source has shut the return path."""
    w.destination("migrate_send_rp_message", message_type, length)
    if not w.back.open:
        return 0 if w.back.reset else -5  # recordings i6-* (TCP) and n-* (unix)
    w.back.messages.append((w.now + w.cost.network, 0, RPMessage(message_type, value)))
    w.acct.returned(RPMessage(message_type, value))
    w.signal("back")
    return 0
