"""`migsim compare`: hold the simulation against recordings of real QEMU."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..compare import Agreement, Recording, RecordingError, busy_measures, compare, load_recording
from ..report import clean
from ..run import run

IDLE, BUSY = 0.98, 0.95
HELP = "simulate recordings' scenarios and print how far they agree with what real QEMU did"


def share(text: str) -> float:
    """argparse type of a ratio."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a number from 0 to 1")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("recording", nargs="*", help="recordings' folders; without any: all in data/")
    parser.add_argument("--min", type=share, help="exit with 1 below this agreement of any log (0.98; 0.95 where the "
                        "guest dirties RAM, as such recordings differ among themselves)")


def all_recordings() -> list[Path]:
    """Every recording in data/, beside the package or in the current folder."""
    for root in (Path(__file__).parents[2] / "data", Path("data")):
        if (root / "recordings").is_dir():
            return [p.parent for kind in ("recordings", "recordings-busy")
                    for p in sorted((root / kind).glob("*/scenario.json"))]
    raise RecordingError("no recordings: data/recordings is neither beside the package nor here; name folders")


def show(agreement: Agreement) -> None:
    """One recording."""
    ratios = ", ".join(f"{log} {ratio:.3f} ({n}/{m} events)" for (log, ratio), (n, m) in
                       zip(agreement.ratio.items(), agreement.counts.values(), strict=True))
    print(f"{clean(agreement.name)}: {ratios}")
    for what, (ours, theirs, same) in agreement.outcome.items():
        if not same or (what == "downtime" and theirs is not None):
            end = "" if same else "  DIFFERS"
            print(f"  {what}: simulated {clean(str(ours))}, recorded {clean(str(theirs))}{end}")
    for line in agreement.differences:
        print("  " + clean(line))


def busy(done: object, recording: Recording) -> None:
    """Total time and bitmap syncs of a guest that dirties its RAM."""
    ours = busy_measures([(e.us, e.name, e.args) for e in done.journal.events if e.side == "source"])
    theirs = busy_measures(recording.events["source"])
    total = recording.result["outcome"].get("total-time")
    print(f"  total time: simulated {done.outcome.get('total-time')}, recorded {total}; syncs outside an ACK wait: "
          f"simulated {ours['outside']}, recorded {theirs['outside']}")


def main(args: argparse.Namespace) -> int:
    """Compare and print; 1 below the threshold or where an outcome differs."""
    worst, ratios, differ, below = 1.0, [], 0, ""
    for folder in args.recording or all_recordings():
        recording = load_recording(folder)
        done = run(folder)
        agreement = compare(done, recording)
        show(agreement)
        if recording.config.get("guest"):
            busy(done, recording)
        ratios += agreement.ratio.values()
        worst = min(worst, agreement.worst)
        differ += not agreement.same_outcome
        least = args.min if args.min is not None else BUSY if recording.config.get("guest") else IDLE
        if agreement.worst < least:
            below = f"{clean(agreement.name)}: below --min {least:g}"
    print(f"{len(ratios)} logs: mean {sum(ratios) / max(1, len(ratios)):.4f}, lowest {worst:.3f}, "
          f"{differ} outcome(s) differ")
    if below or differ:
        print(below or "an outcome differs", file=sys.stderr)
    return int(bool(below or differ))
