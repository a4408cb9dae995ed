"""Code bases on the command line."""
from __future__ import annotations

import argparse

from ..ladder import code_base


def base_name(text: str) -> str:
    """argparse type of a code base."""
    try:
        return code_base(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
