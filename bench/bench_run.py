"""How long a run takes: one of recording size, and the cover letter's set-up. Median of 9."""
from __future__ import annotations

import statistics
import time
from pathlib import Path

from migsim import load_scenario, run

DATA = Path(__file__).parent.parent / "data"
CASES = (("recording a-one-device-new-ack", DATA / "recordings" / "a-one-device-new-ack", 10),
         ("cover letter", DATA / "scenarios" / "cover-letter.yaml", 50))


def main() -> None:
    """Print milliseconds, events and the aim."""
    for name, path, aim in CASES:
        scenario = load_scenario(path)
        times = []
        for _ in range(10):
            began = time.perf_counter()
            done = run(scenario)
            times.append((time.perf_counter() - began) * 1000)
        print(f"{name:34s} {statistics.median(times[1:]):7.1f} ms  {len(done.raw):6d} events  (aim {aim} ms)")


if __name__ == "__main__":
    main()
