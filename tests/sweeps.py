"""Small sweeps that the tests share."""
from __future__ import annotations

from functools import cache

from migsim.sweep import Sweep, load_sweep, run_sweep

HOST = {"qemu": "11.1.3", "machine": "pc-q35-11.1"}
SMALL = {"source": HOST, "destination": HOST, "caps": {"return-path": True, "switchover-ack": True},
         "params": {"avail-switchover-bandwidth": 10**9}, "timeout_ms": 2000,
         "devices": [{"common": {"v2": 1}, "source": {"query_us": 20000}, "destination": {"load_init_ms": 20}}]}
GRID = {"scenario": SMALL, "grid": {"devices.0.destination.load_init_ms": [20, 60],
                                    "devices.0.destination.load_stop_ms": [0, 5, 9]}}
MANY = {"scenario": SMALL, "grid": {"devices.0.destination.load_init_ms": [20, 60]}, "runs": 200, "seed": 3,
        "draw": {"devices.0.source.stopcopy": {"loguniform": [4096, 4194304]}}}


def made(**changes: object) -> Sweep:
    """A sweep of six runs of 10 ms, or with other keys."""
    return load_sweep({**GRID, **changes})


def many() -> Sweep:
    """A sweep of 400 runs."""
    return load_sweep(MANY)


@cache
def expected() -> list[dict]:
    """Its rows, run in this process."""
    return run_sweep(many())
