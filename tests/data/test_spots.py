"""Spots of cells or of an image alone, and tables joined to them."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from spatiagraph import read
from spatiagraph.data import (
    GenePanel,
    SlideImage,
    join_features,
    make_tissue,
    photographed_slide,
    spots_of_cells,
)
from spatiagraph.data.units import lattice


@pytest.fixture(scope="module")
def cells():
    slide = make_tissue(900, num_genes=20, image="he", seed=0)
    slide.donor = "ann"
    return slide


def test_spots_have_the_counts_of_the_cells_they_cover(cells):
    spots = spots_of_cells(cells, 40.0, diameter_um=30.0, labels=("cell_type",))
    distance = np.linalg.norm(spots.pos[:, None] - cells.pos[None], axis=2)
    covered = distance <= 15.0
    np.testing.assert_array_equal(spots.counts.toarray(), covered @ cells.counts.toarray())
    np.testing.assert_array_equal(spots.adata.obs["num_cells"], covered.sum(1))
    types = cells.adata.obs["cell_type"].astype(str).to_numpy()
    for i in range(0, spots.num_cells, 7):
        votes = pd.Series(types[covered[i]]).value_counts()
        assert votes[spots.adata.obs["cell_type"].iloc[i]] == votes.max()
    assert spots.donor == "ann"
    assert spots.image is cells.image
    assert lattice(spots.pos).pitch == pytest.approx(40.0)


def test_shares_of_a_spot_are_those_of_its_cells(cells):
    part = cells[:]
    part.adata.obs["kind"] = part.adata.obs["cell_type"].astype(object)
    part.adata.obs.loc[cells.pos[:, 0] < 90, "kind"] = None
    spots = spots_of_cells(part, 40.0, diameter_um=None, shares=("kind",))
    assert "kind" not in spots.adata.obs
    table = spots.adata.obsm["share_kind"]
    nearest = np.linalg.norm(spots.pos[:, None] - cells.pos[None], axis=2).argmin(0)
    kind = part.adata.obs["kind"].to_numpy()
    assert list(table.columns) == sorted({*kind} - {None})
    for i in range(spots.num_cells):
        mine = [k for k in kind[nearest == i] if k is not None]
        expected = [mine.count(k) / len(mine) if mine else np.nan for k in table.columns]
        np.testing.assert_allclose(table.iloc[i], expected)
    assert table.isna().any(axis=None)  # a spot of cells without a kind


def test_without_a_diameter_no_cell_is_lost(cells):
    spots = spots_of_cells(cells, 50.0, diameter_um=None)
    assert spots.counts.sum() == cells.counts.sum()
    few = spots_of_cells(cells, 50.0, diameter_um=None, min_cells=9)
    assert few.adata.obs["num_cells"].min() >= 9


def test_spots_lie_where_those_of_another_section_lie(cells):
    centres = cells.pos[[300, 5, 700]] + 2.0
    centres = np.insert(centres, 1, [-500.0, -500.0], axis=0)  # beside the tissue: left out
    spots = spots_of_cells(cells, pos=centres, diameter_um=40.0)
    np.testing.assert_array_equal(spots.adata.obs["row"], [0, 2, 3])
    np.testing.assert_array_equal(spots.pos, centres[[0, 2, 3]])
    distance = np.linalg.norm(centres[:, None] - cells.pos[None], axis=2)
    own = (distance <= 20.0) & (distance == distance.min(axis=0))  # a cell is in one spot
    np.testing.assert_array_equal(spots.counts.toarray(), own[[0, 2, 3]] @ cells.counts.toarray())
    with pytest.raises(ValueError, match=r"'pos' of shape \[N, 2\], got \[2\]"):
        spots_of_cells(cells, pos=centres[0])


def test_spots_that_cannot_be_are_refused(cells):
    with pytest.raises(ValueError, match="'pitch_um' as a number above 0, got 0"):
        spots_of_cells(cells, 0)
    with pytest.raises(ValueError, match="at least 500 cells, got none"):
        spots_of_cells(cells, min_cells=500)
    with pytest.raises(ValueError, match="a column 'kind'"):
        spots_of_cells(cells, labels=("kind",))


def test_tables_are_joined_by_slide_and_barcode(cells):
    """ST-Align fact A14: the order of rows tells nothing, and a missing barcode is named."""
    slide = cells[:50]
    names = slide.adata.obs_names
    values = np.arange(100.0, dtype=np.float32).reshape(50, 2)
    table = pd.DataFrame(values, index=names)
    order = np.random.default_rng(0).permutation(50)
    join_features(slide, "X_one", table.iloc[order])
    np.testing.assert_array_equal(slide.adata.obsm["X_one"], values)
    other = pd.DataFrame(values + 1, index=names)
    both = pd.concat({"elsewhere": other, slide.slide_id: table.iloc[order]})
    join_features(slide, "X_two", both)
    np.testing.assert_array_equal(slide.adata.obsm["X_two"], values)
    with pytest.raises(ValueError, match=f"got none for .*{names[7]}"):
        join_features(slide, "X_three", table.drop(index=names[7]))
    with pytest.raises(ValueError, match=f"once in the table, got '{names[0]}' more"):
        join_features(slide, "X_three", pd.concat([table, table.iloc[:1]]))
    assert "X_three" not in slide.adata.obsm


def in_margin(kind, tissue_um=1400, margin_um=600, mpp=2.0):
    """A square of tissue in the middle of glass, or of black, and whether places lie on it."""
    rng = np.random.default_rng(0)
    side, margin = int(tissue_um / mpp), int(margin_um / mpp)
    inside = np.s_[margin : margin + side, margin : margin + side]
    shape = (side + 2 * margin,) * 2
    if kind == "he":
        pixels = 240 + rng.integers(0, 9, (*shape, 3))
        pixels[inside] = [190, 120, 180] + rng.normal(0, 25, (side, side, 3))
        image = SlideImage([pixels.clip(0, 255).astype(np.uint8)], mpp=mpp)
    else:  # nuclei with gaps
        pixels, nuclei = rng.integers(0, 9, shape), np.zeros((side, side), int)
        for y, x in rng.integers(0, side - 7, (4000, 2)):
            nuclei[y : y + 7, x : x + 7] = rng.integers(300, 900)
        pixels[inside] += nuclei
        image = SlideImage([pixels.astype(np.uint16)], mpp=mpp)
    low, high = margin_um, margin_um + tissue_um
    return image, lambda pos, by=0.0: ((pos > low - by) & (pos < high + by)).all(1)


PANEL = GenePanel(["a", "b"])


@pytest.mark.parametrize("kind", ["he", "dapi"])
@pytest.mark.parametrize("pitch_um", [40.0, 100.0])
def test_spots_of_a_photographed_slide_lie_on_its_tissue(kind, pitch_um):
    image, is_tissue = in_margin(kind)
    slide = photographed_slide(image, PANEL, pitch_um)
    everywhere = photographed_slide(image, PANEL, pitch_um, tissue_only=False)
    assert is_tissue(everywhere.pos).mean() < 0.4
    assert is_tissue(slide.pos, by=25.0).all()
    assert is_tissue(slide.pos, by=-30.0).sum() == is_tissue(everywhere.pos, by=-30.0).sum()
    assert slide.adata.obs_names[-1] == f"spot{slide.num_cells - 1}"


def test_two_tissues_without_glass_are_both_tissue(caplog):
    """A dark and a pale half are no tissue and glass, whichever covers more."""
    rng = np.random.default_rng(0)
    for wide in (150, 450):
        pixels = rng.integers(120, 140, (600, 600, 3))
        pixels[:, :wide] -= 40
        image = SlideImage([pixels.astype(np.uint8)], mpp=2.0)
        slide = photographed_slide(image, PANEL, 100.0)
        everywhere = photographed_slide(image, PANEL, 100.0, tissue_only=False)
        np.testing.assert_array_equal(slide.pos, everywhere.pos)
    assert "does not show where tissue ends: its 150 spots lie all over it" in caplog.text


def test_given_positions_are_kept_and_those_beside_the_tissue_doubted():
    image, is_tissue = in_margin("he")
    pos = photographed_slide(image, PANEL, 100.0, tissue_only=False).pos
    with pytest.warns(UserWarning, match=r"3\d% of the positions of slide 'photo' lie on what"):
        kept = photographed_slide(image, PANEL, pos=pos, slide_id="photo")
    np.testing.assert_array_equal(kept.pos, pos)
    photographed_slide(image, PANEL, pos=pos, tissue_only=False)
    on = pos[is_tissue(pos)]
    np.testing.assert_array_equal(photographed_slide(image, PANEL, pos=on).pos, on)


def test_a_lattice_that_misses_the_tissue_is_refused():
    image, _ = in_margin("he", tissue_um=300, margin_um=400)
    with pytest.raises(ValueError, match="tissue under the 1 spots of slide 'slide', got none"):
        photographed_slide(image, PANEL, 700.0)


def test_a_photographed_slide_is_read_from_a_file_with_its_image(tmp_path):
    image, _ = in_margin("he")
    tifffile.imwrite(tmp_path / "a.tif", image.thumbnail(10_000)[0], photometric="rgb")
    image = SlideImage.open(tmp_path / "a.tif", mpp=2.0, origin_um=(50.0, 20.0))
    slide = photographed_slide(image, PANEL, 40.0, slide_id="photo")
    slide.adata.write_h5ad(tmp_path / "a.h5ad")
    for options in ({}, {"image": tmp_path / "a.tif", "image_mpp": 2.0, "origin_um": (50.0, 20.0)}):
        again = read(tmp_path / "a.h5ad", **options)
        np.testing.assert_array_equal(again.pos, slide.pos)
        assert again.slide_id == "photo"
        assert again.image.extent_um == image.extent_um
        assert not again.is_counted
    (tmp_path / "a.tif").unlink()  # as where embeddings are taken elsewhere
    assert read(tmp_path / "a.h5ad", image=False).num_cells == slide.num_cells
    bare = slide.adata.copy()
    bare.uns.clear()
    with pytest.raises(ValueError, match="no count in all .* no image. Pass its image=…"):
        read(bare, assume_um=True)
