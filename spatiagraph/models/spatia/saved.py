"""Models of SPATIA that version 0.1.0 saved: one table of flags."""

from collections.abc import Mapping
from typing import Any

from spatiagraph._config import to_config
from spatiagraph.data.labels import LabelSet
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.recipe.saved import from_flags as recipe_from_flags
from spatiagraph.models.spatia.build import spatia_context, spatia_parts
from spatiagraph.models.spatia.size import SpatiaSize
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.image import ImageEncoder
from spatiagraph.nn.masked_image import MaskedImageEncoder
from spatiagraph.nn.start import ProfileStart
from spatiagraph.nn.token_fusion import TokenFusion

_MAX_SIZE = 2**16
_WHOLE = (
    "channels", "gene_channels", "gene_layers", "heads", "in_channels", "size_px",
    "decoder_channels", "decoder_layers", "niche_size", "niche_layers", "tissue_layers",
    "context_heads",
)  # fmt: skip
_SWITCHES = (
    "profile", "niche_image", "tissue_image", "use_gene", "use_image", "use_niche", "use_tissue",
)  # fmt: skip
_REAL = ("mask_ratio", "fusion_weight", "niche_um", "tissue_um", "dropout")
_SOURCES = {"pretrained": False, "checkpoint": None}  # a saved model has weights of its own
_OTHERS = (
    "panel",
    "labels",
    "num_tokens",
    "image",
    "image_options",
    "window_um",
    "window_key",
    "niche_key",
)
_TEXT = {
    "tokenizer": ("counts", "bins"),
    "normalization": ("sum", "log2p1", "none"),
    "fusion_direction": ("both", "gene_queries", "image_queries"),
    "fusion_residual": ("corrected", "double"),
    "niche": ("grid", "knn", "radius", "labels"),
    "likelihood": ("zinb", "gaussian"),
}


def from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of today's :class:`Spatia` for flags of version 0.1.0.

    Args:
        flags: The saved arguments.

    Raises:
        ValueError: If a flag is missing or has a value that none had.
    """
    _check(flags)
    recipe = Recipe.from_dict(_recipe(flags))
    size = SpatiaSize(
        **{name: flags[name] for name in ("channels", "gene_channels", "gene_layers", "heads")},
        **{name: flags[name] for name in ("num_tokens", "normalization", "image", "size_px")},
        **{name: flags[name] for name in ("decoder_channels", "decoder_layers", "context_heads")},
        image_options=flags["image_options"] or {},
        level_layers=(flags["niche_layers"], flags["tissue_layers"]),
        dropout=flags["dropout"],
    )
    image = fusion = None
    if flags["use_image"]:
        image = _image(flags)
        num_labels = 0 if recipe.labels is None else len(recipe.labels.num_classes)
        fusion = TokenFusion(
            flags["gene_channels"],
            image.channels,
            flags["channels"],
            num_cell_tokens=2 + num_labels,
            heads=flags["heads"],
            weight=flags["fusion_weight"],
            direction=flags["fusion_direction"],
            residual=flags["fusion_residual"],
            dropout=flags["dropout"],
        )
    parts = spatia_parts(
        recipe,
        size,
        genes=_genes(flags, recipe),
        image=image,
        fusion=fusion,
        image_channels=flags["in_channels"],
        start=flags["profile"],
        top_down=(flags["use_niche"], flags["use_tissue"]),
        likelihood=flags["likelihood"],
    )
    context = spatia_context(
        recipe,
        size,
        top_down=(flags["use_niche"], flags["use_tissue"]),
        token_channels=None if image is None else image.channels,
    )
    parts = parts._replace(context_encoder=context)  # positions had an amplitude of 1
    cells = parts.cell_encoder
    if isinstance(cells, ProfileStart) and cells.profile is not None:  # it had the MLP of cells
        counts = flags["likelihood"] == "zinb"
        profile = GeneEncoder(
            len(recipe.panel), size.channels, normalize_depth=counts, fixed_basis=True
        )
        parts = parts._replace(
            cell_encoder=ProfileStart(cells.encoder, profile, cells.image_profile)
        )
    arguments = {name: to_config(part) for name, part in parts._asdict().items()}
    arguments["likelihood"] = flags["likelihood"]
    if flags["tokenizer"] == "bins":
        encoder = arguments["cell_encoder"]["args"]
        (encoder["encoder"]["args"] if flags["profile"] else encoder)["tokenizer"] = "bins"
    return arguments


def _genes(flags: Mapping[str, Any], recipe: Recipe) -> Any:
    from spatiagraph.nn.gene_tokens import GeneTokenEncoder

    if not flags["use_gene"] or flags["tokenizer"] == "counts":
        return flags["use_gene"]
    return GeneTokenEncoder(
        len(recipe.panel),
        flags["gene_channels"],
        num_labels=0 if recipe.labels is None else len(recipe.labels.num_classes),
        num_layers=flags["gene_layers"],
        heads=flags["heads"],
        dropout=flags["dropout"],
        normalization="none",
    )


def _image(flags: Mapping[str, Any]) -> MaskedImageEncoder | ImageEncoder:
    options = dict(flags["image_options"] or {})
    name, bands = flags["image"], flags["in_channels"]
    if not name.startswith(("vit_", "deit", "test_vit")):
        return ImageEncoder(name, flags["channels"], tokens=True, in_channels=bands, **options)
    return MaskedImageEncoder(
        name,
        mask_ratio=flags["mask_ratio"],
        read_window=flags["window_key"] is not None,
        in_channels=bands,
        img_size=flags["size_px"],
        **options,
    )


def _recipe(flags: Mapping[str, Any]) -> dict[str, Any]:
    niche, read = flags["niche"], flags["use_image"]
    labels = flags["labels"]
    return recipe_from_flags(
        {
            "panel": flags["panel"]["dict"],
            "num_neighbors": flags["niche_size"],
            "niche_size": flags["niche_size"],
            "graph": {"knn": "knn", "radius": "radius"}.get(niche, "niche"),
            "niche": {"knn": "neighborhood"}.get(niche, niche),
            "niche_um": flags["niche_um"],
            "radius_um": flags["niche_um"],
            "niche_key": flags["niche_key"],
            "tissue": "grid",
            "tissue_um": flags["tissue_um"],
            "window_um": flags["window_um"] if read else None,
            "window_key": flags["window_key"] if read else None,
            "size_px": flags["size_px"],
            "niche_image": flags["niche_image"] and read,
            "tissue_image": flags["tissue_image"] and read,
            "labels": None if labels is None else LabelSet.from_dict(labels["dict"]).to_dict(),
        }
    )


def _check(flags: Mapping[str, Any]) -> None:
    def refuse(name: str, wanted: str) -> None:
        raise ValueError(
            f"Expected {name!r} of a saved Spatia as {wanted}, got {flags.get(name)!r:.80}"
        )

    names = {*_WHOLE, *_REAL, *_SWITCHES, *_TEXT, *_SOURCES, *_OTHERS}
    if stray := sorted(set(flags) - names):
        raise ValueError(f"Expected flags of a saved Spatia, got {stray[0]!r:.80}")
    for name, only in _SOURCES.items():
        if flags.get(name, only) != only:
            refuse(name, f"{only}: it names no other source of its weights")
    for name in _WHOLE:
        value = flags.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_SIZE:
            refuse(name, "a size")
    for name in _REAL:
        value = flags.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            refuse(name, "a number")
    if not 0 <= flags["dropout"] < 1:
        refuse("dropout", "a share below 1")
    for name in _SWITCHES:
        if not isinstance(flags.get(name), bool):
            refuse(name, "true or false")
    for name, known in _TEXT.items():
        if not isinstance(flags.get(name), str) or flags[name] not in known:
            refuse(name, f"one of {', '.join(known)}")
    tokens, options = flags.get("num_tokens"), flags.get("image_options")
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int)):
        refuse("num_tokens", "a whole number")
    if not isinstance(flags.get("image"), str):
        refuse("image", "the name of a timm model")
    if options is not None and not isinstance(options, Mapping):
        refuse("image_options", "a table")
    for name in ("window_key", "niche_key"):
        if flags.get(name) is not None and not isinstance(flags[name], str):
            refuse(name, "a column")
    for name in ("panel", "labels"):
        value = flags.get(name)
        optional = name == "labels" and value is None
        if not optional and not (
            isinstance(value, Mapping) and isinstance(value.get("dict"), Mapping)
        ):
            refuse(name, "a saved object")
