"""One migration as one HTML file to mail to a colleague: verdict, pictures, tables. No network, no kernel.

On a screen the sequence diagram can be stepped through; on paper it is its static twin. Everything from a log or a
scenario is data and escaped; a policy in the page forbids it to load anything.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from .analysis import ENDED, Analysis
from .journal import Journal
from .report import clean

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
#: of an ACK, in the order in which they happen
TIMES = ("asked", "marker", "loaded", "approved", "counted")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
CSS = """
:root { color-scheme: light dark; --bg: #ffffff; --ink: #1f2933; --soft: #52606d; --line: #c5ccd4; --head: #f0f3f6;
  --bad: #a8071a; --good: #1f6b2c; }
@media (prefers-color-scheme: dark) { :root { --bg: #16191d; --ink: #e8ebee; --soft: #aeb7c0; --line: #4a535d;
  --head: #22272d; --bad: #ff9c9c; --good: #8fd69b; } }
body { background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif;
  max-width: 1000px; margin: 0 auto; padding: 16px; overflow-wrap: anywhere; }
h1 { font-size: 21px; margin: 0 0 8px; } h2 { font-size: 17px; margin: 26px 0 6px; }
.verdict { font-size: 17px; margin: 0; padding: 10px 14px; border-left: 5px solid var(--good);
  background: var(--head); }
.verdict.bad { border-color: var(--bad); }
.soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th, td { text-align: left; vertical-align: top; overflow-wrap: break-word;
  padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); }
th { background: var(--head); }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.strong { color: var(--bad); font-weight: 600; }
figure { margin: 0; } figure img, svg { max-width: 100%; height: auto; } figure img { border-radius: 4px; }
.paper { display: none; }
article + article { border-top: 2px solid var(--line); margin-top: 32px; padding-top: 16px; }
@media print {
  article + article { break-before: page; border: 0; margin: 0; padding: 0; }
  :root { color-scheme: light; --bg: #ffffff; --ink: #000000; --soft: #333333; --line: #999999; --head: #eeeeee;
    --bad: #8a0010; --good: #14521f; }
  body { max-width: none; padding: 0; font-size: 11pt; }
  .screen { display: none; } .paper { display: block; }
  h2 { break-after: avoid; } figure, .paper, tr { break-inside: avoid; } .wide { overflow: visible; }
}
"""


class Table(NamedTuple):
    """Columns and rows; numbers stand right, None is an empty cell, a cell in `strong` stands out."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    strong: frozenset[str] = frozenset()


def page(analyses: Sequence[Analysis], title: str) -> str:
    """The file of a log: an article for each migration."""
    articles = []
    for a in analyses:
        heading = title if len(analyses) == 1 else f"{title}, migration {a.number} of {len(analyses)}"
        rules = Table(("rule", "verdict", "reason"), [(v.sentence, v.verdict, v.reason) for v in a.rules],
                      frozenset({"violated"}))
        acks = Table(("device", "why", *TIMES), [(e.device, e.why, *(a.ms(getattr(e, t)) for t in TIMES))
                                                 for e in a.acks])
        down = Table(("part of the downtime", "device", "ms", "began at, ms after setup"),
                     [(x.what, x.device, x.us / 1000, a.ms(x.first)) for x in a.downtime_ledger])
        tables = {"ACKs, ms after setup": acks, "Rules": rules, "The downtime, part by part": down}
        articles.append(article(a.journal, heading, sentence(a), bool(broken(a)) or a.status != "completed", longest(a),
                                {name: content for name, content in tables.items() if content.rows}, remarks(a)))
    return document(title, articles)


def longest(a: Analysis) -> dict[str, float]:
    """The parts of the downtime in ms, as a bar can show them: what is below a fiftieth is put together at the end."""
    whole = sum(x.us for x in a.downtime_ledger)
    out: dict[str, float] = {}
    for x in a.downtime_ledger:
        name = f"{x.what} {x.device}".strip() if x.us >= whole / 50 else "small parts"
        out[name] = out.get(name, 0.0) + x.us / 1000
    small = out.pop("small parts", 0.0)
    return {**out, "small parts": small} if small else out


def broken(a: Analysis) -> list[str]:
    """The rules that were broken."""
    return [v.sentence for v in a.rules if v.verdict == "violated"]


def sentence(a: Analysis) -> str:
    """What happened, how long the guest stood still, who was the last waited for, which rule was broken."""
    took = f"{(a.end_us - a.start_us) / 1e6:.3f} s"
    happened = {"completed": f"The migration completed after {took}", "failed": f"The migration failed after {took}",
                "cancelled": f"The migration was cancelled after {took}"}.get(
                    a.status, f"The migration had not ended when the log did, after {took}")
    if a.error:
        happened += f" ({a.error})"
    if a.guest_downtime_us is not None:
        still = f"the guest stood still for {a.guest_downtime_us / 1000:.1f} ms"
    elif a.downtime_us is not None:
        still = f"QEMU's downtime was {a.downtime_us / 1000:.1f} ms"
    else:
        still = f"no downtime can be told ({a.downtime_note or a.guest_downtime_note})"
    rules = broken(a)
    kept = f"broken: {', '.join(rules)}" if rules else "no rule was broken"
    return f"{happened}; {still}; {waited(a)}; {kept}."


def waited(a: Analysis) -> str:
    """Whose ACK was counted last, and whose was still owed at the end."""
    last = a.waited_for
    told = [f"the last ACK waited for was that of {last.device} ({last.why}), counted {a.ms(last.counted):.1f} ms "
            "after setup"] if last and last.counted is not None else []
    if a.status != "completed":  # legacy answers once, for all devices
        owed = [e for e in a.acks if e.counted is None and not (last and e.why == "legacy")]
        told += [f"never counted: the ACK of {e.device} ({e.why})" for e in owed]
    return ", ".join(told) or "no ACK was counted"


def remarks(a: Analysis) -> list[str]:
    """What else a reader must know: the code bases, the clocks, what is missing."""
    ends = [f"{side} {str(a.base[side]) or 'unknown'}, {a.scheme[side] or 'unknown'} switchover-ack"
            for side in a.sides]
    return ["Code: " + "; ".join(ends) + ".", *a.notes, *(f"Missing: {line}" for line in a.missing)]


def document(title: str, articles: Iterable[str]) -> str:
    """The file around its articles."""
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(clean(title))}</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head>\n'
            f'<body>{"".join(articles)}</body></html>\n')


def article(journal: Journal, title: str, verdict: str, bad: bool = False, ledger: Mapping[str, float] | None = None,
            tables: Mapping[str, Table] | None = None, remarks: Iterable[str] = ()) -> str:
    """One migration. `verdict`: what happened, in one sentence; `bad`: it stands out. `ledger`: what of the downtime ->
    ms. `tables`: heading -> table. `remarks`: one line each below the verdict."""
    told = "".join(f"<p>{escape(clean(line))}</p>" for line in remarks)
    parts = [f'<h1>{escape(clean(title))}</h1><p class="verdict{" bad" if bad else ""}">{escape(clean(verdict))}</p>'
             f"{told}", section("What happened, in order", diagram(journal))]
    if ledger and sum(ledger.values()) > 0:
        parts.append(section("Where the downtime went", bar(ledger)))
    pending = pending_picture(journal)
    if pending:
        parts.append(section("Pending bytes against the threshold", pending))
    parts += [section(heading, table(content)) for heading, content in (tables or {}).items()]
    notes = "".join(f'<p class="soft">{escape(clean(note))}</p>' for note in journal.notes)
    return f"<article>{''.join(parts)}{notes}</article>\n"


def section(heading: str, content: str) -> str:
    """A heading and what belongs to it."""
    return f"<section><h2>{escape(clean(heading))}</h2>{content}</section>\n"


def diagram(journal: Journal) -> str:
    """The player on a screen, the static picture on paper."""
    from .player import html
    from .svg import style, svg

    still = svg(journal, width=760).replace(f"<style>{style()}</style>", "")  # the player has it
    both = f'<div class="screen">{html(journal)}</div><div class="paper" data-jp-theme-light="true">{still}</div>'
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", both)


def bar(ledger: Mapping[str, float]) -> str:
    """The ledger as one bar; a dollar sign would begin a formula."""
    from .plots import ledger_bars

    return ledger_bars({"downtime": {clean(what).replace("$", r"\$"): ms for what, ms in ledger.items()}})


def pending_picture(journal: Journal) -> str:
    """Pending bytes over time up to the migration's end, or nothing where no query was traced that tells them."""
    from .draw import pending_figure

    told = {"qemu_savevm_query_pending": "total", "migrate_transferred": "size"}
    if any(f.name in told for f in journal.folds):
        return "<p>The log has more queries than a picture can show.</p>"
    last = journal.last("migrate_set_state", "source")
    end = last.us if last and last.args[0] in ENDED else float("inf")  # what is awaited later is awaited by nobody
    usable = [e for e in journal if e.us <= end and (e.name not in told or isinstance(e.get(told[e.name]), int))]
    if not any(e.name in told and e.side == "source" for e in usable):
        return ""
    return pending_figure(Journal(usable, journal.start))


def table(content: Table) -> str:
    """A table; wide ones scroll on their own."""
    numeric = [bool(content.rows) and all(isinstance(row[k], int | float | None) for row in content.rows)
               for k in range(len(content.columns))]
    heads = "".join(f"<th{_class(number)}>{escape(clean(c))}</th>"
                    for c, number in zip(content.columns, numeric, strict=True))
    rows = "".join("<tr>" + "".join(_cell(value, number, content.strong)
                                    for value, number in zip(row, numeric, strict=True)) + "</tr>"
                   for row in content.rows)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _cell(value: object, number: bool, strong: frozenset[str]) -> str:
    text = "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
    css = ' class="strong"' if text in strong else _class(number)
    return f"<td{css}>{escape(clean(text))}</td>"
