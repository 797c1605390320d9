"""Pairs of genes in cells and by type, effects of taking them, and contacts of types."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import PathPatch
from scipy.sparse import csr_matrix

import spatiagraph as sg
from spatiagraph.plot import chord, pairs_by_type, pairs_in_cells, volcano


@pytest.fixture(scope="module")
def slide():
    slide = sg.make_tissue(60, num_genes=12, image="dapi", seed=0)
    rng = np.random.default_rng(0)
    cell = np.repeat(np.arange(60), 20)
    table = pd.DataFrame(slide.pos[cell] + rng.normal(0, 2, (1200, 2)), columns=["x_um", "y_um"])
    table["gene"] = rng.choice(slide.symbols, 1200)
    table["cell_id"] = slide.adata.obs_names.to_numpy()[cell]
    return sg.Slide(slide.adata, image=slide.image, transcripts=table)


def test_molecules_of_a_pair_are_drawn_where_they_are(slide, tmp_path):
    names = list(slide.adata.obs_names[:2])
    pair = tuple(slide.symbols[:2])
    corners = [(-4, -4), (4, -4), (4, 4), (-4, 4)]
    outlines = pd.DataFrame(
        [(name, *(slide.pos[i] + corner)) for i, name in enumerate(names) for corner in corners],
        columns=["cell_id", "x_um", "y_um"],
    )
    file = tmp_path / "pairs.png"
    figure = pairs_in_cells(slide, [pair], names, outlines=outlines, window_um=20, save=file)
    assert file.stat().st_size > 5000
    ax = figure.axes[0]
    assert len(ax.images) == 1
    assert len(ax.lines[0].get_xdata()) == 5
    named = {text.get_text(): text.get_color() for text in ax.texts}
    assert tuple(named) == pair
    assert len(set(named.values())) == 2
    table = slide.transcripts
    own = table[(table["cell_id"] == names[0]) & (table["gene"] == pair[0])]
    own = own[(np.abs(own[["x_um", "y_um"]] - slide.pos[0]) <= 10).all(axis=1)]
    spots = ax.collections[1].get_offsets()
    np.testing.assert_allclose(np.sort(spots, 0), np.sort(own[["x_um", "y_um"]], 0))
    bare = pairs_in_cells(sg.Slide(slide.adata, transcripts=table), [pair], names)
    assert not bare.axes[0].images
    with pytest.raises(ValueError, match="'nobody'"):
        pairs_in_cells(slide, [pair], ["nobody"])
    with pytest.raises(ValueError, match="Xist without"):
        pairs_in_cells(slide, [(pair[0], "Xist")], names)
    with pytest.raises(ValueError, match="molecules in cells"):
        pairs_in_cells(sg.Slide(slide.adata), [pair], names)


def test_shares_of_types_are_those_of_their_cells():
    present = csr_matrix(np.array([[2, 0, 1], [1, 0, 0], [0, 0, 1], [0, 3, 1]]))
    figure = pairs_by_type(present, ["A|B", "A|C", "B|C"], ["x", "x", "y", None], num_pairs=2)
    shown = figure.axes[0]
    assert [t.get_text() for t in shown.get_xticklabels()] == ["A|B", "B|C"]
    assert shown.images[0].get_array().tolist() == [[1, 0.5], [0, 1]]
    with pytest.raises(ValueError, match="4 cells x 2 pairs"):
        pairs_by_type(present, ["A|B", "A|C"], ["x"] * 4)


def test_a_volcano_colours_what_is_sure(tmp_path):
    table = pd.DataFrame(
        {"gene_a": list("ABCD"), "gene_b": list("EFGH"), "mean": [-1.0, -0.5, 0.5, 0.0],
         "q": [0.001, 0.2, 0.01, np.nan], "q_others": [0.01, 0.01, 0.01, 0.9]}
    )  # fmt: skip
    ax = volcano(table, save=tmp_path / "volcano.png")
    assert ax.get_title() == "1 of 3 pairs of genes"
    assert [t.get_text() for t in ax.texts] == ["A–E"]
    assert (tmp_path / "volcano.png").stat().st_size > 3000
    assert volcano(table.assign(q_others=0.5)).get_title().startswith("0 of 3")
    with pytest.raises(ValueError, match="lower min_support"):
        volcano(table[:0])


def test_names_of_a_volcano_do_not_lie_over_each_other():
    """Ten equal pairs near the line of q: their names are in a column inside of the axes."""
    table = pd.DataFrame({"gene_a": list("ABCDEFGHIJ"), "gene_b": "X", "mean": -0.5, "q": 0.04})
    more = table.assign(gene_a="Y", mean=-1.0, q=1e-9)[:1]
    ax = volcano(pd.concat([more, table], ignore_index=True))
    high = np.array([t.xyann[1] for t in ax.texts])
    assert len(high) == 10
    assert (np.diff(high) <= -0.04).all()
    assert 0 <= high.min()
    assert high.max() <= 1


def test_ribbons_join_what_has_weight(tmp_path):
    weight = np.array([[1.0, 2, 0], [2, 0, 0.5], [0, 0.5, np.nan]])
    ax = chord(weight, ["A", "B", "C"], save=tmp_path / "chord.png")
    assert sum(isinstance(p, PathPatch) for p in ax.patches) == 3
    assert {t.get_text() for t in ax.texts} == {"A", "B", "C"}
    with pytest.raises(ValueError, match="symmetric"):
        chord([[0, 1], [2, 0]], ["A", "B"])
    with pytest.raises(ValueError, match="nothing to draw"):
        chord(np.zeros((2, 2)), ["A", "B"])
