"""States and transitions per second of the exhaustive driver, and its memory."""
from __future__ import annotations

import resource

from migsim import Limits, explore, variant

CASES = (("merged", Limits(1, 1, "stop")), ("merged", Limits(2, 1)), ("merged", Limits(2, 1, "stop")))


def main() -> None:
    """One line per search; aim: 60,000 states/s, the last one below 30 s."""
    for base, limits in CASES:
        r = explore(variant(base), limits)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{base} N={limits.devices} R={limits.reinits} management {limits.management:4s}: {r.states:8d} states, "
              f"{r.transitions:8d} transitions, {r.seconds:6.1f} s, {r.states / r.seconds:8.0f} states/s, "
              f"{r.transitions / r.seconds:8.0f} transitions/s, {memory:5.0f} MB so far")


if __name__ == "__main__":
    main()
