"""`migsim explore`: every interleaving of the handshake, with the shortest counterexample."""
from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..explore import Limits, Result, Variant, explore, variant
from ..ladder import CODE_BASES, P7_DIFF
from ..properties import PROPERTIES
from ..replay import ReplayError, from_string, replay, to_string, words
from .bases import base_name

HELP = "follow every order of events that locks and channels allow, and judge the handshake's properties"
#: rows of --table: what it is called, code base, forced scheme
TABLE = (("old", "old", None), ("legacy", "merged", "legacy"), ("p6", "p6", "new"), ("p10", "p10", "new"),
         ("p11", "p11", "new"), ("v2", "v2", None), ("merged", "merged", None), (P7_DIFF.name, P7_DIFF.name, None))
SHORT = {"holds": "holds", "violated": "VIOLATED", "n/a": "n/a", "vacuous": "vacuous", "unknown": "unknown"}


def explored_base(text: str) -> str:
    """argparse type of a code base."""
    if text == P7_DIFF.name:
        return text
    return base_name(text)


def bounded(low: int, high: int) -> Any:
    """argparse type of a whole number."""
    def check(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r}: allowed is a whole number from {low} to {high}")
        return int(text)
    return check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    bases = f"{', '.join(CODE_BASES)} or {P7_DIFF.name}"
    parser.add_argument("--base", type=explored_base, default="merged", metavar="B", help=f"code base: {bases}")
    parser.add_argument("--source-base", type=explored_base, metavar="B")
    parser.add_argument("--destination-base", type=explored_base, metavar="B")
    scheme = parser.add_mutually_exclusive_group()
    scheme.add_argument("--legacy", action="store_const", const="legacy", dest="scheme",
                        help="switchover-ack-legacy=on at both ends, against the base's default")
    scheme.add_argument("--new", action="store_const", const="new", dest="scheme", help="... off at both ends")
    for side in ("source", "destination"):
        parser.add_argument(f"--{side}-scheme", choices=("legacy", "new"), help=f"override at the {side}")
    parser.add_argument("--devices", type=bounded(0, 4), default=1, metavar="N")
    parser.add_argument("--reinits", type=bounded(0, 8), default=1, metavar="R", help="at most so many REINIT events")
    parser.add_argument("--management", choices=("none", "stop", "stop-cont"), default="none",
                        help="the monitor may stop the guest once, and continue it")
    parser.add_argument("--cancel", action="store_true", help="the monitor may cancel")
    parser.add_argument("--ioctl-failure", action="store_true",
                        help="one precopy-info ioctl of the final check may fail")
    parser.add_argument("--no-p2p", action="store_true", help="devices without P2P")
    parser.add_argument("--late-event", action="store_true", help="REINIT also between final check and STOP_COPY")
    parser.add_argument("--property", action="append", choices=tuple(PROPERTIES), metavar="ID",
                        help=f"judge only this one (may be repeated): {', '.join(PROPERTIES)}")
    parser.add_argument("--no-reduction", action="store_true", help="prune nothing (much larger)")
    parser.add_argument("--max-states", type=bounded(1, 50_000_000), default=30_000_000, metavar="K",
                        help="give up after so many states; verdicts are then unknown, never holds")
    parser.add_argument("--table", action="store_true", help="the verdicts of all variants")
    parser.add_argument("--replay", metavar="STRING", help="run a path again and print its journal")
    parser.add_argument("--json", action="store_true")


def limits_of(args: argparse.Namespace) -> Limits:
    """The environment's limits."""
    return Limits(args.devices, args.reinits, args.management, args.cancel, args.ioctl_failure, not args.no_p2p,
                  args.late_event)


def show_progress(states: int, transitions: int, depth: int) -> None:
    """One line on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{states} states, {transitions} transitions, depth {depth}", end="", file=sys.stderr, flush=True)


def search(which: Variant, args: argparse.Namespace) -> Result:
    """One search with progress."""
    result = explore(which, limits_of(args), tuple(args.property or PROPERTIES), not args.no_reduction,
                     args.max_states, show_progress)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return result


def as_dict(result: Result) -> dict[str, Any]:
    """What --json prints."""
    which, limits = result.variant, result.limits
    scheme = {True: "legacy", False: "new"}
    properties = []
    for f in result.properties:
        steps = replay(which, limits, f.path)[1] if f.path else []
        properties.append({"id": f.id, "verdict": f.verdict, "reason": f.reason,
                           "replay": to_string(which, limits, f.path) if f.path else None,
                           "steps": [{"who": s.who, "function": s.function, "what": s.what,
                                      "events": [f"{e.side}: {e.name} {e.text}".rstrip() for e in s.events]}
                                     for s in steps]})
    return {"base": which.name, "source_base": which.source.name, "destination_base": which.destination.name,
            "source_scheme": scheme[which.source_legacy], "destination_scheme": scheme[which.destination_legacy],
            **limits._asdict(), "complete": result.complete, "states": result.states,
            "transitions": result.transitions, "depth": result.depth, "seconds": round(result.seconds, 3),
            "properties": properties}


def print_result(result: Result) -> None:
    """Readable report."""
    which, limits = result.variant, result.limits
    state = "complete" if result.complete else "NOT COMPLETE"
    print(f"{which.name}, {limits.devices} device(s), at most {limits.reinits} REINIT(s), management "
          f"{limits.management}: {result.states} states, {result.transitions} transitions, depth {result.depth}, "
          f"{result.seconds:.2f} s, {state}")
    for f in result.properties:
        why = f"  ({f.reason})" if f.verdict in ("n/a", "vacuous", "unknown") else ""
        print(f"  {f.id:34s} {SHORT[f.verdict]}{why}")
    for f in result.properties:
        if f.path:
            print(f"\n{f.id} is violated: {f.reason}\nreplay: {to_string(which, limits, f.path)}")
            print("\n".join(words(replay(which, limits, f.path)[1])))


def print_table(args: argparse.Namespace) -> int:
    """The verdict matrix."""
    rows = [(name, search(variant(base, scheme), args)) for name, base, scheme in TABLE]
    if args.json:
        print(json.dumps([{"variant": name, **as_dict(result)} for name, result in rows], indent=1))
        return 0
    ids = args.property or list(PROPERTIES)
    width = max(map(len, ids))
    print(" " * width + "".join(f"  {name:>9s}" for name, _ in rows))
    for k, p in enumerate(ids):
        print(f"{p:{width}s}" + "".join(f"  {SHORT[r.properties[k].verdict]:>9s}" for _, r in rows))
    print(f"{'states':{width}s}" + "".join(f"  {r.states:>9d}" for _, r in rows))
    return 0


def main(args: argparse.Namespace) -> int:
    """Run; 0 also when a property is violated: that is a finding, not a failure."""
    if args.replay:
        try:
            journal, steps = replay(*from_string(args.replay))
        except ReplayError as error:
            print(f"migsim: {error}", file=sys.stderr)
            return 2
        if args.json:
            print(json.dumps([[e.us, e.side, e.name, e.text] for e in journal], indent=None))
        else:
            print("\n".join(words(steps)))
        return 0
    if args.table:
        return print_table(args)
    which = variant(args.base, args.scheme, args.source_base, args.destination_base, args.source_scheme,
                    args.destination_scheme)
    result = search(which, args)
    if args.json:
        print(json.dumps(as_dict(result), indent=1))
    else:
        print_result(result)
    return 0
