"""The models that come with the package: loading, packing, and a hub for them and your own."""
