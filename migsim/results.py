"""The results file of a sweep: JSON lines, a header and one line per run, in the order in which runs ended.

The header tells whose rows they are. A process that is killed leaves at most one torn line, which is cut off.
"""
from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sweep import Sweep


class SweepError(ValueError):
    """A sweep that cannot be run as asked; the message is one line."""


class Results:
    """Rows on their way to `path` (None: kept in memory). `done`: indices of the rows that are there.

    Raises SweepError if the file cannot be written, belongs to something else, or is being written by another process.
    """

    def __init__(self, path: str | Path | None, sweep: Sweep) -> None:
        from . import __version__

        self.path = Path(path) if path is not None else None
        self.sweep = sweep
        self.done: set[int] = set()
        self._lines: list[str] = []
        self._file: IO[bytes] | None = None
        self._header = json.dumps({"sweep": sweep.digest, "runs": len(sweep), "migsim": __version__}).encode() + b"\n"

    def __enter__(self) -> Results:
        if self.path is not None:
            try:
                self._open()
            except OSError as error:
                self.__exit__()
                raise SweepError(f"{self.path}: {error.strerror}") from None
            except SweepError:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def _open(self) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666)
        self._file = os.fdopen(fd, "r+b", buffering=0)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SweepError(f"{self.path}: not a file that can be gone on with")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepError(f"{self.path}: another process is writing it") from None
        with self.path.open("rb") as lines:
            good = self._check(lines)
        os.ftruncate(fd, good)
        if not good:
            self._file.write(self._header)

    def _check(self, lines: IO[bytes]) -> int:
        """Bytes up to the end of the last whole line; raises SweepError if a line is not of this sweep."""
        header = lines.readline(len(self._header) + 1)
        if header != self._header:
            if header == self._header[:len(header)]:
                return 0  # killed while the header was written, or nothing there yet
            raise SweepError(f"{self.path}: {self._stranger(header)}; give another --out")
        good = len(header)
        for number, line in enumerate(lines, 2):
            if not line.endswith(b"\n"):
                break
            self._take(number, line)
            good += len(line)
        return good

    def _stranger(self, header: bytes) -> str:
        try:
            theirs, ours = json.loads(header), json.loads(self._header)
            if theirs["migsim"] != ours["migsim"] and theirs["runs"]:
                return f"rows of migsim {str(theirs['migsim'])[:20]!r}, this is {ours['migsim']}"
            return f"rows of another sweep, {str(theirs['sweep'])[:20]!r}, this is {ours['sweep']!r}"
        except (ValueError, KeyError, TypeError, RecursionError):
            return "not a results file of a sweep"

    def _take(self, number: int, line: bytes) -> None:
        try:
            row = json.loads(line)
            index = row["run"]
            fits = type(index) is int and row["key"] == self.sweep.key(index) and index not in self.done
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            fits = False
        if not fits:
            raise SweepError(f"{self.path}: line {number} is no row of this sweep, or stands there twice; delete the "
                             f"line, or give another --out")
        self.done.add(index)

    def write(self, lines: Iterable[str]) -> None:
        """Add rows. What is written survives this process."""
        if self._file is None:
            self._lines += lines
            return
        try:
            whole = "".join(line + "\n" for line in lines).encode()
            while whole:
                whole = whole[self._file.write(whole):]
        except OSError as error:
            raise SweepError(f"{self.path}: {error.strerror}; the rows so far are kept") from None

    def rows(self) -> list[dict[str, Any]]:
        """All rows, in order of `run`."""
        lines = self._lines if self.path is None else read_lines(self.path)
        return sorted(map(json.loads, lines), key=lambda row: row["run"])


def read_lines(path: str | Path) -> Iterator[str]:
    """The rows' lines of a results file, without header and torn end."""
    with open(path, encoding="utf-8") as lines:
        next(lines, "")
        yield from (line for line in lines if line.endswith("\n"))
