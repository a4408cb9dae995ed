"""A file's bytes in blocks, plain, gzip or xz, told apart by the first bytes; bounded memory whatever is in it."""
from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

SIZE = 1 << 20
XZ_MEMORY = 256 << 20  # xz -9 needs 65 MiB


def blocks(path: Path, progress: Callable[[int, int], None] | None = None) -> Iterator[bytes]:
    """The content, at most SIZE bytes at a time. `progress` is told (bytes of the file read, its size).

    Raises OSError, EOFError, zlib.error or lzma.LZMAError where the file breaks off or is damaged.
    """
    with path.open("rb") as raw:
        size = path.stat().st_size
        for block in _content(raw):
            yield block
            if progress:
                progress(raw.tell(), size)


def _content(raw: BinaryIO) -> Iterator[bytes]:
    head = raw.peek(6)[:6]  # type: ignore[attr-defined]
    if head[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=raw) as content:
            while block := content.read1(SIZE):
                yield block
    elif head == b"\xfd7zXZ\x00":
        yield from _xz(raw)
    else:
        while block := raw.read(SIZE):
            yield block


def _xz(raw: BinaryIO) -> Iterator[bytes]:
    """LZMAFile would take any amount of memory that the file asks for."""
    rest = b""
    while data := rest or raw.read(SIZE):
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)
        while not stream.eof:
            if stream.needs_input and not data and not (data := raw.read(SIZE)):
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            if block := stream.decompress(data, SIZE):
                yield block
            data = b""
        rest = stream.unused_data.lstrip(b"\0")  # padding between streams


BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
