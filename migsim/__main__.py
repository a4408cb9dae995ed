"""`python -m migsim`."""
import sys

from .cli import main

sys.exit(main())
