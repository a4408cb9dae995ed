"""QEMU's trace events: formats and argument names, in every form that the ladder's code bases print them.

Source: facts sheet section 11; the trace-events hunks of patches 2-6, 8 and 10-12; the recordings' logs, every event of
which is listed. An event that is not listed keeps its argument text as it is.
"""
from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple


class Format(NamedTuple):
    """One form of an event: %-template of the argument text, and QEMU's names for the arguments. Pointers are %s."""

    template: str
    fields: tuple[str, ...]


def _f(template: str, fields: str = "") -> Format:
    return Format(template, tuple(fields.split()))


_NAME = _f(" (%s)", "name")
_EMPTY = _f("")
_PENDING = "exact=%d, "
_SIZES = "precopy=%d, stopcopy=%d, postcopy=%d, total=%d"
_ACKS = ", collected switchover ack pending=%d, total switchover ack pending=%d"
_VFIO = " (%s) stopcopy size %d precopy initial size %d precopy dirty size %d"
_VFIO_COMMA = " (%s) stopcopy size %d, precopy initial size %d, precopy dirty size %d"

#: event -> its forms; the number of arguments tells them apart (loadvm_approve_switchover also by their type)
EVENTS: dict[str, tuple[Format, ...]] = {
    "migrate_set_state": (_f("new state %s", "state"),),
    "migrate_error": (_f("error=%s", "error"),),
    "migration_set_outgoing_channel": (
        _f("ioc=%s ioctype=%s", "ioc ioctype"),
        _f("ioc=%s ioctype=%s hostname=%s err=%s", "ioc ioctype hostname err")),
    "migration_set_incoming_channel": (_f("ioc=%s ioctype=%s", "ioc ioctype"),),
    "migration_socket_outgoing_connected": (_EMPTY, _f("hostname=%s", "hostname")),
    "savevm_command_send": (_f("com=0x%x len=%d", "command len"),),
    "savevm_send_ping": (_f("0x%x", "value"),),
    "savevm_section_start": (_f("%s, section_id %d", "id section_id"),),
    "savevm_section_end": (_f("%s, section_id %d -> %d", "id section_id ret"),),
    "migrate_pending_estimate": (_f("estimate pending size %d (pre = %d post=%d)", "size pre post"),),
    "migrate_pending_exact": (_f("exact pending size %d (pre = %d post=%d)", "size pre post"),),
    "qemu_savevm_query_pending": (
        _f(_PENDING + _SIZES, "exact precopy stopcopy postcopy total"),
        _f(_PENDING + "final=%d, " + _SIZES, "exact final precopy stopcopy postcopy total"),
        _f(_PENDING + "final=%d, " + _SIZES + _ACKS,
           "exact final precopy stopcopy postcopy total switchover_ack_pending total_switchover_ack_pending")),
    "migrate_transferred": (_f("transferred %d time_spent %d bandwidth %d switchover_bw %d max_size %d",
                               "transferred time_spent bandwidth avail_bw size"),),
    "migration_rate_limit_pre": (_f("%d ms", "ms"),),
    "migration_rate_limit_post": (_f("urgent: %d", "urgent"),),
    "migration_thread_low_pending": (_f("%d", "pending"),),
    "migration_completion_vm_stop": (_f("ret %d", "ret"),),
    "migration_block_activation": (_f("%s", "name"),),
    "vmstate_downtime_checkpoint": (_f("%s", "checkpoint"),),
    "vmstate_downtime_save": (_f("type=%s idstr=%s instance_id=%d downtime=%d", "type idstr instance_id downtime"),),
    **{name: (_f("%s, %s", "idstr vmsd_name"),) for name in ("vmstate_save", "vmstate_load")},
    "vmstate_downtime_load": (_f("type=%s idstr=%s instance_id=%d downtime=%d", "type idstr instance_id downtime"),),
    "migration_call_notifiers": (_f("type=%d", "type"),),
    "source_return_path_thread_pong": (_f("0x%x", "val"),),
    "source_return_path_thread_shut": (_f("0x%x", "val"),),
    "source_return_path_thread_switchover_acked": (_EMPTY, _f("switchover_ack_pending_num %d", "pending_num")),
    "migrate_send_rp_message": (_f("%d: len %d", "msg_type len"),),
    "migrate_global_state_pre_save": (_f("saved state: %s", "state"),),
    "migrate_global_state_post_load": (_f("loaded state: %s", "state"),),
    "loadvm_state_switchover_ack_needed": (_f("Switchover ack pending num=%d", "switchover_ack_pending_num"),),
    "migration_request_switchover_ack": (
        _f("Requester %s, switchover_ack_pending_num %d", "requester switchover_ack_pending_num"),),
    "migration_request_switchover_ack_legacy": (
        _f("Requester %s, switchover_ack_pending_num_legacy %d", "requester switchover_ack_pending_num_legacy"),),
    "loadvm_approve_switchover": (
        _f("Switchover ack pending num=%d", "switchover_ack_pending_num"), _f("Approver %s", "approver"),
        _f("Approver %s, switchover_ack_pending_num %d", "approver switchover_ack_pending_num")),
    "loadvm_approve_switchover_legacy": (
        _f("Approver %s, switchover_ack_pending_num_legacy %d", "approver switchover_ack_pending_num_legacy"),),
    "loadvm_process_command": (_f("com=%s len=%d", "s len"),),
    "loadvm_process_command_ping": (_f("0x%x", "val"),),
    "loadvm_handle_cmd_packaged": (_f("%d", "length"),),
    "loadvm_handle_cmd_packaged_received": (_f("%d", "ret"),),
    "loadvm_handle_cmd_packaged_main": (_f("%d", "ret"),),
    "loadvm_postcopy_handle_listen": (_f("%s", "str"),),
    "loadvm_postcopy_ram_handle_discard_header": (_f("%s: %d", "ramid len"),),
    "qemu_loadvm_state_section": (_f("%d", "section_type"),),
    "qemu_loadvm_state_section_command": (_f("%d", "ret"),),
    "qemu_loadvm_state_section_startfull": (_f("%d(%s) %d %d", "section_id idstr instance_id version_id"),),
    "qemu_loadvm_state_section_partend": (_f("%d", "section_id"),),
    "qemu_loadvm_state_post_main": (_f("%d", "ret"),),
    "process_incoming_migration_co_end": (_f("ret=%d", "ret"), _f("ret=%d postcopy-state=%d", "ret ps")),
    "migration_bitmap_sync_end": (_f("dirty_pages %d", "dirty_pages"),),
    "ram_save_iterate_big_wait": (_f("big wait: %d milliseconds, %d iterations", "ms iterations"),),
    "ram_save_complete": (_f("dirty=%d, done=%d", "dirty done"),),
    "ram_load_complete": (_f("exit_code %d seq iteration %d", "ret seq_iter"),),
    "dirtyrate_set_state": (_f("new state %s", "new_state"),),
    "dirtyrate_calculate": (_f("dirty rate: %d MB/s", "dirtyrate"),),
    "qemu_savevm_send_postcopy_ram_discard": (_f("%s: %d", "id len"),),
    **{name: (_f("%s: %s offset=0x%x length=0x%x", "ramblock host_addr offset length"),)
       for name in ("postcopy_init_range", "postcopy_cleanup_range")},
    "postcopy_discard_send_range": (_f("%s:%x/%x", "ramblock start length"),),
    "postcopy_discard_send_finish": (_f("%s mask words sent=%d in %d commands", "ramblock nwords ncmds"),),
    "postcopy_preempt_enabled": (_f("%d", "value"),),
    "postcopy_ram_fault_thread_fds_core": (_f("ufd: %d quitfd: %d", "baseufd quitfd"),),
    "postcopy_ram_incoming_cleanup_blocktime": (_f("total blocktime %d", "total"),),
    "dirty_bitmap_state_pending": (_f("pending %d", "pending"),),
    "runstate_set": (_f("current_run_state %d (%s) new_state %d (%s)",
                        "current current_name new new_name"),),
    "vm_state_notify": (_f("running %d reason %d (%s)", "running reason reason_str"),),
    "iommufd_cdev_connect_and_bind": (
        _f(" [iommufd=%d] Successfully bound device %s (fd=%d): output devid=%d", "iommufd name devfd devid"),),
    "iommufd_cdev_alloc_ioas": (_f(" [iommufd=%d] new IOMMUFD container with ioasid=%d", "iommufd ioas_id"),),
    "iommufd_cdev_attach_ioas_hwpt": (
        _f(" [iommufd=%d] Successfully attached device %s (%d) to id=%d", "iommufd name devfd id"),),
    "iommufd_cdev_pasid_attach_ioas_hwpt": (
        _f(" [iommufd=%d] Successfully attached device %s (%d) pasid %d to id=%d", "iommufd name devfd pasid id"),),
    "iommufd_cdev_device_info": (
        _f(" %s (%d) num_irqs=%d num_regions=%d flags=%d", "name devfd num_irqs num_regions flags"),),
    "vfio_migration_init": (_f(" (%s) mig_flags 0x%x, precopy_info_v2_used %d, dirty_pages_supported %d",
                               "name mig_flags precopy_info_v2_used dirty_pages_supported"),),
    "vfio_migration_set_state": (_f(" (%s) new state %s, recover state %s", "name new_state recover_state"),),
    "vfio_migration_set_device_state": (_f(" (%s) state %s", "name state"),),
    "vfio_migration_state_notifier": (_f(" (%s) state %d", "name state"),),
    "vfio_save_setup": (_f(" (%s) data buffer size %d", "name data_buffer_size"),),
    "vfio_query_stop_copy_size": (_f(" (%s) stopcopy size %d ret %d", "name size ret"),),
    "vfio_query_precopy_size": (
        _f(" (%s) init %d dirty %d ret %d", "name init_size dirty_size ret"),
        _f(" (%s) init %d, dirty %d, reinit %d, ret %d", "name init_size dirty_size reinit ret")),
    "vfio_state_pending_estimate": (
        _f(" (%s) precopy %d postcopy %d precopy initial size %d precopy dirty size %d",
           "name precopy postcopy precopy_init_size precopy_dirty_size"),),
    "vfio_state_pending_exact": (
        _f(" (%s) precopy %d postcopy %d stopcopy size %d precopy initial size %d precopy dirty size %d",
           "name precopy postcopy stopcopy_size precopy_init_size precopy_dirty_size"),),
    "vfio_state_pending": (
        _f(_VFIO + " exact %d", "name stopcopy_size precopy_init_size precopy_dirty_size exact"),
        _f(_VFIO_COMMA + ", request switchover ack %d, exact %d",
           "name stopcopy_size precopy_init_size precopy_dirty_size request_switchover_ack exact"),
        _f(_VFIO_COMMA + ", request switchover ack %d, exact %d, final %d",
           "name stopcopy_size precopy_init_size precopy_dirty_size request_switchover_ack exact final")),
    "vfio_save_block": (_f(" (%s) data_size %d", "name data_size"),),
    "vfio_save_iterate": (_f(" (%s) precopy initial size %d precopy dirty size %d",
                             "name precopy_init_size precopy_dirty_size"),),
    "vfio_save_complete_precopy": (_f(" (%s) ret %d", "name ret"),),
    "vfio_load_state": (_f(" (%s) data 0x%x", "name data"),),
    "vfio_load_state_device_data": (_f(" (%s) size %d ret %d", "name size ret"),),
    **{name: (_f(" (%s) running %d reason %s device state %s", "name running reason dev_state"),)
       for name in ("vfio_vmstate_change_prepare", "vfio_vmstate_change")},
    **{name: (_NAME,) for name in (
        "vfio_migration_realize", "vfio_query_precopy_size_request_switchover_ack", "vfio_save_iterate_start",
        "vfio_save_block_precopy_empty_hit", "vfio_send_init_data_flag", "vfio_save_complete_precopy_start",
        "vfio_save_device_config_state", "vfio_save_cleanup", "vfio_load_device_config_state_start",
        "vfio_load_device_config_state_end", "vfio_load_cleanup")},
    **{name: (_EMPTY,) for name in (
        "migration_thread_setup_complete", "savevm_state_header", "savevm_state_setup", "savevm_state_iterate",
        "savevm_state_cleanup", "savevm_send_open_return_path", "savevm_send_switchover_start",
        "migration_precopy_complete", "migration_return_path_end_before", "migration_return_path_end_after",
        "migration_thread_after_loop", "migration_cleanup", "migration_cancel", "source_return_path_thread_entry",
        "source_return_path_thread_loop_top", "source_return_path_thread_end", "source_return_path_thread_bad_end",
        "loadvm_state_setup", "loadvm_state_cleanup", "migration_bitmap_sync_start", "postcopy_start",
        "postcopy_start_set_run", "migration_socket_incoming_accepted", "ram_load_start",
        "open_return_path_on_source", "open_return_path_on_source_continue", "qemu_savevm_send_postcopy_advise",
        "savevm_send_postcopy_listen", "savevm_send_postcopy_run", "qemu_savevm_send_packaged",
        "migration_completion_postcopy_end", "migration_completion_postcopy_end_after_complete",
        "source_return_path_thread_postcopy_package_loaded", "loadvm_postcopy_handle_advise",
        "loadvm_postcopy_handle_run", "loadvm_postcopy_ram_handle_discard", "loadvm_postcopy_ram_handle_discard_end",
        "process_incoming_migration_co_postcopy_end_main", "postcopy_ram_enable_notify",
        "postcopy_ram_listen_thread_start", "postcopy_ram_listen_thread_exit", "postcopy_ram_fault_thread_entry",
        "postcopy_ram_fault_thread_quit", "postcopy_ram_fault_thread_exit", "postcopy_ram_incoming_cleanup_entry",
        "postcopy_ram_incoming_cleanup_join", "postcopy_ram_incoming_cleanup_closeuf",
        "postcopy_ram_incoming_cleanup_exit")},
}

#: the thread that writes an event, where its name decides that (facts sheet 2, 3); side -> thread -> events
_THREADS = {
    "source": {
        "migration":
            "migrate_pending_estimate migrate_pending_exact migrate_transferred migration_bitmap_sync_end "
            "migration_bitmap_sync_start migration_completion_postcopy_end "
            "migration_completion_postcopy_end_after_complete migration_completion_vm_stop "
            "migration_precopy_complete migration_rate_limit_post migration_rate_limit_pre "
            "migration_thread_after_loop migration_thread_low_pending migration_thread_setup_complete "
            "migrate_global_state_pre_save postcopy_discard_send_finish postcopy_discard_send_range postcopy_start "
            "postcopy_start_set_run qemu_savevm_query_pending qemu_savevm_send_packaged "
            "qemu_savevm_send_postcopy_advise qemu_savevm_send_postcopy_ram_discard ram_save_complete "
            "ram_save_iterate_big_wait savevm_command_send savevm_section_end savevm_section_start "
            "savevm_send_open_return_path savevm_send_ping savevm_send_postcopy_listen savevm_send_postcopy_run "
            "savevm_send_switchover_start savevm_state_header savevm_state_iterate savevm_state_setup "
            "vfio_query_stop_copy_size vfio_save_block vfio_save_block_precopy_empty_hit vfio_save_complete_precopy "
            "vfio_save_complete_precopy_start vfio_save_device_config_state vfio_save_iterate "
            "vfio_save_iterate_start vfio_save_setup vfio_send_init_data_flag vfio_state_pending "
            "vfio_state_pending_estimate vfio_state_pending_exact vmstate_downtime_checkpoint vmstate_downtime_save "
            "vmstate_save",
        "main":
            "migration_cancel migration_cleanup migration_set_outgoing_channel migration_socket_outgoing_connected "
            "open_return_path_on_source open_return_path_on_source_continue savevm_state_cleanup "
            "vfio_migration_init vfio_migration_realize vfio_save_cleanup",
    },
    "destination": {
        "main":
            "loadvm_approve_switchover loadvm_approve_switchover_legacy loadvm_handle_cmd_packaged "
            "loadvm_handle_cmd_packaged_main loadvm_handle_cmd_packaged_received loadvm_postcopy_handle_advise "
            "loadvm_postcopy_handle_listen loadvm_postcopy_handle_run loadvm_postcopy_ram_handle_discard "
            "loadvm_postcopy_ram_handle_discard_end loadvm_postcopy_ram_handle_discard_header "
            "loadvm_process_command loadvm_process_command_ping loadvm_state_setup "
            "loadvm_state_switchover_ack_needed migrate_global_state_post_load migration_request_switchover_ack "
            "migration_request_switchover_ack_legacy migration_set_incoming_channel "
            "migration_socket_incoming_accepted process_incoming_migration_co_end "
            "process_incoming_migration_co_postcopy_end_main qemu_loadvm_state_section_command "
            "qemu_loadvm_state_section_startfull vfio_load_cleanup vfio_load_device_config_state_end "
            "vfio_load_device_config_state_start vfio_load_state vfio_load_state_device_data vfio_migration_init "
            "vfio_migration_realize vmstate_downtime_checkpoint vmstate_downtime_load vmstate_load",
        "listen": "postcopy_ram_listen_thread_exit postcopy_ram_listen_thread_start",
    },
}
_LANES = {(side, name): thread for side, threads in _THREADS.items() for thread, names in threads.items()
          for name in names.split()}


def lane(name: str, side: str) -> str | None:
    """The thread that writes this event on this side: "main", "migration", "return-path", "listen".

    None where the name does not decide it (migrate_set_state, the VFIO state changes, ...).
    """
    if name.startswith("source_return_path_thread"):
        return "return-path"
    return _LANES.get((side, name))



class RawText(str):
    """Argument text that fits none of its event's forms; it is the only argument and prints as it is."""

    __slots__ = ()


RAW = Format("%s", ("text",))
# Numbers only as printf() writes them: whatever parses prints back as it was.
_PATTERNS = {"0x%x": "0x(0|[1-9a-f][0-9a-f]{0,15})", "%x": "(0|[1-9a-f][0-9a-f]{0,15})",
             "%d": "(0|-?[1-9][0-9]{0,19})", "%s": "(.*?)"}
_BASES = {"0x%x": 16, "%x": 16, "%d": 10}


def format_of(name: str, args: tuple) -> Format:
    """The form that these arguments belong to; RAW where there is none."""
    forms = EVENTS.get(name, ())
    if len(args) == 1 and isinstance(args[0], RawText):
        return RAW
    fitting = [f for f in forms if len(f.fields) == len(args)]
    if len(fitting) > 1:
        number = isinstance(args[0], int)
        fitting = [f for f in fitting if ("%d" in f.template) == number]
    if fitting:
        return fitting[0]
    return RAW if len(args) == 1 else Format(" ".join(["%s"] * len(args)), ("text",) * len(args))


def text_of(name: str, args: tuple) -> str:
    """Argument text as QEMU prints it."""
    form = format_of(name, args)
    try:
        return form.template % args
    except TypeError:  # text where a number belongs: an event that was put together by hand
        return " ".join(map(str, args))


@cache
def _regexes(name: str) -> tuple[tuple[re.Pattern[str], tuple[int, ...]], ...]:
    out = []
    for form in sorted(EVENTS.get(name, ()), key=lambda f: -len(f.template)):
        parts = re.split(r"(0x%x|%x|%d|%s)", form.template)
        pattern = "".join(_PATTERNS.get(p) or re.escape(p) for p in parts)
        out.append((re.compile(pattern), tuple(_BASES.get(p, 0) for p in parts[1::2])))
    return tuple(out)


def parse(name: str, text: str) -> tuple:
    """Arguments from their text: ints and strings; one RawText where no form fits. text_of() is the inverse."""
    for regex, bases in _regexes(name):
        found = regex.fullmatch(text)
        if found:
            return tuple([int(a, b) if b else a for a, b in zip(found.groups(), bases, strict=True)])
    return (RawText(text),)
