"""Whose milliseconds the downtime was: one number per device, from a simulated journal or from both ends' logs."""
from __future__ import annotations

from itertools import pairwise

from .journal import Journal

OURS = ("stop", "late chunks", "RAM", "rest")


def downtime_shares(journal: Journal) -> dict[str, float]:
    """The downtime as QEMU counts it, cut where the destination comes to something else, ms; it sums to the downtime.

    `stop`: vCPUs and device states; `late chunks`: what was still to be loaded before the first END section; RAM; each
    device's stop-copy data, with chunks that were only read then; `rest`: other devices and the start. Empty where no
    precopy switchover was completed. One clock (facts sheet 2.5, recordings h-*).
    """
    at = {e.args[0]: e.us for e in journal.all("vmstate_downtime_checkpoint", side="source")}
    ends = [e.us for e in journal.all("qemu_loadvm_state_section", side="destination") if e.args[0] == 3]
    if not ends or ends[0] > at.get("src-downtime-end", -1):
        return {}
    loads = [e for e in journal.all("vfio_load_state", "vfio_load_state_device_data", side="destination")
             if ends[0] <= e.us <= at["src-downtime-end"]]
    cuts = {"stop": at["src-vm-stopped"], "late chunks": ends[0], "RAM": loads[0].us if loads else ends[-1]}
    for e in loads:
        if e.name == "vfio_load_state_device_data":
            name = str(e.args[0])
            cuts[f"{name} (device)" if name in OURS else name] = e.us
    cuts["rest"] = at["src-downtime-end"]
    times = [at["src-downtime-start"], *cuts.values()]
    return {what: (end - begin) / 1000 for what, (begin, end) in zip(cuts, pairwise(times), strict=True)}
