"""`python -m tbtt_interp.analyses`."""

import sys

from tbtt_interp.cli import main

sys.exit(main(["analyses", *sys.argv[1:]], program="python -m tbtt_interp"))
