"""The models that come with the package, model cards, and a hub for these and your own."""
