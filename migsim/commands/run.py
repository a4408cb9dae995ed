"""`migsim run`: simulate one scenario."""
from __future__ import annotations

import argparse
import json

from .. import report
from ..run import run
from .bases import base_name

HELP = "simulate a scenario and print what happened"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("scenario", help="a YAML or JSON scenario, or a recording's folder")
    parser.add_argument("--base", type=base_name, metavar="B",
                        help="code base at both ends: old, base, p1..p13, v2, merged")
    parser.add_argument("--source-base", type=base_name, metavar="B")
    parser.add_argument("--destination-base", type=base_name, metavar="B")
    parser.add_argument("--out", metavar="DIR", help="write logs and query-migrate answers as QEMU would")
    parser.add_argument("--json", action="store_true")


def main(args: argparse.Namespace) -> int:
    """Run and print."""
    done = run(args.scenario, args.base, args.source_base, args.destination_base)
    if args.out:
        report.write(done, args.out)
    print(json.dumps(report.as_dict(done), indent=1) + "\n" if args.json else report.summary(done), end="")
    return 0
