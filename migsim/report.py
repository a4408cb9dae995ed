"""A finished run as text, as JSON and as files that look like QEMU's."""
from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from .ackledger import ack_ledger
from .journal import Journal
from .run import Run

PID = 4242  # in logs of 10.0.x
FILES = ("source.log", "destination.log", "source-query-migrate.json", "destination-query-migrate.json")


class OutputError(ValueError):
    """Files that cannot be written; the message is one line."""


def clean(text: str) -> str:
    """Text of a scenario or a log for a terminal: control characters shown, not obeyed."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def begin(journal: Journal) -> int:
    """When the last migration of the journal began, us."""
    starts = [e.us for e in journal.all("migrate_set_state", side="source") if e.args[0] == "setup"]
    return starts[-1] if starts else 0


def ledger_lines(journal: Journal) -> list[str]:
    """The ACK ledger, times in ms after setup."""
    start = begin(journal)
    lines = []
    for entry in ack_ledger(journal):
        if entry.asked is None or entry.asked < start - 1_000_000:
            continue
        told = [f"asked {(entry.asked - start) / 1000:.1f} ({entry.why})"]
        told += [f"{what} {(us - start) / 1000:.1f}" if us is not None else f"{what} never"
                 for what, us in (("marker", entry.marker), ("approved", entry.approved), ("counted", entry.counted))]
        lines.append(f"  {clean(entry.device):10s} " + ", ".join(told))
    return lines


def summary(run: Run) -> str:
    """What `migsim run` prints: outcome, downtime as QEMU reports it and as the guest feels it, ACK ledger."""
    out, acct = run.outcome, run.world.acct
    src, dst = run.binaries
    scheme = ["legacy" if b.switchover_ack_legacy else "new" for b in run.binaries]
    lines = [f"{run.scenario.name or 'scenario'}: {run.scenario.shows}".rstrip(": ")]
    lines.append(f"source {src.version} ({src.code.name}, {scheme[0]} ack, {src.machine}), "
                 f"destination {dst.version} ({dst.code.name}, {scheme[1]} ack, {dst.machine})")
    lines += [f"note: {note}" for note in run.notes]
    if run.refused:
        lines.append(f"refused: {run.refused}")
    status = out.get("status", "none")
    if run.timed_out:
        status += f", did not end within {run.scenario.timeout_ms / 1000:g} s"
    lines.append(f"status      {status}" + (f": {clean(out['error-desc'])}" if "error-desc" in out else ""))
    lines.append(f"run state   source {run.run_state['source'] or 'exited'}, "
                 f"destination {run.run_state['destination'] or 'exited'}")
    if "downtime" in out:
        felt = f"{acct.guest_down_ns / 1e6:.1f} ms" if acct.guest_down_ns >= 0 else "unknown"
        lines.append(f"downtime    {out['downtime']} ms as QEMU reports it, {felt} as the guest feels it")
    if "total-time" in out:
        lines.append(f"total time  {out['total-time']} ms, setup {out['setup-time']} ms")
    if "vfio" in out:
        lines.append(f"VFIO data   {out['vfio']['transferred']} bytes")
    ledger = ledger_lines(run.attempt_journals()[-1])
    lines += ["ACKs (ms after setup)", *ledger] if ledger else ["ACKs        none was asked for"]
    lines += [f"{side} says: {clean(text)}" for side, text in acct.messages]
    return "\n".join(lines) + "\n"


def as_dict(run: Run) -> dict[str, Any]:
    """What `migsim run --json` prints."""
    acct = run.world.acct
    journal = run.attempt_journals()[-1]
    return {"name": run.scenario.name, "outcome": run.outcome, "run_state": run.run_state,
            "guest_downtime_ms": acct.guest_down_ns / 1e6 if acct.guest_down_ns >= 0 else None,
            "timed_out": run.timed_out, "refused": run.refused, "notes": run.notes,
            "messages": [list(m) for m in acct.messages], "events": len(run.raw),
            "attempts": [outcome for _, outcome in run.attempts],
            "binaries": {side: {"base": b.code.name, "machine": b.machine, "legacy": b.switchover_ack_legacy}
                         for side, b in zip(("source", "destination"), run.binaries, strict=True)},
            "ack_ledger": [e._asdict() for e in ack_ledger(journal)]}


def files(run: Run) -> dict[str, str]:
    """Name -> content of the files that `--out` writes; attempts before the last are called attempt<k>-*."""
    journals = run.attempt_journals()
    out = {"source.log": run.journal.log_text("source", PID if run.binaries[0].pid_log else None)}
    for k, (journal, (_, outcome)) in enumerate(zip(journals, run.attempts, strict=True), 1):
        prefix = f"attempt{k}-" if k < len(journals) else ""
        out[f"{prefix}destination.log"] = journal.log_text("destination", PID if run.binaries[1].pid_log else None)
        out[f"{prefix}source-query-migrate.json"] = json.dumps(outcome, indent=1) + "\n"
        status = journal.last("migrate_set_state", "destination")
        there = {"status": status.args[0]} if status else {}
        out[f"{prefix}destination-query-migrate.json"] = json.dumps(there, indent=1) + "\n"
    return out


def write(run: Run, folder: str | Path) -> None:
    """Write the files; nothing is left half-written. Raises OutputError."""
    folder = Path(folder)
    try:
        if folder.exists() and (not folder.is_dir() or any(f.name.split("-", 1)[-1] not in FILES and f.name not in FILES
                                                           for f in folder.iterdir())):
            raise OutputError(f"{folder}: not empty and not ours: give a new or empty folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".migsim-", dir=folder.parent))
        try:
            for name, content in files(run).items():
                (part / name).write_text(content, encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            os.chmod(part, 0o755)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}") from None


def write_file(path: str | Path, text: str) -> None:
    """Write one file; it is there whole or not at all. Raises OutputError."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: no regular file")
    part = path.with_name(f".{path.name[:100]}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
