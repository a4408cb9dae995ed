"""`migsim analyze`: what QEMU's own logs tell about each migration in them."""
from __future__ import annotations

import argparse
import json
import math
import sys

from ..analysis import analyze
from ..analysisreport import as_dict, summary
from ..log import read_log
from . import exports

HELP = "read QEMU's logs: who owed which ACK, where the downtime went"
LONG = 32 << 20  # bytes of a file from which on progress is shown


def offset(text: str) -> float:
    """A number of ms."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of milliseconds (allowed: -1e12 to 1e12)")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("source", metavar="SOURCE.log",
                        help="QEMU's trace output, plain, gzip or xz; the destination's if that is all there is")
    parser.add_argument("destination", metavar="DESTINATION.log", nargs="?")
    parser.add_argument("--clock-offset", type=offset, metavar="MS",
                        help="how far the destination's clock is ahead; estimated from the messages otherwise")
    parser.add_argument("--all", action="store_true", help="every window of the convergence table, every rule")
    parser.add_argument("--json", action="store_true")
    exports.add_arguments(parser)


def progress(done: int, size: int) -> None:
    """On a terminal only, and for long files only."""
    if size >= LONG and sys.stderr.isatty():
        print(f"\r{done * 100 // size:3d} %" if done < size else "\r     \r", end="", file=sys.stderr, flush=True)


def main(args: argparse.Namespace) -> int:
    """Read, analyze, print."""
    journal = read_log(args.source, args.destination, full=exports.wanted(args), progress=progress)
    found = analyze(journal, args.clock_offset)
    text = json.dumps(as_dict(found), indent=1) + "\n" if args.json else summary(found, journal, args.all)
    exports.write(args, found)
    print(text, end="")
    return 0
