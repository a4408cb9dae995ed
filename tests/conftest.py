"""What all tests share: a fixed seed for hypothesis, and matplotlib without a screen."""

import os

from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")
settings.register_profile("migsim", derandomize=True, deadline=None, database=None)
settings.load_profile("migsim")
