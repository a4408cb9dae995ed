"""`import migsim` in a fresh interpreter, next to an empty one. Median of 9."""
from __future__ import annotations

import statistics
import subprocess
import sys
import time


def fresh(code: str) -> float:
    """Seconds of a whole process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print the difference."""
    pairs = [(fresh("import migsim"), fresh("pass")) for _ in range(10)][1:]
    print(f"import migsim: {statistics.median(a - b for a, b in pairs) * 1000:.0f} ms more than an empty "
          "interpreter (aim 100 ms)")


if __name__ == "__main__":
    main()
