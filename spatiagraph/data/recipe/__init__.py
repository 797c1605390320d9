"""Recipes: how a slide becomes graph, levels, crops, features and tokens; saved with a model."""

from spatiagraph.data.convert.tissue_data import CELL
from spatiagraph.data.recipe.crops import AdaptiveCrop, Crop
from spatiagraph.data.recipe.features import Feature
from spatiagraph.data.recipe.graphs import KNN, Delaunay, GraphRule, InGroups, Radius
from spatiagraph.data.recipe.levels import (
    Annotated,
    Boxes,
    Circles,
    Grid,
    LevelRule,
    Neighborhoods,
    Parts,
    Whole,
)
from spatiagraph.data.recipe.recipe import Recipe
from spatiagraph.data.recipe.rule import Groups, Members, Rule
from spatiagraph.data.recipe.tokens import Ranks, TokenRule

__all__ = [
    "CELL",
    "KNN",
    "AdaptiveCrop",
    "Annotated",
    "Boxes",
    "Circles",
    "Crop",
    "Delaunay",
    "Feature",
    "GraphRule",
    "Grid",
    "Groups",
    "InGroups",
    "LevelRule",
    "Members",
    "Neighborhoods",
    "Parts",
    "Radius",
    "Ranks",
    "Recipe",
    "Rule",
    "TokenRule",
    "Whole",
]
