"""The cost model: how long things take where the scenario does not say. Every default with unit and source."""
from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple


class CostItem(NamedTuple):
    """A default, its unit and where it comes from."""

    value: float
    unit: str
    source: str


COST: dict[str, CostItem] = {
    "step": CostItem(1.5, "us", "distance of neighbouring trace lines of one thread, recordings a-*, g-*"),
    "bitmap_sync": CostItem(18, "us", "migration_bitmap_sync_start to _end on an idle guest, recordings a-*, g-*"),
    "zero_page": CostItem(0.5, "us", "first RAM pass of 64..256 MiB in 5..22 ms, recordings a-*, h-*, l3-*"),
    "normal_page": CostItem(1.9, "us", "42 MB in 20 ms in the downtime, recordings-busy b1"),
    "save_block": CostItem(40, "us/MiB", "vfio_save_block to the next read, recording a-*"),
    "send": CostItem(120, "us/MiB", "VFIO stop-copy over loopback between two blocks, recording a-*"),
    "load_block": CostItem(200, "us/MiB", "vfio_load_state to the load's begin, destination shim log of a-*"),
    "load_record": CostItem(250, "us", "a load takes so much longer than its sleep, destination shim logs of h-*, a-*"),
    "load_page": CostItem(0.3, "us", "destination keeps up with the source, recordings-busy a1"),
    "precopy_info_overhead": CostItem(45, "us", "query_us 1000 takes 1.03..1.06 ms, recording a-*"),
    "set_device_state": CostItem(8, "us", "vfio_migration_set_state to _set_device_state, recordings"),
    "pause_vcpus": CostItem(20, "us", "runstate_set finish-migrate to vm_state_notify, recordings a-*, d-*"),
    "block_drain": CostItem(30, "us", "last vfio_vmstate_change to src-vm-stopped, recordings"),
    "connect": CostItem(370, "us", "setup to migration_socket_outgoing_connected, recordings"),
    "savevm_device": CostItem(26, "us", "38 non-iterable sections saved in 1.0 ms, recordings"),
    "loadvm_device": CostItem(36, "us", "38 non-iterable sections loaded in 1.4 ms, recordings"),
    "loadvm_end": CostItem(300, "us", "qemu_loadvm_state_post_main to dst-precopy-loadvm-completed, recordings"),
    "network": CostItem(20, "us", "write on one side to read on the other, recordings"),
    "wake_up": CostItem(50, "us", "semaphore or bottom half to the thread that waits, recordings"),
    "cleanup": CostItem(150, "us", "savevm_state_cleanup to vfio_save_cleanup, recordings d-*, n-*"),
    "postcopy_listen": CostItem(5, "ms", "POSTCOPY_LISTEN to postcopy-device, recording ram-postcopy"),
    "management_poll": CostItem(20.45, "ms", "actions come up to 20 ms late (polling), recordings' README"),
    "write_charge": CostItem(560, "bytes", "sender blocks after 190 turns with one device, 127 with two: README"),
    "unix_socket": CostItem(212992, "bytes", "net.core.wmem_default; about 200 KiB of data: recordings' README"),
    "tcp_socket": CostItem(30_000_000, "bytes", "24..39 MB before a write blocks, recordings-busy f1, i2, d1"),
    "tcp_write_charge": CostItem(2300, "bytes", "4.5 MB of small writes in d3: measured facts 2.9"),
    "proxy_chunk": CostItem(65536, "bytes", "the recordings' proxy reads so much at a time"),
    "proxy_overhead": CostItem(155, "us", "40 MB/s link gives 36.5 MB/s, recordings-busy a5, d4"),
    "idle_pages": CostItem(4, "pages", "dirty_pages of an idle guest's sync, recordings"),
    "idle_tick": CostItem(54.925, "ms", "SeaBIOS timer tick (18.2 Hz), recordings bb-*, l2-*"),
    "normal_pages": CostItem(132, "pages", "ram.normal of an idle 64 MiB guest, recording a-*"),
}
_NS = {"us": 1_000, "ms": 1_000_000, "us/MiB": 1_000}


def cost_model(overrides: dict[str, float] | tuple[tuple[str, float], ...] = ()) -> SimpleNamespace:
    """All costs as attributes: times in integer nanoseconds, `us/MiB` in ns per MiB, the rest as given."""
    given = dict(overrides)
    return SimpleNamespace(**{
        name: round(given.get(name, item.value) * _NS[item.unit]) if item.unit in _NS else given.get(name, item.value)
        for name, item in COST.items()})
