"""Gene panels: the ordered genes of a model, and how a slide's genes map onto them."""

import json
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from spatiagraph.data.slide import Slide


class PanelAlignment(NamedTuple):
    """How a slide's genes map onto a panel.

    Attributes:
        gene: Panel gene of each column of the slide, ``[G_slide]``; -1 where the panel has none.
        measured: Panel genes the slide measured, ``[G]`` bool.
        coverage: Share of the panel that is measured.
        missing: Symbols of the panel that are not.
    """

    gene: NDArray[np.int64]
    measured: NDArray[np.bool_]
    coverage: float
    missing: list[str]


class GenePanel:
    """The ordered genes a model reads.

    Args:
        symbols: Gene symbols, in order.
        gene_ids: Ensembl ids in the same order; version suffixes are dropped.

    Raises:
        ValueError: If a gene is named twice, or ids and symbols differ in number.

    Examples:
        >>> panel = GenePanel(["EPCAM", "CD3E", "ACTA2"])
        >>> len(panel), panel
        (3, GenePanel(3 genes: EPCAM, CD3E, ACTA2))
    """

    def __init__(self, symbols: Sequence[str], gene_ids: Sequence[str] | None = None):
        self.symbols = [str(symbol) for symbol in symbols]
        self.gene_ids = None if gene_ids is None else [_unversioned(str(g)) for g in gene_ids]
        if not self.symbols:
            raise ValueError("Expected at least one gene in the panel, got none")
        if self.gene_ids is not None and len(self.gene_ids) != len(self.symbols):
            raise ValueError(
                f"Expected one id per symbol, got {len(self.gene_ids)} ids for "
                f"{len(self.symbols)} symbols"
            )
        names = pd.Series(self.symbols)
        repeated = names[names.duplicated()].unique().tolist()
        if repeated:
            raise ValueError(f"Expected every gene once, got {repeated[:5]} more often")

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenePanel):
            return NotImplemented
        return self.symbols == other.symbols and self.gene_ids == other.gene_ids

    def __hash__(self) -> int:
        return hash(tuple(self.symbols))

    def __repr__(self) -> str:
        shown = ", ".join(self.symbols[:3]) + (", …" if len(self) > 3 else "")
        return f"GenePanel({len(self)} genes: {shown})"

    @classmethod
    def from_slides(
        cls,
        slides: Sequence[Slide],
        *,
        how: Literal["union", "intersection"] = "union",
        num_genes: int | None = None,
        min_cells: int = 3,
    ) -> Self:
        """The genes of some slides, or the most variable of them.

        Variability is the variance of analytic Pearson residuals of a negative binomial, which
        counting noise alone leaves at 1 (`Lause et al., 2021
        <https://doi.org/10.1186/s13059-021-02451-7>`_); over several slides, the mean rank counts.

        Args:
            slides: The slides.
            how: Genes of any slide, or of all.
            num_genes: Keep this many most variable genes, in the order of the slides.
            min_cells: Genes seen in fewer cells of every slide are left out.

        Raises:
            ValueError: If nothing is left.
        """
        if not slides:
            raise ValueError("Expected at least one slide, got none")
        table: dict[str, str | None] = {}
        seen: dict[str, int] = {}
        ranks: dict[str, list[float]] = {}
        for slide in slides:
            ids = slide.gene_ids or [None] * slide.num_genes
            counts = slide.counts
            cells = np.asarray((counts > 0).sum(0)).ravel()
            score = residual_variance(counts) if num_genes is not None else np.zeros(len(cells))
            rank = (-np.where(cells >= min_cells, score, -1.0)).argsort().argsort()
            for symbol, gene_id, n, r in zip(slide.symbols, ids, cells, rank, strict=True):
                table[symbol] = table.get(symbol) or gene_id
                seen[symbol] = max(seen.get(symbol, 0), int(n))
                ranks.setdefault(symbol, []).append(float(r))
        everywhere = len(slides)
        kept = [
            s
            for s in table
            if seen[s] >= min_cells and (how == "union" or len(ranks[s]) == everywhere)
        ]
        if num_genes is not None and len(kept) > num_genes:
            best = set(sorted(kept, key=lambda s: (float(np.mean(ranks[s])), s))[:num_genes])
            kept = [s for s in kept if s in best]
        if not kept:
            raise ValueError(
                f"Expected genes seen in at least {min_cells} cells, found none in the {how} of "
                f"{len(slides)} slides"
            )
        ids = [table[s] for s in kept]
        return cls(kept, None if any(i is None for i in ids) else [str(i) for i in ids])

    def align(self, slide: Slide, *, min_coverage: float = 0.1) -> PanelAlignment:
        """Map the genes of a slide onto the panel, by symbol or by Ensembl id.

        Args:
            slide: The slide.
            min_coverage: Share of the panel that must have been measured.

        Raises:
            ValueError: If less is covered; lists what is missing and what the slide has.
        """
        at = {symbol: i for i, symbol in enumerate(self.symbols)}
        if self.gene_ids is not None:
            at = {**{g: i for i, g in enumerate(self.gene_ids)}, **at}
        gene = np.array([at.get(s, -1) for s in slide.symbols], dtype=np.int64)
        for names in (slide.gene_ids, slide.symbols):  # symbols may hold ids
            if names is not None:
                by_id = [at.get(_unversioned(name), -1) for name in names]
                gene = np.where(gene >= 0, gene, by_id)
        measured = np.zeros(len(self), dtype=bool)
        measured[gene[gene >= 0]] = True
        missing = [s for s, m in zip(self.symbols, measured, strict=True) if not m]
        coverage = float(measured.mean())
        if coverage < min_coverage:
            raise ValueError(self._uncovered(slide, coverage, missing, min_coverage))
        return PanelAlignment(gene, measured, coverage, missing)

    def _uncovered(
        self, slide: Slide, coverage: float, missing: list[str], min_coverage: float
    ) -> str:
        lower = {s.lower(): s for s in slide.symbols}
        same = [s for s in missing if s.lower() in lower]
        hint = ""
        if same:
            hint = (
                f"; {len(same)} differ only in case ({same[0]!r}, {lower[same[0].lower()]!r}): "
                "another species?"
            )
        elif near := get_close_matches(missing[0], slide.symbols, 3):
            hint = f"; near {missing[0]!r}: {near}"
        return (
            f"Expected slide {slide.slide_id!r} to measure at least {min_coverage:.0%} of the "
            f"model's {len(self)} genes, got {coverage:.1%}. Missing: {missing[:8]}; the slide "
            f"has {slide.symbols[:8]}{hint}"
        )

    def counts(self, slide: Slide) -> tuple[sparse.csr_matrix, NDArray[np.bool_]]:
        """Counts of a slide in the order of the panel; columns of one gene are summed.

        Returns:
            ``[N, G]`` CSR float32 and the measured genes, ``[G]`` bool.
        """
        alignment = self.align(slide)
        column = np.flatnonzero(alignment.gene >= 0)
        shape = (slide.num_genes, len(self))
        place = (column, alignment.gene[column])
        select = sparse.csr_matrix((np.ones(len(column), np.float32), place), shape)
        return sparse.csr_matrix(slide.counts @ select, dtype=np.float32), alignment.measured

    def coverage(self, slides: Sequence[Slide]) -> pd.DataFrame:
        """One row per slide: genes of the panel that it measured."""
        rows = []
        for slide in slides:
            found = self.align(slide, min_coverage=0.0)
            rows.append(
                {
                    "slide_id": slide.slide_id,
                    "measured": int(found.measured.sum()),
                    "panel": len(self),
                    "coverage": found.coverage,
                    "missing": ", ".join(found.missing[:5]),
                }
            )
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"symbols": self.symbols, "gene_ids": self.gene_ids}

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """What :meth:`to_dict` wrote."""
        return cls(config["symbols"], config["gene_ids"])

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the panel as JSON."""
        Path(path).write_text(json.dumps(self.to_dict()))

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Self:
        """Read a panel written by :meth:`to_json`."""
        return cls.from_dict(json.loads(Path(path).read_text()))


def residual_variance(counts: sparse.csr_matrix, theta: float = 100.0) -> NDArray[np.float64]:
    r"""Variance of analytic Pearson residuals of each gene, ``[G]``.

    With :math:`\mu_{ig} = n_i p_g`, residuals are :math:`(x - \mu) / \sqrt{\mu + \mu^2/\theta}`,
    clipped at :math:`\pm\sqrt{N}`. Genes are taken one block at a time.

    Args:
        counts: ``[N, G]``.
        theta: Inverse dispersion that counting noise is given.
    """
    num_cells, num_genes = counts.shape
    depth = np.asarray(counts.sum(1), dtype=np.float64).ravel()
    share = np.asarray(counts.sum(0), dtype=np.float64).ravel() / max(depth.sum(), 1.0)
    by_gene = sparse.csc_matrix(counts)
    limit = np.sqrt(num_cells)
    block = max(1, int(4e6 // max(num_cells, 1)))
    variance = np.zeros(num_genes)
    for start in range(0, num_genes, block):
        genes = slice(start, start + block)
        mu = np.outer(depth, share[genes])
        mu = np.maximum(mu, 1e-12)
        residual = (by_gene[:, genes].toarray() - mu) / np.sqrt(mu + mu**2 / theta)
        variance[genes] = np.clip(residual, -limit, limit).var(0)
    return variance


def _unversioned(gene_id: str) -> str:
    """``ENSG00000139618.7`` → ``ENSG00000139618``; symbols with dots stay as they are."""
    stem, dot, version = gene_id.rpartition(".")
    return stem if dot and version.isdigit() and stem.startswith("ENS") else gene_id
