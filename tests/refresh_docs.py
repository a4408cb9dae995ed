"""What the documents show, made anew from what the code does: `make docs`. The tests hold both against each other."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from migsim import run
from migsim.player import svg

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "docs/handshake-in-11.1.md")
PICTURE = ROOT / "docs" / "first-migration.svg"
BLOCK = re.compile(r"<!-- migsim (.*?) -->\n```\n(.*?)```", re.S)


def picture() -> str:
    """The README's picture."""
    return svg(run(str(ROOT / "data" / "scenarios" / "first-migration.yaml")).journal) + "\n"


def refresh(document: Path) -> None:
    """Every block headed by a command gets what the command prints."""
    def printed(found: re.Match[str]) -> str:
        got = subprocess.run([sys.executable, "-m", "migsim", *found[1].split()], cwd=ROOT, check=True,
                             capture_output=True, encoding="utf-8").stdout
        return f"<!-- migsim {found[1]} -->\n```\n{got}```"
    document.write_text(BLOCK.sub(printed, document.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for name in DOCUMENTS:
        refresh(ROOT / name)
    PICTURE.write_text(picture(), encoding="utf-8")
