"""The picture of a stream: as long as the bytes, in words too, and nothing of a stream is obeyed."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from migsim.streampicture import shortened, svg
from migsim.walk import Walk, Walker, walk
from test_walk import PRECOPY, STREAMS, sent

SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_the_bytes() -> None:
    root = ET.fromstring(svg(walk(next(f for f in STREAMS if f.name.startswith("s5")) / "forward.bin.gz")))
    places = [[float(g.find(f"{SVG}rect").get(k)) for k in ("x", "y", "width")] for g in root.iter(f"{SVG}g")]
    assert all(abs(a[0] + a[2] - b[0]) < 1 for a, b in pairwise(places[:-4]) if a[1] == b[1])  # one after the other
    bars = {g.find(f"{SVG}title").text: float(g.find(f"{SVG}rect").get("width")) for g in root.iter(f"{SVG}g")}
    switchover = "0000:00:04.0/vfio, switchover: 1,573,242 bytes"
    precopy = "ram, precopy: 850,645 bytes"
    assert abs(bars[precopy] / bars[switchover] - 850645 / 1573242) < 0.001
    assert 450 < bars[switchover] < 500
    assert root.find(f"{SVG}desc").text.startswith("ram 850,833 bytes; 0000:00:04.0/vfio 1,660,410 bytes; ")


@given(st.text(min_size=1, max_size=40))
def test_names_are_text(name: str) -> None:
    found = [p._replace(name=name) if p.name == "ram" else p for p in Walker(sent(PRECOPY)).pieces()]
    root = ET.fromstring(svg(Walk(0, "", found, "", {}, [], "")))
    assert {e.tag.removeprefix(SVG) for e in root.iter()} == {
        "svg", "title", "desc", "style", "defs", "pattern", "path", "circle", "rect", "g", "text"} - {"circle"}


def test_a_long_name_keeps_both_ends() -> None:
    assert shortened("0000:00:04.0/vfio") == "0000:00:04.0/vfio"
    assert shortened("a" * 30 + "0000:04.0/vfio") == "aaaaaaaaaa…0:04.0/vfio"
