"""A captured stream as a picture for notebooks and pages: bytes per module and phase."""
from __future__ import annotations

from html import escape

from .report import clean
from .streamreport import bytes_by_module
from .svg import TILES, style
from .walk import PHASES, Walk

LEFT, RIGHT = 150, 100  # room for names and for sums
#: phase -> state of the picture whose colour it has, hatch
FACES = {"setup": ("STOP", "grid"), "precopy": ("PRE_COPY", "up"), "switchover": ("STOP_COPY", "down"),
         "postcopy": ("RESUMING", "lines"), "description": ("RUNNING", "")}


def svg(found: Walk, width: int = 760) -> str:
    """Bytes per module and phase as bars, for a notebook or a page. Sums are written; each piece tells its bytes when
    it is pointed at."""
    sums = bytes_by_module(found)
    uid = f"s{found.size:x}{len(found.pieces):x}"
    parts, y = bars(sums, width, uid)
    phases = [p for p in PHASES if any(p in row for row in sums.values())]
    for k, phase in enumerate(phases):
        x = LEFT + k * (width - LEFT) / len(phases)
        name = f'<text class="small" x="{x + 23:.1f}" y="{y + 13}">{phase}</text>'
        parts.append(box(x, y, 18, phase, uid, phase) + name)
    tiles = "".join(f'<pattern id="{uid}{phase}" width="8" height="8" patternUnits="userSpaceOnUse">{TILES[tile]}'
                    "</pattern>" for phase, (_, tile) in FACES.items() if tile)
    told = "; ".join(f"{clean(m)} {sum(row.values()):,} bytes" for m, row in sums.items())
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="migsim-picture" role="img" viewBox="0 0 {width} {y + 26}" '
            f'width="{width}" height="{y + 26}" style="max-width:100%;height:auto">'
            f"<title>Bytes of the stream per module and phase</title><desc>{escape(told)}</desc>"
            f'<style>{style()}</style><defs>{tiles}</defs><rect class="bg" width="100%" height="100%"/>'
            f'{"".join(parts)}</svg>')


def bars(sums: dict[str, dict[str, int]], width: int, uid: str) -> tuple[list[str], int]:
    """A bar for each module, and where the next thing is drawn."""
    most, room = max(sum(row.values()) for row in sums.values()), width - LEFT - RIGHT
    parts = []
    for k, (module, row) in enumerate(sums.items()):
        x, y = float(LEFT), 10 + k * 26
        parts.append(f'<text x="6" y="{y + 14}">{escape(shortened(clean(module)))}</text>')
        for phase, size in row.items():
            parts.append(box(x, y, room * size / most, phase, uid, f"{clean(module)}, {phase}: {size:,} bytes"))
            x += room * size / most
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{sum(row.values()):,}</text>')
    return parts, 18 + len(sums) * 26


def shortened(name: str) -> str:
    """A long name with both its ends."""
    return name if len(name) <= 22 else f"{name[:10]}…{name[-11:]}"


def box(x: float, y: float, length: float, phase: str, uid: str, told: str) -> str:
    """A piece of a bar, with what it is as a tooltip."""
    state, tile = FACES[phase]
    place = f'x="{x:.1f}" y="{y}" width="{max(length, 0.8):.1f}" height="18"'
    hatch = f'<rect {place} fill="url(#{uid}{phase})"/>' if tile else ""
    return f'<g><title>{escape(told)}</title><rect class="s-{state}" {place}/>{hatch}</g>'
