"""Old names of the probe grid, until nothing imports them."""

from tbtt_interp.probes.grid import last_streams
from tbtt_interp.probes.grid import probe_grid as probe_run

__all__ = ["last_streams", "probe_run"]
