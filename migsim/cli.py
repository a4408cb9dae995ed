"""The command line: `migsim SUBCOMMAND`. Each subcommand is a module of migsim.commands, imported when it is called."""
from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from pathlib import Path

COMMANDS = {"run": "simulate a scenario and print what happened",
            "compare": "hold the simulation against recordings of real QEMU",
            "explore": "follow every order of events, judge the handshake's properties",
            "analyze": "read QEMU's logs: who owed which ACK, where the downtime went",
            "stream": "walk through a captured migration stream",
            "sweep": "run a scenario over grids or random draws of its keys"}


def available() -> dict[str, str]:
    """The subcommands that this installation has."""
    here = Path(__file__).with_name("commands")
    return {name: text for name, text in COMMANDS.items() if (here / f"{name}.py").exists()}


class Parser(argparse.ArgumentParser):
    """Errors are one line, with the nearest option or subcommand."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Print one line and exit with 2."""
        near = ""
        if message.startswith("unrecognized arguments: "):
            given = message.split(": ", 1)[1].split()[0]
            options = [o for action in self._actions for o in action.option_strings]
            match = difflib.get_close_matches(given, options, 1, 0.4)
            near = f"; nearest is {match[0]!r}" if match else ""
        print(f"{self.prog}: {message}{near}".replace("\n", " "), file=sys.stderr)
        raise SystemExit(2)


def usage() -> str:
    """The overview."""
    from . import __version__

    lines = [f"migsim {__version__}: QEMU migration with VFIO, REINIT and switchover-ack, at every step of the series",
             "", "usage: migsim SUBCOMMAND ... (migsim SUBCOMMAND --help tells its options)", ""]
    return "\n".join(lines + [f"  {name:9s} {text}" for name, text in available().items()]) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Entry point. Bad input gives one line on stderr and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        from . import __version__

        print(f"migsim {__version__}")
        return 0
    name = argv[0]
    if name not in available():
        near = difflib.get_close_matches(name, available(), 1, 0.0)[0]
        print(f"migsim: {name!r} is no subcommand: allowed are {', '.join(available())}; nearest is {near!r}",
              file=sys.stderr)
        return 2
    return call(name, argv[1:])


def call(name: str, argv: list[str]) -> int:
    """Parse and run one subcommand."""
    module = importlib.import_module(f".commands.{name}", __package__)
    parser = Parser(prog=f"migsim {name}", description=module.HELP, allow_abbrev=False)
    module.add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        code = module.main(args)
        sys.stdout.flush()
        return code
    except ValueError as error:  # every error of our edges is one
        print(f"migsim: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("migsim: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
