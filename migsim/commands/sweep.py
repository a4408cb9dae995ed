"""`migsim sweep`: run a scenario over grids or random draws of its keys."""
from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..report import clean
from ..sweep import Sweep, load_sweep, run_sweep

HELP = "run a scenario over grids or random draws of its keys"
Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("sweep", help="a YAML or JSON sweep: scenario, grid, draw, runs, seed, measure")
    parser.add_argument("--out", metavar="RESULTS.jsonl", help="one line per run; started again it goes on there")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--workers", type=int, metavar="N", help="processes (as many as there are CPUs)")
    who.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler instead, such as tcp://host:8786")


def main(args: argparse.Namespace) -> int:
    """Run and print."""
    from tqdm import tqdm

    sweep = load_sweep(args.sweep)
    workers = len(os.sched_getaffinity(0)) if args.workers is None else args.workers
    with tqdm(total=len(sweep), unit="run", disable=None, leave=False) as bar:  # None: only on a terminal
        rows = run_sweep(sweep, args.out, workers, args.dask, bar.update)
    print("\n".join(summary(sweep, rows)))
    return 0


def summary(sweep: Sweep, rows: list[Row]) -> Iterator[str]:
    """How the runs ended, a table over a grid of one or two keys, quantiles of draws."""
    counts = Counter(row["status"] for row in rows)
    yield f"{clean(sweep.name)}: {len(rows)} runs: " + ", ".join(f"{n} {status}" for status, n in counts.most_common())
    name = sweep.measure[0]
    if 1 <= len(sweep.grid) <= 2:
        yield from table(sweep, rows, name)
    values = [row[name] for row in rows if row.get(name) is not None]
    if sweep.draw and len(values) > 1:
        cuts = statistics.quantiles(values, n=20, method="inclusive")
        yield f"{name} over all draws: " + ", ".join(f"{p} % {cuts[p // 5 - 1]:g}" for p in (5, 25, 50, 75, 95))
    reasons = Counter((row["status"], row["reason"]) for row in rows if row["reason"])
    yield from (f"{n:5d} {status}: {clean(reason)}" for (status, reason), n in reasons.most_common(10))
    if len(reasons) > 10:
        yield f"      and {len(reasons) - 10} other reasons"


def table(sweep: Sweep, rows: list[Row], name: str) -> Iterator[str]:
    """The median of a measure in each cell; behind it, how many runs have none."""
    (down, downs), *rest = sweep.grid.items()
    across, acrosses = rest[0] if rest else ("", [None])
    cells: dict[tuple[str, str], list] = {}
    for row in rows:
        at = _text(row["point"][down]), _text(row["point"].get(across))
        cells.setdefault(at, []).append(row.get(name))
    head = [clean(down), *(_text(value) if rest else name for value in acrosses)]
    lines = [[_text(a), *(_cell(cells[_text(a), _text(b)]) for b in acrosses)] for a in downs]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    if rest:
        yield f"{name}, across: {clean(across)}"
    yield from (_line(line, widths) for line in (head, *lines))


def _line(line: Iterable[str], widths: list[int]) -> str:
    pads: list[Callable[[str, int], str]] = [str.ljust] + [str.rjust] * (len(widths) - 1)
    return "  ".join(pad(text, width) for pad, text, width in zip(pads, line, widths, strict=True))


def _text(value: Any) -> str:
    return clean(value if isinstance(value, str) else json.dumps(value))[:40]


def _cell(values: list) -> str:
    there = [value for value in values if isinstance(value, int | float)]
    if not there:
        return "-"
    missing = f" ({len(values) - len(there)} -)" if len(there) < len(values) else ""
    return f"{statistics.median(there):g}{missing}"
