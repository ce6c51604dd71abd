"""Recipes: how a model was built, remembered, written down, and done again without running what a file says."""

from relume.models.recipe.builders import builder
from relume.models.recipe.building import build, recipe_of

__all__ = ["build", "builder", "recipe_of"]
