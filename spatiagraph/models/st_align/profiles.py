"""Views of ST-Align from a batch: crops, profiles and mean niches; frozen features of a slide."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.data.convert import TissueData
from spatiagraph.data.crops import Crops
from spatiagraph.data.feature_cache import FeatureCache, cache_key
from spatiagraph.data.recipe import Crop, Feature, Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.models.base import gene_mask
from spatiagraph.models.st_align.scale import Views
from spatiagraph.nn.canonical import StatisticsEncoder
from spatiagraph.nn.cell_graph import LevelGraph
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.small_image import FrozenImageEncoder

NICHE_IMAGE = "niche_view"
"""Attribute of a batch: crops of niches, which are centred on their spot."""
FEATURES = "niche_features"
"""Attribute of a batch: frozen features of the images of niches, in place of these images."""
COUNTED = "counted"
"""Attribute of a batch: whether genes were counted on the slide of a spot, which may be empty."""
STATISTICS = ("spot_statistics", "niche_statistics")
"""Attributes of a batch: features of the crops of spots and niches that a start reads."""
CHUNK = 64  # crops at a time
_LEAST_STD = 1e-4  # what varies less has no unit


def data_of(recipe: Recipe, slide: Slide) -> TissueData:
    """A slide as the recipe makes it, with whether its genes were counted.

    Args:
        recipe: The recipe; a slide that was only photographed goes without its features.
        slide: The slide.
    """
    if not slide.is_counted:  # nothing has made features of its counts
        optional = tuple(replace(feature, required=False) for feature in recipe.features)
        recipe = replace(recipe, features=optional)
    data = recipe(slide)
    data.put("cell", **{COUNTED: torch.full((slide.num_cells,), slide.is_counted)})
    return data


def views_of(
    batch: Data,
    level: LevelGraph,
    features: Sequence[Feature],
    provider: GeneEncoder | None,
    expression: str,
) -> Views:
    """Views of the core spots of a batch.

    Where nothing was counted on the slide, which was only photographed, there are no genes. An
    empty spot of another slide has genes, all of them 0.

    Args:
        batch: Spots with the other members of their niches.
        level: The niches.
        features: Profiles of spots that the batch carries.
        provider: Makes the profiles from counts, where there are no features.
        expression: ``"counts"`` or ``"normalized"``.

    Raises:
        ValueError: If the slide was not prepared by the model.
    """
    if COUNTED not in batch:
        raise ValueError(
            "Expected slides of model.prepare, got a batch that does not say whether genes were "
            "counted: prepare slides with model.prepare"
        )
    core = batch.core
    spot_image, niche_image, frozen = (
        batch[key][core] if key in batch else None for key in ("image", NICHE_IMAGE, FEATURES)
    )
    niche_image = niche_image if frozen is None else frozen
    statistics = [batch[key][core] if key in batch else None for key in STATISTICS]
    if not bool(batch[COUNTED].any()):
        return Views(spot_image, None, niche_image, None, *statistics)
    if provider is None:
        profile = torch.cat([batch[feature.name][core] for feature in features], 1)
    else:
        with torch.no_grad():
            profile = provider(batch.x[core], gene_mask(batch)[core], batch.depth[core])
    values = log_normalized(batch.x, batch.depth if expression == "counts" else None)
    niches = niche_mean(values, level)[level.own[core]]
    return Views(spot_image, profile, niche_image, niches, *statistics)


def log_normalized(x: Tensor, depth: Tensor | None, target: float = 1e4) -> Tensor:
    """Logarithm of one plus counts brought to one depth, ``[N, G]``.

    Args:
        x: Counts, ``[N, G]``.
        depth: Total counts of each spot, ``[N]``; ``None`` for values that are no counts.
        target: The depth.
    """
    if depth is None:
        return x.log1p()
    return (x * (target / depth.clamp(min=1.0)).unsqueeze(1)).log1p()


def niche_mean(values: Tensor, level: LevelGraph) -> Tensor:
    """Mean of the members of each niche, one step of mean aggregation, ``[M, G]``.

    Args:
        values: Values of the spots, ``[N, G]``.
        level: The niches; each member counts once.

    Raises:
        ValueError: If it does not say who is a member.
    """
    if level.members is None:
        raise ValueError("Expected the members of each niche, got none")
    member, group = level.members
    total = values.new_zeros(len(level.pos), values.size(1)).index_add_(0, group, values[member])
    return total / torch.bincount(group, minlength=len(total)).clamp(min=1).unsqueeze(1)


def image_statistics(
    recipe: Recipe, slide: Slide, cache: FeatureCache | None = None
) -> dict[str, Tensor]:
    """Colours and textures of the crops of spots and niches, by name; none without an image.

    They are read from finer crops than networks see, which cost little here, and standardised over
    the spots of the slide: how deep a section was stained says nothing of its spots.

    Args:
        recipe: Its crops, of spots and of niches.
        slide: The slide.
        cache: Folder to keep them in.
    """
    encoder = StatisticsEncoder()
    found = {}
    for name, crop in zip(STATISTICS, crops_of(recipe), strict=True):
        if slide.image is not None and crop is not None:
            source = replace(crop, size_px=encoder.size_px).source(slide, slide.pos)
            found[name] = standardized(frozen_features(encoder, source, cache))
    return found


def crops_of(recipe: Recipe) -> tuple[Crop | None, Crop | None]:
    """Crops of spots and of niches, by their names; ``None`` where a recipe has none.

    Args:
        recipe: The recipe.
    """
    named = {crop.key: crop for crop in recipe.crops}
    return named.get("image"), named.get(NICHE_IMAGE)


def standardized(features: Tensor) -> Tensor:
    """Features of mean 0 and deviation 1 over spots; 0 where all spots are alike, ``[N, F]``.

    Args:
        features: ``[N, F]``.
    """
    std = features.std(0, correction=0)
    return (features - features.mean(0)) * torch.where(std > _LEAST_STD, 1 / std, 0.0)


@torch.no_grad()
def frozen_features(
    encoder: FrozenImageEncoder | StatisticsEncoder,
    source: Crops,
    cache: FeatureCache | None = None,
    *,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Features of all crops of a slide by a backbone that does not change, ``[N, F]``.

    With a cache they are computed once for the same weights and the same crops, which are read to
    tell: an image that was changed anywhere has features of its own.

    Args:
        encoder: The backbone.
        source: The crops.
        cache: Folder to keep features in.
        device: Where the backbone runs.
    """
    chunks = torch.arange(len(source)).split(CHUNK)

    def computed() -> Tensor:
        encoder.to(device)
        return torch.cat(
            [encoder(source.read(rows)[0].to(device)).float().cpu() for rows in chunks]
        )

    if cache is None:
        return computed()
    crops = [cache_key(source.read(rows)[0]) for rows in chunks]
    built = repr(sorted(encoder.config_args().items()))  # pooling and activation have no weights
    key = cache_key(encoder.name, encoder.size_px, built, encoder.state_dict(), crops)
    return cache.get(key, computed, num_rows=len(source))
