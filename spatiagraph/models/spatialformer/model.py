"""``SpatialFormer``: an encoder of one cell or two, with heads for tokens, genes and cells."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_geometric.data import Data

from spatiagraph._savable import full_name, savable
from spatiagraph.data.convert import TissueData
from spatiagraph.data.convert.counts import as_scipy
from spatiagraph.data.loader import (
    NeighborPairLoader,
    PairSource,
    Prepared,
    TileLoader,
    whole_slides,
)
from spatiagraph.data.loader.cutting import cell_batch
from spatiagraph.data.loader.neighbor_pairs import NEIGHBOR, Negatives, edges_among
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.data.tokens import CellSequences, Marks, cell_sequences
from spatiagraph.data.vocabulary import GeneVocabulary
from spatiagraph.heads.cell_similarity import CellSimilarity
from spatiagraph.heads.gene_pairs import GenePairHead, PairKind
from spatiagraph.models.base import SlideModel, check_counted
from spatiagraph.models.spatialformer.labels import colocalized_codes, metadata_ids
from spatiagraph.models.spatialformer.size import SIZES
from spatiagraph.models.spatialformer.vocabulary import (
    FIELDS,
    spatialformer_recipe,
    spatialformer_vocabulary,
)
from spatiagraph.nn.cell_graph import Embeddings
from spatiagraph.nn.squeezeformer import Squeezeformer

NeighborKind = Literal["linear", "similarity"]
EmbeddingKind = Literal["cls", "gene_mean"]


@savable
@dataclass(frozen=True)
class Readout:
    """Kinds of the outputs of SpatialFormer: of pairs of genes, of neighbours, and of cells.

    Attributes:
        gene_pairs: Kind of :class:`~spatiagraph.heads.GenePairHead`.
        neighbors: What says whether two cells are neighbours: ``"linear"`` of ``[CLS]``, as
            published, or ``"similarity"``, which adds that to how alike they are, see
            :class:`~spatiagraph.heads.CellSimilarity`.
        cell: Embedding of a cell: its ``"cls"`` token, or ``"gene_mean"``, the mean of its genes.

    Raises:
        ValueError: If there is no such kind.
    """

    gene_pairs: PairKind = "bilinear"
    neighbors: NeighborKind = "linear"
    cell: EmbeddingKind = "cls"

    def __post_init__(self) -> None:
        known = {"neighbors": ("linear", "similarity"), "cell": ("cls", "gene_mean")}
        for name, kinds in known.items():
            if getattr(self, name) not in kinds:
                raise ValueError(
                    f"Expected {name!r} {' or '.join(kinds)}, got {getattr(self, name)!r}"
                )

    def config_args(self) -> dict[str, Any]:
        """Arguments that rebuild it, plain values."""
        return asdict(self)


_AT_ONCE = 512  # cells embedded together
_LARGE = 256  # channels from which the published rate is right
_TYPE_STD = 0.3  # of tokens that say which cell a gene is of; genes of both cells are to meet


class SpatialFormer(SlideModel):
    """Encoder of cells as ranked genes, one at a time or two side by side.

    `"SpatialFormer: Universal Spatial Representation Learning from Subcellular Molecular to
    Multicellular Landscapes" <https://www.biorxiv.org/content/10.1101/2025.01.18.633701>`_. Three
    heads share it: one names tokens that were hidden, one scores pairs of genes of a cell, and one
    says whether two cells are neighbours. The embedding of a cell is made of it alone.

    Args:
        recipe: Of :func:`~spatiagraph.models.spatialformer_recipe`: its panel is a vocabulary.
        channels: Size of each token, :math:`D`.
        num_layers: Blocks of the encoder.
        heads: Attention heads.
        max_len: Longest sequence.
        dropout: Dropout everywhere, and how often a branch of a sequence is left out. Small models
            learn late with it which cells are neighbours, or never: the preset has none.
        readout: What pairs of genes, neighbours and cells are read from. Call :meth:`initialize`
            where neighbours start from how alike they are.
        metadata: Field (condition, tissue, species, assay) → its token, for cells that say nothing
            else.
        columns: Field → column of ``obs`` that has the token of each cell.
        negatives: Pairs of cells that are no neighbours, see
            :class:`~spatiagraph.data.loader.PairSource`.

    Raises:
        ValueError: If the recipe has no vocabulary or no tokens, metadata are no tokens of it,
            or ``max_len`` has no room for two cells.
    """

    name = "spatialformer"
    tile_size = 64
    least_tile = 64
    num_steps = 1000
    weight_decay = 0.1
    num_hops = 1
    reads_molecules = True

    def __init__(
        self,
        recipe: Recipe,
        channels: int = 64,
        num_layers: int = 2,
        heads: int = 8,
        *,
        max_len: int = 500,
        dropout: float = 0.1,
        readout: Readout = Readout(),
        metadata: Mapping[str, str] | None = None,
        columns: Mapping[str, str] | None = None,
        negatives: Negatives = "uniform",
    ):
        super().__init__()
        self.lr = 3e-3 if channels < _LARGE else 1e-4
        vocabulary = recipe.panel
        if not isinstance(vocabulary, GeneVocabulary) or recipe.tokens is None or recipe.levels:
            raise ValueError(
                "Expected a recipe of a GeneVocabulary with ranked tokens and no levels: "
                "spatialformer_recipe makes one"
            )
        least = 2 * len(FIELDS) + 5  # metadata and marks of a pair, and a gene of each cell
        if max_len < least:
            raise ValueError(f"Expected 'max_len' of {least} tokens or more, got {max_len}")
        self.recipe, self.vocabulary = recipe, vocabulary
        self.max_len, self.negatives, self.columns = max_len, negatives, dict(columns or {})
        given = {"condition": "Healthy", "tissue": "Lung", "species": "Human", "assay": "Xenium"}
        self.metadata = {**given, **(metadata or {})}
        if unknown := sorted({*self.metadata, *self.columns} - set(FIELDS)):
            raise ValueError(f"Expected metadata of {', '.join(FIELDS)}, got {', '.join(unknown)}")
        self.marks = Marks(*(vocabulary.token(name) for name in ("[PAD]", "[CLS]", "[SEP]")))
        self.mask_id = vocabulary.token("[MASK]")
        for field in FIELDS:
            vocabulary.token(self.metadata[field])
        self.tokens = nn.Embedding(vocabulary.num_tokens, channels, padding_idx=self.marks.pad)
        self.token_type = nn.Embedding(3, channels, padding_idx=0)
        with torch.no_grad():
            self.token_type.weight.mul_(_TYPE_STD)
        self.genes = nn.Embedding(vocabulary.num_tokens, channels, padding_idx=self.marks.pad)
        nn.init.zeros_(self.genes.weight)
        self.norm, self.dropout = nn.LayerNorm(channels), nn.Dropout(dropout)
        self.encoder = Squeezeformer(
            channels, num_layers, heads, dropout=dropout, drop_path=dropout
        )
        self.token_head = nn.Linear(channels, vocabulary.num_tokens)
        self.cell_head = nn.Linear(channels, 2, bias=False)
        self.gene_head = GenePairHead(channels, kind=readout.gene_pairs)
        self.embedding = readout.cell
        self.similarity: CellSimilarity | None = None
        if readout.neighbors == "similarity":
            genes = vocabulary.ranges["gene"]
            self.similarity = CellSimilarity(genes.start, len(genes))
            nn.init.zeros_(self.cell_head.weight)  # nothing is known beyond it at the start

    @classmethod
    def upgrade_config(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Kind of the head of gene pairs, which was an argument of its own."""
        if "pair_head" not in config:
            return config
        rest = {name: value for name, value in config.items() if name != "pair_head"}
        readout = {"class": full_name(Readout), "args": {"gene_pairs": config["pair_head"]}}
        return {**rest, "readout": readout}

    @classmethod
    def from_options(  # type: ignore[override]
        cls,
        slides: Sequence[Slide],
        *,
        preset: Literal["tiny", "base"] = "tiny",
        channels: int | None = None,
        num_genes: int | None = None,
        neighbor_head: NeighborKind = "similarity",
        seed: int = 0,
    ) -> Self:
        """Model that fits some slides, by the options of the command line.

        Args:
            slides: The slides to be trained on.
            preset: ``"tiny"`` or ``"base"``.
            channels: Size of each token; that of the preset when ``None``.
            num_genes: Most variable genes to read; all of them when ``None``.
            neighbor_head: ``"similarity"`` starts from how alike cells are; ``"linear"`` as
                published.
            seed: Seed of the starting weights.

        Raises:
            ValueError: If there is no such preset, or slides hold no counts.
        """
        if preset not in SIZES:
            raise ValueError(f"Expected 'preset' {', '.join(SIZES)}, got {preset!r}")
        symbols = GenePanel.from_slides(slides, num_genes=num_genes).symbols
        vocabulary = spatialformer_vocabulary(symbols).fitted(slides)
        size = {**SIZES[preset], **({} if channels is None else {"channels": channels})}
        readout = Readout(neighbors=neighbor_head)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(spatialformer_recipe(vocabulary), readout=readout, **size)
            model.initialize(slides, seed=seed)
        return model

    @torch.no_grad()
    def initialize(
        self,
        slides: Sequence[Slide],
        *,
        rows: Sequence[Tensor] | None = None,
        max_pairs: int = 10_000,
        seed: int = 0,
    ) -> None:
        """Start the similarity of cells from a regression on pairs of some slides.

        Of a model without ``similarity`` nothing is done, nor of slides without neighbours.

        Args:
            slides: Where pairs of cells are drawn.
            rows: Cells of each to draw from, ``[N]`` bool; all of them when not given.
            max_pairs: Neighbours drawn at most.
            seed: Seed of the draw.
        """
        if self.similarity is None:
            return
        profiles, ends, labels, done = [], [], [], 0
        device = self.cell_head.weight.device
        share = max(1, max_pairs // max(1, len(slides)))
        for i, slide in enumerate(slides):
            data = self.prepare(slide)
            core = (data.core if rows is None else rows[i]).nonzero().flatten()
            edges = edges_among(data, core.numpy())
            source = PairSource(edges, data.pos[core], self.negatives, seed=seed)
            drawn = source.draw(np.random.default_rng(seed).permutation(len(source))[:share])
            pairs = np.stack([drawn.first, drawn.second])
            used, position = np.unique(pairs, return_inverse=True)  # of these cells alone
            for some in core[torch.from_numpy(used)].split(_AT_ONCE) if len(used) else ():
                (sequences,) = self.inputs(cell_batch(data, some).to(device))
                profiles.append(self.similarity.profiles(sequences))
            ends.append(position.reshape(pairs.shape) + done)
            labels.append(drawn.kind == NEIGHBOR)
            done += len(used)
        first, second = torch.from_numpy(np.concatenate(ends, axis=1))
        label = torch.from_numpy(np.concatenate(labels))
        if len(label):
            self.similarity.initialize(torch.cat(profiles), first, second, label)
        self.note_start(slides, max_pairs=max_pairs, seed=seed)

    @torch.no_grad()
    def set_gene_table(self, table: Tensor) -> None:
        """Set external gene embeddings, which are added to the learned ones.

        Rows are scaled to the mean length of those of the token table, so that neither drowns the
        other; genes whose row is zero have none.

        Args:
            table: One row per gene of the vocabulary, ``[G, D]``.

        Raises:
            ValueError: If it has another shape, no row, or is not finite.
        """
        genes = self.vocabulary.ranges["gene"]
        size = [len(genes), self.genes.embedding_dim]
        if list(table.shape) != size or not bool(table.isfinite().all()):
            raise ValueError(f"Expected a finite gene table {size}, got {list(table.shape)}")
        length = table.float().norm(dim=1)
        if not bool((length > 0).any()):
            raise ValueError("Expected a gene table with rows, got zeros")
        usual = self.tokens.weight[genes.start : genes.stop].norm(dim=1).mean()
        scaled = table.float() * usual.cpu() / length[length > 0].mean()
        self.genes.weight[genes.start : genes.stop] = scaled.to(self.genes.weight)

    def prepare(
        self, slide: Slide, *, device: str | torch.device = "cpu", learn: bool = False
    ) -> TissueData:
        """Ranked genes and metadata; to learn from, also which genes lie together in each cell.

        Args:
            slide: The slide; without molecules in cells, no pairs of genes are learned.
            device: Not used: nothing is frozen.
            learn: Add pairs of genes, so that batches are pairs of cells.

        Raises:
            ValueError: If the slide does not fit the vocabulary, has cells without any gene of it,
                or values that are no tokens in a column of metadata.
        """
        check_counted(self, slide, learn=learn)
        data = self.recipe(slide)
        empty = np.flatnonzero(np.asarray(as_scipy(data.x).sum(axis=1)).ravel() == 0)
        if len(empty):
            names = ", ".join(map(str, slide.adata.obs_names[empty[:5]]))
            raise ValueError(
                f"Expected genes of the vocabulary in every cell of slide {slide.slide_id!r}, got "
                f"none in {len(empty)} (first: {names}): leave these cells out"
            )
        data.put("cell", meta_ids=metadata_ids(slide, self.vocabulary, self.metadata, self.columns))
        if learn:
            data.put("cell", colocalized=colocalized_codes(slide, self.vocabulary))
        return data

    def batches(
        self,
        slides: Prepared,
        tile_size: int | None = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ) -> DataLoader[TissueData]:
        """Pairs of cells of slides that were prepared to learn from, else cells in turn.

        An epoch has two pairs for each cell, one of neighbours; ``tile_size`` counts pairs.
        """
        slides = whole_slides(slides, type(self).__name__)
        size = self.tile_size if tile_size is None else tile_size
        if not all("colocalized" in data for data in slides):
            return TileLoader(slides, min(size, _AT_ONCE), 0, num_workers=num_workers)
        return NeighborPairLoader(
            slides,
            size,
            negatives=self.negatives,
            max_pairs=2 * sum(int(data.core.sum()) for data in slides),
            lengths=[data.x.crow_indices().diff().numpy() for data in slides],
            shuffle=shuffle,
            seed=seed,
            num_workers=num_workers,
        )

    def inputs(self, batch: Data) -> tuple[Any, ...]:
        """Sequences of the cells of a batch, one cell each."""
        return (self.sequences(batch, torch.arange(batch.num_nodes, device=batch.core.device)),)

    def sequences(self, batch: Data, first: Tensor, second: Tensor | None = None) -> CellSequences:
        """Sequences of some cells of a batch, or of pairs of them.

        Args:
            batch: A batch.
            first: Rows of the first cells, ``[B]``.
            second: Rows of the second cells, ``[B]``.
        """
        return cell_sequences(
            batch.gene_ids, batch.meta_ids, self.marks, first, second, max_len=self.max_len
        )

    def encode(self, sequences: CellSequences) -> Tensor:
        """Tokens in context, ``[B, L, D]``."""
        h = self.tokens(sequences.tokens) + self.genes(sequences.tokens)
        h = self.norm(self.dropout(h + self.token_type(sequences.token_type)))
        return self.encoder(h, sequences.mask)

    def neighbor_logits(self, sequences: CellSequences, hidden: Tensor) -> Tensor:
        """Logits that the two cells of each sequence are no neighbours, and that they are.

        Args:
            sequences: The cells as they are.
            hidden: Tokens in context, ``[B, L, D]``.

        Returns:
            ``[B, 2]`` float32.
        """
        logits = self.cell_head(hidden[:, 0]).float()
        if self.similarity is None:
            return logits
        known = self.similarity(sequences)
        return logits + torch.stack([-known, known], 1) / 2

    def neighbor_logit(self, sequences: CellSequences) -> Tensor:
        """Log-odds that the two cells of each sequence are neighbours, ``[B]``."""
        logits = self.neighbor_logits(sequences, self.encode(sequences))
        return logits[:, 1] - logits[:, 0]

    def forward(self, sequences: CellSequences) -> Embeddings:
        hidden = self.encode(sequences)
        if self.embedding == "cls":
            return Embeddings(hidden[:, 0], ())
        genes = sequences.gene_mask.unsqueeze(-1).to(hidden.dtype)
        return Embeddings((hidden * genes).sum(1) / genes.sum(1), ())
