"""`resolve_recipe` under the name of its old module, until nobody imports it from here."""

from tbtt_interp.train.recipe import recorded_recipe, resolve_recipe

__all__ = ["recorded_recipe", "resolve_recipe"]
