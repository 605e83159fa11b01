"""`python -m tbtt_interp.probes`."""

import sys

from tbtt_interp.cli import main

sys.exit(main(["probes", *sys.argv[1:]], program="python -m tbtt_interp"))
