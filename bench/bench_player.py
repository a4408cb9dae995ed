"""Knob to repainted, in Debian's Chromium: the player beside a bare anywidget round trip and `interact` + matplotlib.

One JupyterLab, one notebook, three panels with the same kind of control (a drop-down), turned in turn. Measured in the
page: from the control's change event to the frame in which the new content is painted. Every value is new to the
kernel, so the player simulates, folds and draws each time. Then the player's own steps, without the kernel.
"""
from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
TURNS = 40
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]
CELL = """
import anywidget, ipywidgets, traitlets
import matplotlib.pyplot as plt
from migsim.player import knobs
values = list(range(100, 100 + {turns}))

class Bare(anywidget.AnyWidget):
    _esm = '''export default {{render({{model, el}}) {{
        const show = () => {{ el.textContent = model.get("n"); el.dataset.frame = model.get("n"); }};
        el.classList.add("bare"); show(); model.on("change:n", show); }}}}'''
    n = traitlets.Int(0).tag(sync=True)

def panel(widget, name):
    widget.add_class(name)
    display(widget)

bare, choice = Bare(), ipywidgets.Dropdown(options=values)
choice.observe(lambda change: setattr(bare, "n", change.new), "value")
panel(ipywidgets.VBox([choice, bare]), "bench-bare")
small = knobs({small!r}, **{{"devices.0.destination.load_init_ms": values}})
panel(small, "bench-player-small")
large = knobs({large!r}, **{{"devices.0.destination.load_init_ms": values}})
panel(large, "bench-player-large")

def draw(n):
    figure, axes = plt.subplots(figsize=(8, 4))
    axes.plot(range(n), [k * n % 97 for k in range(n)])
    axes.set_title(str(n))
    plt.show()

panel(ipywidgets.interactive(draw, n=ipywidgets.Dropdown(options=values)), "bench-interact")
"""
#: runs in the page: turn the drop-down of a panel, resolve with the milliseconds until its content is painted
TURN = """([panel, index]) => new Promise((resolve) => {
    const root = document.querySelector("." + panel), select = root.querySelector("select");
    const painted = () => requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
    let start;
    const observer = new MutationObserver(() => {
        const image = panel === "bench-interact" && root.querySelector("img");
        if (panel === "bench-interact" && (!image || image.dataset.seen)) return;
        observer.disconnect();
        if (!image) return painted();
        image.dataset.seen = 1;
        image.decode().then(painted);
    });
    root.querySelectorAll("img").forEach((i) => { i.dataset.seen = 1; });
    observer.observe(panel === "bench-interact" ? root : root.querySelector("[data-frame]"),
        panel === "bench-interact" ? {childList: true, subtree: true} : {attributes: true,
            attributeFilter: ["data-frame"]});
    start = performance.now();
    select.selectedIndex = index;
    select.dispatchEvent(new Event("change", {bubbles: true}));
})"""
#: runs in the page: scrub the player n times, resolve with the milliseconds of its frame's script and layout
SCRUB = """(n) => new Promise((resolve) => {
    const root = document.querySelector(".bench-player-large .migsim-player"), times = [];
    const range = root.querySelector("input[type=range]");
    const turn = (k) => {
        if (k === n) return resolve(times);
        let start;
        requestAnimationFrame(() => { start = performance.now(); });
        range.value = (k * 7) % (+range.max + 1);
        range.dispatchEvent(new Event("input"));
        requestAnimationFrame(() => {
            root.getBoundingClientRect();
            times.push(performance.now() - start);
            setTimeout(() => turn(k + 1));
        });
    };
    turn(0);
})"""


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """A JupyterLab on a free port and a folder of its own; gives its address."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {**os.environ, **{f"JUPYTER_{what}_DIR": str(folder / what) for what in ("CONFIG", "DATA", "RUNTIME")}}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
               "--IdentityProvider.token=bench", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None",
               "--allow-root"]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token=bench", timeout=1).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/lab/tree/bench.ipynb?token=bench"
    finally:
        server.terminate()
        server.wait(timeout=20)


def scenario(name: str) -> dict:
    """The set-up of a recorded run."""
    return json.loads((ROOT / "data" / "recordings" / name / "scenario.json").read_text())["config"]


def said(name: str, times: list[float]) -> None:
    """One line of the table."""
    ordered = sorted(times)
    p95 = ordered[min(round(0.95 * len(ordered)), len(ordered) - 1)]
    print(f"{name:58s} p50 {statistics.median(ordered):7.1f} ms   p95 {p95:7.1f} ms   n {len(ordered)}")


def main() -> None:
    """Measure and print; says so where there is no Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("bench_player: no chromium here (Debian: apt-get install chromium)")
        return
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        code = CELL.format(turns=TURNS + 4, small=scenario("a-one-device-new-ack"), large=scenario("b-one-reinit"))
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, folder / "bench.ipynb")
        context = playwright.chromium.launch_persistent_context(
            str(folder / "profile"), executable_path=chromium, headless=True, args=FLAGS,
            viewport={"width": 1300, "height": 1000})
        with jupyterlab(folder) as address:
            measure(context.new_page(), address)
        context.close()


def measure(page: object, address: str) -> None:
    """Open the notebook, turn every panel in turn, print the table."""
    page.goto(address)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.locator(".bench-interact img").wait_for(timeout=60_000)
    page.wait_for_timeout(2000)
    panels = {"bench-bare": "bare anywidget round trip", "bench-player-small": "player, 3,000 events (a-one-device)",
              "bench-player-large": "player, 14,000 events (b-one-reinit)",
              "bench-interact": "interact + matplotlib"}
    times: dict[str, list[float]] = {panel: [] for panel in panels}
    for index in range(1, TURNS + 4):
        for panel in panels:
            page.evaluate("panel => document.querySelector('.' + panel).scrollIntoView()", panel)
            page.wait_for_timeout(150)
            took = page.evaluate(TURN, [panel, index])
            if index > 3:  # the first ones warm up
                times[panel].append(took)
    for panel, what in panels.items():
        said(f"knob to repainted: {what}", times[panel])
    said("step without the kernel: scrub in the player, 14,000 events", page.evaluate(SCRUB, 200))


if __name__ == "__main__":
    main()
