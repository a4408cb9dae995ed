"""Every trace event in words: what it says, why QEMU comes here, in which function, and which patch of v2 brought it.

One table for the pictures, the player and the course. Source: facts sheet sections 2 to 8 and 11; the patches where a
number is given. Text from an event's arguments is data: whoever shows it escapes it.
"""
from __future__ import annotations

from typing import NamedTuple

from .events import EVENTS, format_of, lane
from .qemu.stream import MIG_CMD, MIG_RP_MSG


class Explanation(NamedTuple):
    """`what`: the event as a sentence; `why`: the cause or the effect; `function`: QEMU's; `patch`: of v2, or 0."""

    what: str
    why: str
    function: str
    patch: int


# name: (function, what, why, patch); {field} is an argument by QEMU's name
_T: dict[str, tuple[str, str, str, int]] = {}


def _t(name: str, function: str, what: str, why: str = "", patch: int = 0) -> None:
    for one in name.split():
        _T[one] = (function or one, what, why, patch)


# --- status, errors, start ---
_t("migrate_set_state", "", "the migration's status is now {state}",
   "query-migrate shows it; every change is announced to management")
_t("migrate_error", "migrate_error_propagate", "error recorded: {error}",
   "the first error of an attempt is kept for query-migrate's error-desc")
_t("migration_socket_outgoing_connected", "socket_outgoing_migration", "connected to the destination")
_t("migration_socket_incoming_accepted", "socket_accept_incoming_migration", "the source's connection is accepted")
_t("migration_set_outgoing_channel", "migration_channel_connect_outgoing", "the stream goes out by {ioctype}")
_t("migration_set_incoming_channel", "migration_channel_process_incoming", "the stream comes in by {ioctype}")
_t("migration_call_notifiers", "migration_call_notifiers", "notifiers are called, type {type}",
   "devices hear of setup, of the end and of failure this way")
_t("vfio_migration_state_notifier", "", "{name} hears of type {state}",
   "after a failure or a cancel the device goes back to RUNNING")
_t("open_return_path_on_source open_return_path_on_source_continue", "open_return_path_on_source",
   "the return path is opened", "answers of the destination come in by a thread of their own")
_t("migration_thread_setup_complete", "migration_thread", "setup is done: the loop begins",
   "all handlers have put their START sections on the stream")
_t("savevm_state_header", "qemu_savevm_state_header", "header and configuration go out")
_t("savevm_state_setup", "qemu_savevm_state_setup", "every handler's save_setup is called",
   "RAM starts dirty logging; VFIO devices go to PRE_COPY")
_t("savevm_send_open_return_path", "qemu_savevm_send_open_return_path", "command OPEN_RETURN_PATH is sent",
   "the destination can answer only after it")
_t("savevm_send_ping", "qemu_savevm_send_ping", "command PING {value} is sent", "the destination answers with PONG")
_t("savevm_send_switchover_start", "qemu_savevm_send_switchover_start", "command SWITCHOVER_START is sent",
   "from here on the stream holds what is saved with the guest stopped")
_t("savevm_command_send", "qemu_savevm_command_send", "command {command} goes on the stream, {len} bytes of data")
# --- the loop ---
_t("qemu_savevm_query_pending", "qemu_savevm_query_pending", "pending is queried: total {total} bytes",
   "the loop compares the total with what fits into downtime-limit")
_t("migrate_pending_estimate", "migration_iteration_run", "estimated pending {size} bytes",
   "below the threshold an exact query follows")
_t("migrate_pending_exact", "migration_iteration_run", "exact pending {size} bytes",
   "if it fits into downtime-limit and no ACK is awaited, the guest may be stopped")
_t("vfio_state_pending vfio_state_pending_estimate vfio_state_pending_exact", "vfio_state_pending",
   "{name} reports what it still has to send", "initial, dirty and stop-copy bytes add up to the total")
_t("vfio_query_precopy_size", "", "{name}: initial {init_size}, dirty {dirty_size} bytes, REINIT {reinit}",
   "exact queries ask the kernel: only here a REINIT is noticed", 11)
_t("vfio_query_stop_copy_size", "", "{name}: {size} bytes if it were stopped now",
   "the estimate decides whether the device fits into downtime-limit")
_t("vfio_query_precopy_size_request_switchover_ack", "vfio_query_precopy_size",
   "{name} has new initial data (REINIT): it asks for one more ACK",
   "the marker was sent before: what was acknowledged no longer covers all initial data. While the guest is being "
   "stopped it is too late: patch 7 lets the attempt fail", 11)
_t("savevm_state_iterate", "qemu_savevm_state_iterate", "a loop turn: handlers send what they have",
   "RAM first, then the devices, until the window's budget is used up")
_t("savevm_section_start", "save_section_header", "section {section_id} of {id} begins")
_t("savevm_section_end", "qemu_savevm_state_iterate", "section {section_id} of {id} ends", "1: nothing more for now")
_t("migrate_transferred", "migration_update_counters", "bandwidth {bandwidth} bytes/ms over {time_spent} ms",
   "bandwidth x downtime-limit is the threshold for the switchover: {size} bytes")
_t("migration_rate_limit_pre", "migration_rate_limit", "the window's budget is used up: sleep up to {ms} ms",
   "max-bandwidth counts per window of 100 ms")
_t("migration_rate_limit_post", "migration_rate_limit", "a new window begins")
_t("migration_bitmap_sync_start", "migration_bitmap_sync", "the dirty bitmap is fetched",
   "an exact query wants to know which pages were written")
_t("migration_bitmap_sync_end", "migration_bitmap_sync", "dirty pages this period: {dirty_pages}")
_t("ram_save_iterate_big_wait", "ram_save_iterate", "RAM sent for {ms} ms", "it gives way after 50 ms")
_t("migration_thread_low_pending", "migration_iteration_run", "decision to switch over: {pending} bytes are left",
   "they fit into downtime-limit and no ACK is awaited")
# --- VFIO, source ---
_t("vfio_save_setup", "", "{name} is set up: its START section goes out",
   "a device with pre-copy is in PRE_COPY now; in the new scheme it asks for its first ACK", 10)
_t("vfio_save_iterate_start", "vfio_save_iterate", "{name} sends pre-copy data for the first time")
_t("vfio_save_block", "vfio_save_block", "{name}: {data_size} bytes of device data go out")
_t("vfio_save_block_precopy_empty_hit", "vfio_save_block", "{name} has nothing more to read for now (ENOMSG)")
_t("vfio_save_iterate", "", "{name}: {precopy_init_size} initial, {precopy_dirty_size} dirty bytes are left")
_t("vfio_send_init_data_flag", "", "{name}: the marker INIT_DATA_SENT goes out",
   "all initial data are on the stream; when the destination has loaded up to here it approves", 8)
_t("vfio_save_complete_precopy_start", "vfio_save_complete_precopy", "{name}: stop-copy data begin",
   "the guest is stopped: these bytes cost downtime")
_t("vfio_save_complete_precopy", "", "{name}: stop-copy data are sent, ret {ret}",
   "the next device follows, one after the other on the one stream")
_t("vfio_save_device_config_state", "", "{name}: configuration space goes out",
   "with the other devices' state, when RAM and device data are sent")
_t("vfio_save_cleanup", "", "{name} is cleaned up", "after success the device goes to STOP only now")
_t("vfio_migration_init", "", "{name} can migrate: flags {mig_flags:#x}, REINIT understood: {precopy_info_v2_used}",
   "the opt-in is made once, at realize", 11)
_t("vfio_migration_realize", "", "{name} is realized for migration")
_t("vfio_migration_set_state", "", "{name} is asked for {new_state}, if that fails for {recover_state}")
_t("vfio_migration_set_device_state", "", "{name} is now {state}", "the kernel has made the transition")
_t("vfio_vmstate_change_prepare", "", "{name}: prepared for the guest to {verb}: {dev_state}",
   "all devices stop starting DMA among each other first; with patch 12 REINIT is looked for once more")
_t("vfio_vmstate_change", "", "{name}: follows the guest: {dev_state}",
   "every device was prepared first; now each goes to the state that fits (reason: {reason})")
# --- switchover ---
_t("vmstate_downtime_checkpoint", "", "downtime checkpoint {checkpoint}", "a mark for measuring, nothing happens")
_t("runstate_set", "runstate_set", "run state {current_name} becomes {new_name}")
_t("vm_state_notify", "vm_state_notify", "the guest {verb}: {reason_str}", "every device hears of it, in order")
_t("migration_completion_vm_stop", "migration_completion_precopy", "the guest is stopped for the switchover, ret {ret}",
   "what is sent from here on costs downtime")
_t("migration_precopy_complete", "migration_completion_precopy", "no way back: handlers complete their state",
   "disks are inactive, the rate limit is off: the rest goes as fast as it can", 2)
_t("migration_block_activation", "migration_block_activate", "disks: {name}",
   "only one side may hold the disk images")
_t("ram_save_complete", "", "RAM's last pages go out: dirty {dirty}, done {done}")
_t("migrate_global_state_pre_save", "global_state_pre_save", "the run state is saved: {state}")
_t("migrate_global_state_post_load", "global_state_post_load", "the run state is loaded: {state}")
_t("vmstate_save", "", "device state of {idstr} is saved")
_t("vmstate_load", "", "device state of {idstr} is loaded")
_t("vmstate_downtime_save", "vmstate_save", "{idstr}: {downtime} us of downtime to save")
_t("vmstate_downtime_load", "vmstate_load", "{idstr}: {downtime} us of downtime to load")
_t("migration_return_path_end_before", "close_return_path_on_source", "waits for the return-path thread",
   "on success it ends with the destination's SHUT")
_t("migration_return_path_end_after", "close_return_path_on_source", "the return-path thread has ended")
_t("migration_thread_after_loop", "migration_thread", "the loop is left")
_t("migration_cleanup", "", "the attempt is cleaned up")
_t("savevm_state_cleanup", "qemu_savevm_state_cleanup", "every handler's save_cleanup is called")
_t("migration_cancel", "", "migrate_cancel, or QEMU is told to quit", "both sockets are shut down")
# --- return path ---
_t("source_return_path_thread_entry", "source_return_path_thread", "the return-path thread starts")
_t("source_return_path_thread_loop_top", "source_return_path_thread", "waits for the next message")
_t("source_return_path_thread_pong", "source_return_path_thread", "PONG {val} has come",
   "the destination has read the stream up to the PING of this number")
_t("source_return_path_thread_shut", "source_return_path_thread", "SHUT {val} has come",
   "the destination is done; anything but 0 is an error there")
_t("source_return_path_thread_switchover_acked", "source_return_path_thread",
   "SWITCHOVER_ACK has come: {pending_num} awaited", "the counter is taken down by one", 6)
_t("source_return_path_thread_bad_end", "source_return_path_thread", "the thread ends with an error",
   "it does not stop the loop; the attempt fails when the return path is closed")
_t("source_return_path_thread_end", "source_return_path_thread", "the return-path thread ends")
_t("source_return_path_thread_postcopy_package_loaded", "source_return_path_thread", "PONG 4: the package is loaded")
# --- destination ---
_t("loadvm_state_setup", "qemu_loadvm_state_setup", "every handler's load_setup is called",
   "VFIO devices go to RESUMING; in the legacy scheme they count themselves here")
_t("loadvm_process_command", "", "command {s} is carried out", "it came on the stream, behind all earlier data")
_t("loadvm_process_command_ping", "loadvm_process_command", "PING {val}: PONG is sent back")
_t("migrate_send_rp_message", "migrate_send_rp_message", "{msg} is sent back to the source",
   "by the return path, as soon as the destination has got here in the stream")
_t("loadvm_state_switchover_ack_needed", "qemu_loadvm_state_switchover_ack_needed",
   "{switchover_ack_pending_num} devices must approve", "the destination counts; one ACK goes out at the end")
_t("migration_request_switchover_ack", "", "{requester} asks for an ACK: {switchover_ack_pending_num} pending", "", 4)
_t("migration_request_switchover_ack_legacy", "",
   "{requester} must approve: {switchover_ack_pending_num_legacy} pending", "legacy: the destination counts", 5)
_t("loadvm_approve_switchover", "qemu_loadvm_approve_switchover", "{approver} approves: its initial data are loaded",
   "new scheme: one ACK per approval goes back to the source", 3)
_t("loadvm_approve_switchover_legacy", "qemu_loadvm_approve_switchover_legacy",
   "{approver} approves: {switchover_ack_pending_num_legacy} still to come",
   "legacy: only the last approval sends the one ACK", 5)
_t("qemu_loadvm_state_section", "qemu_loadvm_state_main", "a section of type {section_type} comes in")
_t("qemu_loadvm_state_section_command", "qemu_loadvm_state_main", "the command is done, ret {ret}")
_t("qemu_loadvm_state_section_startfull", "qemu_loadvm_section_start_full", "{idstr} is loaded, section {section_id}")
_t("qemu_loadvm_state_section_partend", "qemu_loadvm_section_part_end", "more of section {section_id} is loaded")
_t("qemu_loadvm_state_post_main", "qemu_loadvm_state", "the stream has been read, ret {ret}")
_t("ram_load_start", "ram_load_precopy", "pages are loaded")
_t("ram_load_complete", "ram_load", "pages are loaded, ret {ret}")
_t("vfio_load_state", "", "{name}: {tag}", "the tag says what follows in the device's section")
_t("vfio_load_state_device_data", "vfio_load_buffer", "{name}: {size} bytes are loaded",
   "the device works while QEMU waits in write()")
_t("vfio_load_device_config_state_start", "vfio_load_device_config_state", "{name}: configuration space is loaded",
   "it comes last, behind all device data")
_t("vfio_load_device_config_state_end", "vfio_load_device_config_state", "{name}: configuration space is done",
   "the device has all its state")
_t("vfio_load_cleanup", "", "{name} is cleaned up on the destination",
   "the attempt is over there")
_t("process_incoming_migration_co_end", "process_incoming_migration_co", "loading ends, ret {ret}",
   "0: the guest is started next; otherwise it stays on the source")
_t("loadvm_state_cleanup", "qemu_loadvm_state_cleanup", "every handler's load_cleanup is called")
# --- postcopy and the rest ---
_t("postcopy_start postcopy_start_set_run", "postcopy_start", "switchover to postcopy",
   "the guest goes to the destination, pages follow on demand")
_t("savevm_send_postcopy_listen savevm_send_postcopy_run qemu_savevm_send_packaged qemu_savevm_send_postcopy_advise "
   "qemu_savevm_send_postcopy_ram_discard", "", "a postcopy command is sent")
_t("loadvm_postcopy_handle_advise loadvm_postcopy_handle_listen loadvm_postcopy_handle_run "
   "loadvm_postcopy_ram_handle_discard loadvm_postcopy_ram_handle_discard_end "
   "loadvm_postcopy_ram_handle_discard_header", "", "a postcopy command is carried out")
_t("loadvm_handle_cmd_packaged loadvm_handle_cmd_packaged_received loadvm_handle_cmd_packaged_main",
   "loadvm_handle_cmd_packaged", "the package of device state is loaded")
_t("migration_completion_postcopy_end migration_completion_postcopy_end_after_complete",
   "migration_completion_postcopy", "postcopy ends: all pages are sent")
_t("process_incoming_migration_co_postcopy_end_main", "process_incoming_migration_co", "the main part ends in postcopy")
_t("postcopy_discard_send_range postcopy_discard_send_finish", "", "pages to drop on the destination")
_t("postcopy_init_range postcopy_cleanup_range postcopy_ram_enable_notify", "", "postcopy prepares or releases RAM")
_t("postcopy_ram_listen_thread_start postcopy_ram_listen_thread_exit", "postcopy_listen_thread", "the listen thread")
_t("postcopy_preempt_enabled", "", "postcopy-preempt: {value}")
for _name in EVENTS:
    if _name.startswith(("postcopy_ram_fault", "postcopy_ram_incoming")):
        _t(_name, "", "postcopy looks after missing pages")
    elif _name.startswith("iommufd_"):
        _t(_name, "", "the device is attached to the host's IOMMU")
_t("dirtyrate_set_state dirtyrate_calculate", "", "calc-dirty-rate: not part of the migration")
_t("dirty_bitmap_state_pending", "", "block dirty bitmaps: {pending} bytes pending")

CHECKPOINTS = {
    "src-downtime-start": ("the downtime begins: the guest will be stopped", "the source has decided to switch over"),
    "src-vm-stopped": ("the guest is stopped on the source", "vCPUs and devices stand still"),
    "src-iterable-saved": ("RAM and VFIO data are sent", "their last bytes, with the guest stopped"),
    "src-non-iterable-saved": ("the other devices' state is sent", "then the stream ends"),
    "src-downtime-end": ("the source takes the downtime's end", "it does so after SHUT; the guest runs already"),
    "dst-precopy-loadvm-completed": ("the destination has loaded the stream", "the guest can be started now"),
    "dst-precopy-bh-enter": ("the start on the destination begins", "a bottom half of the main loop"),
    "dst-precopy-bh-announced": ("the network is told of the new place", "self-announcement"),
    "dst-precopy-bh-vm-started": ("the guest runs on the destination", "the downtime is over"),
}
TAGS = {1: "END_OF_STATE", 2: "configuration state", 3: "setup state", 4: "device data", 5: "marker INIT_DATA_SENT",
        6: "configuration may be loaded"}
COMMANDS = {number: name for name, number in MIG_CMD.items()}
#: switchover-ack's counter when an ACK too many was taken off it (uint32)
UNDERFLOW = 0xFFFFFFFF


#: the functions that set a status (facts sheet 2.1, 2.5 to 2.7, 3)
_STATUS = {
    "source": {"setup": "migrate_init", "active": "migration_thread", "pre-switchover": "migration_switchover_prepare",
               "device": "migration_switchover_prepare", "completed": "migration_completion_end",
               "failing": "migration_completion", "failed": "migration_cleanup", "cancelling": "migration_cancel",
               "cancelled": "migration_cleanup", "postcopy-device": "postcopy_start",
               "postcopy-active": "migration_thread"},
    "destination": {"setup": "qmp_migrate_incoming", "active": "process_incoming_migration_co",
                    "completed": "process_incoming_migration_bh", "failed": "process_incoming_migration_co"}}
_CHECKPOINT = {
    "src-downtime-start": "migration_stop_vm", "src-vm-stopped": "migration_stop_vm",
    "src-iterable-saved": "qemu_savevm_state_complete_precopy",
    "src-non-iterable-saved": "qemu_savevm_state_complete_precopy", "src-downtime-end": "migration_completion_end",
    "dst-precopy-loadvm-completed": "process_incoming_migration_co"}


class _Fields(dict):
    def __missing__(self, key: str) -> str:
        return "?"


def _fields(name: str, args: tuple) -> _Fields:
    out = _Fields(zip(format_of(name, args).fields, args, strict=False))
    if "running" in out:
        out["verb"] = "run" if out["running"] else "stop"
    if name == "vm_state_notify":
        out["verb"] = "runs" if out["running"] else "stops"
    elif name == "migrate_send_rp_message":
        out["msg"] = MIG_RP_MSG.get(out["msg_type"], f"message {out['msg_type']}")
    elif name == "savevm_command_send":
        out["command"] = COMMANDS.get(out["command"], out["command"])
    elif name == "vfio_load_state":
        data = out["data"]
        out["tag"] = TAGS.get(data & 0xFF, hex(data)) if isinstance(data, int) else data
    return out


def _special(name: str, f: _Fields) -> tuple[str, str] | None:
    """Events whose arguments decide what they mean."""
    if name == "vmstate_downtime_checkpoint":
        return CHECKPOINTS.get(str(f["checkpoint"]))
    if name == "qemu_savevm_query_pending" and f.get("final"):
        got = f.get("switchover_ack_pending", 0)
        return (f"the final query, guest stopped: total {f['total']} bytes, {got} ACKs newly asked for",
                "with patch 7 a late request fails the attempt: this data was never acknowledged" if got
                else "nothing new was asked for: the switchover goes on")
    if name == "qemu_savevm_query_pending" and f.get("switchover_ack_pending"):
        return (f"pending is queried: {f['switchover_ack_pending']} ACKs newly asked for, "
                f"{f['total_switchover_ack_pending']} awaited now", "the guest is not stopped before they have come")
    if name == "source_return_path_thread_switchover_acked":
        if "pending_num" not in f:
            return "SWITCHOVER_ACK has come", "one-shot scheme: the guest may be stopped from now on"
        if f["pending_num"] == UNDERFLOW:
            return "SWITCHOVER_ACK has come, but none was awaited", "the counter underflows: a mismatch of schemes"
    if name == "loadvm_approve_switchover" and "switchover_ack_pending_num" in f:
        return (f"{f.get('approver', 'a device')} approves: {f['switchover_ack_pending_num']} still to come",
                "only the last approval sends the one ACK")
    return None


_PATCH_OF_FINAL = {"qemu_savevm_query_pending": (2, 6)}


def explain(name: str, args: tuple = (), side: str = "source") -> Explanation:
    """An event in words. An event that is not listed is explained by its name and its text alone."""
    function, what, why, patch = _T.get(name, (name, "{text}" if args else name.replace("_", " "), "", 0))
    fields = _fields(name, args)
    if name == "migrate_set_state" and args:
        function = _STATUS[side].get(args[0], function)
    elif name == "vmstate_downtime_checkpoint" and args:
        function = _CHECKPOINT.get(args[0], "process_incoming_migration_bh" if side == "destination" else function)
    if "text" in fields and name in _T:
        return Explanation(str(fields["text"]), why, function, patch)
    try:
        what, why = _special(name, fields) or (what.format_map(fields), why.format_map(fields))
    except (ValueError, TypeError):  # text where a number belongs
        what, why = " ".join(map(str, args)), ""
    if name in _PATCH_OF_FINAL and (fields.get("final") or fields.get("switchover_ack_pending")):
        patch = _PATCH_OF_FINAL[name][0 if fields.get("final") else 1]
    return Explanation(what, why, function, patch)


def words_of(name: str) -> tuple[str, str]:
    """What a listed event says, and why; arguments stand as {QEMU's name for it}."""
    return _T[name][1], _T[name][2]


def function_of(name: str) -> str:
    """The QEMU function that writes the event (the present function of its thread)."""
    return _T.get(name, (name, "", "", 0))[0]


def thread_of(name: str, side: str, phase: str) -> str:
    """The thread that writes the event. `phase`: `main` or `migration`, which of the source's two goes on when the name
    does not decide it (status, run state, device states): the migration thread from its header to its cleanup."""
    return lane(name, side) or (phase if side == "source" else "main")
