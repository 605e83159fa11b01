"""`python -m tbtt_interp`: the same as `tbtt`."""

from tbtt_interp.cli import command_line

command_line()
