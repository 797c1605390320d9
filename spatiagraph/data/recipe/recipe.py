"""``Recipe``: how a model wants its slides, in values that can be saved."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch

from spatiagraph._config import build, to_config
from spatiagraph._savable import savable
from spatiagraph.data.convert.counts import csr_tensor
from spatiagraph.data.convert.tissue_data import CELL, TissueData
from spatiagraph.data.labels import LabelSet
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe.crops import Crop
from spatiagraph.data.recipe.features import Feature, mean_over_members
from spatiagraph.data.recipe.graphs import KNN, GraphRule, InGroups
from spatiagraph.data.recipe.levels import LevelRule, Neighborhoods, Parts
from spatiagraph.data.recipe.rule import Groups, Members, as_groups
from spatiagraph.data.recipe.saved import from_flags
from spatiagraph.data.recipe.tokens import TokenRule
from spatiagraph.data.reflected import ReflectedCrops
from spatiagraph.data.slide import Slide

LEVEL_NAMES = ("niche", "tissue")
"""Names of the first levels, where rules have none of their own."""
_TAKEN = (
    "x", "gene_ids", "gene_values", "gene_mask", "depth", "image", "image_mask", "image_padded",
    "window_um",
    "labels", "z", "pos", "edge_index", "core", "cell_index", "levels", "slide", "batch", "ptr",
    "num_nodes",
)  # fmt: skip
"""Attributes that batches have besides those of levels and features."""


@savable
@dataclass(frozen=True)
class Recipe:
    """Recipe of a slide: genes, graph, levels, crops, features, tokens and labels.

    Called with a slide it gives a :class:`~spatiagraph.data.TissueData`. Every rule is an object
    with its own arguments; rules of one's own derive from their base classes.

    Attributes:
        panel: Genes, in order.
        graph: Which cells are connected.
        levels: How cells are grouped, then their groups, and so on; none, one, or any number.
        crops: Windows of the image around cells or groups; slides without image go without.
        features: Slots of ``obsm`` that travel along, by name or as
            :class:`~spatiagraph.data.recipe.Feature`.
        tokens: Cells as sequences of genes in place of dense counts, or ``None``.
        labels: Labels to read from ``obs``, or ``None``.

    Raises:
        ValueError: If names repeat or are those of other attributes of a batch, or a rule refers to
            a level that there is not.

    Examples:
        >>> from spatiagraph.data import GenePanel, make_tissue
        >>> slide = make_tissue(200, num_genes=50, image=None)
        >>> recipe = Recipe(GenePanel.from_slides([slide]), graph=KNN(4), levels=())
        >>> recipe(slide).edge_index.shape
        torch.Size([2, 800])
    """

    panel: GenePanel
    graph: GraphRule = KNN(8)
    levels: tuple[LevelRule, ...] = (Neighborhoods(15), Parts(256))
    crops: tuple[Crop, ...] = ()
    features: tuple[Feature, ...] = ()
    tokens: TokenRule | None = None
    labels: LabelSet | None = field(default=None)

    def __post_init__(self) -> None:
        features = tuple(Feature(f) if isinstance(f, str) else f for f in self.features)
        object.__setattr__(self, "levels", _named(tuple(self.levels)))
        object.__setattr__(self, "crops", tuple(self.crops))
        object.__setattr__(self, "features", features)
        kinds = {"graph": GraphRule, "levels": LevelRule, "crops": Crop, "features": Feature}
        for name, kind in kinds.items():
            given = getattr(self, name)
            for rule in given if isinstance(given, tuple) else (given,):
                if not isinstance(rule, kind):
                    raise ValueError(
                        f"Expected {name!r} of {kind.__name__} rules, got {type(rule).__name__}"
                    )
        if self.tokens is not None and not isinstance(self.tokens, TokenRule):
            raise ValueError(f"Expected 'tokens' as a TokenRule, got {type(self.tokens).__name__}")
        self._check_names()

    @property
    def level_names(self) -> tuple[str, ...]:
        """Names of the levels, from cells upwards."""
        return tuple(str(level.name) for level in self.levels)

    def crop(self, of: str = CELL) -> Crop | None:
        """Crops of cells or of a level, if there are any."""
        return next((crop for crop in self.crops if crop.of == of), None)

    def __call__(self, slide: Slide) -> TissueData:
        """Convert a slide; counts stay sparse and crops in the image until a batch needs them.

        Raises:
            ValueError: If the slide is too small, hardly shares genes with the panel, lacks a
                column or slot that a rule reads, has classes that are not known, or is smaller than
                a crop.
        """
        if self.tokens is not None:
            self.tokens.check(slide)
        groups = self.groups(slide)
        pos = torch.from_numpy(slide.pos)
        edge_index = self.graph(Members(pos, slide, groups))
        counts, measured = self.panel.counts(slide)
        origin = pos.mean(0)  # float32 is good to 1 nm only near the origin
        data = TissueData(
            x=csr_tensor(counts),
            gene_mask=torch.as_tensor(measured),
            pos=(pos - origin).float(),
            edge_index=edge_index,
            core=torch.ones(slide.num_cells, dtype=torch.bool),
            cell_index=torch.arange(slide.num_cells),
            levels=self.level_names,
        )
        data.tokenizer = None if self.tokens is None else self.tokens.reading(self.panel)
        data.put(CELL, depth=torch.as_tensor(slide.depth, dtype=torch.float32))
        for name, found in groups.items():
            data[name], data[f"{name}_index"] = found.own, found.members
            data[f"{name}_pos"] = (found.pos - origin).float()
        if self.labels is not None:
            data.put(CELL, labels=self.labels.encode(slide))
        self._add_features(data, slide, groups)
        if slide.image is not None:
            self._add_crops(data, slide, groups)
        return data

    def groups(self, slide: Slide) -> dict[str, Groups]:
        """Groups of every level of a slide, from cells upwards: name → groups.

        Raises:
            ValueError: If a rule does not fit the slide.
        """
        found: dict[str, Groups] = {}
        pos = torch.from_numpy(slide.pos)
        for rule in self.levels:
            members = Members(pos, slide, dict(found))
            own = rule(members)
            try:
                groups = as_groups(own, pos)
            except ValueError as err:
                raise ValueError(f"{err}, of {rule} and slide {slide.slide_id!r}") from err
            found[str(rule.name)] = groups
            pos = groups.pos
        return found

    def _add_features(self, data: TissueData, slide: Slide, groups: Mapping[str, Groups]) -> None:
        for feature in self.features:
            values = feature.values(slide)
            if values is None:
                continue
            for name, found in groups.items():
                if feature.of == CELL:
                    break
                values = mean_over_members(values, found)
                if name == feature.of:
                    break
            data.put(feature.of, **{feature.name: values})

    def _add_crops(self, data: TissueData, slide: Slide, groups: Mapping[str, Groups]) -> None:
        for crop in self.crops:
            centres = slide.pos if crop.of == CELL else groups[crop.of].pos.numpy()
            source = crop.source(slide, centres)
            data.put_crops(crop.of, crop.key, source)
            if isinstance(source, ReflectedCrops):
                data.put(crop.of, **{f"{crop.key}_padded": source.padded})
            if crop.key == "image":
                data.put(CELL, window_um=torch.tensor(source.window_um, dtype=torch.float32))

    def config_args(self) -> dict[str, Any]:
        """Arguments that rebuild the recipe."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        arguments: dict[str, Any] = to_config(self)["args"]
        return arguments

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """Build the recipe that :meth:`to_dict` described, of this version or an earlier one.

        Raises:
            ValueError: If it describes none.
        """
        recipe: Self = build(cls, config, where="the saved recipe")
        return recipe

    @classmethod
    def upgrade_config(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Rules in place of the flags of version 0.1.0."""
        flat = "graph" not in config or isinstance(config["graph"], str)
        return from_flags(config) if flat and "panel" in config else config

    def _attributes(self) -> list[str]:
        """All that batches have: one name twice would be one thing in place of another."""
        crops = [crop.key for crop in self.crops if crop.key != "image"]
        return [
            *_TAKEN,
            *(f"{name}{end}" for name in self.level_names for end in ("", "_index", "_pos")),
            *(f"{key}{end}" for key in crops for end in ("", "_mask", "_padded")),
            *(feature.name for feature in self.features),
        ]

    def _check_names(self) -> None:
        names = self.level_names
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated or CELL in names:
            raise ValueError(f"Expected levels with different names, got {', '.join(names)}")
        of_levels: list[Crop | Feature] = [*self.crops, *self.features]
        for rule in of_levels:
            if rule.of not in (CELL, *names):
                raise ValueError(f"Expected {rule} of 'cell' or a level of {names}")
        keys = [rule.key for rule in self.crops] + [rule.name for rule in self.features]
        if len(set(keys)) < len(keys):
            raise ValueError(f"Expected one crop and one feature of a kind, got {sorted(keys)}")
        repeated = [name for name, times in Counter(self._attributes()).items() if times > 1]
        if repeated:
            raise ValueError(
                "Expected levels and features with names of their own, but a batch has "
                f"{', '.join(map(repr, repeated))} already: call them otherwise"
            )
        if isinstance(self.graph, InGroups):
            overlapping = {str(level.name): level.overlaps for level in self.levels}
            if names[:1] != (self.graph.level,) or overlapping[self.graph.level]:
                raise ValueError(
                    f"Expected groups of cells that do not overlap with {self.graph}, got the "
                    f"levels {self.levels}"
                )


def _named(levels: tuple[LevelRule, ...]) -> tuple[LevelRule, ...]:
    """Levels, each with a name."""
    named = []
    for i, level in enumerate(levels):
        if getattr(level, "name", "") is None:
            if i >= len(LEVEL_NAMES):
                raise ValueError(f"Expected a 'name' for level {i + 1}, {level}, got None")
            level = replace(level, name=LEVEL_NAMES[i])  # type: ignore[type-var]
        named.append(level)
    return tuple(named)
