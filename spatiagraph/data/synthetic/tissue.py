"""``make_tissue``: a section with known cell types, niches, regions, image and molecules."""

from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from spatiagraph import keys
from spatiagraph.data.image import SlideImage
from spatiagraph.data.slide import Slide
from spatiagraph.data.synthetic.genes import draw_counts, draw_molecules, draw_programs
from spatiagraph.data.synthetic.image import draw_nuclei, draw_shapes, paint
from spatiagraph.data.synthetic.layout import draw_compositions, draw_layout


def make_tissue(
    num_cells: int = 2000,
    *,
    num_types: int = 8,
    num_niches: int = 5,
    num_genes: int = 200,
    num_regions: int = 4,
    image: Literal["he", "dapi"] | None = None,
    transcripts: bool = False,
    mean_counts: float = 200.0,
    marker_strength: float = 6.0,
    neighbor_strength: float = 4.0,
    niche_um: float = 120.0,
    niche_swelling: float = 0.0,
    mpp: float = 0.5,
    seed: int = 0,
    biology_seed: int = 0,
    slide_id: str = "synthetic",
    donor: str = "donor0",
) -> Slide:
    """A synthetic slide in which everything that is to be found is known.

    Cells lie about 10 µm apart. The section is layered into curved **regions**; a region is a
    patchwork of **niches**; a niche is a mixture of **cell types**. Every type occurs in every
    niche, so a cell alone says little about its niche and its neighbourhood says a lot. Each type
    has marker genes and a typical size, elongation and stain of its nucleus. One gene in ten senses
    the neighbours: its expression rises with the fraction of one cell type among the seven nearest
    cells. The ``neighbor_label`` says whether most of those seven are of the first half of the
    types; since that half makes up half of every niche, the label is independent of the cell's own
    type and of its niche.

    Slides of one ``biology_seed`` share gene programmes, niche compositions and nuclear shapes and
    differ in layout and noise, like sections of one tissue. The cells and counts of a seed are the
    same with and without image and transcripts.

    Args:
        num_cells: Number of cells, :math:`N`.
        num_types: Number of cell types.
        num_niches: Number of kinds of niche on the slide.
        num_genes: Number of genes, :math:`G`.
        num_regions: Number of tissue regions.
        image: ``"he"`` paints an RGB section, ``"dapi"`` a grey 16-bit one.
        transcripts: Whether to give every counted molecule a position.
        mean_counts: Mean number of molecules per cell; fewer is harder.
        marker_strength: How many times more a type expresses its markers; 1 makes types alike.
        neighbor_strength: Relative rise of a neighbour-dependent gene when all neighbours are of
            the type that it senses.
        niche_um: Typical diameter of a patch of one niche in µm.
        niche_swelling: Share by which nuclei are wider in every other kind of niche, whatever
            their type: a morphology that genes of the cell do not tell.
        mpp: Side of an image pixel in µm.
        seed: Seed of layout, counts, molecules and image.
        biology_seed: Seed of gene programmes, niche compositions and nuclear shapes.
        slide_id: Name of the slide.
        donor: Name of the donor.

    Returns:
        ``obs``: ``cell_type``, ``niche``, ``region``, ``neighbor_label`` (categorical) and the half
        axes of the nucleus, ``nucleus_major_um`` and ``nucleus_minor_um``. ``var``: ``marker_of``
        (a cell type or ``""``), ``neighbor_dependent`` (bool), ``neighbor_type`` (the type it
        senses or ``""``) and ``compartment``. ``uns["spatiagraph"]["synthetic"]``: the arguments.

    Raises:
        ValueError: If there are too few cells, types or genes for the requested structure.

    Examples:
        >>> slide = make_tissue(500, seed=1)
        >>> slide.num_cells, slide.num_genes
        (500, 200)
    """
    arguments = dict(locals())
    _check(num_cells, num_types, num_niches, num_genes, num_regions, image)
    biology = [np.random.default_rng(s) for s in np.random.SeedSequence(biology_seed).spawn(3)]
    compositions = draw_compositions(biology[0], num_niches, num_types)
    programs = draw_programs(biology[1], num_types, num_genes, marker_strength)
    shapes = draw_shapes(biology[2], num_types)

    # one stream per part, so that an image does not change the counts
    rngs = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5)]
    layout = draw_layout(rngs[0], num_cells, num_regions, compositions, niche_um)
    fraction = layout.neighbor_fraction(num_types)
    counts = draw_counts(
        rngs[1], programs, layout.cell_type, fraction, mean_counts, neighbor_strength
    )
    swelling = 1.0 + niche_swelling * (layout.niche % 2)
    nuclei = draw_nuclei(rngs[2], shapes, layout.cell_type, swelling)

    types = [f"type{t}" for t in range(num_types)]
    many = fraction[:, : num_types // 2].sum(1) > 0.5
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(layout.cell_type, pd.Index(types)),
            "niche": _categorical(layout.niche, "niche", num_niches),
            "region": _categorical(layout.region, "region", num_regions),
            "neighbor_label": pd.Categorical.from_codes(
                many.astype(int), pd.Index(["few", "many"])
            ),
            "nucleus_major_um": nuclei.major_um,
            "nucleus_minor_um": nuclei.minor_um,
        },
        index=pd.Index([f"cell{i}" for i in range(num_cells)]),
    )
    named = np.array([*types, ""], dtype=object)  # -1 is the last entry
    var = pd.DataFrame(
        {
            "marker_of": named[programs.marker_of],
            "neighbor_dependent": programs.neighbor_type >= 0,
            "neighbor_type": named[programs.neighbor_type],
            "compartment": np.where(programs.nuclear, "nucleus", "cytoplasm").astype(object),
        },
        index=pd.Index([f"Gene{g}" for g in range(num_genes)]),
    )
    adata = AnnData(X=counts, obs=obs, var=var, obsm={keys.SPATIAL: layout.pos})
    adata.uns[keys.UNS] = {"synthetic": {k: v for k, v in arguments.items() if v is not None}}
    molecules = None
    if transcripts:
        molecules = draw_molecules(
            rngs[3], counts, programs, layout.pos, nuclei, obs.index, var.index
        )
    picture = None
    if image is not None:
        pixels = paint(rngs[4], layout.pos, nuclei, layout.size_um, mpp, image)
        picture = SlideImage([pixels], mpp=mpp)
    return Slide(adata, picture, molecules, slide_id=slide_id, donor=donor)


def _categorical(codes: np.ndarray, name: str, num: int) -> "pd.Categorical[str]":
    return pd.Categorical.from_codes(codes, pd.Index([f"{name}{i}" for i in range(num)]))


def _check(
    num_cells: int,
    num_types: int,
    num_niches: int,
    num_genes: int,
    num_regions: int,
    image: str | None,
) -> None:
    for name, value in {
        "num_cells": num_cells,
        "num_niches": num_niches,
        "num_regions": num_regions,
    }.items():
        if value < 1:
            raise ValueError(f"Expected '{name}' of at least 1, got {value}")
    least = 2 if num_niches == 1 else 3
    if num_types < least:
        raise ValueError(
            f"Expected at least {least} types so that {num_niches} niches differ, got {num_types}"
        )
    if num_genes <= num_types:
        raise ValueError(
            f"Expected more genes than types (a marker each and one more), got {num_genes} genes "
            f"for {num_types} types"
        )
    if image not in (None, "he", "dapi"):
        raise ValueError(f"Expected 'image' to be 'he', 'dapi' or None, got {image!r}")
