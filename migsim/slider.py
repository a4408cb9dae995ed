"""One scenario along the ladder: what a patch changes in the journal, and a slider from patch 0 to 14 (merged)."""
from __future__ import annotations

from collections import Counter
from functools import lru_cache
from html import escape
from typing import Any, NamedTuple

import ipywidgets

from .checks import check
from .compare import PROTOCOL
from .course import STYLE
from .journal import Journal
from .ladder import MERGED, PATCHES
from .picture import pictures
from .player import payload, show
from .run import Run, run
from .scenario import Scenario, load_scenario

MOST, WIDE = 12, 220  # rows and characters of a list of differences
STEPS = ("base", *(f"p{k}" for k in range(1, MERGED)), "merged")
FRAME = f'{STYLE}<div class="migsim-course" style="overflow-wrap:anywhere">'
SUBJECTS = {0: "11.1-dev just before the series", **PATCHES, MERGED: "what review changed on the way into QEMU 11.1"}


class Change(NamedTuple):
    """Events of one name that only one of two journals has: how many, and the first of each as text."""

    side: str
    name: str
    before: int
    after: int
    first_before: str
    first_after: str


def changes(before: Journal, after: Journal) -> list[Change]:
    """What differs between two journals, protocol events first, then in order of appearance; moments do not count.

    An event that both have, with the same arguments and as often, is no difference.
    """
    a, b = (Counter((e.side, e.name, e.text.strip()) for e in journal) for journal in (before, after))
    gone, new = a - b, b - a
    out = []
    for side, name in dict.fromkeys((side, name) for side, name, _ in (*gone, *new)):
        old, now = ([(text, n) for (s, x, text), n in part.items() if (s, x) == (side, name)] for part in (gone, new))
        out.append(Change(side, name, sum(n for _, n in old), sum(n for _, n in now),
                          old[0][0] if old else "", now[0][0] if now else ""))
    return sorted(out, key=lambda c: c.name not in PROTOCOL[c.side])


@lru_cache(maxsize=64)
def _run(scenario: str, step: str, forced: bool) -> Run:
    got = load_scenario(scenario)
    if forced:
        off = ["migration.switchover-ack-legacy=off"]
        got = got.replace(**{"source.globals": off, "destination.globals": off})
    return run(got, base=step)


def steps_of(scenario: str, patch: int, forced: bool = False) -> tuple[Run, Run]:
    """The runs before and after a patch: 1 to 13, 14 is what was merged, 0 is base twice. `forced`: the new scheme from
    patch 6 on.

    Raises ValueError, one line, for another number.
    """
    if patch not in range(MERGED + 1):
        raise ValueError(f"patch {patch!r}: allowed is 0 to {MERGED}")
    return _run(scenario, STEPS[max(patch - 1, 0)], forced), _run(scenario, STEPS[patch], forced)


def told(scenario: str, patch: int, forced: bool = False) -> str:
    """What the step to `patch` changes, as HTML: outcome, verdicts that turned, events."""
    before, after = steps_of(scenario, patch, forced)
    differ = changes(before.journal, after.journal)
    rows = "".join(
        f"<tr><td>{escape(c.side)}</td><td><code>{escape(c.name).replace('_', '_<wbr>')}</code></td>"
        f"<td>{c.before or ''} <code>{escape(c.first_before[:WIDE])}</code></td>"
        f"<td>{c.after or ''} <code>{escape(c.first_after[:WIDE])}</code></td></tr>"
        for c in differ[:MOST])
    rows += f"<tr><td colspan=4>and {len(differ) - MOST} more names</td></tr>" if len(differ) > MOST else ""
    events = (f"<table><tr><th>side</th><th>event</th><th>only before: how many, the first</th><th>only after</th></tr>"
              f"{rows}</table>") if rows else "<p>The journals are equal, event for event.</p>"
    return (f"{FRAME}<b>Patch {patch}: {escape(SUBJECTS[patch])}</b><br>"
            f"{escape(outcome(before))} → {escape(outcome(after))}{turned(before, after)}{events}</div>")


def ladder_table(scenario: Scenario | str, forced: bool = False) -> str:
    """Every step in one line, as HTML: subject, how many events differ from the step before, outcome after it."""
    rows = []
    for patch in range(1, MERGED + 1):
        before, after = steps_of(scenario, patch, forced)
        differ = changes(before.journal, after.journal)
        count = sum(max(c.before, c.after) for c in differ)
        names = list(dict.fromkeys(c.name for c in differ))
        said = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        rows.append(f"<tr><td>{patch}</td><td>{escape(SUBJECTS[patch])}</td><td>{escape(outcome(after))}</td>"
                    f"<td>{count or '–'}</td><td>{escape(said)}</td></tr>")
    head = "<tr><th>patch</th><th>subject</th><th>outcome</th><th>events that differ</th><th>their names</th></tr>"
    return f'{FRAME}<table>{head}{"".join(rows)}</table></div>'


def outcome(got: Run) -> str:
    """Status and downtime in a few words."""
    down = got.outcome.get("downtime")
    return str(got.outcome.get("status")) + (f", {down} ms" if down is not None else "")


def turned(before: Run, after: Run) -> str:
    """Rules whose verdict is another one after the patch."""
    pairs = zip(check(before.journal), check(after.journal), strict=True)
    said = [f"{a.id}: {a.verdict} → {b.verdict}" for a, b in pairs if a.verdict != b.verdict]
    return "".join(f"<br>{escape(text)}" for text in said)


class PatchSlider(ipywidgets.VBox):
    """A slider over a player of the runs before and after a patch; what differs is marked and listed."""

    def __init__(self, scenario: Scenario | str, patch: int, forced: bool) -> None:
        self.scenario = scenario
        self.patch = ipywidgets.IntSlider(value=patch, min=0, max=MERGED, description="patch", continuous_update=False,
                                          layout={"width": "480px"})
        self.forced = ipywidgets.Checkbox(value=forced, indent=False, layout={"width": "480px"},
                                          description="new scheme on before patch 13 makes it the default")
        self.readout = ipywidgets.HTML()
        before, after = steps_of(scenario, patch, forced)
        self.player = show(before.journal, after.journal, titles=self._titles())
        self._draw()
        super().__init__([self.patch, self.forced, self.readout, self.player])
        self.patch.observe(self._draw, "value")
        self.forced.observe(self._draw, "value")

    def _titles(self) -> tuple[str, str]:
        return STEPS[max(self.patch.value - 1, 0)], STEPS[self.patch.value]

    def _draw(self, _: Any = None) -> None:
        before, after = steps_of(self.scenario, self.patch.value, self.forced.value)
        self.player.data = payload(pictures(before.journal, after.journal, self._titles()))
        self.readout.value = told(self.scenario, self.patch.value, self.forced.value)


def patch_slider(scenario: str, patch: int = 6, forced: bool = False) -> PatchSlider:
    """One scenario's file along the ladder. Raises ValueError or ScenarioError, one line."""
    return PatchSlider(scenario, patch, forced)
