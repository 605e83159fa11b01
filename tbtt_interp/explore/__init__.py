"""The explorer: trained models in a browser, pointed at; `python -m tbtt_interp.explore`."""
