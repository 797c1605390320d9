"""Search across modalities in a report: genes of a slide found by its image."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.slide import Slide
from spatiagraph.evaluate.cross_modal import RANDOM, score_retrieval
from spatiagraph.inference.embedded import is_embedded, model_name, other_vectors
from spatiagraph.report.niches import Hits, central_cells, draw_hits, niche_window_um
from spatiagraph.report.page import Report
from spatiagraph.report.sections import domain_palette
from spatiagraph.report.text import unit_of
from spatiagraph.retrieval.apart import hits_apart, inner_cells, usual_distance
from spatiagraph.retrieval.selection import X_UM, Y_UM

_IMAGE, _GENE = "_img", "_gene"
_SHOWN = "niche"
_BEST = 10
_MOST = 5000  # cells to count what is found among


def image_and_gene(adata: AnnData) -> dict[str, tuple[NDArray, NDArray]]:
    """Vectors of image and of genes that a model brought into one space, by what they are of.

    Args:
        adata: An embedded slide.

    Returns:
        Name, such as ``"spot"`` or ``"niche"`` of ST-Align, → both, ``[N, D]``; not those that no
        cell has both of.
    """
    if not is_embedded(adata):
        return {}
    there, found = other_vectors(adata), {}
    for name in (vector.removesuffix(_IMAGE) for vector in there if vector.endswith(_IMAGE)):
        if f"{name}{_GENE}" in there:
            slots = [
                keys.embedding_key(model_name(adata), f"{name}{end}") for end in (_IMAGE, _GENE)
            ]
            image, gene = (np.asarray(adata.obsm[slot]) for slot in slots)
            if _has_both(image, gene).any():
                found[name] = (image, gene)
    return found


def add_cross_modal(
    page: Report,
    slide: Slide,
    pairs: Mapping[str, tuple[NDArray, NDArray]],
    groups: pd.Series | None,
    truth: pd.Series | None,
    *,
    num_hits: int,
    crop_px: int,
) -> None:
    """Add the section on genes that images find.

    Args:
        page: The report.
        slide: The slide.
        pairs: What :func:`image_and_gene` gives.
        groups: Group of each cell, ``[N]``; ``None`` for none.
        truth: Known label of each cell, ``[N]``, whose colours groups take.
        num_hits: Cells to show of each query.
        crop_px: Side of the image crops in pixels.
    """
    shown = _SHOWN if _SHOWN in pairs else next(iter(pairs))
    seen = np.logical_and.reduce([_has_both(*pair) for pair in pairs.values()])
    if seen.sum() <= _BEST:
        return
    groups = pd.Series(["cells"] * slide.num_cells) if groups is None else groups
    palette = domain_palette(groups, truth)
    unit, side = unit_of(slide), niche_window_um(slide)
    sampled = np.random.default_rng(0).permutation(np.flatnonzero(seen))[:_MOST]
    sample = {name: (image[sampled], gene[sampled]) for name, (image, gene) in pairs.items()}
    recall = score_retrieval(sample, k=[_BEST])
    found = recall[recall["direction"] == "image_to_gene"][f"recall@{_BEST}"]
    shares = " and ".join(f"{found[name]:.1%} of the {name}s" for name in pairs)
    page.section("Genes found by images").add_text(
        f"By their images alone, the model finds the genes of {shares} among the {_BEST} most "
        f"similar of {len(sampled):,}; {found[RANDOM]:.1%} would be chance. On a slide that it was "
        "trained on that is no test."
    )
    image, gene = (_normalized(np.where(seen[:, None], x, 0.0)) for x in pairs[shown])
    for row in central_cells(image, groups.where(seen), inner_cells(slide.pos, side / 2)):
        distance = 1.0 - gene @ image[row]
        rank = 1 + int((distance[seen] < distance[row]).sum())
        hits = _hits(distance, seen, slide, int(row), num_hits, side)
        called = slide.adata.obs_names[row]
        page.add_figure(
            draw_hits(slide, row, hits, groups, palette, window_um=side, crop_px=crop_px),
            alt=f"Image of {unit} {called} and the {unit}s whose genes are most like it",
            caption=f"The image of {called}, and the {unit}s whose genes the model takes for its, "
            f"{side:.0f} µm apart or more. Its own are number {rank:,} of {seen.sum():,}",
        )


def _has_both(image: NDArray, gene: NDArray) -> NDArray[np.bool_]:
    return np.isfinite(image).all(axis=1) & np.isfinite(gene).all(axis=1)


def _normalized(vectors: NDArray) -> NDArray[np.float64]:
    x = vectors.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _hits(
    distance: NDArray[np.float64],
    seen: NDArray[np.bool_],
    slide: Slide,
    row: int,
    num: int,
    apart_um: float,
) -> Hits:
    """Nearest cells that lie apart, of the quarter that is nearest."""

    def search(k: int, among: NDArray[np.bool_]) -> pd.DataFrame:
        rows = np.flatnonzero(among)
        nearest = rows[np.argsort(distance[rows], kind="stable")[:k]]
        return pd.DataFrame({"row": nearest, "distance": distance[nearest]})

    obs = pd.DataFrame({keys.SLIDE_ID: "", X_UM: slide.pos[:, 0], Y_UM: slide.pos[:, 1]})
    usual = usual_distance(search, seen)
    table = hits_apart(search, obs, num, seen, apart_um=apart_um, max_distance=usual)
    found = table["row"].to_numpy(np.int64)
    away = np.linalg.norm(slide.pos[found] - slide.pos[row], axis=1)
    return Hits(found, distance[found], away)
