"""``HiddenGenes``: genes of held-out slides, predicted by models of the other slides."""

from collections.abc import Iterator

import anndata
import numpy as np
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.slide import Slide
from spatiagraph.evaluate import ImputationSplit
from spatiagraph.inference.domains import Sections
from spatiagraph.inference.embedding import embed_data
from spatiagraph.inference.imputing import impute
from spatiagraph.inference.zero_shot import ZeroShot
from spatiagraph.models.base import SlideModel


class HiddenGenes:
    """Methods of imputation by models that have seen the slides with training cells only.

    A model reads the visible genes of a slide, as of a slide that does not measure the hidden ones.
    A cell in which no visible gene was seen gets the mean of the others.

    Args:
        zero_shot: Models, one for each set of training slides.
        sections: The same slides; columns of splits are those of its counts.

    Raises:
        ValueError: The slides are not the same.
    """

    def __init__(self, zero_shot: ZeroShot, sections: Sections):
        names = [[s.slide_id for s in slides] for slides in (zero_shot.slides, sections.slides)]
        if names[0] != names[1]:
            raise ValueError(f"Expected sections of slides {names[0]}, got {names[1]}")
        self.zero_shot = zero_shot
        self.sections = sections

    def readable(self, train: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Columns of the genes that the model of some slides reads, ``[G']``.

        Args:
            train: Training cells, ``[N]``, whole slides.
        """
        return np.flatnonzero(self._genes_of(self.zero_shot.model(train)) >= 0)

    def decoded(self, split: ImputationSplit) -> NDArray[np.floating]:
        """Hidden genes by the decoder of the model, ``[n_test, H]``.

        Args:
            split: Cells and genes; the model reads all of its genes.

        Raises:
            ValueError: The model has no decoder of counts, or does not read a gene.
        """
        model = self._model(split)
        panel = np.sort(np.concatenate([split.visible, split.hidden]))
        genes = self._genes_of(model)[panel]
        if (genes < 0).any():
            raise ValueError(
                f"Expected a model that reads all genes of the split, got none for "
                f"{int((genes < 0).sum())} of {len(panel)}"
            )
        found = np.full((len(split.pos), len(split.hidden)), np.nan)
        for rows, slide in self._visible(split, split.test):
            imputed = impute(model, slide, depth=split.depth).to_numpy(np.float64)
            share = np.expm1(imputed[:, genes])  # of all genes of the model, not of the panel
            share /= share.sum(axis=1, keepdims=True)
            found[rows] = np.log1p(split.depth * share[:, np.searchsorted(panel, split.hidden)])
        return _with_mean(found[split.test])

    def embedded(self, split: ImputationSplit) -> NDArray[np.floating]:
        """Embeddings of all cells from visible genes, ``[N, D]``.

        Args:
            split: Cells and genes.
        """
        model, found = self._model(split), None
        for rows, slide in self._visible(split, np.arange(len(split.pos))):
            z = embed_data(model, model.prepare(slide))["cell"]
            if found is None:
                found = np.full((len(split.pos), z.shape[1]), np.nan, dtype=z.dtype)
            found[rows] = z
        if found is None:
            raise ValueError("Expected cells that show a visible gene, got none")
        return _with_mean(found)

    def _model(self, split: ImputationSplit) -> SlideModel:
        train = np.zeros(len(split.pos), dtype=bool)
        train[split.train] = True
        return self.zero_shot.model(train)

    def _genes_of(self, model: SlideModel) -> NDArray[np.int64]:
        """Gene of the model for each column, ``[G]``; -1 for none."""
        first = self.sections.slides[0]  # measures all genes of the columns
        ours, its = self.sections.panel.align(first).columns, model.panel.align(first).genes
        return its[ours]

    def _visible(
        self, split: ImputationSplit, cells: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], Slide]]:
        """Rows and slide of those of some cells that show a visible gene, one slide at a time."""
        wanted = np.zeros(len(split.pos), dtype=bool)
        wanted[cells] = True
        shown = wanted & (split.counts.getnnz(axis=1) > 0)
        for number, slide in enumerate(self.sections.slides):
            own = self.sections.number == number
            if not (own & shown).any():
                continue
            gene = self.sections.panel.align(slide).genes
            columns = np.flatnonzero(np.isin(gene, split.visible))
            yield np.flatnonzero(own & shown), _part(slide, np.flatnonzero(shown[own]), columns)


def _part(slide: Slide, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Slide:
    """Some cells with some genes, and nothing else that was made of genes."""
    adata = anndata.AnnData(
        slide.counts[rows][:, columns],
        obs=slide.adata.obs.iloc[rows],
        var=slide.adata.var.iloc[columns],
        obsm={keys.SPATIAL: slide.pos[rows]},
    )
    return Slide(
        adata,
        slide.image,
        outlines=None if slide.outlines is None else slide.outlines.select(rows),
        slide_id=slide.slide_id,
        donor=slide.donor,
        expression=slide.expression,
        check=False,
    )


def _with_mean(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows that nothing is known of as the mean of the others."""
    known = np.isfinite(values).all(axis=1)
    return np.where(known[:, None], values, values[known].mean(axis=0))
