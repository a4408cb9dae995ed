"""The static twin of the player: the same picture as one SVG, for print, GitHub and runs without a browser.

Nothing is told by colour alone: states have patterns and names, messages dashes and names. Text from a journal is
escaped. The colours follow the page: theme variables of JupyterLab, else the reader's preference, on an opaque ground.
"""
from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from html import escape
from pathlib import Path
from typing import NamedTuple

from .journal import Journal
from .picture import Band, Item, Lane, Message, Picture, pictures, warp

STATIC = Path(__file__).parent / "static"
ROOMY = {"guest": 24, "status": 22, "device": 22, "thread": 30, "counter": 24, "wire": 70}
DENSE = {"guest": 20, "status": 18, "device": 15, "thread": 28, "counter": 20, "wire": 57}
GAP, AXIS, TITLE, CHAR, BOLD = 3, 34, 26, 6.0, 6.9
DARK = ("--ms-bg: #16191d; --ms-ink: #e8ebee; --ms-soft: #aeb7c0; --ms-line: #66717c; --ms-grid: #2b3138; "
        "--ms-head: #22272d; --ms-down: #33291d; --ms-accent: #7db7f2; --ms-warn: #ff9c9c; --ms-data: #2f4f74; "
        "--ms-green: #234a2c; --ms-blue: #23426b; --ms-orange: #6b431a; --ms-grey: #353c44; --ms-violet: #463a63; "
        "--ms-red: #6f2a2a; --ms-yellow: #564a14; --ms-hatch: #8b96a1;")
#: pattern of a state; one that is not listed has none
PATTERN = {"RUNNING_P2P": "dots", "destination": "dots", "PRE_COPY": "up", "active": "up", "PRE_COPY_P2P": "updots",
           "STOP_COPY": "down", "stopped": "down", "device": "down", "RESUMING": "lines", "ERROR": "cross",
           "both": "cross", "failed": "cross", "failing": "cross", "STOP": "grid", "quit": "grid",
           "cancelling": "cross", "cancelled": "cross"}
TILES = {
    "up": '<path class="hatch" d="M-1 1L1 -1M0 8L8 0M7 9L9 7"/>',
    "down": '<path class="hatch" d="M-1 7L1 9M0 0L8 8M7 -1L9 1"/>',
    "lines": '<path class="hatch" d="M0 4H8"/>',
    "grid": '<path class="hatch" d="M4 0V8"/>',
    "dots": '<circle class="dot" cx="2" cy="2" r="0.9"/><circle class="dot" cx="6" cy="6" r="0.9"/>',
    "updots": '<path class="hatch" d="M-1 1L1 -1M0 8L8 0M7 9L9 7"/><circle class="dot" cx="2" cy="2" r="0.9"/>',
    "cross": '<path class="hatch" d="M0 0L8 8M0 8L8 0"/>',
}
KNOWN = {*PATTERN, "RUNNING", "source", "completed", "setup"}
#: events with a word of their own in the picture
NAMED = {"vfio_query_precopy_size_request_switchover_ack": "REINIT", "migration_thread_low_pending": "switch over!",
         "loadvm_approve_switchover": "approves", "loadvm_approve_switchover_legacy": "approves",
         "migrate_error": "error", "migration_cancel": "cancel"}
#: messages are named in this order as far as there is room
SHORT = {"SWITCHOVER_ACK": "ACK", "OPEN_RETURN_PATH": "OPEN", "SWITCHOVER_START": "START"}
RANK = ("ack", "marker", "command", "shut", "data", "pong", "config", "state")


@cache
def style() -> str:
    """The picture's CSS, with the dark colours put in where they belong."""
    css = (STATIC / "picture.css").read_text(encoding="utf-8")
    light = re.search(r"\{(.*?)background:", css, re.DOTALL)
    return re.sub(r"\s+", " ", css.replace("/*DARK*/", DARK).replace("/*LIGHT*/", light[1].strip() if light else ""))


class Tick(NamedTuple):
    """A mark of the time axis."""

    x: float
    label: str


def us_text(us: int) -> str:
    """A time after setup in the unit that suits it."""
    sign, us = ("-" if us < 0 else ""), abs(us)
    for size, unit in ((1_000_000, "s"), (1000, "ms")):
        if us >= size:
            return f"{sign}{us / size:.6f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{sign}{us} µs"


def length_text(us: int) -> str:
    """A duration, as QEMU counts downtime: in milliseconds."""
    return f"{us / 1000:.1f} ms" if us < 100_000 else f"{us / 1000:.0f} ms"


def _roundest(low: float, high: float) -> int:
    """The roundest whole number in [low, high]."""
    step = 1
    while (-(-low // (step * 10))) * step * 10 <= high and step < 10**12:
        step *= 10
    for part in (5, 2, 1):
        at = -(-low // (step * part)) * step * part
        if at <= high:
            return int(at)
    return int(low)


def axis(us_at: Callable[[float], float], left: float, right: float, x_at: Callable[[float], float]) -> list[Tick]:
    """Marks about every 90 pixels, each at the roundest time near its place."""
    out: list[Tick] = []
    x = left + 12
    while x < right - 20:
        us = _roundest(us_at(x - 10), us_at(x + 26))
        at = x_at(us)
        if left <= at <= right - 8 and (not out or at - out[-1].x > 52):
            out.append(Tick(at, us_text(us)))
        x += 84
    return out


class Scale:
    """us -> x by the breakpoints of picture.warp(), and back."""

    def __init__(self, points: list[tuple[int, float]], first: int, last: int, left: float, right: float) -> None:
        self.points, self.left = points, left
        low, high = self._place(first), self._place(last)
        self.low, self.factor = low, (right - left) / ((high - low) or 1)

    def _place(self, us: float) -> float:
        return _interpolate(self.points, us, 0, 1)

    def x(self, us: float) -> float:
        return round(self.left + (self._place(us) - self.low) * self.factor, 1)

    def us(self, x: float) -> float:
        return _interpolate(self.points, (x - self.left) / self.factor + self.low, 1, 0)


def _interpolate(points: list[tuple], value: float, a: int, b: int) -> float:
    low, high = 0, len(points) - 1
    if high == 0:
        return points[0][b]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if points[middle][a] <= value else (low, middle)
    p, q = points[low], points[high]
    part = (value - p[a]) / ((q[a] - p[a]) or 1)
    return p[b] + min(max(part, 0), 1) * (q[b] - p[b])


class _Drawing:
    """Collects the SVG's parts for one picture at a height `top`."""

    def __init__(self, p: Picture, scale: Scale, top: float, width: float, uid: str, heights: dict[str, int]) -> None:
        self.p, self.scale, self.width, self.uid, self.heights = p, scale, width, uid, heights
        self.rows: dict[str, tuple[float, float]] = {}
        self.out: list[str] = []
        y = top
        for lane in p.lanes:
            if lane.key == "destination/status":
                self.wire = (y, y + heights["wire"])
                y += heights["wire"]
            self.rows[lane.key] = (y, heights[lane.kind])
            y += heights[lane.kind] + GAP
        self.top, self.bottom = top, y
        if not hasattr(self, "wire"):
            self.wire = (y, y)
        self.taken: dict[str, list[tuple[float, float]]] = {}
        self.ticks: dict[str, float] = {}

    def text(self, x: float, y: float, text: str, css: str = "", anchor: str = "") -> None:
        anchor = f' text-anchor="{anchor}"' if anchor else ""
        self.out.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{css}"{anchor}>{escape(text)}</text>')

    def line(self, lane: str) -> float:
        """Height of a lane's line: its lower half, names stand above it."""
        y, h = self.rows[lane]
        return y + (h - 10 if h == self.heights["thread"] else h / 2)

    def free(self, row: str, x: float, end: float) -> bool:
        """Is there room in this row of labels? Takes it if so."""
        spans = self.taken.setdefault(row, [])
        if x < self.scale.left or end > self.width - 4 or any(x < b and a < end for a, b in spans):
            return False
        spans.append((x - 3, end + 3))
        return True

    def draw(self) -> str:
        """Back to front."""
        self._ground()
        for lane in self.p.lanes:
            self._label(lane)
        for band in self.p.bands:
            self._band(band)
        for message in self.p.messages:
            self._message(message)
        for item in sorted(self.p.items, key=lambda i: (i.kind != "fold", i.kind == "protocol")):
            self._item(item)
        self._named()
        for band in self.p.bands:
            self._band_name(band)
        self._counter()
        self._message_names()
        return "".join(self.out)

    def _ground(self) -> None:
        left, right = self.scale.left, self.width - 6
        for a, b in self.p.downtime:
            x, w = self.scale.x(a), max(self.scale.x(b) - self.scale.x(a), 1.5)
            self.out.append(f'<rect class="down" x="{x}" y="{self.top:.1f}" width="{w:.1f}" '
                            f'height="{self.bottom - self.top - GAP:.1f}"/>')
        for lane in self.p.lanes:
            if lane.kind in ("thread", "counter"):
                self.out.append(f'<path class="life" d="M{left} {self.line(lane.key):.1f}H{right:.1f}"/>')

    def _label(self, lane: Lane) -> None:
        css = "strong" if lane.kind in ("status", "guest") else ""
        indent = 6 if lane.kind in ("status", "guest") else 16
        label = lane.label if len(lane.label) <= 22 else f"{lane.label[:12]}…{lane.label[-8:]}"
        self.out.append(f"<g><title>{escape(lane.label)}</title>")
        self.text(indent, self.line(lane.key) + 4, label, css)
        self.out.append("</g>")

    def _extent(self, band: Band) -> tuple[float, float] | None:
        if band.lane not in self.rows or band.end < self.p.home[0] or band.us > self.p.home[1]:
            return None
        a = max(self.scale.x(max(band.us, self.p.home[0])), self.scale.left)
        return a, max(self.scale.x(min(band.end, self.p.home[1])) - a, 0.8)

    def _band(self, band: Band) -> None:
        extent = self._extent(band)
        if not extent:
            return
        y, h = self.rows[band.lane]
        rect = f'x="{extent[0]:.1f}" y="{y:.1f}" width="{extent[1]:.1f}" height="{h}" rx="2"'
        state = band.state if band.state in KNOWN else "other"
        tip = f"{band.label}: {us_text(band.us)} to {us_text(band.end)}"
        self.out.append(f'<g><title>{escape(tip)}</title><rect class="band s-{state}" {rect}/>')
        if band.state in PATTERN:
            self.out.append(f'<rect fill="url(#{self.uid}{PATTERN[band.state]})" {rect}/>')
        self.out.append("</g>")

    def _band_name(self, band: Band) -> None:
        extent = self._extent(band)
        if not extent:
            return
        names = [band.label]
        if band.lane == "guest" and (down := [b - a for a, b in self.p.downtime if b == band.end]):
            names.insert(0, f"stopped · downtime {length_text(down[0])}")
        (a, width), (y, h) = extent, self.rows[band.lane]
        for name in names:
            w = len(name) * BOLD
            for x in (a + (width - w) / 2, a + 4, a + width - w - 4):
                if width > w + 6 and self.free(band.lane, x, x + w):
                    self.text(x + w / 2, y + h / 2 + 4, name, "strong small", "middle")
                    return

    def _item(self, item: Item) -> None:
        if item.lane not in self.rows or not self.p.home[0] <= item.us <= self.p.home[1]:
            return
        y, h = self.rows[item.lane]
        x, line = self.scale.x(item.us), self.line(item.lane)
        if item.kind == "fold":
            w = self.scale.x(min(item.end, self.p.home[1])) - x
            if w < 3:
                return
            rect = f'x="{x}" y="{line - 4:.1f}" width="{w:.1f}" height="8"'
            self.out.append(f'<g><title>{escape(item.what)}</title><rect class="fold" {rect}/>'
                            f'<rect fill="url(#{self.uid}up)" {rect}/></g>')
            return
        protocol = item.kind == "protocol"
        key = item.lane + item.kind
        if abs(x - self.ticks.get(key, -9)) < 0.6 and not item.differs and item.name != "migrate_error":
            return  # nobody could tell them apart
        self.ticks[key] = x
        css = "tick" + (" protocol" if protocol else "") + (" error" if item.name == "migrate_error" else "")
        low, high = (y + h - (7 if protocol else 4), y + h) if "/device" in item.lane else (
            (line - 8, line + 8) if protocol else (line - 4, line + 4))
        self.out.append(f'<g><title>{escape(f"{us_text(item.us)}  {item.name} {item.text}: {item.what}")}</title>'
                        f'<path class="{css}" d="M{x} {low:.1f}V{high:.1f}"/></g>')
        if item.differs:
            self.out.append(f'<path class="differs" d="M{x} {high - 9:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"><title>only '
                            f"here: {escape(item.name)} {escape(item.text)}</title></path>")

    def _named(self) -> None:
        inside = [i for i in self.p.items if i.lane in self.rows and self.p.home[0] <= i.us <= self.p.home[1]]
        for item in inside:
            if word := NAMED.get(item.name):
                y, h = self.rows[item.lane]
                x, w = self.scale.x(item.us), len(word) * BOLD
                for start in (x, x - w / 2, x - w):
                    if self.free(item.lane, start, start + w):
                        css = "halo small " + ("warn" if word in ("error", "REINIT", "cancel") else "strong")
                        self.text(start, y + (9 if h == self.heights["thread"] else h / 2 + 4), word, css)
                        break
        for item in inside:
            w, name = self.scale.x(min(item.end, self.p.home[1])) - self.scale.x(item.us), item.text.split(" (")[0]
            need = len(name) * CHAR
            x = self.scale.x(item.us) + (w - need) / 2
            if item.kind == "fold" and w > need and self.free(item.lane, x, x + need):
                self.text(x, self.rows[item.lane][0] + 9, name, "small soft")

    def _counter(self) -> None:
        if "counter" not in self.rows:
            return
        y, h = self.rows["counter"]
        last = -1e9
        for k, (us, value) in enumerate(self.p.counter):
            x, w = self.scale.x(us), len(value) * 7 + 8
            if us > self.p.home[1]:
                break
            following = self.p.counter[k + 1].us if k + 1 < len(self.p.counter) else None
            if x < last + 1 and following is not None and self.scale.x(following) - x < w:
                continue  # the next number takes its place
            x = max(x, last)
            css = "chip" + ("" if value == "0" else " pending")
            self.out.append(f"<g><title>{escape(value)} awaited from {us_text(us)}</title>"
                            f'<rect class="{css}" x="{x:.1f}" y="{y + 2:.1f}" width="{w}" height="{h - 4}" rx="8"/>')
            self.text(x + w / 2, y + h / 2 + 4, value, "strong", "middle")
            self.out.append("</g>")
            last = x + w

    # --- messages ---

    def _ends(self, m: Message) -> tuple[float, float, float, float] | None:
        if m.sender not in self.rows or m.receiver not in self.rows or not m.us <= self.p.home[1]:
            return None
        y, v, x = self.line(m.sender), self.line(m.receiver), self.scale.x(m.us)
        return (x, y, x + 10, (y + v) / 2) if m.at is None else (x, y, self.scale.x(m.at), v)

    def _message(self, m: Message) -> None:
        ends = self._ends(m)
        if not ends:
            return
        x, y, u, v = ends
        tip = f"{m.label}{f' x {m.count}' if m.count > 1 else ''}: {us_text(m.us)} to "
        tip += us_text(m.at_last) if m.at_last is not None else "never received"
        self.out.append(f"<g><title>{escape(tip)}</title>")
        if m.kind == "data" and m.at is not None:
            a, b = self.scale.x(m.us_last), self.scale.x(m.at_last)
            self.out.append(f'<path class="data" d="M{x} {y:.1f}H{max(a, x + 1)}L{max(b, u + 1)} {v:.1f}H{u}Z"/>')
        else:
            css = f"msg m-{m.kind}" + (" lost" if m.at is None else "")
            self.out.append(f'<path class="{css}" d="M{x} {y:.1f}L{u} {v:.1f}"/>')
            if m.at is None:
                self.out.append(f'<circle class="end" cx="{u}" cy="{v:.1f}" r="3"/>')
            else:
                self.out.append(_head(x, y, u, v, m.kind))
        self.out.append("</g>")

    def _message_names(self) -> None:
        for m in sorted(self.p.messages, key=lambda m: RANK.index(m.kind)):
            ends = self._ends(m)
            if not ends:
                continue
            tail = (f" x {m.count}" if m.count > 1 else "") + ("" if m.at is not None else " (not received)")
            names = [m.label + tail] + ([SHORT[m.label] + tail] if m.label in SHORT else [])
            self._message_name(m, ends, names)

    def _message_name(self, m: Message, ends: tuple[float, float, float, float], names: list[str]) -> None:
        x, y, u, v = ends
        top, bottom = self.wire
        strong = m.kind in ("ack", "marker")
        for name in names:
            w = len(name) * (BOLD if strong else CHAR)
            for level in range(int((bottom - top - 8) // 13)):
                at_y = top + 15 + 13 * level
                at = x + (u - x) * (at_y - y) / ((v - y) or 1) if m.at is not None else u
                for start in (at + 4, at - w - 4):
                    if self.free(f"wire{level}", start, start + w):
                        self.text(start, at_y, name, "halo small " + ("strong" if strong else "soft"))
                        return


def _head(x: float, y: float, u: float, v: float, kind: str) -> str:
    length = ((u - x) ** 2 + (v - y) ** 2) ** 0.5 or 1
    dx, dy = (u - x) / length, (v - y) / length
    a, b = u - 7 * dx, v - 7 * dy
    return (f'<path class="arrow m-{kind}" d="M{u:.1f} {v:.1f}L{a - 3 * dy:.1f} {b + 3 * dx:.1f}'
            f'L{a + 3 * dy:.1f} {b - 3 * dx:.1f}Z"/>')


def _legend(ps: list[Picture], width: float, y: float, uid: str) -> tuple[str, float]:
    """The states that occur, with their patterns."""
    states = sorted({b.state for p in ps for b in p.bands if "/device" in b.lane})
    out, x = [], 6.0
    for state in states:
        w = len(state) * CHAR + 34
        if x + w > width:
            x, y = 6.0, y + 18
        known = state if state in KNOWN else "other"
        out.append(f'<rect class="band s-{known}" x="{x}" y="{y}" width="20" height="12"/>')
        if state in PATTERN:
            out.append(f'<rect fill="url(#{uid}{PATTERN[state]})" x="{x}" y="{y}" width="20" height="12"/>')
        out.append(f'<text class="small soft" x="{x + 24}" y="{y + 10}">{escape(state)}</text>')
        x += w
    return "".join(out), y + 18 if states else y


def _title(p: Picture) -> str:
    only = sum(i.differs for i in p.items)
    return p.title + (f"{' · ' if p.title else ''}{only} events only here (◆)" if only else "")


def svg(journal: Journal, other: Journal | None = None, width: int = 900, titles: tuple[str, str] = ("", "")) -> str:
    """The journal as one SVG element of `width` pixels; with `other` both in one time scale, differences marked."""
    ps = pictures(journal, other, titles)
    said = [sentence for p in ps for sentence in sentences(p)]
    uid = f"m{zlib.crc32(repr((width, [p.items[:50] for p in ps], titles)).encode()):08x}"
    left = 168 if width >= 800 else 150
    scale = Scale(warp(ps), min(p.home[0] for p in ps), max(p.home[1] for p in ps), left, width - 10)
    heights = DENSE if sum(lane.kind == "device" for p in ps for lane in p.lanes) > 6 else ROOMY
    body, y = [], 8.0
    for p in ps:
        p.home = min(q.home[0] for q in ps), max(q.home[1] for q in ps)
        drawing = _Drawing(p, scale, y + TITLE, width, uid, heights)
        drawing.text(6, y + 15, _title(p) or "migration", "title")
        body.append(drawing.draw())
        y = drawing.bottom + 8
    ticks = axis(scale.us, left, width - 10, scale.x)
    grid = "".join(f'<path class="grid" d="M{t.x} 30V{y}"/>' for t in ticks)
    marks = "".join(f'<text class="small soft" x="{t.x}" y="{y + 12}" text-anchor="middle">{t.label}</text>'
                    for t in ticks)
    note = "time after setup; the scale is stretched where much happens"
    marks += f'<text class="small soft" x="6" y="{y + 12}">after setup</text>'
    legend, y = _legend(ps, width, y + AXIS - 10, uid)
    marks += f'<text class="small soft" x="6" y="{y + 10}">{note}</text>'
    tiles = "".join(f'<pattern id="{uid}{name}" width="8" height="8" patternUnits="userSpaceOnUse">{tile}</pattern>'
                    for name, tile in TILES.items())
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="migsim-picture" role="img" width="{width}" '
            f'height="{y + 18:.0f}" viewBox="0 0 {width} {y + 18:.0f}" style="max-width:100%;height:auto">'
            f"<title>{escape(said[0])}</title><desc>{escape(' '.join(said))}</desc><style>{style()}</style>"
            f'<defs>{tiles}</defs><rect class="bg" width="100%" height="100%"/>{grid}{"".join(body)}{legend}{marks}'
            "</svg>")


def sentences(p: Picture) -> Iterable[str]:
    """The picture in words, one sentence after the other."""
    status = {side: [b.label for b in p.bands if b.lane == f"{side}/status"] for side in ("source", "destination")}
    yield (f"{p.title + ': ' if p.title else ''}a migration of {p.events} events; the source's status goes "
           f"{', '.join(status['source']) or 'unknown'}.")
    if status["destination"]:
        yield f"The destination's status goes {', '.join(status['destination'])}."
    for lane in p.lanes:
        states = [f"{b.label} ({us_text(b.us)})" for b in p.bands if b.lane == lane.key and b.end > 0]
        if lane.kind == "device" and states:
            yield f"Device {lane.label} on the {lane.side}: {', then '.join(states)}."
    if p.counter:
        yield "ACKs awaited: " + ", ".join(f"{c.value} at {us_text(c.us)}" for c in p.counter) + "."
    for kind, name in (("marker", "INIT_DATA_SENT"), ("ack", "SWITCHOVER_ACK")):
        sent = [m for m in p.messages if m.kind == kind]
        if sent:
            lost = sum(m.at is None for m in sent)
            yield (f"{name} {len(sent)} times: " + ", ".join(
                f"{m.label}, sent {us_text(m.us)}, received {us_text(m.at) if m.at is not None else 'never'}"
                for m in sent) + (f"; {lost} not received" if lost else "") + ".")
    for a, b in p.downtime:
        yield f"The guest stands still for {length_text(b - a)}, from {us_text(a)} to {us_text(b)}."
    for item in p.items:
        if item.name == "migrate_error":
            yield f"At {us_text(item.us)}: {item.what}."
    different = [i for i in p.items if i.differs]
    if different:
        yield (f"{len(different)} protocol events are only here: "
               + ", ".join(f"{i.name} {i.text}".strip() for i in different[:5])
               + (" and more" if len(different) > 5 else "") + ".")
    yield from (f"{note}." for note in p.notes)


def describe(journal: Journal, other: Journal | None = None, titles: tuple[str, str] = ("", "")) -> str:
    """The picture as text, one sentence per line: for a screen reader, or where no picture can be shown."""
    return "\n".join(sentence for p in pictures(journal, other, titles) for sentence in sentences(p))
