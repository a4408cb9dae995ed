"""How fast a QEMU log is read: `read_log`, `grep -c` and a plain pandas regex over one file, in turn; best of 3.

The file is a recording's source log, repeated until it has half a million lines. Wall time says little where others
use the same cores; CPU time stands beside it.
"""
from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas

from migsim.journal import open_text
from migsim.log import read_log

LOG = Path(__file__).parent.parent / "data" / "recordings-busy" / "d1-device-20MBs-new" / "source.log.xz"
LINES, AIM = 500_000, 400_000


def by_grep(path: Path) -> None:
    """Count the lines of one event: the least that anybody can do."""
    subprocess.run(["grep", "-c", "Z vfio_state_pending ", str(path)], check=True, capture_output=True)


def by_pandas(path: Path) -> None:
    """What a script of ten lines does: stamp, event and text of each line as columns."""
    lines = pandas.Series(path.read_text().splitlines())
    frame = lines.str.extract(r"^(\S+)Z ([a-z_0-9]+) ?(.*)$")
    pandas.to_datetime(frame[0])
    frame.groupby(1).size()


def cpu() -> float:
    """Seconds of CPU of this process and its children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def cost(what: Callable[[Path], object], path: Path) -> tuple[float, float]:
    """Seconds by the clock, seconds of CPU."""
    began = time.perf_counter(), cpu()
    what(path)
    return time.perf_counter() - began[0], cpu() - began[1]


def main() -> None:
    """Print lines per second of each, and what memory reading took."""
    with tempfile.TemporaryDirectory() as folder:
        path, text = Path(folder) / "source.log", "".join(open_text(LOG))
        times = LINES // text.count("\n") + 1
        with path.open("w") as out:
            for _ in range(times):
                out.write(text)
        lines = times * text.count("\n")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        read_log(path)
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        best = {what: min(cost(what, path) for _ in range(3)) for what in (read_log, by_grep, by_pandas)}
        print(f"{lines} lines, {path.stat().st_size >> 20} MiB; read_log took {more:.0f} MiB of memory")
        for what, (wall, used) in best.items():
            aim = f"  (aim {AIM})" if what is read_log else ""
            print(f"{what.__name__:10s} {lines / wall:10.0f} lines/s, {lines / used:10.0f} per s of CPU{aim}")


if __name__ == "__main__":
    main()
