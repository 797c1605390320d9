"""Gene panel of a model: its genes in order, and the map from the genes of a slide."""

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spatiagraph._config import build
from spatiagraph._files import replaced_file
from spatiagraph._json import read_json
from spatiagraph._savable import savable
from spatiagraph.data.genes import ENSEMBL, strip_version
from spatiagraph.data.slide import Slide
from spatiagraph.data.variability import gene_variability

MIN_COVERAGE = 0.1
"""Share of the panel a slide must measure to be used at all."""
_NO_ID = {"", "nan", "NaN", "None", "NA", "<NA>"}


@dataclass(frozen=True)
class PanelAlignment:
    """Columns of a slide in which the genes of a panel are found.

    Attributes:
        columns: Column of the slide for each gene of the panel, ``[G]``, -1 for unmeasured; the
            first one where several columns hold the same gene.
        genes: Gene of the panel for each column of the slide, ``[G_slide]``, -1 for none.
        measured: Genes of the panel the slide measures, ``[G]``.
        coverage: Share of the panel that is measured.
        missing: Symbols of the unmeasured genes, in panel order.
        case_only: Missing genes which the slide has in another case, as (panel, slide) symbols.
        by: What the genes were matched by.
    """

    columns: NDArray[np.int64]
    genes: NDArray[np.int64]
    measured: NDArray[np.bool_]
    coverage: float
    missing: list[str]
    case_only: list[tuple[str, str]]
    by: Literal["symbols", "gene_ids", "orthologs"]


@savable
class GenePanel:
    """An ordered set of genes, known by symbol and, where possible, by Ensembl id.

    A slide is matched by symbols or by Ensembl ids, whichever finds more of the panel (symbols at
    a tie). Symbols must agree in case, since case tells mouse (Actb) from human (ACTB); the
    version of an Ensembl id (``.12``) is ignored. Columns of a slide that hold the same gene are
    added up, as 10x files list some symbols twice.

    Args:
        symbols: Gene symbols, ``[G]``.
        gene_ids: Ensembl ids, ``[G]``; empty for a gene without one.

    Raises:
        ValueError: If a gene occurs twice, or there is not one id per symbol.

    Examples:
        >>> panel = GenePanel(["ACTB", "KRT8"], ["ENSG00000075624.17", ""])
        >>> len(panel), panel.gene_ids
        (2, ('ENSG00000075624', ''))
    """

    def __init__(self, symbols: Sequence[str], gene_ids: Sequence[str] | None = None):
        self.symbols = tuple(str(s) for s in symbols)
        _check_unique(self.symbols, "symbols")
        if not self.symbols:
            raise ValueError("Expected a panel of at least one gene, got none")
        self.gene_ids = None if gene_ids is None else tuple(_strip_version(i) for i in gene_ids)
        if self.gene_ids is not None:
            if len(self.gene_ids) != len(self.symbols):
                raise ValueError(
                    f"Expected one of 'gene_ids' per symbol, got {len(self.gene_ids)} for "
                    f"{len(self.symbols)} symbols"
                )
            _check_unique([i for i in self.gene_ids if i], "Ensembl ids")

    @classmethod
    def from_slides(
        cls,
        slides: Iterable[Slide],
        how: Literal["union", "intersection"] = "union",
        *,
        num_genes: int | None = None,
        min_cells: int = 3,
    ) -> Self:
        """The genes of some slides, or the most variable of them; no label is looked at.

        Variability is the variance of analytic Pearson residuals for counts
        (:func:`~spatiagraph.data.variability.gene_variability`) and of ``log1p`` values for
        normalised expression. Each slide ranks its genes; a gene's score is its mean relative
        rank over the slides that measure it.

        Args:
            slides: Where the genes come from; order follows the first slide, then the others. An
                iterator is asked for one at a time.
            how: Genes of any slide, or only those of all slides.
            num_genes: Keep this many most variable genes, in panel order; all when ``None``.
            min_cells: Leave out genes seen in fewer cells, all slides together.

        Raises:
            ValueError: If there is no slide, two of them have no gene in common, also not by way
                of others, or no gene remains.
        """
        if how not in ("union", "intersection"):
            raise ValueError(f'Expected how to be "union" or "intersection", got {how!r}')
        if num_genes is not None and num_genes < 1:
            raise ValueError(f"Expected 'num_genes' of at least 1, got {num_genes}")
        named: list[_Names] = []
        looked_at: list[tuple[GenePanel, NDArray[np.int64], NDArray[np.float64]]] = []
        for slide in slides:  # each is looked at once, and need not stay in memory
            named.append(_Names(slide.slide_id, slide.symbols, slide.gene_ids))
            own = GenePanel(*_union(named[-1:]))
            # genes without an id may match by nothing: no coverage is asked for here
            counts, _ = own.counts(slide, min_coverage=0.0)
            seen = np.bincount(counts.indices[counts.data > 0], minlength=len(own))
            rank = np.zeros(len(own))
            if num_genes is not None:
                rank = _relative_rank(gene_variability(counts, slide.expression))
            looked_at.append((own, seen, rank))
            del slide, counts  # before the next is read
        if not named:
            raise ValueError("Expected at least one slide to take genes from, got none")
        _check_related(named)
        panel = cls(*_union(named))
        total = len(panel)
        num_slides, num_seen, score = np.zeros((3, total))
        for names, (own, seen, rank) in zip(named, looked_at, strict=True):
            genes, _ = _match_columns(
                panel.symbols, panel.gene_ids, _Names(names.slide_id, own.symbols, own.gene_ids)
            )
            known = genes >= 0
            best = np.full(total, -np.inf)
            np.maximum.at(best, genes[known], rank[known])
            np.add.at(num_seen, genes[known], seen[known])
            num_slides += best >= 0
            score += np.maximum(best, 0)
        keep = (num_seen >= min_cells) & (num_slides >= (len(named) if how != "union" else 1))
        if not keep.any():
            raise ValueError(
                f"Expected genes seen in at least {min_cells} cells"
                f"{' and measured in every slide' if how != 'union' else ''}, got none among the "
                f"{total} genes of {len(named)} slides. Lower min_cells, or check the gene names"
            )
        if num_genes is not None:
            mean_rank = np.where(keep, score / np.maximum(num_slides, 1), -1.0)
            first = np.argsort(-mean_rank, kind="stable")[: min(num_genes, int(keep.sum()))]
            keep = np.isin(np.arange(total), first)
        return panel._take(np.flatnonzero(keep))

    def align(self, slide: Slide, *, min_coverage: float = MIN_COVERAGE) -> PanelAlignment:
        """Find the panel's genes in a slide.

        Args:
            slide: The slide.
            min_coverage: Refuse a slide that measures a smaller share of the panel.

        Raises:
            ValueError: If the slide measures too little of the panel; lists what is missing and
                what the slide has.

        Warns:
            UserWarning: If genes are in the slide with another case only; they count as unmeasured.
        """
        alignment = self._match(slide)
        if not alignment.measured.any() or alignment.coverage < min_coverage:
            raise ValueError(_too_little(self, slide, alignment, min_coverage))
        if alignment.case_only:
            ours, theirs = alignment.case_only[0]
            warnings.warn(
                f"{len(alignment.case_only)} genes of the panel are in slide {slide.slide_id!r} "
                f"with another case only (panel {ours!r}, slide {theirs!r}): taken as unmeasured. "
                "Rename them if they are the same genes",
                stacklevel=2,
            )
        return alignment

    def counts(
        self, slide: Slide, *, min_coverage: float = MIN_COVERAGE
    ) -> tuple[csr_matrix, NDArray[np.bool_]]:
        """A slide's counts in panel order; columns of the same gene are added up.

        Args:
            slide: The slide.
            min_coverage: Refuse a slide that measures a smaller share of the panel.

        Returns:
            Counts ``[N, G]`` as CSR float32, and the measured genes ``[G]``. A gene that is not
            measured has an empty column: the mask, not the zeros, says so. The matrix shares
            memory with the slide where the slide has just these genes in this order.

        Raises:
            ValueError: If the slide measures too little of the panel.
        """
        alignment = self.align(slide, min_coverage=min_coverage)
        counts, genes = slide.counts, alignment.genes
        if np.array_equal(genes, np.arange(len(self))):
            return counts, alignment.measured
        known = np.flatnonzero(genes >= 0)
        # a 0/1 matrix [G_slide, G] moves and adds columns in one pass over the non-zeros
        move = csr_matrix(
            (np.ones(len(known), dtype=np.float32), (known, genes[known])),
            shape=(len(genes), len(self)),
        )
        aligned = csr_matrix(counts @ move)
        aligned.sort_indices()
        return aligned, alignment.measured

    def coverage(self, slides: Sequence[Slide]) -> pd.DataFrame:
        """Share of the panel that each slide measures; one row per slide, none is refused.

        Returns:
            Columns ``slide_id``, ``by`` (what genes were matched by), ``measured``, ``missing``,
            ``coverage`` (share of the panel), ``unused`` (genes of the slide that the panel does
            not have), ``unused_share`` (their share of all counts) and ``case_only`` (missing genes
            that are there in another case).
        """
        rows = []
        for slide in slides:
            found = self._match(slide)
            rows.append(
                {
                    "slide_id": slide.slide_id,
                    "by": found.by,
                    "measured": int(found.measured.sum()),
                    "missing": len(found.missing),
                    "coverage": found.coverage,
                    "unused": int((found.genes < 0).sum()),
                    "unused_share": _share(slide.counts, found.genes < 0),
                    "case_only": len(found.case_only),
                }
            )
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "symbols": list(self.symbols),
            "gene_ids": None if self.gene_ids is None else list(self.gene_ids),
        }

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        return build(cls, config, where="the saved panel")

    def to_json(self, path: str | Path) -> None:
        """Write the panel to a JSON file."""
        with replaced_file(path) as new:
            new.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read what :meth:`to_json` wrote."""
        return build(cls, read_json(path), where=repr(str(path)))

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenePanel):
            return NotImplemented
        return (self.symbols, self.gene_ids) == (other.symbols, other.gene_ids)

    def __hash__(self) -> int:
        return hash((self.symbols, self.gene_ids))

    def __repr__(self) -> str:
        first = ", ".join(self.symbols[:3]) + (", …" if len(self) > 3 else "")
        return f"GenePanel({len(self):,} genes: {first})"

    def _take(self, index: NDArray[np.int64]) -> Self:
        ids = None if self.gene_ids is None else [self.gene_ids[i] for i in index]
        return type(self)([self.symbols[i] for i in index], ids)

    def _columns_of(
        self, slide: Slide
    ) -> tuple[NDArray[np.int64], Literal["symbols", "gene_ids", "orthologs"]]:
        """Gene of the panel for each column of a slide, -1 for none, and what tells."""
        return _match_columns(self.symbols, self.gene_ids, slide)

    def _match(self, slide: Slide) -> PanelAlignment:
        genes, by = self._columns_of(slide)
        columns = np.full(len(self), -1, dtype=np.int64)
        known = np.flatnonzero(genes >= 0)[::-1]  # backwards: the first column of a gene stays
        columns[genes[known]] = known
        measured = columns >= 0
        missing = [s for s, there in zip(self.symbols, measured, strict=True) if not there]
        by_case = {s.casefold(): s for s in slide.symbols} if missing else {}
        exact = set(by_case.values())
        case_only = [
            (s, by_case[s.casefold()])
            for s in missing
            if s.casefold() in by_case and s not in exact
        ]
        return PanelAlignment(
            columns, genes, measured, float(measured.mean()), missing, case_only, by
        )


class _Named(Protocol):
    """Something whose genes have names."""

    @property
    def slide_id(self) -> str: ...

    @property
    def symbols(self) -> Sequence[str]: ...

    @property
    def gene_ids(self) -> Sequence[str] | None: ...


class _Names(NamedTuple):
    """Names of the genes of a slide."""

    slide_id: str
    symbols: Sequence[str]
    gene_ids: Sequence[str] | None


def _share(counts: csr_matrix, columns: NDArray[np.bool_]) -> float:
    """Share of all counts that some columns have."""
    total = float(counts.sum(dtype=np.float64))
    some = float(counts.data[columns[counts.indices]].sum(dtype=np.float64))
    return some / total if total else 0.0


def _strip_version(gene_id: str) -> str:
    text = str(gene_id)
    return "" if text in _NO_ID else strip_version(text)


def _check_unique(names: Sequence[str], what: str) -> None:
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise ValueError(
            f"Expected each gene once in a panel, got {len(twice)} {what} more than once: "
            f"{_some(twice)}. GenePanel.from_slides merges the duplicates of a slide"
        )


def _some(names: Sequence[str], number: int = 5) -> str:
    rest = f" and {len(names) - number:,} more" if len(names) > number else ""
    return ", ".join(names[:number]) + rest


def _ids(symbols: Sequence[str], gene_ids: Sequence[str] | None) -> list[str] | None:
    """Ensembl ids without version; the symbols where those are Ensembl ids; ``None`` if neither."""
    if gene_ids is None and symbols and ENSEMBL.match(symbols[0]):
        gene_ids = symbols
    return None if gene_ids is None else [_strip_version(i) for i in gene_ids]


def _lookup(ours: Sequence[str], theirs: Sequence[str]) -> NDArray[np.int64]:
    """Place in ``ours`` of each of ``theirs``; -1 for none, and for the empty name."""
    place = {name: i for i, name in enumerate(ours) if name}
    return np.fromiter((place.get(name, -1) for name in theirs), np.int64, len(theirs))


def _match_columns(
    symbols: Sequence[str], gene_ids: Sequence[str] | None, slide: "_Named"
) -> tuple[NDArray[np.int64], Literal["symbols", "gene_ids"]]:
    by_symbol = _lookup(symbols, slide.symbols)
    our_ids, their_ids = _ids(symbols, gene_ids), _ids(slide.symbols, slide.gene_ids)
    if our_ids is None or their_ids is None:
        return by_symbol, "symbols"
    by_id = _lookup(our_ids, their_ids)
    if len(np.unique(by_id[by_id >= 0])) > len(np.unique(by_symbol[by_symbol >= 0])):
        return by_id, "gene_ids"
    return by_symbol, "symbols"


def _union(slides: Sequence["_Named"]) -> tuple[list[str], list[str] | None]:
    """Symbols and ids of all genes: those of the first slide, then what each other slide adds."""
    symbols: list[str] = []
    gene_ids: list[str] = []
    for slide in slides:
        found, _ = _match_columns(symbols, gene_ids, slide)
        names, ids = slide.symbols, _ids(slide.symbols, slide.gene_ids) or [""] * len(slide.symbols)
        known, known_ids = set(symbols), set(gene_ids)
        for column in np.flatnonzero(found < 0).tolist():
            if names[column] in known:  # listed twice: one gene
                continue
            known.add(names[column])
            symbols.append(names[column])
            # an id listed under two symbols stays with the first
            gene_ids.append("" if ids[column] in known_ids else ids[column])
            known_ids.add(ids[column])
    return symbols, gene_ids if any(gene_ids) else None


def _check_related(slides: Sequence["_Named"]) -> None:
    """Slides have genes in common, directly or by way of others; more than differ in case only."""
    groups: list[tuple[set[str], _Named]] = []  # names, and the first slide that has some of them
    for slide in slides:
        names = {*slide.symbols, *(_ids(slide.symbols, slide.gene_ids) or ())} - {""}
        joined = [group for group in groups if _share_genes(names, group[0])]
        groups = [group for group in groups if not any(group is other for other in joined)]
        first = joined[0][1] if joined else slide
        groups.append((names.union(*(group[0] for group in joined)), first))
    if len(groups) == 1:
        return
    one, other = groups[0][1], groups[1][1]
    raise ValueError(
        f"Expected slides that measure some of the same genes, got none in slide {one.slide_id!r} "
        f"({_some(one.symbols, 3)}) and slide {other.slide_id!r} ({_some(other.symbols, 3)})"
        f"{_why_unrelated(one, other)}"
    )


def _share_genes(ours: set[str], theirs: set[str]) -> bool:
    shared = len(ours & theirs)
    in_any_case = len({n.casefold() for n in ours} & {n.casefold() for n in theirs})
    return shared > 0 and shared >= in_any_case - shared  # C3 is C3 in man and mouse


def _why_unrelated(one: "_Named", other: "_Named") -> str:
    fold = [{s.casefold() for s in slide.symbols} for slide in (one, other)]
    if fold[0] & fold[1]:
        return (
            f". {len(fold[0] & fold[1]):,} differ in case only: two species? Map one to the other "
            "with spatiagraph.data.tokens.merge_orthologs, or rename the genes if they are the same"
        )
    named = [bool(ENSEMBL.match(slide.symbols[0])) for slide in (one, other)]
    if named[0] != named[1]:
        return (
            ". One has Ensembl ids, the other symbols: add symbols in var['feature_name'], or ids "
            "in var['gene_ids']"
        )
    return ": other species, other ids, or another panel? Train a model for each"


def _relative_rank(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for the largest value, 0 for the smallest; equal values share their mean rank."""
    rank = pd.Series(value).rank().to_numpy()
    return (rank - 1) / max(len(value) - 1, 1)


def _too_little(panel: GenePanel, slide: Slide, found: PanelAlignment, min_coverage: float) -> str:
    have = [s for s, gene in zip(slide.symbols, found.genes, strict=True) if gene < 0]
    text = (
        f"Expected slide {slide.slide_id!r} to measure at least {min_coverage:.0%} of the panel, "
        f"got {int(found.measured.sum())} of {len(panel)} genes. Missing: {_some(found.missing)}. "
        f"The slide has: {_some(have) or 'nothing else'}."
    )
    if found.case_only:
        ours, theirs = found.case_only[0]
        return text + (
            f" {len(found.case_only)} of the missing differ in case only (panel {ours!r}, slide "
            f"{theirs!r}): another species? Rename the genes if they are the same"
        )
    return text + " Use a panel made from such slides, or check the gene names"
