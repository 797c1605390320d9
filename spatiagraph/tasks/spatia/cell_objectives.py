"""Objectives of SPATIA on the tokens of cells."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.losses.adversarial import LabelAdversary, SourceAdversary
from spatiagraph.losses.elastic_similarity import elastic_similarity_loss
from spatiagraph.losses.hierarchical import hierarchical_bce
from spatiagraph.losses.info_nce import info_nce_loss
from spatiagraph.losses.masked_image import masked_image_loss
from spatiagraph.losses.mean import masked_mean
from spatiagraph.losses.token_diversity import token_diversity_loss
from spatiagraph.losses.zero_inflated_negative_binomial import zero_inflated_negative_binomial_nll
from spatiagraph.nn.token_cell import CellStreams
from spatiagraph.tasks.objective import Objective
from spatiagraph.tasks.spatia.view import SpatiaView


class Denoise(Objective[SpatiaView]):
    """Counts of a cell from its gene tokens, which saw less of them."""

    name = "denoise"

    def forward(self, view: SpatiaView) -> Tensor | None:
        streams = view.streams
        fused = _fused_genes(streams)
        if fused is None or view.model.likelihood != "zinb":
            return None
        genes, num_cell_tokens = fused
        return _count_loss(view, genes[:, num_cell_tokens:])


class Bottleneck(Objective[SpatiaView]):
    """Counts of a cell from its cell tokens and the names of the genes."""

    name = "bottleneck"

    def forward(self, view: SpatiaView) -> Tensor | None:
        fused = _fused_genes(view.streams)
        if fused is None or view.second_pass is None or view.model.likelihood != "zinb":
            return None
        return _count_loss(view, view.second_pass[:, fused[1] :])


class MaskedImage(Objective[SpatiaView]):
    """Hidden patches of the crop from the image tokens, which saw the genes."""

    name = "masked_image"

    def forward(self, view: SpatiaView) -> Tensor | None:
        decoder, streams = view.model.heads.image_decoder, view.streams
        if decoder is None or streams is None or streams.image_tokens is None:
            return None
        pixels = decoder(streams.image, streams.image_tokens.visible)
        hidden = streams.image_tokens.hidden & view.core_with_image.unsqueeze(1)
        return masked_image_loss(pixels, view.batch.image, hidden)


class Classification(Objective[SpatiaView]):
    """Labels of a cell, each from its own token.

    Args:
        weight: Factor of the term.
        descendants: For each label, the classes below each branch, or ``None``.
    """

    name = "classification"

    def __init__(self, weight: float = 1.5, descendants: Sequence[Tensor | None] = ()):
        super().__init__(weight)
        self.descendants = list(descendants)

    def forward(self, view: SpatiaView) -> Tensor | None:
        tokens, classifiers = _label_tokens(view), view.model.heads.classifiers
        if tokens is None:
            return None
        labels, below = _labels(view), _below(self.descendants, tokens)
        each = zip(classifiers, tokens.unbind(1), labels.unbind(1), below, strict=True)
        terms = [hierarchical_bce(c(token), label, d) for c, token, label, d in each]
        return torch.stack(terms).sum()


class Diversity(Objective[SpatiaView]):
    """Difference between the tokens of one cell."""

    name = "diversity"

    def forward(self, view: SpatiaView) -> Tensor | None:
        tokens = _label_tokens(view)
        if tokens is None or tokens.size(1) < 2:
            return None
        return token_diversity_loss(tokens[view.core_with_genes])


class LabelAdversaries(Objective[SpatiaView]):
    """Adversaries that read a label from the tokens of the remaining labels, where it is not to be.

    Args:
        weight: Factor of the term.
        channels: Size of a token.
        num_classes: Classes of each label.
        descendants: For each label, the classes below each branch, or ``None``.
    """

    name = "label_adversary"

    def __init__(
        self,
        weight: float,
        channels: int,
        num_classes: Sequence[int],
        descendants: Sequence[Tensor | None] = (),
    ):
        super().__init__(weight)
        self.adversary = LabelAdversary(channels, list(num_classes))
        self.descendants = list(descendants)

    def forward(self, view: SpatiaView) -> Tensor | None:
        tokens = _label_tokens(view)
        if tokens is None:
            return None
        return self.adversary(tokens, _labels(view), _below(self.descendants, tokens))


class SourceAdversaries(Objective[SpatiaView]):
    """Adversaries that read the slide from a cell, where it is not to be.

    Args:
        weight: Factor of the term.
        channels: Size of an embedding.
        num_sources: Slides to tell apart.

    Raises:
        ValueError: If there are fewer than two slides.
    """

    name = "source_adversary"

    def __init__(self, weight: float, channels: int, num_sources: int):
        super().__init__(weight)
        if num_sources < 2:
            raise ValueError(f"Expected num_sources of 2 or more, got {num_sources}")
        self.adversary = SourceAdversary(channels, num_sources)

    def forward(self, view: SpatiaView) -> Tensor | None:
        h = self.read(view)
        if h is None:
            return None
        source = source_of_cells(view.batch).masked_fill(~view.core, -1)
        return self.adversary(h, source)

    def read(self, view: SpatiaView) -> Tensor | None:
        """Vectors that are to hide the slide, ``[N, D]``; ``None`` where there are none."""
        return None if view.streams is None else view.streams.cell


class TokenSourceAdversaries(SourceAdversaries):
    """Adversaries that read the slide from the mean label token of a cell, as published.

    Args:
        weight: Factor of the term.
        channels: Size of a token.
        num_sources: Slides to tell apart.

    Raises:
        ValueError: If there are fewer than two slides.
    """

    name = "token_source_adversary"

    def read(self, view: SpatiaView) -> Tensor | None:
        """Mean label token, ``[N, d]``."""
        tokens = _label_tokens(view)
        return None if tokens is None else tokens.mean(1)


class CellContrast(Objective[SpatiaView]):
    """Contrast of each cell in two passes: with itself, against the remaining cells.

    The passes are the one that saw thinned counts and the one from its cell tokens alone; a cell is
    the mean of its cell tokens.
    """

    name = "cell_contrast"

    def forward(self, view: SpatiaView) -> Tensor | None:
        fused, second = _fused_genes(view.streams), view.second_pass
        if fused is None or second is None:
            return None
        genes, num = fused
        first, again = genes[:, :num].mean(1), second[:, :num].mean(1)
        return info_nce_loss(first, again, temperature=0.5, mask=view.core_with_genes)


class ElasticSimilarity(Objective[SpatiaView]):
    """Elastic similarity of the cells of a batch: alike, or not at all."""

    name = "elastic_similarity"

    def forward(self, view: SpatiaView) -> Tensor | None:
        if view.streams is None:
            return None
        return elastic_similarity_loss(view.z, mask=view.core)


class CrossModal(Objective[SpatiaView]):
    """Contrast of each cell's image with the genes of all."""

    name = "cross_modal"

    def forward(self, view: SpatiaView) -> Tensor | None:
        streams = view.streams
        if streams is None or streams.image_tokens is None or streams.gene_tokens is None:
            return None
        genes, image = view.model.project_modalities(streams)
        return info_nce_loss(genes, image, mask=view.core_with_genes & view.core_with_image)


def source_of_cells(batch: Data) -> Tensor:
    """Slide of each cell, ``[N]``."""
    if isinstance(batch.slide, Tensor):  # one graph per slide
        return batch.slide[batch.batch]
    return torch.full_like(batch.cell_index, batch.slide)


def _fused_genes(streams: CellStreams | None) -> tuple[Tensor, int] | None:
    """Gene stream after fusion, ``[N, T + L, d]``, and the number of cell tokens before it."""
    if streams is None or streams.genes is None or streams.gene_tokens is None:
        return None
    return streams.genes, streams.gene_tokens.num_cell_tokens


def _label_tokens(view: SpatiaView) -> Tensor | None:
    """Tokens of the labels, ``[N, K, d]``; ``None`` without labels or genes."""
    if not len(view.model.heads.classifiers) or "labels" not in view.batch:
        return None
    fused, genes = _fused_genes(view.streams), view.model.cell_encoder.genes
    if fused is None or genes is None:
        return None
    return genes.label_tokens(fused[0], len(view.model.heads.classifiers))


def _labels(view: SpatiaView) -> Tensor:
    """Classes of each cell that counts, -1 elsewhere, ``[N, K]``."""
    return view.batch.labels.masked_fill(~view.core_with_genes.unsqueeze(1), -1)


def _below(descendants: Sequence[Tensor | None], tokens: Tensor) -> list[Tensor | None]:
    return [None if d is None else d.to(tokens.device) for d in descendants]


def _count_loss(view: SpatiaView, tokens: Tensor) -> Tensor:
    streams, cells = view.streams, view.core_with_genes
    assert streams is not None  # there are gene tokens
    sampled = streams.sampled
    assert sampled is not None
    assert view.model.heads.token_head is not None
    target = sampled.take(view.batch.x)
    out = view.model.heads.token_head(tokens, target.sum(1), sampled.pad)
    scored = cells.unsqueeze(1).expand_as(target)
    scored = scored if sampled.pad is None else scored & ~sampled.pad
    nll = zero_inflated_negative_binomial_nll(target, out.log_mu, out.log_theta, out.logit, scored)
    return masked_mean(nll, scored)
