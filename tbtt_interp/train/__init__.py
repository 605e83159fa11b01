"""From a recipe to trained runs; `python -m tbtt_interp.train`."""
