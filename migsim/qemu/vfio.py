"""VFIO device migration, source and destination (hw/vfio/migration.c). Source: facts sheet section 7, patches 8-12."""
from __future__ import annotations

import errno as errnos

from ..device import P2P_FLAG, PRE_COPY_FLAG
from . import savevm, switchover_ack
from .state import SRC, VFIODevice, World, migrate_error
from .stream import (
    VFIO_MIG_FLAG_DEV_CONFIG_STATE as CONFIG_STATE,
)
from .stream import (
    VFIO_MIG_FLAG_DEV_DATA_STATE as DATA_STATE,
)
from .stream import (
    VFIO_MIG_FLAG_DEV_INIT_DATA_SENT as INIT_DATA_SENT,
)
from .stream import (
    VFIO_MIG_FLAG_DEV_SETUP_STATE as SETUP_STATE,
)
from .stream import (
    VFIO_MIG_FLAG_END_OF_STATE as END_OF_STATE,
)
from .stream import (
    Record,
)

PRECOPY_STATES = ("PRE_COPY", "PRE_COPY_P2P")
MIB = 1 << 20
VFIO_MIG_STOP_COPY_SIZE = 100 << 30  # assumed where the device does not say
EMPTY = ((END_OF_STATE,),)


def has_prepare(d: VFIODevice) -> bool:
    """A prepare callback is registered only for P2P devices (7.2)."""
    return bool(d.mig_flags & P2P_FLAG)


# --- realize (7.2) ---

def vfio_migration_refusal(w: World, side: str) -> str:
    """Why this machine does not start with its devices (enable-migration=on), or "": feature 12 fails with another
    errno than ENOTTY (p11), or several devices of which one cannot do P2P (7.2, 12)."""
    kernels, cfg = (w.skern, w.scfg) if side is SRC else (w.dkern, w.dcfg)
    for i, kernel in enumerate(kernels):
        error = kernel.script.v2_errno if cfg.code.reinit and kernel.mig_flags & PRE_COPY_FLAG else 0
        if error and error != errnos.ENOTTY:
            return (f"{cfg.device_names[i]}: VFIO migration init failed: failed to set precopy info v2: "
                    f"{savevm.strerror(error)}")
        if i and not all(k.mig_flags & P2P_FLAG for k in kernels[:i + 1]):
            return "Multiple VFIO devices migration is supported only if all of them support P2P migration"
    return ""


def vfio_migration_realize(w: World, side: str, i: int) -> None:
    """vfio_migration_init(): flags, opt-in to INFOv2 (p11), handlers."""
    devices, kernels, cfg = (w.sdev, w.skern, w.scfg) if side is SRC else (w.ddev, w.dkern, w.dcfg)
    kernel, name = kernels[i], cfg.device_names[i]
    d = VFIODevice(name, f"0000:00:{4 + i:02x}.0/vfio", kernel.mig_flags)
    devices.append(d)
    if cfg.code.reinit and d.mig_flags & PRE_COPY_FLAG:
        d.precopy_info_v2_used = not kernel.set_precopy_info_v2()
    if cfg.code.reinit:
        w.ev((w.now, side, "vfio_migration_init", (name, d.mig_flags, d.precopy_info_v2_used, 1)))
    w.ev((w.now, side, "vfio_migration_realize", (name,)))


# --- device states (7.6) ---

def set_state(w: World, side: str, i: int, new: str, recover: str) -> int:
    """vfio_migration_set_state(): costs what the driver takes."""
    d = (w.sdev if side is SRC else w.ddev)[i]
    kernel = (w.skern if side is SRC else w.dkern)[i]
    w.ev((w.now, side, "vfio_migration_set_state", (d.name, new, recover)))
    if d.device_state == new:
        return 0
    had_session = kernel.data_fd
    error, cost = kernel.set_state(new, w.now)
    if error:
        text = f"{d.name}: Failed setting device state to {new}.: {savevm.strerror(error)}"
        w.then((set_state_failed, side, i, error, text, recover))
        return cost + w.cost.set_device_state
    d.device_state = new
    w.then((set_device_state_done, side, i, new, kernel.data_fd and not had_session))
    return cost + w.cost.set_device_state


def set_state_failed(w: World, side: str, i: int, error: int, text: str, recover: str) -> int:
    """The recover state, or a reset where that is ERROR or fails too. The Error goes to the outgoing file; at the
    destination to the load, and once that is over nobody but stderr learns of it (7.6, 12)."""
    d = (w.sdev if side is SRC else w.ddev)[i]
    kernel = (w.skern if side is SRC else w.dkern)[i]
    if recover == "ERROR" or kernel.set_state(recover, w.now)[0]:
        kernel.reset()
        recover, d.data_fd = "RUNNING", False
    d.device_state = recover
    w.ev((w.now, side, "vfio_migration_set_device_state", (d.name, recover)))
    if side is SRC:
        savevm.file_error(w, error, text)
    elif w.dst.runstate == "inmigrate":
        w.dst.ret, w.dst.error = -error, text
    else:
        w.acct.stderr(side, text)
    return 0


def set_device_state_done(w: World, side: str, i: int, new: str, new_fd: bool) -> int:
    """The state is set; a second data_fd while one is open is out of sync (12)."""
    d = (w.sdev if side is SRC else w.ddev)[i]
    w.ev((w.now, side, "vfio_migration_set_device_state", (d.name, new)))
    if new_fd and d.data_fd and side is SRC:
        migrate_error(w, f"{d.name}: data_fd out of sync")
        savevm.file_error(w, 1)
    d.data_fd = d.data_fd or new_fd
    return 0


def vfio_vmstate_change_prepare(w: World, side: str, i: int, running: bool, reason: str) -> int:
    """Prepare callback: on stop PRE_COPY -> [p12: final REINIT check] -> PRE_COPY_P2P, else RUNNING_P2P."""
    d, cfg = ((w.sdev, w.scfg) if side is SRC else (w.ddev, w.dcfg))[0][i], (w.scfg if side is SRC else w.dcfg)
    precopy = d.device_state == "PRE_COPY" and not running
    new = "PRE_COPY_P2P" if precopy else "RUNNING_P2P"
    check = precopy and cfg.code.reinit_check_at_stop and d.precopy_info_v2_used and cfg.new_ack
    w.then(*(((vfio_final_precopy_reinit_check, i),) if check else ()),
           (set_state, side, i, new, "ERROR"), (vmstate_change_done, "_prepare", side, i, running, reason, new))
    return 0


def vfio_vmstate_change(w: World, side: str, i: int, running: bool, reason: str) -> int:
    """Change callback: RUNNING, or STOP_COPY out of a precopy state, else STOP."""
    d = (w.sdev if side is SRC else w.ddev)[i]
    if running:
        new = "RUNNING"
    else:
        new = "STOP_COPY" if d.device_state in PRECOPY_STATES and reason in ("finish-migrate", "paused") else "STOP"
    w.then((set_state, side, i, new, "ERROR"), (vmstate_change_done, "", side, i, running, reason, new))
    return 0


def vmstate_change_done(w: World, which: str, side: str, i: int, running: bool, reason: str, new: str) -> int:
    """Trace of a callback; the state in it is the requested one (11)."""
    name = (w.sdev if side is SRC else w.ddev)[i].name
    w.ev((w.now, side, "vfio_vmstate_change" + which, (name, running, reason, new)))
    return w.cost.step


def vfio_final_precopy_reinit_check(w: World, i: int) -> int:
    """p12: with the vCPUs stopped and the device still in PRE_COPY, look once more for new initial data."""
    w.then(*w.acct.delay(w.skern[i].script.query_us * 1000 + w.cost.precopy_info_overhead),
           (vfio_query_precopy_size, i, True))
    return 0


def vfio_migration_state_notifier_failed(w: World, i: int) -> int:
    """vfio_migration_state_notifier() of FAILED: the device goes back to RUNNING (7.7)."""
    w.then((set_state, SRC, i, "RUNNING", "ERROR"))
    return 0


# --- save side ---

def vfio_save_setup(w: World, i: int) -> int:
    """vfio_save_setup(): stop-copy size, PRE_COPY, precopy info; p10: the first request (7.3)."""
    d = w.sdev[i]
    d.initial_data_sent = d.request_switchover_ack = False
    d.event_save_iterate_started = d.event_precopy_empty_hit = False
    steps: tuple = ((vfio_query_stop_copy_size, i), (save_setup_buffer, i))
    if d.mig_flags & PRE_COPY_FLAG and d.device_state == "RUNNING":
        steps += ((set_state, SRC, i, "PRE_COPY", "RUNNING"), (save_setup_precopy, i))
    w.then(*steps, (save_setup_done, i))
    return w.cost.step


def save_setup_precopy(w: World, i: int) -> int:
    """In PRE_COPY: the first precopy info and p10's first request. Or the transition has failed, and so has setup."""
    if w.sdev[i].device_state != "PRE_COPY":
        savevm.state_setup_failed(w)
        return 0
    request = w.scfg.code.vfio_requests_ack and w.scfg.new_ack
    w.then(*query_steps(w, i), *(((request_ack, i),) if request else ()))
    return 0


def save_setup_buffer(w: World, i: int) -> int:
    """The data buffer: at most 1 MiB."""
    d = w.sdev[i]
    d.data_buffer_size = min(MIB, d.stopcopy_size) or MIB
    return 0


def save_setup_done(w: World, i: int) -> int:
    """SECTION_START: SETUP_STATE, END_OF_STATE."""
    d = w.sdev[i]
    w.source("vfio_save_setup", d.name, d.data_buffer_size)
    savevm.send(w, Record("START", d.idstr, ((SETUP_STATE,), (END_OF_STATE,))))
    return w.cost.step


def request_ack(w: World, i: int) -> int:
    """One write of request_switchover_ack; the next query collects it."""
    w.sdev[i].request_switchover_ack = True
    return 0


def vfio_query_stop_copy_size(w: World, i: int) -> int:
    """Feature MIG_DATA_SIZE and the storing of its result; a failure stands for so much that the downtime-limit
    cannot be violated (7.4, 12)."""
    d = w.sdev[i]
    error, size = w.skern[i].data_size(w.now)
    d.stopcopy_size = VFIO_MIG_STOP_COPY_SIZE if error else size
    if w.scfg.code.single_pending:
        w.source("vfio_query_stop_copy_size", d.name, d.stopcopy_size, -error)
        if error:
            w.acct.warn_once(SRC, f"VFIO device {d.name} ioctl(VFIO_DEVICE_FEATURE) on "
                                  f"VFIO_DEVICE_FEATURE_MIG_DATA_SIZE failed ({-error})")
    return w.cost.step


def query_steps(w: World, i: int) -> tuple:
    """One precopy-info query: the ioctl takes its time, then its result is stored."""
    return (*w.acct.delay(w.skern[i].script.query_us * 1000 + w.cost.precopy_info_overhead),
            (vfio_query_precopy_size, i, False))


def vfio_query_precopy_size(w: World, i: int, at_stop: bool) -> int:
    """vfio_query_precopy_size(): sizes stored; p11: REINIT after the marker wants a new ACK (7.4).

    At the stop (p12) any failure counts as a REINIT.
    """
    d, cfg = w.sdev[i], w.scfg
    error, initial, dirty, flag = w.skern[i].precopy_info(w.now, at_stop)
    d.precopy_init_size, d.precopy_dirty_size = initial, dirty
    reinit = bool(flag and d.precopy_info_v2_used and cfg.code.reinit)
    ret = -error
    if not ret and initial >= 1 << 63:
        ret = -errnos.ERANGE
    if cfg.code.reinit:
        w.source("vfio_query_precopy_size", d.name, initial, dirty, reinit, ret)
    elif cfg.code.single_pending:
        w.source("vfio_query_precopy_size", d.name, initial, dirty, ret)
    if ret:
        report_query_error(w, d, ret, at_stop)
    if reinit and d.initial_data_sent and not cfg.legacy:
        w.then((clear_initial_data_sent, i), (reinit_request_ack, i))
    if ret and at_stop:
        w.then((request_ack, i), (clear_initial_data_sent, i))
    return w.cost.step


def report_query_error(w: World, d: VFIODevice, ret: int, at_stop: bool) -> None:
    """What base and later print when the query fails; the warning comes once per process (12, measured facts 4, 13)."""
    if not w.scfg.code.single_pending:
        return
    if ret == -errnos.ERANGE:  # measured spelling
        w.acct.stderr(SRC, f"{d.name}: Estimated precopy init size size overflow: 0x{d.precopy_init_size:x}")
    else:
        w.acct.warn_once(SRC, f"VFIO device {d.name} ioctl(VFIO_MIG_GET_PRECOPY_INFO) failed ({ret})")
    if at_stop:
        w.acct.stderr(SRC, f"{d.name}: Final precopy reinit check failed (err: {ret})")


def clear_initial_data_sent(w: World, i: int) -> int:
    """One write of initial_data_sent."""
    w.sdev[i].initial_data_sent = False
    return 0


def reinit_request_ack(w: World, i: int) -> int:
    """One write of request_switchover_ack, and its trace."""
    d = w.sdev[i]
    d.request_switchover_ack = True
    w.source("vfio_query_precopy_size_request_switchover_ack", d.name)
    return 0


def vfio_state_pending(w: World, i: int, exact: bool, final: bool) -> int:
    """vfio_state_pending(): ioctls only in an exact query that is not final (7.4)."""
    d = w.sdev[i]
    if final and not w.scfg.code.reinit_check_at_stop:
        return 0
    if exact and not final:
        precopy = query_steps(w, i) if d.device_state in PRECOPY_STATES else ()
        w.then((vfio_query_stop_copy_size, i), *precopy, (vfio_report_pending, i, exact, final))
        return 0
    return vfio_report_pending(w, i, exact, final)


def vfio_report_pending(w: World, i: int, exact: bool, final: bool) -> int:
    """Report cached sizes; p10: deliver a waiting request."""
    d, code = w.sdev[i], w.scfg.code
    if not code.single_pending:
        return report_pending_old(w, d, exact)
    precopy = d.precopy_init_size + d.precopy_dirty_size
    w.acct.add_pending(precopy, max(0, d.stopcopy_size - precopy), 0)
    request = d.request_switchover_ack and code.vfio_requests_ack
    args: tuple = (d.name, d.stopcopy_size, d.precopy_init_size, d.precopy_dirty_size)
    if request:
        w.src.pending_ack += 1
        w.then((clear_request, i))
    if code.reinit_check_at_stop:
        args += (request, exact, final)
    elif code.vfio_requests_ack:
        args += (request, exact)
    else:
        args += (exact,)
    w.source("vfio_state_pending", *args)
    return w.cost.step


def clear_request(w: World, i: int) -> int:
    """The request has been collected."""
    w.sdev[i].request_switchover_ack = False
    return 0


def report_pending_old(w: World, d: VFIODevice, exact: bool) -> int:
    """old: two callbacks; the exact one adds the stop-copy size only (7.4)."""
    if exact:
        w.acct.add_pending(d.stopcopy_size, 0, 0)
        precopy, _, postcopy = w.acct.pending()
        w.source("vfio_state_pending_exact", d.name, precopy, postcopy, d.stopcopy_size, d.precopy_init_size,
                 d.precopy_dirty_size)
    elif d.device_state in PRECOPY_STATES:
        w.acct.add_pending(d.precopy_init_size + d.precopy_dirty_size, 0, 0)
        precopy, _, postcopy = w.acct.pending()
        w.source("vfio_state_pending_estimate", d.name, precopy, postcopy, d.precopy_init_size, d.precopy_dirty_size)
    return w.cost.step


def vfio_is_active_iterate(w: World, i: int) -> bool:
    """Only in the precopy states."""
    return w.sdev[i].device_state in PRECOPY_STATES


def vfio_save_iterate(w: World, i: int) -> int:
    """vfio_save_iterate(): at most one block; initial bytes fall first, the rest counts as dirty (7.5)."""
    d = w.sdev[i]
    if not d.event_save_iterate_started:
        d.event_save_iterate_started = True
        w.source("vfio_save_iterate_start", d.name)
    block = w.skern[i].read(d.data_buffer_size, w.now)
    if not block or not block[0]:
        if not d.event_precopy_empty_hit:
            d.event_precopy_empty_hit = True
            w.source("vfio_save_block_precopy_empty_hit", d.name)
        d.precopy_init_size = d.precopy_dirty_size = 0
        w.then((vfio_send_init_data_flag, i, ()))
        return 0
    size, kind, done = block
    d.event_precopy_empty_hit = False
    initial = min(size, d.precopy_init_size)
    d.precopy_init_size -= initial
    d.precopy_dirty_size = max(0, d.precopy_dirty_size - (size - initial))
    d.stopcopy_size = max(0, d.stopcopy_size - size)
    w.source("vfio_save_block", d.name, size)
    w.then((vfio_send_init_data_flag, i, ((DATA_STATE, size, kind, done),)))
    return size * w.cost.save_block // MIB


def vfio_send_init_data_flag(w: World, i: int, items: tuple) -> int:
    """The terminator: INIT_DATA_SENT once all initial bytes are out, else END_OF_STATE (7.5; p8 adds the trace)."""
    d = w.sdev[i]
    marker = w.scfg.ack and not d.precopy_init_size and not d.initial_data_sent
    if marker:
        d.initial_data_sent = True
        if w.scfg.code.marker_traced:
            w.source("vfio_send_init_data_flag", d.name)
    w.then((save_iterate_send, i, (*items, (INIT_DATA_SENT,) if marker else (END_OF_STATE,))))
    return 0


def save_iterate_send(w: World, i: int, payload: tuple) -> int:
    """The section leaves."""
    d = w.sdev[i]
    w.source("vfio_save_iterate", d.name, d.precopy_init_size, d.precopy_dirty_size)
    w.source("savevm_section_end", d.idstr, w.acct.section_id(d.idstr), 1)
    if payload != EMPTY or not w.acct.drops_empty:
        savevm.send(w, Record("PART", d.idstr, payload))
    return w.cost.step


def vfio_save_complete_precopy(w: World, i: int) -> int:
    """vfio_save_complete_precopy(): STOP_COPY (usually there already), then blocks until read() gives 0 (7.7)."""
    d = w.sdev[i]
    w.source("vfio_save_complete_precopy_start", d.name)
    w.then((set_state, SRC, i, "STOP_COPY", "STOP"), (save_complete_block, i, True))
    return 0


def save_complete_block(w: World, i: int, first: bool) -> int:
    """Read one block and put it on the wire."""
    d = w.sdev[i]
    if w.src.to_dst_error:
        return w.cost.step
    block = w.skern[i].read(d.data_buffer_size or MIB, w.now)
    kind = "END" if first else "MORE"
    if not block or not block[0]:
        savevm.send(w, Record(kind, d.idstr, ((END_OF_STATE,),)))
        w.source("vfio_save_complete_precopy", d.name, 0)
        return w.cost.step
    size, data_kind, done = block
    d.stopcopy_size = max(0, d.stopcopy_size - size)
    w.then((save_complete_put, i, Record(kind, d.idstr, ((DATA_STATE, size, data_kind, done),))))
    return size * (w.cost.save_block + w.cost.send) // MIB


def save_complete_put(w: World, i: int, record: Record) -> int:
    """The block leaves; its trace comes when the write returns."""
    w.then((save_complete_trace, i, record.payload[0][1]))
    savevm.send(w, record)
    return 0


def save_complete_trace(w: World, i: int, size: int) -> int:
    """Trace of the block, and on to the next."""
    w.source("vfio_save_block", w.sdev[i].name, size)
    w.then((save_complete_block, i, False))
    return 0


def vfio_save_state(w: World, d: VFIODevice) -> None:
    """vfio_save_state(): the config section (FULL)."""
    w.source("vfio_save_device_config_state", d.name)
    savevm.send(w, Record("FULL", d.idstr, ((CONFIG_STATE,), (END_OF_STATE,))))


def vfio_save_cleanup(w: World, i: int) -> tuple:
    """vfio_save_cleanup(): STOP_COPY -> STOP here, outside the downtime on purpose (7.7)."""
    steps: tuple = ((set_state, SRC, i, "STOP", "ERROR"),) if w.sdev[i].device_state == "STOP_COPY" else ()
    return (*steps, (save_cleanup_done, i))


def save_cleanup_done(w: World, i: int) -> int:
    """Sizes and flags reset, data_fd closed."""
    d = w.sdev[i]
    d.precopy_init_size = d.precopy_dirty_size = 0
    d.initial_data_sent = d.request_switchover_ack = d.data_fd = False
    w.source("vfio_save_cleanup", d.name)
    return w.cost.step


# --- load side ---

def vfio_load_setup(w: World, i: int) -> int:
    """vfio_load_setup(): RESUMING; p4: the device counts itself (legacy)."""
    w.then((set_state, "destination", i, "RESUMING", "RUNNING"), (load_setup_request, i))
    return 0


def load_setup_request(w: World, i: int) -> int:
    """vfio_request_switchover_ack_legacy(): PRE_COPY implies that an ACK is needed."""
    d = w.ddev[i]
    if d.mig_flags & PRE_COPY_FLAG:
        switchover_ack.migration_request_switchover_ack(w, d.name)
    return w.cost.step


def vfio_load_state(w: World, i: int, item: tuple) -> int:
    """One tag of vfio_load_state(). A data record's write() returns when it is loaded (3 #11)."""
    d, flag = w.ddev[i], item[0]
    if flag == END_OF_STATE:
        return 0
    w.destination("vfio_load_state", d.name, flag)
    if flag == DATA_STATE:
        _, size, kind, done = item
        error, load = w.dkern[i].write(kind, done, w.now)
        load += w.cost.load_record if done else 0
        w.then((load_device_data, i, size, error))
        return load + size * w.cost.load_block // MIB
    if flag == INIT_DATA_SENT:
        return load_init_data_sent(w, d)
    if flag == CONFIG_STATE:
        w.destination("vfio_load_device_config_state_start", d.name)
        w.destination("vfio_load_device_config_state_end", d.name)
    return w.cost.step


def load_device_data(w: World, i: int, size: int, error: int) -> int:
    """write() on the data_fd has returned."""
    w.destination("vfio_load_state_device_data", w.ddev[i].name, size, -error)
    w.dst.ret = -error
    return w.cost.step


def load_init_data_sent(w: World, d: VFIODevice) -> int:
    """INIT_DATA_SENT: approve the switchover, or refuse the stream (8.3, 12)."""
    if not d.mig_flags & PRE_COPY_FLAG or not w.dcfg.ack:
        w.dst.ret = -errnos.EINVAL
        w.dst.error = f"{d.name}: Received INIT_DATA_SENT but switchover ack is not used"
        return w.cost.step
    ret = w.dst.ret = switchover_ack.qemu_loadvm_approve_switchover(w, d.name)
    if ret:
        why = savevm.strerror(-ret)
        w.dst.error = f"{d.name}: qemu_loadvm_approve_switchover failed, err={ret} ({why})"
    return w.cost.step
