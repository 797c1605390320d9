"""``GeneVocabulary``: genes as tokens, with their ids, usual levels and orthologues."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from spatiagraph._savable import savable
from spatiagraph.data.panel import MIN_COVERAGE, GenePanel, PanelAlignment
from spatiagraph.data.slide import Slide
from spatiagraph.data.tokens.medians import StreamingMedians
from spatiagraph.data.tokens.orthologs import merge_orthologs

log = logging.getLogger(__name__)


@savable
class GeneVocabulary(GenePanel):
    """A gene panel whose genes, and some special tokens, have ids of their own.

    Ids are contiguous ranges in this order: ``special``, ``meta``, ``gene``, ``last``. It may be
    far larger than the genes that one slide measures: what :meth:`align` asks for is a share of
    the genes of the slide, not of the vocabulary. A slide of another species is matched by
    ``orthologs``, if more of its genes are found so; its columns of one gene are added up.

    Args:
        symbols: Gene symbols, ``[G]``.
        gene_ids: Ensembl ids, ``[G]``; empty for a gene without one.
        medians: Usual level of each gene, ``[G]``, as from :meth:`fitted`; ``None`` for 1.
        orthologs: Symbols or Ensembl ids of another species → symbol or id of a gene of this one.
        special: Tokens before all others; the first is the padding.
        meta: Tokens of metadata, such as tissues and technologies.
        last: Tokens after all others.

    Raises:
        ValueError: If a gene or a token occurs twice, or medians are not one positive number per
            gene.

    Examples:
        >>> vocabulary = GeneVocabulary(["ACTB", "KRT8"], orthologs={"Actb": "ACTB"})
        >>> vocabulary.ranges["gene"], vocabulary.token("<cls>"), vocabulary.num_tokens
        (range(2, 4), 4, 5)
    """

    def __init__(
        self,
        symbols: Sequence[str],
        gene_ids: Sequence[str] | None = None,
        *,
        medians: Sequence[float] | None = None,
        orthologs: Mapping[str, str] | None = None,
        special: Sequence[str] = ("<pad>", "<mask>"),
        meta: Sequence[str] = (),
        last: Sequence[str] = ("<cls>",),
    ):
        super().__init__(symbols, gene_ids)
        self.special, self.meta, self.last = tuple(special), tuple(meta), tuple(last)
        names = [*self.special, *self.meta, *self.last]
        if len(set(names)) < len(names):
            raise ValueError(f"Expected special tokens with different names, got {names}")
        self.medians = None if medians is None else tuple(float(m) for m in medians)
        self.orthologs = None if orthologs is None else dict(orthologs)
        values = np.asarray(self.medians or [1.0], dtype=np.float64)
        if self.medians is not None and (
            len(values) != len(self) or not (np.isfinite(values) & (values > 0)).all()
        ):
            raise ValueError(
                f"Expected a positive median for each of {len(self)} genes, got {len(values)} of "
                f"which {int((~(np.isfinite(values) & (values > 0))).sum())} are not. A gene never "
                "seen has median 1"
            )

    @property
    def ranges(self) -> dict[str, range]:
        """Ids of each kind of token: ``special``, ``meta``, ``gene`` and ``last``."""
        sizes = {
            "special": len(self.special),
            "meta": len(self.meta),
            "gene": len(self),
            "last": len(self.last),
        }
        end = np.cumsum(list(sizes.values())).tolist()
        return {k: range(e - n, e) for (k, n), e in zip(sizes.items(), end, strict=True)}

    @property
    def num_tokens(self) -> int:
        """Rows of an embedding table."""
        return len(self) + len(self.special) + len(self.meta) + len(self.last)

    def token(self, name: str) -> int:
        """Id of a token that is no gene.

        Args:
            name: Such as ``"<mask>"``.

        Raises:
            ValueError: If there is none of that name.
        """
        for kind, names in (("special", self.special), ("meta", self.meta), ("last", self.last)):
            if name in names:
                return self.ranges[kind].start + names.index(name)
        raise ValueError(
            f"Expected a token among {[*self.special, *self.meta, *self.last]}, got {name!r}"
        )

    @classmethod
    def from_slides(
        cls,
        slides: Iterable[Slide],
        how: Literal["union", "intersection"] = "union",
        *,
        num_genes: int | None = None,
        min_cells: int = 3,
        orthologs: Mapping[str, str] | None = None,
    ) -> Self:
        """Vocabulary of the genes of some slides, or of the most variable of them.

        Args:
            slides: As :meth:`GenePanel.from_slides <spatiagraph.data.GenePanel.from_slides>`.
            how: Genes of any slide, or only those of all slides.
            num_genes: Keep this many most variable genes; all when ``None``.
            min_cells: Leave out genes seen in fewer cells.
            orthologs: Symbols or Ensembl ids of another species → symbol of a gene of this one, as
                from :func:`~spatiagraph.data.tokens.read_orthologs`. Slides of which more genes are
                found so than are symbols of this species give the genes of this one.

        Raises:
            ValueError: See :meth:`GenePanel.from_slides <spatiagraph.data.GenePanel.from_slides>`;
                or if no slide has a gene of the table.
        """
        if orthologs is None:
            return super().from_slides(slides, how, num_genes=num_genes, min_cells=min_cells)
        of_this, known = set(orthologs.values()), []

        def translated() -> Iterator[Slide]:  # one at a time: none needs to stay in memory
            for slide in slides:
                known.append(_known(slide, orthologs, of_this))
                yield _translated(slide, orthologs, of_this)

        panel = GenePanel.from_slides(translated(), how, num_genes=num_genes, min_cells=min_cells)
        if not any(known):
            names = [next(iter(group), "none") for group in (orthologs, orthologs.values())]
            raise ValueError(
                f"Expected genes of the slides in the table of {len(orthologs):,} orthologues "
                f"({names[0]}: {names[1]}, …), got none of {', '.join(panel.symbols[:3])}, …. Is "
                "it of this species, and with the same kind of name?"
            )
        kept = set(panel.symbols)
        own = {gene: other for gene, other in orthologs.items() if other in kept}
        return cls(panel.symbols, panel.gene_ids, orthologs=own)

    def fitted(self, slides: Sequence[Slide]) -> Self:
        """The same vocabulary with the medians of some slides.

        The median of a gene is over the cells that express it, of its count per 10,000 of all
        counts of the cell. Slides are gone through one after the other and not kept.

        Args:
            slides: Slides of raw counts.

        Raises:
            ValueError: If a slide holds no counts, or hardly shares genes with the vocabulary.
        """
        medians = StreamingMedians(len(self))
        for slide in slides:
            if slide.expression != "counts":
                raise ValueError(
                    f"Expected raw counts to take medians from, slide {slide.slide_id!r} has "
                    "normalised values"
                )
            medians.update(self.counts(slide)[0], slide.depth)
        return type(self)(**{**self.to_dict(), "medians": medians.medians().tolist()})

    def align(self, slide: Slide, *, min_coverage: float = MIN_COVERAGE) -> PanelAlignment:
        """Find the genes of a slide in the vocabulary.

        Args:
            slide: The slide.
            min_coverage: Refuse a slide of whose genes a smaller share is known.

        Raises:
            ValueError: If hardly any gene of the slide is in the vocabulary.
        """
        found = self._match(slide)
        known = found.genes >= 0
        if not known.any() or known.mean() < min_coverage:
            table = "no table of" if self.orthologs is None else f"{len(self.orthologs):,}"
            raise ValueError(
                f"Expected at least {min_coverage:.0%} of the genes of slide {slide.slide_id!r} in "
                f"the vocabulary, got {int(known.sum())} of {slide.num_genes} by {found.by} "
                f"(slide: {', '.join(slide.symbols[:3])}, …; vocabulary: "
                f"{', '.join(self.symbols[:3])}, …) with {table} orthologues. Another species "
                "needs orthologs={its gene: gene of the vocabulary}"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **super().to_dict(),
            "medians": None if self.medians is None else list(self.medians),
            "orthologs": self.orthologs,
            "special": list(self.special),
            "meta": list(self.meta),
            "last": list(self.last),
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GeneVocabulary):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.medians, self.special, self.meta, self.last))

    def __repr__(self) -> str:
        return f"GeneVocabulary({len(self):,} genes, {self.num_tokens:,} tokens)"

    def _take(self, index: NDArray[np.int64]) -> Self:
        kept = super()._take(index)
        chosen = None if self.medians is None else [self.medians[i] for i in index]
        return type(self)(**{**self.to_dict(), **GenePanel.to_dict(kept), "medians": chosen})

    def _columns_of(
        self, slide: Slide
    ) -> tuple[NDArray[np.int64], Literal["symbols", "gene_ids", "orthologs"]]:
        genes, by = super()._columns_of(slide)
        if self.orthologs is None:
            return genes, by
        place = {name: i for i, name in enumerate(self.symbols)}
        place |= {name: i for i, name in enumerate(self.gene_ids or ()) if name}
        other = _counterparts(slide, self.orthologs)
        mapped = np.fromiter((place.get(name or "", -1) for name in other), np.int64, len(other))
        if len(np.unique(mapped[mapped >= 0])) > len(np.unique(genes[genes >= 0])):
            return mapped, "orthologs"
        return genes, by


def _counterparts(slide: Slide, orthologs: Mapping[str, str]) -> list[str | None]:
    """Gene of the other species for each of a slide, by its id, else by its symbol."""
    ids = slide.gene_ids or [""] * slide.num_genes
    return [
        orthologs.get(i) or orthologs.get(symbol)
        for i, symbol in zip(ids, slide.symbols, strict=True)
    ]


def _known(slide: Slide, orthologs: Mapping[str, str], of_this: set[str]) -> bool:
    """Whether any gene of a slide is one of either species of a table."""
    return any(_counterparts(slide, orthologs)) or not of_this.isdisjoint(slide.symbols)


def _translated(slide: Slide, orthologs: Mapping[str, str], of_this: set[str]) -> Slide:
    """A slide on the genes of the other species, unless more of its genes are of that already."""
    import pandas as pd
    from anndata import AnnData

    other = _counterparts(slide, orthologs)
    known = set(filter(None, other))
    if len(known) <= len(of_this.intersection(slide.symbols)):
        return slide
    columns = [str(i) for i in range(slide.num_genes)]
    mapping = {column: name for column, name in zip(columns, other, strict=True) if name}
    found = merge_orthologs(slide.counts, columns, mapping)
    if found.dropped:
        log.warning(
            "Slide %r: %d of %d genes have no counterpart, with %.1f %% of the counts",
            slide.slide_id,
            len(found.dropped),
            slide.num_genes,
            100 * found.dropped_share,
        )
    var = pd.DataFrame(index=pd.Index(found.gene_ids))
    adata = AnnData(found.counts, pd.DataFrame(index=slide.adata.obs_names), var)
    adata.obsm["spatial"] = slide.pos
    return Slide(adata, slide_id=slide.slide_id, expression=slide.expression, check=False)
