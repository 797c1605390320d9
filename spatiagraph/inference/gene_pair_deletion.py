"""``perturb_gene_pairs``: two cells without one gene each, for all pairs of their genes."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from pyarrow.lib import ArrowException
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph._files import replaced_file
from spatiagraph._json import read_json
from spatiagraph._reasons import reason
from spatiagraph.data.feature_cache import cache_key
from spatiagraph.data.loader.cutting import cell_batch
from spatiagraph.data.slide import Slide
from spatiagraph.data.tokens import CellSequences
from spatiagraph.models.spatialformer import SpatialFormer
from spatiagraph.nn.mode import evaluating
from spatiagraph.nn.weights import weights_hash
from spatiagraph.training.devices import as_device

log = logging.getLogger(__name__)

Kind = Literal["delete", "mask"]
Score = Literal["logit", "probability"]
_MAX_TOKENS = 2**16
_COLUMNS = ["pair", "gene_a", "gene_b", "effect", "interaction"]


class Effects(NamedTuple):
    """Effects of taking genes from two cells on a score, of one pair of cells.

    Attributes:
        both: Of a gene of the first and one of the second, ``[K1, K2]``.
        first: Of a gene of the first alone, ``[K1]``.
        second: Of a gene of the second alone, ``[K2]``.
        ranks: Ranks of these genes in their cells, ``[K1]`` and ``[K2]``.
    """

    both: Tensor
    first: Tensor
    second: Tensor
    ranks: tuple[Tensor, Tensor]

    @property
    def interaction(self) -> Tensor:
        """Effects of pairs beyond those of their genes, ``[K1, K2]``."""
        return self.both - self.first[:, None] - self.second


def without_genes(
    sequences: CellSequences, first: Tensor | None, second: Tensor | None
) -> CellSequences:
    """One pair of cells without some genes, once for each row.

    Args:
        sequences: One sequence of two cells, without padding.
        first: Rank of the gene of the first cell to delete, ``[K]``; ``None`` for none.
        second: Rank of the gene of the second cell to delete, ``[K]``; ``None`` for none.

    Returns:
        ``K`` sequences, shorter by one or two tokens.
    """
    removed = [
        sequences.start[0, slot] + rank
        for slot, rank in enumerate((first, second))
        if rank is not None
    ]
    length = sequences.tokens.size(1) - len(removed)
    place = torch.arange(length, device=sequences.tokens.device).expand(len(removed[0]), -1)
    kept = place
    for gone in removed:  # ascending: what is behind one moves up by one
        kept = kept + (kept >= gone[:, None])
    fewer = torch.tensor([first is not None, second is not None], device=place.device).long()
    shift = torch.stack([torch.zeros_like(fewer[0]), fewer[0]])
    num = len(place)
    return CellSequences(
        sequences.tokens[0][kept],
        sequences.token_type[0][kept],
        sequences.mask[0][kept],
        sequences.gene_mask[0][kept],
        (sequences.start - shift).repeat(num, 1),
        (sequences.lengths - fewer).repeat(num, 1),
        sequences.cells.repeat(num, 1),
    )


def masked_genes(
    sequences: CellSequences, first: Tensor | None, second: Tensor | None, mask_id: int
) -> CellSequences:
    """One pair of cells with some genes replaced by ``[MASK]``: ranks stay what they are.

    Args:
        sequences: One sequence of two cells, without padding.
        first: Rank of the gene of the first cell, ``[K]``; ``None`` for none.
        second: Rank of the gene of the second cell, ``[K]``; ``None`` for none.
        mask_id: The token.
    """
    ranks = [(slot, r) for slot, r in enumerate((first, second)) if r is not None]
    num = len(ranks[0][1])
    copies = [t.repeat(num, 1) for t in sequences]
    for slot, rank in ranks:
        copies[0].scatter_(1, (sequences.start[0, slot] + rank)[:, None], mask_id)
    return CellSequences(*copies)


def gene_pair_grid(
    score: Callable[[CellSequences], Tensor],
    sequences: CellSequences,
    *,
    mask_id: int | None = None,
    screen: int | None = None,
    max_tokens: int = _MAX_TOKENS,
) -> Effects:
    """Effects of all pairs of genes of two cells, and of their single genes.

    Args:
        score: Sequences → a number of each, ``[K]``.
        sequences: One sequence of two cells, without padding.
        mask_id: Replace genes by this token; delete them when ``None``.
        screen: Pairs of this many genes of each cell alone, those with the largest effects of
            their own; of all when ``None``.
        max_tokens: Tokens that are scored together: the memory it takes, not the result.
    """
    n1, n2 = sequences.lengths[0].tolist()
    device = sequences.tokens.device
    at_once = max(1, max_tokens // sequences.tokens.size(1))
    start = score(sequences)

    def effects(first: Tensor | None, second: Tensor | None) -> Tensor:
        given = first if first is not None else second
        assert given is not None
        parts = []
        for i in range(0, len(given), at_once):
            a, b = (None if r is None else r[i : i + at_once] for r in (first, second))
            if mask_id is None:
                parts.append(score(without_genes(sequences, a, b)))
            else:
                parts.append(score(masked_genes(sequences, a, b, mask_id)))
        return torch.cat(parts) - start

    a, b = torch.arange(n1, device=device), torch.arange(n2, device=device)
    first, second = effects(a, None), effects(None, b)
    if screen is not None:
        a, b = (d.abs().topk(min(screen, len(d))).indices.sort().values for d in (first, second))
    both = effects(a.repeat_interleave(len(b)), b.repeat(len(a))).view(len(a), len(b))
    return Effects(both, first[a], second[b], (a, b))


@torch.no_grad()
def perturb_gene_pairs(
    model: SpatialFormer,
    slide: Slide,
    pairs: ArrayLike,
    *,
    kind: Kind = "delete",
    score: Score = "logit",
    screen: int | None = None,
    max_tokens: int = _MAX_TOKENS,
    out: Path | None = None,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> pd.DataFrame:
    """Delete every pair of genes from two neighbours, one from each, and score the two again.

    Negative effects mean that the model is less sure without both genes that the cells are
    neighbours. It is a question to the model, not to the tissue.

    Args:
        model: A trained model.
        slide: The slide.
        pairs: Rows of the two cells of each pair, ``[P, 2]``, those of one kind first.
        kind: ``"delete"`` closes the gap, so that ranks move; ``"mask"`` leaves a mask in it.
        score: Log-odds of being neighbours, or their probability.
        screen: Only pairs of this many genes of each cell, those with the largest effects of their
            own: far fewer questions, and no answer for genes that matter together alone.
        max_tokens: Tokens that are scored together: the memory it takes, not the result.
        out: Folder in which the effects of each pair of cells are kept; an interrupted call goes on
            where it stopped.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.

    Returns:
        One row per pair of cells and genes: ``pair``, ``gene_a`` (of the first cell), ``gene_b``
        (of the second), ``effect``, and ``interaction``, the effect beyond those of both genes
        alone. To be tested by :func:`~spatiagraph.evaluate.gene_pair_effects`.

    Raises:
        ValueError: If rows are none of the slide, or the folder holds another call.
    """
    if kind not in ("delete", "mask") or score not in ("logit", "probability"):
        raise ValueError(
            f"Expected kind delete or mask and score logit or probability, got {kind!r}, {score!r}"
        )
    if screen is not None and screen < 1:
        raise ValueError(f"Expected 'screen' of at least 1 gene, got {screen}")
    ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    if ends.size and not (0 <= ends.min() and ends.max() < slide.num_cells):
        raise ValueError(f"Expected rows of {slide.num_cells} cells, got {ends.min()}…{ends.max()}")
    data = model.prepare(slide)
    symbols = np.array(model.vocabulary.symbols, dtype=object)
    first_gene = model.vocabulary.ranges["gene"].start
    place = as_device(device)
    if out is not None:
        options = [kind, score] if screen is None else [kind, score, screen]
        _claim(out, model, slide, ends, options)

    def scored(sequences: CellSequences) -> Tensor:
        logit = model.neighbor_logit(sequences).float()
        return logit.sigmoid() if score == "probability" else logit

    def effects(i: int) -> pd.DataFrame:
        batch = cell_batch(data, torch.from_numpy(ends[i])).to(place)
        row = torch.arange(2, device=place)
        sequences = model.sequences(batch, row[:1], row[1:])
        mask_id = model.mask_id if kind == "mask" else None
        grid = gene_pair_grid(
            scored, sequences, mask_id=mask_id, screen=screen, max_tokens=max_tokens
        )
        genes, _ = sequences.take_genes(sequences.tokens)
        a, b = (
            symbols[(g[r] - first_gene).cpu().numpy()]
            for g, r in zip(genes, grid.ranks, strict=True)
        )
        return pd.DataFrame(
            {
                "pair": i,
                "gene_a": np.repeat(a, len(b)),
                "gene_b": np.tile(b, len(a)),
                "effect": grid.both.flatten().cpu().numpy(),
                "interaction": grid.interaction.flatten().cpu().numpy(),
            }
        )

    with evaluating(model.to(place)):
        bar = tqdm(range(len(ends)), desc="perturb", unit="pair", disable=not progress)
        return _kept(bar, effects, out)


def _kept(
    numbers: Sequence[int], effects: Callable[[int], pd.DataFrame], out: Path | None
) -> pd.DataFrame:
    """Effects of all pairs of cells, those read that were kept before."""
    tables = []
    for i in numbers:
        file = None if out is None else out / f"{i:06d}.parquet"
        if file is not None and (kept := _read(file, i)) is not None:
            tables.append(kept)
            continue
        tables.append(effects(i))
        if file is not None:
            with replaced_file(file) as new:
                tables[-1].to_parquet(new)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_COLUMNS)


def _read(file: Path, number: int) -> pd.DataFrame | None:
    """Effects that were kept; ``None``, and a line in the log, if they are not what was written."""
    if not file.is_file():
        return None
    try:
        table = pd.read_parquet(file)
        if list(table.columns) != _COLUMNS or not (table["pair"] == number).all():
            raise ValueError("its columns are others")
        if not np.isfinite(table[_COLUMNS[3:]].to_numpy(np.float64)).all():
            raise ValueError("its effects are not finite")
    except (ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError) as err:
        log.warning("%s is damaged: computing its effects anew (%s)", file, reason(err))
        return None
    return table


def _claim(
    out: Path,
    model: SpatialFormer,
    slide: Slide,
    ends: NDArray[np.int64],
    options: Sequence[str | int],
) -> None:
    """Note in a folder what is kept in it, or refuse one that keeps something else."""
    cells = "\n".join(map(str, slide.adata.obs_names[ends.ravel()]))
    note = {
        "weights": weights_hash(model),
        "slide": slide.slide_id,
        "counts": cache_key(slide.counts),
        "pairs": hashlib.sha256(cells.encode()).hexdigest(),
        "options": list(options),
    }
    file = out / "perturb.json"
    if file.exists():
        if read_json(file) != note:
            raise ValueError(
                f"Expected a folder of the same model, slide, pairs and options, {out} is of "
                "others: choose another"
            )
        return
    with replaced_file(file) as new:
        new.write_text(json.dumps(note), encoding="utf-8")
