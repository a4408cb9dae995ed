"""A sweep of runs of recording size: one process, then two; how much of the second worker's time is work.

10,000 runs would take a minute: by default a tenth of them, `--runs 10000` for all. CPU speed varies on a shared
machine, so rounds of one and of two workers alternate and the best of each counts.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path

from migsim.sweep import load_sweep, run_sweep

RECORDING = Path(__file__).parent.parent / "data" / "recordings" / "g2-no-precopy-plus-precopy"
WORKERS, AIM_S, AIM_EFFICIENCY = 2, 60, 0.9


def seconds(runs: int, workers: int) -> tuple[float, float]:
    """(seconds, events per run) of `runs` runs."""
    draw = {"devices.0.destination.load_stop_ms": {"uniform": [0.0, 20.0]}}
    sweep = load_sweep({"scenario": str(RECORDING), "draw": draw, "runs": runs, "measure": ["downtime_ms", "events"]})
    began = time.perf_counter()
    rows = run_sweep(sweep, workers=workers)
    assert all(row["status"] == "completed" for row in rows)
    return time.perf_counter() - began, sum(row["events"] for row in rows) / runs


def main() -> None:
    """Print times and efficiency beside the aims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    rounds = [(seconds(runs, 1), seconds(runs, WORKERS)) for _ in range(3 if runs <= 1000 else 1)]
    one, two = (min(times[k][0] for times in rounds) for k in (0, 1))
    events = rounds[0][0][1]
    print(f"{runs} runs of {events:.0f} events: {one:.1f} s in one process, {two:.1f} s with {WORKERS} workers")
    print(f"10,000 such runs with {WORKERS} workers: {two * 10000 / runs:.0f} s  (aim {AIM_S} s)")
    print(f"efficiency per worker: {one / two / WORKERS:.2f}  (aim {AIM_EFFICIENCY})")


if __name__ == "__main__":
    main()
