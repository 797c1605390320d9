"""Hidden genes of held-out slides by models of the others: what these read, and what not."""

import anndata
import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph.evaluate import Cells, donor_splits
from spatiagraph.inference import HiddenGenes, ZeroShot, impute
from spatiagraph.inference.domains import Sections
from spatiagraph.models import ContextModel

NUM = 150


def start(seen):
    return ContextModel.for_slides(seen, channels=8, image=None, seed=0)


def made_of(slides, train=start):
    """Hidden genes, and cells and donors of the slides."""
    sections = Sections(slides)
    donor = np.repeat([slide.donor for slide in slides], [slide.num_cells for slide in slides])
    cells = Cells(sections.counts, sections.pos, donor, sections.expression)
    return HiddenGenes(ZeroShot(slides, train), sections), cells, donor


def with_counts(slide, counts):
    adata = anndata.AnnData(counts, obs=slide.adata.obs, var=slide.adata.var)
    adata.obsm["spatial"] = slide.pos
    return sg.Slide(adata, slide_id=slide.slide_id, donor=slide.donor, assume_um=True, check=False)


@pytest.fixture(scope="module")
def slides():
    return [
        sg.make_tissue(NUM, num_genes=30, seed=n, slide_id=f"s{n}", donor=f"d{n}") for n in range(3)
    ]


@pytest.fixture(scope="module")
def first(slides):
    hidden, cells, donor = made_of(slides)
    return hidden, next(donor_splits(cells, donor, genes=hidden.readable))[1]


def test_a_model_never_sees_the_held_out_donor(slides):
    seen = []

    def train(given):
        seen.append([slide.donor for slide in given])
        return start(given)

    hidden, cells, donor = made_of(slides, train)
    for _, split, _ in donor_splits(cells, donor, genes=hidden.readable):
        hidden.decoded(split)
        hidden.embedded(split)
    assert seen == [["d1", "d2"], ["d0", "d2"], ["d0", "d1"]]  # one model each, whatever is asked


def test_predictions_do_not_depend_on_hidden_counts_of_the_held_out_donor(slides, first):
    hidden, split = first
    symbols = np.array(hidden.sections.panel.symbols)[split.hidden]
    columns = np.flatnonzero(np.isin(slides[0].symbols, symbols))
    assert len(columns) == len(split.hidden) == 6
    counts = slides[0].counts.toarray()
    counts[:, columns] = np.random.default_rng(0).poisson(20, (NUM, len(columns)))
    other, _, _ = made_of([with_counts(slides[0], counts), *slides[1:]])
    np.testing.assert_array_equal(hidden.decoded(split), other.decoded(split))
    np.testing.assert_array_equal(hidden.embedded(split), other.embedded(split))
    counts[:, np.setdiff1d(range(30), columns)] += 3  # but on the visible ones
    other, _, _ = made_of([with_counts(slides[0], counts), *slides[1:]])
    assert not np.allclose(hidden.decoded(split), other.decoded(split))


def test_decoded_shares_are_those_of_a_slide_that_does_not_measure_the_genes(slides, first):
    hidden, split = first
    gone = np.array(hidden.sections.panel.symbols)[split.hidden]
    kept = np.flatnonzero(~np.isin(slides[0].symbols, gone))
    adata = anndata.AnnData(
        slides[0].counts[:, kept], obs=slides[0].adata.obs, var=slides[0].adata.var.iloc[kept]
    )
    adata.obsm["spatial"] = slides[0].pos
    alone = sg.Slide(adata, slide_id="alone", assume_um=True)
    table = np.expm1(impute(start(slides[1:]), alone, depth=split.depth))
    table = table[list(hidden.sections.panel.symbols)].to_numpy()
    share = table / table.sum(axis=1, keepdims=True)
    expected = np.log1p(split.depth * share[:, split.hidden])
    np.testing.assert_allclose(hidden.decoded(split), expected, rtol=1e-4, atol=1e-5)


def test_a_cell_that_shows_no_visible_gene_gets_the_mean_of_the_others(slides):
    _, cells, donor = made_of(slides)
    _, split, _ = next(donor_splits(cells, donor))
    symbols = np.array(Sections(slides).panel.symbols)[split.visible]
    counts = slides[0].counts.toarray()
    counts[5, np.isin(slides[0].symbols, symbols)] = 0
    hidden, cells, donor = made_of([with_counts(slides[0], counts), *slides[1:]])
    _, split, _ = next(donor_splits(cells, donor))
    assert split.counts[5].nnz == 0
    for found in (hidden.decoded(split), hidden.embedded(split)[:NUM]):
        assert np.isfinite(found).all()
    found = hidden.decoded(split)
    np.testing.assert_allclose(found[5], np.delete(found, 5, axis=0).mean(axis=0), rtol=1e-6)


def test_genes_that_the_model_does_not_read_take_no_part_or_are_refused(slides):
    def narrow(seen):
        return ContextModel.for_slides(seen, num_genes=20, channels=8, image=None, seed=0)

    hidden, cells, donor = made_of(slides, narrow)
    readable = hidden.readable(donor != "d0")
    assert len(readable) == 20
    own = {hidden.sections.panel.symbols[column] for column in readable}
    assert own == {*hidden.zero_shot.model(donor != "d0").panel.symbols}
    _, split, _ = next(donor_splits(cells, donor))
    with pytest.raises(ValueError, match="reads all genes of the split, got none for 10 of 30"):
        hidden.decoded(split)
    _, split, _ = next(donor_splits(cells, donor, genes=hidden.readable))
    assert hidden.decoded(split).shape == (NUM, 4)


def test_sections_of_other_slides_are_refused(slides):
    with pytest.raises(ValueError, match=r"sections of slides \['s0', 's1'\], got \['s1', 's2'\]"):
        HiddenGenes(ZeroShot(slides[:2], start), Sections(slides[1:]))
