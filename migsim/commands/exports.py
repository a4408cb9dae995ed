"""Files that `migsim analyze` writes beside its text: a page to mail, a trace for Perfetto."""
from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..analysis import Analysis
from ..report import OutputError, write_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--html", metavar="FILE", help="write one page to mail: verdict, pictures, tables; no network")
    parser.add_argument("--chrome-trace", metavar="FILE", help="write a trace for ui.perfetto.dev or chrome://tracing")


def wanted(args: argparse.Namespace) -> bool:
    """Pictures need every query of a log, not their folds."""
    return bool(args.html or args.chrome_trace)


def write(args: argparse.Namespace, found: Sequence[Analysis]) -> None:
    """Write what was asked for. Raises OutputError."""
    logs = {Path(log).resolve() for log in (args.source, args.destination) if log}
    for path in (args.html, args.chrome_trace):
        if path and Path(path).resolve() in logs:
            raise OutputError(f"{path}: this is the log: give another file")
    if not found and wanted(args):
        raise OutputError(f"{args.source}: no migration in it: no file is written")
    if args.html:
        from ..page import page

        write_file(args.html, page(found, "/".join(Path(args.source).parts[-2:])))
    if args.chrome_trace:
        from ..chrometrace import chrome_trace, journal_of

        write_file(args.chrome_trace, json.dumps(chrome_trace(journal_of(found))) + "\n")
