"""`python -m tbtt_interp.train`."""

import sys

from tbtt_interp.cli import main

sys.exit(main(["train", *sys.argv[1:]], program="python -m tbtt_interp"))
