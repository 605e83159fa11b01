"""Linear probes with controls: what a model represents, where, and beyond what its input says."""
