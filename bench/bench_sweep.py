"""A sweep of runs of recording size: one process, then two; how much of two workers' time is work.

10,000 runs would take a minute: by default a tenth of them, `--runs 10000` for all. Rounds of one and of two workers
alternate and the best of each counts. Where others use the same cores, wall time says little; CPU time still tells what
handing out and collecting cost.
"""
from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import NamedTuple

from migsim.sweep import load_sweep, run_sweep

RECORDING = Path(__file__).parent.parent / "data" / "recordings" / "g2-no-precopy-plus-precopy"
WORKERS, AIM_S, AIM_EFFICIENCY = 2, 60, 0.9


class Cost(NamedTuple):
    """Seconds by the clock, seconds of CPU in all processes, events per run."""

    wall: float
    cpu: float
    events: float


def cpu_seconds() -> float:
    """CPU time of this process and of all workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def cost(runs: int, workers: int) -> Cost:
    """What `runs` runs take."""
    draw = {"devices.0.destination.load_stop_ms": {"uniform": [0.0, 20.0]}}
    sweep = load_sweep({"scenario": str(RECORDING), "draw": draw, "runs": runs, "measure": ["downtime_ms", "events"]})
    wall, cpu = time.perf_counter(), cpu_seconds()
    rows = run_sweep(sweep, workers=workers)
    assert all(row["status"] == "completed" for row in rows)
    return Cost(time.perf_counter() - wall, cpu_seconds() - cpu, sum(row["events"] for row in rows) / runs)


def main() -> None:
    """Print times and efficiency beside the aims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    rounds = [[cost(runs, 1), cost(runs, WORKERS)] for _ in range(3 if runs <= 1000 else 1)]
    (one, two), events = ([min(k[i][j] for k in rounds) for j in (0, 1)] for i in (0, 1)), rounds[0][0].events
    print(f"{runs} runs of {events:.0f} events: {one[0]:.1f} s in one process, {two[0]:.1f} s with {WORKERS} workers")
    print(f"10,000 such runs with {WORKERS} workers: {two[0] * 10000 / runs:.0f} s  (aim {AIM_S} s)")
    print(f"efficiency per worker: {one[0] / two[0] / WORKERS:.2f} by the clock, {one[1] / two[1]:.2f} by CPU time  "
          f"(aim {AIM_EFFICIENCY})")


if __name__ == "__main__":
    main()
