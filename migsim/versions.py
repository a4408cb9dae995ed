"""Two versions meet: what happens when source and destination differ in version, machine type, scheme or capability.

Every cell of the matrix is a run of the model. What it must show: facts sheet 8.3; the recordings l2-*, l3-*, m-* and
ram-* are single cells of it.
"""
from __future__ import annotations

from typing import Any, NamedTuple

from .checks import check
from .run import Run, run

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
            "devices": [{"id": f"nic{k}", "source": script, "destination": load} for k in range(devices)]}


def classify(got: Run) -> tuple[str, str]:
    """(key of RESULTS, why) of a finished run, by status and run states; early by the rule initial-data-loaded."""
    status, error = got.outcome.get("status"), got.outcome.get("error-desc")
    states = got.run_state
    if states["source"] == "running" and states["destination"] == "running":
        return "both run", f"source: {error}"
    if status == "completed":
        [verdict] = check(got.attempt_journals()[-1], "initial-data-loaded")
        down = f"downtime {got.outcome.get('downtime')} ms"
        return ("early", f"{down}: {verdict.reason}") if verdict.verdict == "violated" else ("moves", down)
    if status in ("failed", "cancelled"):
        said = [text for side, text in got.world.acct.messages if side == "destination"]
        return "refused", f"destination: {said[0]}" if said else f"source: {error}"
    return "never ends", f"status {status}" + (f", error-desc {error}" if error else "")


def meet(source: End, destination: End, devices: int = 1, reinit_ms: int = 0, load_ms: int = 200) -> Cell:
    """Run one cell."""
    got = run(scenario(source, destination, devices, reinit_ms, load_ms))
    return Cell(source, destination, *classify(got), got)


def matrix(devices: int = 1, reinit_ms: int = 0, load_ms: int = 200,
           ends: tuple[End, ...] = ENDS) -> list[list[Cell]]:
    """All cells: a row for each source, a column for each destination."""
    return [[meet(source, destination, devices, reinit_ms, load_ms) for destination in ends] for source in ends]
