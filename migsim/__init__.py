"""migsim: QEMU live migration with a VFIO device, REINIT and switchover-ack, at every step of the series.

The public names. Everything imported here needs the standard library only, so `import migsim` takes milliseconds;
pictures, tables and notebooks' helpers are in modules of their own (migsim.player, migsim.draw, migsim.course).
"""
from .compare import compare, load_recording
from .explore import Limits, explore, variant
from .journal import Event, Journal, JournalError, read_journal
from .ladder import CODE_BASES, code_base
from .log import read_log
from .replay import from_string, replay, to_string
from .run import Run, run
from .scenario import Scenario, ScenarioError, load_scenario

__version__ = "0.1.0"
__all__ = ["CODE_BASES", "Event", "Journal", "JournalError", "Limits", "Run", "Scenario", "ScenarioError", "code_base",
           "compare", "explore", "from_string", "load_recording", "load_scenario", "read_journal", "read_log", "replay",
           "run", "to_string", "variant"]
