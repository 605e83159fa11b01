"""`python -m tbtt_interp.explore`."""

import sys

from tbtt_interp.cli import main

sys.exit(main(["explore", *sys.argv[1:]], program="python -m tbtt_interp"))
