"""What a walk through a captured stream found, as text and for JSON."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from .qemu.stream import is_vfio
from .report import clean
from .vmdescription import sizes_of
from .walk import NO_PAGES, PHASES, QUIET, Piece, Walk

BAR = 32  # characters of the longest bar
SIGNS = dict(zip(PHASES, ".-#+=", strict=True))
OTHERS, FRAMING, DESCRIPTION = "other devices", "commands, header", "description"
SMALL_PAGES = 8  # a RAM section with at most so many pages is put together with its neighbours


def bytes_by_module(found: Walk) -> dict[str, dict[str, int]]:
    """Bytes per module (iterable section, or a group of the rest) and phase; they add up to the whole records."""
    iterable = {p.name for p in found.pieces if p.kind == "START"}
    out: dict[str, dict[str, int]] = {}
    for p in found.pieces:
        known = p.name if p.name in iterable or is_vfio(p.name) else OTHERS
        module = known if p.section_id is not None else DESCRIPTION if p.kind == "VMDESCRIPTION" else FRAMING
        row = out.setdefault(module, {})
        row[p.phase] = row.get(p.phase, 0) + p.size
    last = (OTHERS, FRAMING, DESCRIPTION)
    return {m: out[m] for m in (*(m for m in out if m not in last), *(m for m in last if m in out))}


def table(found: Walk) -> Iterator[str]:
    """Bytes per module and phase, and a bar for each module."""
    sums = bytes_by_module(found)
    phases = [p for p in PHASES if p != "description" and any(p in row for row in sums.values())]
    most = max(sum(row.values()) for row in sums.values())
    width = max(len(clean(module)) for module in sums)
    yield f"{'bytes':{width}s}" + "".join(f" {p:>10s}" for p in (*phases, "total"))
    for module, row in sums.items():
        cells = "".join(f" {row.get(p) or '':>10}" for p in phases) + f" {sum(row.values()):>10}"
        bar = "".join(SIGNS[p] * round(BAR * row.get(p, 0) / most) for p in PHASES)
        yield f"{clean(module):{width}s}{cells}  {bar}".rstrip()
    yield " " * width + "  bars: " + ", ".join(f"{SIGNS[p]} {p}" for p in phases)


def totals(found: Walk) -> Iterator[str]:
    """RAM flags, VFIO tags and commands, counted; how the description fits; what came back."""
    named = {p.name for p in found.pieces if p.kind == "START" or is_vfio(p.name)}
    sections: dict[str, list[Piece]] = {}
    for p in found.pieces:
        if p.section_id is not None and p.name in named:
            sections.setdefault(p.name, []).append(p)
    for name, mine in sections.items():
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for p in mine:
            if isinstance(p.detail, tuple):
                counts.update(tag for tag, _ in p.detail)
                for tag, size in p.detail:
                    sizes[tag] += size
            elif p.detail and p.kind != "START":
                counts.update(p.detail)
        told = [f"{what} {n}" + (f" ({sizes[what]} bytes)" if sizes[what] else "") for what, n in counts.items()]
        yield f"{clean(name)}: " + ", ".join([f"{len(mine)} sections", *told])
    commands = [p.name for p in found.pieces if p.kind == "COMMAND"]
    yield "commands: " + (runs(commands) or "none")
    if found.description:
        sizes_said = sizes_of(found.description)
        full = [(p.name, p.instance_id, p.payload) for p in found.pieces if p.kind == "FULL"]
        odd = [n for n, k, size in full if sizes_said.get((n, k)) != size]
        yield f"description: {len(sizes_said)} devices; " + (
            f"other sizes than sent: {clean(', '.join(odd))}" if odd else "the sizes that it gives are those sent")
    if found.return_path:
        yield "return path: " + runs([message(m.name, m.data) for m in found.return_path])


def runs(names: list[str]) -> str:
    """Names in order, repetitions counted."""
    grouped = [(name, len(list(same))) for name, same in groupby(names)]
    return ", ".join(name + (f" x {n}" if n > 1 else "") for name, n in grouped)


def message(name: str, data: bytes) -> str:
    """A command or message with its data, where they are a number."""
    return f"{name} {int.from_bytes(data, 'big')}" if len(data) == 4 else \
        f"{name} {data[:16].hex()}{'...' if len(data) > 16 else ''}".rstrip()


def words(p: Piece) -> str:
    """One record."""
    if p.kind == "COMMAND":
        what = f"COMMAND {message(p.name, p.detail)}"
    elif p.section_id is None:
        what = f"{p.kind} {clean(p.name)}".rstrip()
    else:
        what = f"{p.kind} {clean(p.name)} id {p.section_id}"
    if p.version_id is not None:
        what += f" instance {p.instance_id} version {p.version_id}"
    if isinstance(p.detail, tuple):
        what += ": " + ", ".join(tag + (f" {size}" if size else "") for tag, size in p.detail)
    elif isinstance(p.detail, dict) and p.detail:
        what += ": " + ", ".join(f"{clean(str(k))} {v}" for k, v in p.detail.items())
    return "  " * p.packaged + what


def group(p: Piece) -> str:
    """What neighbours are put together under: PARTs with next to nothing in them, vmstate devices."""
    if p.kind == "PART":
        pages = isinstance(p.detail, dict) and p.detail.get("PAGE", 0) + p.detail.get("ZERO", 0) <= SMALL_PAGES
        return "small PART" if pages or p.detail in (QUIET, NO_PAGES) else ""
    return "vmstate FULL" if p.kind == "FULL" and not isinstance(p.detail, tuple) else ""


def listing(found: Walk, every: bool) -> Iterator[str]:
    """A line per record; unless `every`, small PARTs and vmstate devices in one."""
    yield f"{'offset':>10s} {'bytes':>10s}  record"
    for (what, _), same in groupby(found.pieces, key=lambda p: (group(p), p.packaged)):
        pieces = list(same)
        if not what or every or len(pieces) < 3:
            yield from (f"{p.offset:>10d} {p.size:>10d}  {words(p)}" for p in pieces)
            continue
        size, first = sum(p.size for p in pieces), pieces[0]
        names = list(dict.fromkeys(clean(p.name) for p in pieces))
        shown = ", ".join(names) if len(names) < 4 else f"{names[0]} to {names[-1]}"
        pages = sum(p.detail.get("PAGE", 0) for p in pieces if isinstance(p.detail, dict))
        more = f", {pages} pages" if pages else ""
        yield f"{first.offset:>10d} {size:>10d}  {'  ' * first.packaged}{len(pieces)} {what} sections: {shown}{more}"


def summary(found: Walk, name: str, every: bool = False) -> str:
    """What `migsim stream` prints."""
    whole = sum(p.size for p in found.pieces)
    state = f"{whole} of them in whole records" if found.problem else "read to the last byte"
    head = f"{clean(name)}: {found.size} bytes, {clean(found.machine) or 'no configuration'}, {state}"
    lines = [head, "", *table(found), "", *totals(found), "", *listing(found, every)]
    return "\n".join(lines) + "\n"


def piece_dict(p: Piece) -> dict[str, Any]:
    """One record for JSON: what it does not have is left out."""
    row = {k: v for k, v in p._asdict().items() if v is not None and v != "" and v is not False}
    if isinstance(p.detail, bytes):
        row["detail"] = p.detail.hex()
    elif isinstance(p.detail, tuple):
        row["detail"] = [{"tag": tag, "bytes": size} for tag, size in p.detail]
    return row


def as_dict(found: Walk) -> dict[str, Any]:
    """What `migsim stream --json` prints."""
    return {"bytes": found.size, "machine": found.machine, "complete": not found.problem, "problem": found.problem,
            "bytes_by_module": bytes_by_module(found), "records": [piece_dict(p) for p in found.pieces],
            "return_path": [{"offset": m.offset, "message": m.name, "data": m.data.hex()} for m in found.return_path],
            "return_path_problem": found.return_path_problem,
            "described": [{"name": name, "instance": instance, "bytes": size}
                          for (name, instance), size in sizes_of(found.description).items()]}
