"""Two versions meet: what happens when source and destination differ in version, machine type, scheme or capability.

Every cell of the matrix is a run of the model. What it must show: facts sheet 8.3; the recordings l2-*, l3-*, m-* and
ram-* are single cells of it.
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .checks import check
from .journal import Journal
from .ladder import binary
from .log import read_log
from .run import Run, run

RECORDINGS = Path(__file__).parent.parent / "data" / "recordings"

RESULTS = {
    "moves": "completes; the guest runs at the destination alone",
    "early": "completes, but a device was stopped with initial data not loaded: downtime",
    "both run": "the source fails and runs again while the destination already runs",
    "never ends": "the source waits for an ACK that cannot come, until migrate_cancel",
    "refused": "the destination refuses the stream; the guest stays on the source",
}


class End(NamedTuple):
    """One end: QEMU version, machine type, -global settings, the capability."""

    name: str
    qemu: str = "11.1.3"
    machine: str = "pc-q35-11.1"
    globals: tuple[str, ...] = ()
    ack: bool = True

    @property
    def host(self) -> dict[str, Any]:
        """As a scenario has it."""
        return {"qemu": self.qemu, "machine": self.machine, "globals": list(self.globals)}


#: the machine type decides the scheme (facts sheet 8.2), and QEMU refuses two different ones: two families
ENDS: tuple[End, ...] = (
    End("QEMU 11.0", "11.0.1", "pc-q35-11.0"),
    End("11.1, machine 11.0", machine="pc-q35-11.0"),
    End("11.1, machine 11.0, legacy=off", machine="pc-q35-11.0", globals=("migration.switchover-ack-legacy=off",)),
    End("11.1, machine 11.1"),
    End("11.1, machine 11.1, legacy=on", globals=("migration.switchover-ack-legacy=on",)),
    End("11.1, machine 11.1, capability off", ack=False),
)


class Cell(NamedTuple):
    """One meeting. `result`: a key of RESULTS; `why`: the decisive sentence, computed from the run."""

    source: End
    destination: End
    result: str
    why: str
    run: Run


def scenario(source: End, destination: End, devices: int = 1, reinit_ms: int = 0, load_ms: int = 200) -> dict[str, Any]:
    """The set-up of a cell: `devices` alike, each with 64 KiB of initial data that takes `load_ms` to load, and a new
    chunk after `reinit_ms` if that is not 0. A run that has not ended 1 s after all of that never will."""
    script = {"initial": 65536, "stopcopy": 4194304, **({"reinit": f"t{reinit_ms}:8192"} if reinit_ms else {})}
    load = {"load_init_ms": load_ms, "load_reinit_ms": load_ms, "load_stop_ms": 5}
    timeout_ms = 1000 + reinit_ms + 2 * load_ms * devices if devices else 100  # RAM alone is moved in 10 ms
    return {"source": source.host, "destination": destination.host, "timeout_ms": timeout_ms,
            "caps": {"return-path": True, "switchover-ack": source.ack},
            "dst_caps": {"switchover-ack": destination.ack},
            "params": {"avail-switchover-bandwidth": 100_000_000, "downtime-limit": 300},
            "cost": {} if devices else {"bitmap_sync": 1000},  # turns of a millisecond: a cell that never ends is short
            "devices": [{"id": f"nic{k}", "source": script, "destination": load} for k in range(devices)]}


def result_of(status: str | None, states: Mapping[str, str | None], journal: Journal) -> tuple[str, str]:
    """(key of RESULTS, why it is early or "") by status and run states of both ends; early by a rule."""
    if states["source"] == "running" and states["destination"] == "running":
        return "both run", ""
    if status == "completed":
        [verdict] = check(journal, "initial-data-loaded")
        return ("early", verdict.reason) if verdict.verdict == "violated" else ("moves", "")
    return ("refused" if status in ("failed", "cancelled") else "never ends"), ""


def classify(got: Run) -> tuple[str, str]:
    """(key of RESULTS, why) of a finished run."""
    status, error = got.outcome.get("status"), got.outcome.get("error-desc")
    result, early = result_of(status, got.run_state, got.attempt_journals()[-1])
    said = [text for side, text in got.world.acct.messages if side == "destination"]
    why = {"both run": f"source: {error}", "moves": f"downtime {got.outcome.get('downtime')} ms",
           "early": f"downtime {got.outcome.get('downtime')} ms: {early}",
           "refused": f"destination: {said[0]}" if said else f"source: {error}",
           "never ends": f"status {status}" + (f", error-desc {error}" if error else "")}
    return result, why[result]


# --- recordings that are cells ---

def kind(config: Mapping[str, Any]) -> tuple:
    """What makes a set-up a cell: code base, scheme and capability of each end, one machine type or two, how many
    devices, whether one has new initial data on its way."""
    ends = []
    for side in ("source", "destination"):
        host = config[side]
        started = binary(host["qemu"], host["machine"], tuple(host.get("globals", ())))
        caps = {**config.get("caps", {}), **(config.get("dst_caps", {}) if side == "destination" else {})}
        ends += [started.code.name, started.switchover_ack_legacy, bool(caps.get("switchover-ack"))]
    scripts = [{**d.get("common", {}), **d.get("source", {})} for d in config.get("devices", ())]
    return (*ends, config["source"]["machine"] == config["destination"]["machine"], len(scripts),
            any("reinit" in script for script in scripts))


@cache
def _recorded() -> dict[str, tuple[tuple, Mapping[str, Any]]]:
    """Recording -> (kind, result), those of whole devices in which management does nothing but migrate once."""
    out = {}
    for path in sorted(RECORDINGS.glob("*/scenario.json")):
        got = json.loads(path.read_text(encoding="utf-8"))
        scripts = [device.get(part, {}) for device in got["config"].get("devices", ())
                   for part in ("common", "source", "destination")]
        lacks = any(script.get(key) == 0 for script in scripts for key in ("precopy", "p2p", "v2"))
        if not lacks and not got["config"].keys() & {"actions", "attempts", "before"}:
            out[path.parent.name] = kind(got["config"]), got["result"]
    return out


@cache
def confirming(source: End, destination: End, devices: int, reinit: bool, result: str) -> tuple[str, ...]:
    """Recordings of real QEMU of the same kind that came to the same result."""
    wanted = kind(scenario(source, destination, devices, int(reinit)))
    return tuple(name for name, (what, got) in _recorded().items() if what == wanted and result_of(
        got["outcome"].get("status"), got["run_state"], _journal(RECORDINGS / name))[0] == result)


def _journal(folder: Path) -> Journal:
    return read_log(folder / "source.log.xz", folder / "destination.log.xz")


def meet(source: End, destination: End, devices: int = 1, reinit_ms: int = 0, load_ms: int = 200) -> Cell:
    """Run one cell."""
    got = run(scenario(source, destination, devices, reinit_ms, load_ms))
    return Cell(source, destination, *classify(got), got)


def matrix(devices: int = 1, reinit_ms: int = 0, load_ms: int = 200,
           ends: tuple[End, ...] = ENDS) -> list[list[Cell]]:
    """All cells: a row for each source, a column for each destination."""
    return [[meet(source, destination, devices, reinit_ms, load_ms) for destination in ends] for source in ends]
