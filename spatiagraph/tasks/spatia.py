"""Pre-training of SPATIA: cells rebuild what was taken from them, context what it hides."""

import zlib
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from spatiagraph.losses.adversarial import LabelAdversary, SourceAdversary
from spatiagraph.losses.hierarchical import hierarchical_bce
from spatiagraph.losses.info_nce import info_nce_loss
from spatiagraph.losses.masked_cells import masked_cells_loss
from spatiagraph.losses.masked_image import masked_image_loss
from spatiagraph.losses.mean import masked_mean
from spatiagraph.losses.negative_binomial import negative_binomial_nll
from spatiagraph.losses.profile import niche_profile_loss
from spatiagraph.losses.thinning import thin
from spatiagraph.losses.token_diversity import token_diversity_loss
from spatiagraph.losses.zero_inflated_negative_binomial import zero_inflated_negative_binomial_nll
from spatiagraph.models.base import Embeddings
from spatiagraph.models.spatia import Spatia
from spatiagraph.nn.token_cell import CellStreams
from spatiagraph.tasks.base import LossOutput, Task
from spatiagraph.tasks.niches import niche_totals, scored_niches


@dataclass(frozen=True)
class SpatiaWeights:
    """Weight of each objective; 0 leaves it out and saves what it would cost.

    Attributes:
        denoise: Counts of a cell from its gene tokens, which saw them thinned.
        bottleneck: The same from its cell tokens and the names of the genes alone.
        masked_image: Hidden patches of the crop from the image tokens, which saw the genes.
        classification: Labels, each from its own token.
        diversity: Tokens of one cell should differ.
        label_adversary: A label should not be readable from the tokens of the others.
        source_adversary: The data set should not be readable from a cell.
        cross_modal: Which image belongs to which genes.
        expression: All counts of a cell from its embedding in context, hidden genes included.
            Not in the paper; what trains the gates to let context in.
        niche_profile: Mean expression of a niche from its embedding.
        masked_cells: Cells hidden from their niche, from what is around them.
        masked_niches: Niches hidden from their region.
    """

    denoise: float = 1.0
    bottleneck: float = 1.0
    masked_image: float = 1.0
    classification: float = 1.5
    diversity: float = 0.2
    label_adversary: float = 0.0
    source_adversary: float = 0.0
    cross_modal: float = 0.1
    expression: float = 1.0
    niche_profile: float = 0.5
    masked_cells: float = 0.5
    masked_niches: float = 0.5

    def __post_init__(self) -> None:
        negative = [name for name, weight in asdict(self).items() if weight < 0]
        if negative:
            raise ValueError(f"Expected weights of 0 or more, got less for {', '.join(negative)}")


class SpatiaPretraining(Task):
    r"""The objectives of SPATIA on one batch, each with its weight.

    Objectives that a model or batch has nothing for (images, labels, a second modality) are left
    out; on cached cell embeddings (``batch.z``) that is everything below the niche. Whatever is
    random is drawn from a stream of its own, so that one objective does not change another.

    Args:
        model: The model to train.
        weights: Weight of each objective; the published ones when not given.
        thin_rate: Share of each count taken from the input.
        mask_ratio: Share of measured genes hidden from the input.
        drop_image: Share of cells that lose their image.
        drop_genes: Share of cells that lose their genes; never both.
        hidden_ratio: Share of cells hidden from their niche, and of niches from their region.
        num_sources: Slides to tell apart, for ``source_adversary``.
        seed: Seed of the heads that only training needs.

    Raises:
        ValueError: If a share is not inside [0, 1), or an adversary has nothing to tell apart.
    """

    model: Spatia
    takes_cached_cells = True

    def __init__(
        self,
        model: Spatia,
        weights: SpatiaWeights | None = None,
        *,
        thin_rate: float = 0.6,
        mask_ratio: float = 0.2,
        drop_image: float = 0.1,
        drop_genes: float = 0.1,
        hidden_ratio: float = 0.15,
        num_sources: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        shares = {
            "thin_rate": thin_rate,
            "mask_ratio": mask_ratio,
            "drop_image + drop_genes": drop_image + drop_genes,
            "hidden_ratio": hidden_ratio,
        }
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"Expected {name!r} from 0 to below 1, got {share}")
        self.model = model
        self.weights = SpatiaWeights() if weights is None else weights
        self.thin_rate = thin_rate
        self.mask_ratio = mask_ratio
        self.drop_image = drop_image
        self.drop_genes = drop_genes
        self.hidden_ratio = hidden_ratio
        self.descendants = [] if model.labels is None else model.labels.descendants
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._add_heads(num_sources)

    def _add_heads(self, num_sources: int) -> None:
        model, channels = self.model, self.model.context_encoder.channels
        self.cell_from_context = nn.Linear(2 * channels, channels)
        self.niche_from_context = nn.Linear(channels, channels)
        self.label_adversary = self.source_adversary = None
        genes = model.cell_encoder.genes
        if self.weights.label_adversary > 0:
            if genes is None or model.labels is None:
                raise ValueError("Expected labels with genes to hide from each other, got none")
            self.label_adversary = LabelAdversary(genes.channels, model.labels.num_classes)
        if self.weights.source_adversary > 0:
            if num_sources < 2:
                raise ValueError(f"Expected num_sources of 2 or more, got {num_sources}")
            self.source_adversary = SourceAdversary(channels, num_sources)

    def loss(self, batch: Data, generator: torch.Generator | None = None) -> LossOutput:
        draw = _Streams(generator, batch.pos.device)
        z, parts = batch.get("z"), {}
        if z is None:
            streams = self._encode(batch, draw)
            z = streams.cell
            parts.update(self._cell_parts(streams, batch))
        wanted = self.weights
        if wanted.expression + wanted.niche_profile + wanted.masked_cells + wanted.masked_niches:
            parts.update(self._context_parts(z, batch, draw))
        parts = {k: v for k, v in parts.items() if getattr(wanted, k) > 0}
        if not parts:
            raise ValueError("Expected an objective that the model and the batch allow, got none")
        loss = torch.stack([getattr(wanted, name) * part for name, part in parts.items()]).sum()
        detached = {name: part.detach() for name, part in parts.items()}
        return LossOutput(loss, detached, int(batch.core.sum()))

    def _encode(self, batch: Data, draw: "_Streams") -> CellStreams:
        """Streams of cells that see less than was measured."""
        model = self.model
        given = model.cell_inputs(batch)
        x, image, depth = given["x"], given["image"], batch.depth
        visible = given["gene_mask"]
        genes_there = image_there = None
        if x is not None:
            hidden = torch.rand(x.shape, generator=draw["genes"], device=x.device)
            visible = visible & (hidden >= self.mask_ratio)
            if model.likelihood == "zinb" and self.thin_rate > 0:
                x = thin(x, self.thin_rate, generator=draw["thin"])
                depth = depth * (1 - self.thin_rate)
        if x is not None and image is not None:
            chance = torch.rand(len(x), generator=draw["modality"], device=x.device)
            image_there = given["image_mask"] & (chance >= self.drop_image)
            genes_there = (chance < 1 - self.drop_genes) | ~given["image_mask"]
        elif image is not None:
            image_there = given["image_mask"]
        return model.cell_encoder.streams(
            x,
            image,
            gene_mask=visible,
            depth=depth,
            gene_present=genes_there,
            image_mask=image_there,
            window_um=given["window_um"],
            generator=draw["tokens"],
        )

    def _cell_parts(self, streams: CellStreams, batch: Data) -> dict[str, Tensor]:
        wanted, core = self.weights, batch.core
        parts: dict[str, Tensor] = {}
        has_genes = core if streams.gene_present is None else core & streams.gene_present
        if streams.genes is not None and streams.gene_tokens is not None:
            first = streams.gene_tokens.num_cell_tokens
            if self.model.likelihood == "zinb":
                if wanted.denoise:
                    tokens = streams.genes[:, first:]
                    parts["denoise"] = self._count_loss(tokens, streams, batch.x, has_genes)
                if wanted.bottleneck:
                    tokens = self.model.cell_encoder.ask(streams)
                    parts["bottleneck"] = self._count_loss(tokens, streams, batch.x, has_genes)
            parts.update(self._label_parts(streams.genes[:, 2:first], batch, has_genes))
        shown = streams.image_tokens
        has_image = core if streams.image_present is None else core & streams.image_present
        if wanted.masked_image and self.model.image_decoder is not None and shown is not None:
            pixels = self.model.image_decoder(streams.image, shown.visible)
            hidden = shown.hidden & has_image.unsqueeze(1)
            parts["masked_image"] = masked_image_loss(pixels, batch.image, hidden)
        if wanted.cross_modal and shown is not None and streams.gene_tokens is not None:
            a, b = self.model.project_modalities(streams)
            parts["cross_modal"] = info_nce_loss(a, b, mask=has_genes & has_image)
        if self.source_adversary is not None:
            source = _source(batch).masked_fill(~core, -1)
            parts["source_adversary"] = self.source_adversary(streams.cell, source)
        return parts

    def _count_loss(self, tokens: Tensor, streams: CellStreams, x: Tensor, cells: Tensor) -> Tensor:
        sampled = streams.sampled
        assert sampled is not None  # there are gene tokens
        assert self.model.token_head is not None
        target = sampled.take(x)
        out = self.model.token_head(tokens, target.sum(1), sampled.pad)
        scored = cells.unsqueeze(1).expand_as(target)
        scored = scored if sampled.pad is None else scored & ~sampled.pad
        nll = zero_inflated_negative_binomial_nll(
            target, out.log_mu, out.log_theta, out.logit, scored
        )
        return masked_mean(nll, scored)

    def _label_parts(self, tokens: Tensor, batch: Data, cells: Tensor) -> dict[str, Tensor]:
        """Classification and what goes with it; ``tokens`` are those of the labels."""
        wanted = self.weights
        parts: dict[str, Tensor] = {}
        if not len(self.model.classifiers) or "labels" not in batch:
            return parts
        labels = batch.labels.masked_fill(~cells.unsqueeze(1), -1)
        below = [None if d is None else d.to(tokens.device) for d in self.descendants]
        if wanted.classification:
            each = zip(
                self.model.classifiers, tokens.unbind(1), labels.unbind(1), below, strict=True
            )
            terms = [hierarchical_bce(c(token), label, d) for c, token, label, d in each]
            parts["classification"] = torch.stack(terms).sum()
        if wanted.diversity and tokens.size(1) > 1:
            parts["diversity"] = token_diversity_loss(tokens[cells])
        if self.label_adversary is not None:
            parts["label_adversary"] = self.label_adversary(tokens, labels, below)
        return parts

    def _context_parts(self, z: Tensor, batch: Data, draw: "_Streams") -> dict[str, Tensor]:
        """What cells, niches and regions say once they have seen each other."""
        wanted, core = self.weights, batch.core
        cells = torch.rand(len(z), generator=draw["cells"], device=z.device) < self.hidden_ratio
        groups = (
            torch.rand(len(batch.tissue), generator=draw["niches"], device=z.device)
            < self.hidden_ratio
        )
        out = self.model.context(
            z,
            batch,
            hidden_cells=cells if wanted.masked_cells else None,
            hidden_niches=groups if wanted.masked_niches else None,
        )
        assert out.context is not None  # ours says both
        assert out.alone is not None
        parts: dict[str, Tensor] = {}
        if wanted.expression:
            parts["expression"] = self._expression_loss(out, batch)
        if wanted.niche_profile:
            niches = scored_niches(batch, 1.0, None)
            parts["niche_profile"] = self._profile_loss(out.niche[niches], niches, batch)
        if wanted.masked_cells:
            own = out.niche[batch.niche.clamp(min=0)] * (batch.niche >= 0).unsqueeze(1)
            guess = self.cell_from_context(torch.cat([out.context, own], 1))
            parts["masked_cells"] = masked_cells_loss(guess, z, cells & core)
        if wanted.masked_niches:
            guess = self.niche_from_context(out.niche)
            parts["masked_niches"] = masked_cells_loss(guess, out.alone, groups)
        return parts

    def _expression_loss(self, out: Embeddings, batch: Data) -> Tensor:
        model, core = self.model, batch.core
        measured = model.gene_mask(batch)[core]
        x = batch.x[core]
        if model.likelihood == "gaussian":
            return masked_mean((model.head.linear(out.cell[core]) - x).square(), measured)
        expression = model.head(out.cell[core], (x * measured).sum(1), measured)
        log_mu = expression.log_mu.masked_fill(~measured, 0)
        return masked_mean(negative_binomial_nll(x, log_mu, expression.log_theta), measured)

    def _profile_loss(self, z: Tensor, niches: Tensor, batch: Data) -> Tensor:
        measured = self.model.gene_mask(batch)
        total, size, cell = niche_totals(batch, niches, batch.x * measured)
        return niche_profile_loss(
            self.model.niche_head(z), total, size, measured[cell.clamp(min=0)]
        )


def _source(batch: Data) -> Tensor:
    """Slide of each cell, ``[N]``."""
    if isinstance(batch.slide, Tensor):  # one graph per slide
        return batch.slide[batch.batch]
    return torch.full_like(batch.niche, batch.slide)


class _Streams:
    """Independent sources of randomness, one per purpose, all from one generator."""

    def __init__(self, generator: torch.Generator | None, device: torch.device):
        source = device if generator is None else generator.device
        self.seed = int(torch.randint(2**62, (), generator=generator, device=source))
        self.device = device

    def __getitem__(self, purpose: str) -> torch.Generator:
        seed = self.seed ^ zlib.crc32(purpose.encode())
        return torch.Generator(self.device).manual_seed(seed)
