"""``to_data``: a slide as one graph in memory."""

from typing import Any

from spatiagraph.data.convert.tissue_data import TissueData
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.slide import Slide


def to_data(slide: Slide, recipe: Recipe | None = None, /, **rules: Any) -> TissueData:
    """Convert a slide to a graph that is all in memory: dense counts, all crops.

    Args:
        slide: The slide.
        recipe: How to convert it; ``Recipe(panel, **rules)`` when not given.
        **rules: Arguments of :class:`~spatiagraph.data.Recipe`; ``panel`` is the slide's own when
            not given.

    Raises:
        ValueError: If the panel is hardly covered, the slide is smaller than a neighbourhood, an
            image that is to be cropped is missing or smaller than a crop, or cells have classes
            that labels do not know.

    Examples:
        >>> from spatiagraph.data.synthetic import make_tissue
        >>> to_data(make_tissue(200, num_genes=50, image=None)).x.shape
        torch.Size([200, 50])
    """
    if recipe is not None and rules:
        raise ValueError(f"Expected a recipe or its arguments, got both: {', '.join(rules)}")
    if recipe is None:
        panel = rules.pop("panel", None) or GenePanel(slide.symbols, slide.gene_ids)
        recipe = Recipe(panel, **rules)
        if recipe.crops and slide.image is None:
            raise ValueError(
                f"Expected an image with slide {slide.slide_id!r} to crop from, got none"
            )
    return recipe(slide).dense()
