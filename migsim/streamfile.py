"""Files of a captured migration: raw or gzip, as bytes that need no memory of ours."""
from __future__ import annotations

import gzip
import mmap
import tempfile
import zlib
from pathlib import Path
from typing import Any

MAX_UNPACKED = 1 << 30  # bytes of a gzip file: more is refused rather than waited for
FOREIGN = {b"\x11\x22\x33\x44": "a multifd channel: give the main channel", b"\x89PNG": "a PNG picture",
           b"LibvirtQemud": "libvirt's save image: cut off its header and give the rest", b"\xfd7zXZ": "an xz file",
           b"\x1f\x8b": "gzip in gzip", b"QFI\xfb": "a qcow2 image", b"\x28\xb5\x2f\xfd": "a zstd file"}


class WalkError(ValueError):
    """A file that is no migration stream; the message is one line."""


# --- files ---

def load(path: str | Path) -> mmap.mmap | bytes:
    """A file's bytes, mapped; gzip is unpacked to a temporary file. Raises WalkError."""
    try:
        if not Path(path).is_file():
            Path(path).stat()
            raise WalkError(f"{path}: no regular file")
        with open(path, "rb") as raw:
            if raw.read(2) == b"\x1f\x8b":
                with tempfile.TemporaryFile() as unpacked:
                    unpack(path, unpacked)
                    return mapped(unpacked)
            return mapped(raw)
    except OSError as error:
        raise WalkError(f"{path}: {error.strerror}") from None


def mapped(file: Any) -> mmap.mmap | bytes:
    """The file in memory as the system sees fit."""
    file.seek(0, 2)
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.tell() else b""


def unpack(path: str | Path, out: Any) -> None:
    """Unpack gzip; one that is cut gives what it has. Raises WalkError."""
    done = 0
    try:
        with gzip.open(path) as packed:
            while piece := packed.read1(1 << 20):
                out.write(piece)
                done += len(piece)
                if done > MAX_UNPACKED:
                    raise WalkError(f"{path}: more than {MAX_UNPACKED} bytes unpacked: unpack it, give the file itself")
    except EOFError:
        pass
    except (zlib.error, gzip.BadGzipFile) as error:
        raise WalkError(f"{path}: gzip: {error}") from None
    out.flush()


def check_magic(data: Any, path: str | Path) -> None:
    """Refuse a file that does not begin as a stream. Raises WalkError."""
    head = bytes(data[:12])
    if head[:4] != b"QEVM":
        what = next((name for magic, name in FOREIGN.items() if head.startswith(magic)), "")
        found = f"{what}, it" if what else "it"
        raise WalkError(f"{path}: no migration stream, {found} begins with {head[:4].hex(' ') or 'nothing'}: "
                        "51 45 56 4d (QEVM) expected")
