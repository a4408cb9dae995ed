"""`migsim stream`: what is in a captured migration stream."""
from __future__ import annotations

import argparse
import json
import sys

from ..report import clean
from ..streamreport import as_dict, summary
from ..walk import walk

HELP = "walk through a captured migration stream (raw or gzip): records, tags, bytes per module and phase"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("forward", help="every byte from source to destination, from file:, exec: or a tee")
    parser.add_argument("return_path", nargs="?", help="every byte back")
    parser.add_argument("--all", action="store_true",
                        help="a line for every record; otherwise small PARTs and vmstate devices share one")
    parser.add_argument("--json", action="store_true")


def main(args: argparse.Namespace) -> int:
    """Walk and print; 2 if a stream was not read to its last byte, after what was read."""
    found = walk(args.forward, args.return_path)
    text = json.dumps(as_dict(found), indent=1) + "\n" if args.json else summary(found, args.forward, args.all)
    print(text, end="", flush=True)
    for path, problem in ((args.forward, found.problem), (args.return_path, found.return_path_problem)):
        if problem:
            print(f"migsim: {clean(path)}: {clean(problem)}", file=sys.stderr)
    return 2 if found.problem or found.return_path_problem else 0
