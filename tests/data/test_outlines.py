"""Outlines of cells: windows that fit them, masks along them, and the files that hold them."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from spatiagraph.data import GenePanel, Outlines, Slide, SlideImage, measure_nuclei, write
from spatiagraph.data.loader import inside_image
from spatiagraph.data.masked import MaskedCrops
from spatiagraph.data.read import read
from spatiagraph.data.recipe import KNN, AdaptiveCrop, Crop, Recipe
from spatiagraph.inference import generate
from spatiagraph.models import ImageGenerator, Spatia

MPP = 0.5
CENTRES = np.array([[20.0, 15.0], [30.0, 15.0], [48.0, 30.0]])  # µm; the last without an outline
RECTANGLES = [(16.0, 12.0, 23.0, 17.0), (24.0, 14.5, 33.0, 15.5)]  # x0, y0, x1, y1


def corners(boxes=RECTANGLES, cells=("a", "b")):
    rows = []
    for cell, (x0, y0, x1, y1) in zip(cells, boxes, strict=True):
        rows += [(cell, x, y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    return pd.DataFrame(rows, columns=["cell_id", "x_um", "y_um"])


def cells(pos=CENTRES):
    adata = anndata.AnnData(
        np.ones((len(pos), 3), np.float32),
        obs=pd.DataFrame(index=list("abcdefgh")[: len(pos)]),
        var=pd.DataFrame(index=["G1", "G2", "G3"]),
    )
    adata.obsm["spatial"] = np.asarray(pos)
    return adata


def slide(pixels=None, table=None, pos=CENTRES):
    pixels = np.full((80, 120), 200, np.uint8) if pixels is None else pixels
    adata = cells(pos)
    outlines = Outlines.from_table(corners() if table is None else table, adata.obs_names)
    image = SlideImage([pixels], mpp=MPP, value_range=(0, 255))
    return Slide(adata, image, outlines=outlines, slide_id="s", assume_um=True)


def test_windows_reach_the_farthest_side_of_the_outline():
    """SPATIA fact 1: half a side is the largest distance to the sides of the box, 4 px at least."""
    found = AdaptiveCrop(size_px=16).windows_um(slide())
    assert_allclose(found, [2 * 4.0, 2 * 6.0, 13.6])  # 20 - 16; 30 - 24; without an outline
    assert_allclose(AdaptiveCrop(13.6, 16, min_px=10.0).windows_um(slide()), [10.0, 12.0, 13.6])
    small = slide(table=corners([(19.5, 14.5, 20.5, 15.5), RECTANGLES[1]]))
    assert AdaptiveCrop().windows_um(small)[0] == 2 * 4 * MPP
    data = Recipe(GenePanel(["G1", "G2", "G3"]), KNN(1), (), (AdaptiveCrop(size_px=16),))(slide())
    assert data.window_um.tolist() == pytest.approx([8.0, 12.0, 13.6])


def test_adaptive_crops_show_every_cell_at_one_size():
    """A disc of any radius fills the same share of its crop."""
    y, x = (np.mgrid[:200, :400] + 0.5) * MPP
    pixels = np.zeros((200, 400), np.uint8)
    boxes, pos = [], np.array([[40.0, 50.0], [100.0, 50.0], [160.0, 50.0]])
    for (cx, cy), radius in zip(pos, (5.0, 10.0, 20.0), strict=True):
        pixels[np.hypot(x - cx, y - cy) < radius] = 255
        boxes.append((cx - radius, cy - radius, cx + radius, cy + radius))
    crops, _ = (
        AdaptiveCrop(size_px=32).source(slide(pixels, corners(boxes, "abc"), pos), pos).read()
    )
    assert_allclose(crops.mean((1, 2, 3)), np.pi / 4, atol=0.02)
    fixed, _ = Crop(20.0, 32).source(slide(pixels, corners(boxes, "abc"), pos), pos).read()
    assert fixed.mean((1, 2, 3)).diff().min() > 0.2


@pytest.mark.parametrize("size_px", [16, 7, 64])
def test_masks_lie_where_the_outline_is_drawn(size_px):
    """Pixels of a drawn rectangle and the mask of its outline are the same, at any scale."""
    pixels = np.zeros((80, 120), np.uint8)
    pixels[24:34, 32:46] = 255  # 16 to 23 µm, 12 to 17 µm
    source = MaskedCrops(slide(pixels), 12.3, size_px, "cell")
    plain, _ = Crop(12.3, size_px).source(slide(pixels), CENTRES).read()
    mask = torch.from_numpy(source.inside(np.array([0])))[0]
    sure = (plain[0, 0] < 0.01) | (plain[0, 0] > 0.99)
    assert sure.float().mean() > 0.5
    assert_array_equal(mask[sure], plain[0, 0][sure] > 0.5)
    assert_allclose(mask.float().mean() * 12.3**2, 35.0, rtol=2 / size_px + 0.03)


def test_all_but_the_cell_or_its_neighbours_alone_are_blackened():
    lit = slide()
    plain, _ = Crop(20.0, 40).source(lit, CENTRES).read()
    own, _ = Crop(20.0, 40, mask="cell").source(lit, CENTRES).read()
    others, _ = Crop(20.0, 40, mask="neighbors").source(lit, CENTRES).read()
    area = (own > 0).sum((1, 2, 3)) * 0.5**2
    assert area[:2].tolist() == [35.0, 9.0]
    assert torch.equal(own[2], others[2])  # without an outline all is left but its neighbours
    black = ((plain > 0) & (others == 0)).sum((1, 2, 3)) * 0.5**2
    # of b, x 24 to 30 is in the window of a; of a, x 20 to 23 in that of b; c is far away
    assert black.tolist() == [6.0, 15.0, 0.0]
    assert torch.equal(others[own > 0], plain[own > 0])


def test_where_outlines_overlap_the_own_cell_is_shown():
    """Pixels in both are of the cell in the middle: none of its own is blackened."""
    boxes = [(16.0, 12.0, 27.0, 17.0), (24.0, 12.0, 33.0, 17.0)]  # 24 to 27 µm are of both
    lit = slide(table=corners(boxes))
    own, _ = Crop(20.0, 40, mask="cell").source(lit, CENTRES).read()
    others, _ = Crop(20.0, 40, mask="neighbors").source(lit, CENTRES).read()
    assert ((own > 0).sum((1, 2, 3)) * 0.5**2).tolist()[:2] == [55.0, 45.0]
    assert bool((others[own > 0] > 0).all())
    black = (others == 0).sum((1, 2, 3)) * 0.5**2
    # of b, x 27 to 30 is in the window of a and not in a; of a, x 20 to 24 in that of b
    assert black.tolist()[:2] == [15.0, 20.0]


def test_masked_crops_are_chosen_by_row():
    rng = np.random.default_rng(0)
    pos = rng.uniform(8, 50, (8, 2)) * [1, 0.6]
    low, high = pos - rng.uniform(1, 5, (8, 2)), pos + rng.uniform(1, 5, (8, 2))
    table = corners(np.c_[low, high], "abcdefgh")
    lit = slide(rng.integers(1, 255, (80, 120), dtype=np.uint8), table, pos)
    for mask in ("cell", "neighbors"):
        source = Crop(9.0, 12, mask=mask).source(lit, pos)
        rows = np.array([5, 1, 6])
        assert torch.equal(source.select(rows).read()[0], source.read()[0][rows])
        assert torch.equal(source.select(rows).read(np.array([2]))[0], source.read(rows[2:])[0])
        some = lit[rows]
        assert_allclose(some.outlines.boxes, lit.outlines.boxes[rows])
        if mask == "cell":  # neighbours left with the rest
            assert torch.equal(
                Crop(9.0, 12, mask=mask).source(some, some.pos).read()[0], source.read()[0][rows]
            )


def test_cells_of_one_name_are_refused_before_their_outlines_are_looked_for(tmp_path):
    adata = cells()
    adata.obs_names = ["a", "a", "b"]
    corners(RECTANGLES, "ab").to_csv(tmp_path / "o.csv", index=False)
    with pytest.raises(ValueError, match="Expected unique cell ids, got 2 of 3"):
        read(adata, outlines=tmp_path / "o.csv")


def test_areas_boxes_and_concave_outlines():
    star = pd.DataFrame({"cell_id": "a", "x_um": [0.0, 6, 6, 3, 0], "y_um": [0.0, 0, 6, 3, 6]})
    star[["x_um", "y_um"]] += 1e5  # far from the origin
    outlines = Outlines.from_table(star, ["b", "a"])
    assert outlines.known.tolist() == [False, True]
    assert_allclose(outlines.areas_um2, [np.nan, 36 - 9])
    assert_allclose(outlines.boxes[1] - 1e5, [0, 0, 6, 6])
    mask = outlines.inside(np.array([1, 0]), np.array([[1e5, 1e5, 6.0]] * 2), 60)
    assert_allclose(mask.mean((1, 2)), [27 / 36, 0], atol=0.01)
    assert not mask[0, 50, 30]  # in the notch
    assert mask[0, 50, 5]


def test_morphology_of_outlines_needs_no_segmentation(tmp_path):
    """Sizes are those of the drawn rectangle, whatever the stain shows; what is cut is left out."""
    pos = np.array([[20.0, 15.0], [30.0, 15.0], [1.0, 20.0], [48.0, 30.0]])
    boxes = [*RECTANGLES, (0.0, 18.0, 4.0, 22.0)]  # the third at the border of the image
    noise = np.random.default_rng(0).integers(0, 255, (80, 120), dtype=np.uint8)
    lit = slide(noise, corners(boxes, "abc"), pos)
    table = measure_nuclei(lit, AdaptiveCrop(size_px=64), foreground="mask")
    assert table.notna().all(axis=1).tolist() == [True, True, False, False]
    assert_allclose(table["area_um2"][:2], lit.outlines.areas_um2[:2], rtol=0.15)
    assert_allclose(table["major_axis_um"].iloc[0], 7 * 2 / np.sqrt(3), rtol=0.05)
    assert_allclose(table["minor_axis_um"].iloc[0], 5 * 2 / np.sqrt(3), rtol=0.05)
    narrow = measure_nuclei(lit, Crop(8.0, 32), foreground="mask")
    assert narrow.notna().all(axis=1).tolist() == [True, False, False, False]  # b is 12 µm wide
    assert inside_image(lit, AdaptiveCrop()).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        (lambda: Crop(mask="nucleus"), "'mask' in .*cell.*neighbors"),
        (lambda: Crop(mask="cell", of="niche"), "plain crops of cells, got it with crops of"),
        (lambda: Crop(mask="cell", reflect=True), "got it with reflect=True"),
        (lambda: AdaptiveCrop(of="niche"), "AdaptiveCrop of cells"),
        (lambda: AdaptiveCrop(None), "'window_um' or 'window_key'"),
        (lambda: AdaptiveCrop(min_px=0), "'min_px' of AdaptiveCrop as a number above 0"),
        (lambda: AdaptiveCrop().native_px(0.5), "one 'window_um' of all cells"),
    ],
)
def test_rules_that_fit_nothing_are_refused(crop, message):
    with pytest.raises(ValueError, match=message):
        crop()


def test_slides_without_outlines_are_refused_where_they_are_needed():
    bare = Slide(cells(), slide().image, slide_id="s", assume_um=True)
    for crop in (AdaptiveCrop(), Crop(mask="cell")):
        with pytest.raises(ValueError, match="outlines of the cells of slide 's', got none: pass"):
            crop.source(bare, CENTRES)
    recipe = Recipe(
        GenePanel(["G1"]), crops=(AdaptiveCrop(16.0, 64), Crop(name="own", mask="cell"))
    )
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.assign(cell_id=np.repeat(["y", "z"], 4)),
            r"outlines of the cells \('a', 'b', 'c', …\), got those of others \('y', 'z', …\)",
        ),
        (lambda t: t.assign(x_um=np.where(t.index == 2, np.nan, t.x_um)), r"first: \[2\]"),
        (lambda t: t.drop(index=[2, 3]), "at least 3 corners per outline, got fewer for cell 'a'"),
        (lambda t: t.assign(x_um=t.x_um / MPP), r"inside of their outlines, got 2 of 2 elsewhere"),
    ],
)
def test_outlines_that_do_not_fit_the_cells_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        slide(table=change(corners()))


def as_geojson(table, path, nested=False):
    features = []
    for cell, rows in table.groupby("cell_id"):
        ring = rows[["x_um", "y_um"]].to_numpy().tolist()
        ring.append(ring[0])
        geometry = {"type": "Polygon", "coordinates": [ring]}
        if nested:
            y, x = np.mgrid[:2, :4] / 8.0  # more corners, and less area
            tiny = [[0, 0], *np.c_[x.ravel(), y.ravel()].tolist(), [0, 0]]
            geometry = {"type": "MultiPolygon", "coordinates": [[tiny], [ring]]}
        features.append({"type": "Feature", "id": cell, "properties": {}, "geometry": geometry})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.mark.filterwarnings("ignore:Found outlines of 2 of 3 cells")
def test_files_of_ones_own_are_read(tmp_path):
    cells().write_h5ad(tmp_path / "s.h5ad")
    table = corners()
    as_geojson(table, tmp_path / "o.geojson")
    as_geojson(table, tmp_path / "many.geojson", nested=True)
    table.rename(columns={"x_um": "x", "y_um": "y"}).to_csv(tmp_path / "o.csv", index=False)
    in_px = table.rename(columns={"x_um": "vertex_x", "y_um": "vertex_y"})
    in_px[["vertex_x", "vertex_y"]] /= 0.25
    in_px.to_parquet(tmp_path / "px.parquet")
    for name, options in (
        ("o.geojson", {}),
        ("many.geojson", {}),
        ("o.csv", {}),
        ("px.parquet", {"outlines_mpp": 0.25}),
    ):
        found = read(tmp_path / "s.h5ad", outlines=tmp_path / name, assume_um=True, **options)
        assert_allclose(found.outlines.boxes[:2], RECTANGLES)
        assert found.outlines.known.tolist() == [True, True, False]
        assert "2 outlines" in repr(found)


@pytest.mark.filterwarnings("ignore:Found outlines of 2 of 3 cells")
def test_a_written_slide_finds_its_outlines_again(tmp_path):
    cells().write_h5ad(tmp_path / "s.h5ad")
    corners().to_csv(tmp_path / "o.csv", index=False)
    found = read(tmp_path / "s.h5ad", outlines=tmp_path / "o.csv", assume_um=True)
    write(found, tmp_path / "again.h5ad")
    again = read(tmp_path / "again.h5ad")
    assert_allclose(again.outlines.boxes, found.outlines.boxes)
    assert read(tmp_path / "again.h5ad", outlines=False).outlines is None
    (tmp_path / "away").mkdir()
    write(found, tmp_path / "away" / "s.h5ad")
    with pytest.warns(UserWarning, match="not lie beside s.h5ad. Pass outlines="):
        assert read(tmp_path / "away" / "s.h5ad").outlines is None
    (tmp_path / "o.csv").unlink()
    with pytest.warns(UserWarning, match="no longer at"):
        read(tmp_path / "again.h5ad")


def test_damaged_files_and_wrong_options_are_named(tmp_path):
    cells().write_h5ad(tmp_path / "s.h5ad")
    (tmp_path / "bad.geojson").write_text(
        '{"features": [{"id": "a", "geometry": {"type": "Point"}}]}'
    )
    corners().drop(columns="cell_id").to_csv(tmp_path / "bad.csv", index=False)
    for options, message in (
        ({"outlines": tmp_path / "bad.geojson"}, "bad.geojson, got another thing in feature 0"),
        ({"outlines": tmp_path / "bad.csv"}, "a column cell_id .* in bad.csv, got x_um, y_um"),
        ({"outlines": True}, "outlines of cells with s, found none: pass their file"),
        ({"outlines_mpp": 0.5}, "a file of outlines for outlines_mpp"),
        ({"outlines": tmp_path / "bad.csv", "outlines_mpp": -1}, "'outlines_mpp' to be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "s.h5ad", assume_um=True, **options)
    with pytest.raises(FileNotFoundError, match="outlines of cells at"):
        read(tmp_path / "s.h5ad", assume_um=True, outlines=tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda all_of: all_of + all_of[:2], "one outline of each cell in o.geojson, got several"),
        (lambda all_of: [all_of[0] | {"geometry": None}], "in feature 0: no geometry"),
        (
            lambda all_of: [all_of[0] | {"geometry": {"type": "GeometryCollection"}}],
            "in feature 0: a GeometryCollection",
        ),
        (
            lambda all_of: [all_of[0] | {"geometry": {"type": "Polygon", "coordinates": []}}],
            "in feature 0: a Polygon without corners",
        ),
        (
            lambda all_of: [
                all_of[0] | {"geometry": {"type": "MultiPolygon", "coordinates": [[]]}}
            ],
            "in feature 0: a MultiPolygon without corners",
        ),
        (
            lambda all_of: [all_of[0] | {"geometry": {"type": "Polygon", "coordinates": [[]]}}],
            r"in feature 0: corners of shape \[0\]",
        ),
    ],
)
def test_features_that_are_no_outline_of_a_cell_are_named(tmp_path, change, words):
    cells().write_h5ad(tmp_path / "s.h5ad")
    as_geojson(corners(), tmp_path / "o.geojson")
    found = json.loads((tmp_path / "o.geojson").read_text())
    found["features"] = change(found["features"])
    (tmp_path / "o.geojson").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "s.h5ad", assume_um=True, outlines=tmp_path / "o.geojson")


def test_a_few_outlines_that_are_elsewhere_are_left_out_with_a_warning(tmp_path):
    rng = np.random.default_rng(0)
    pos = np.stack(np.meshgrid(np.arange(15), np.arange(14)), -1).reshape(-1, 2) * 9.0
    pos = pos + rng.uniform(0, 3, pos.shape)
    adata = anndata.AnnData(np.ones((len(pos), 2), np.float32))
    adata.obsm["spatial"] = pos
    adata.write_h5ad(tmp_path / "s.h5ad")
    box = np.c_[pos - 3, pos + 3]
    box[7] += 50
    corners(box, adata.obs_names).to_csv(tmp_path / "o.csv", index=False)
    with pytest.warns(UserWarning, match="Left out 1 of 210 outlines .* row 7 '7'"):
        found = read(tmp_path / "s.h5ad", outlines=tmp_path / "o.csv", assume_um=True)
    assert np.flatnonzero(~found.outlines.known).tolist() == [7]


@pytest.mark.filterwarnings("ignore:Found outlines of 2 of 3 cells")
@pytest.mark.parametrize("name", ["vertex", "vertex_index", "Vertex_ID"])
def test_corners_are_in_the_order_of_their_column(tmp_path, name):
    cells().write_h5ad(tmp_path / "s.h5ad")
    table = corners()
    table[name] = np.tile(np.arange(4), 2)
    for some in (table, table.sample(frac=1.0, random_state=3)):
        some.to_csv(tmp_path / "o.csv", index=False)
        found = read(tmp_path / "s.h5ad", outlines=tmp_path / "o.csv", assume_um=True).outlines
        assert_allclose(found.areas_um2[:2], [35.0, 9.0])


def test_a_single_outline_of_a_small_slide_may_be_elsewhere(tmp_path):
    cells().write_h5ad(tmp_path / "s.h5ad")
    third = (45.0, 28.0, 51.0, 32.0)
    boxes = np.array([*RECTANGLES, third])
    boxes[1] += 30
    corners(boxes, "abc").to_csv(tmp_path / "o.csv", index=False)
    with pytest.warns(UserWarning, match="Left out 1 of 3 outlines .* row 1 'b'"):
        found = read(tmp_path / "s.h5ad", outlines=tmp_path / "o.csv", assume_um=True)
    assert found.outlines.known.tolist() == [True, False, True]
    boxes[0] += 30  # two of three are no accident
    corners(boxes, "abc").to_csv(tmp_path / "o.csv", index=False)
    with pytest.raises(ValueError, match="inside of their outlines, got 2 of 3 elsewhere"):
        read(tmp_path / "s.h5ad", outlines=tmp_path / "o.csv", assume_um=True)


def test_outlines_of_few_of_the_cells_are_refused_and_of_some_said(tmp_path):
    pos = np.stack(np.meshgrid(np.arange(10), np.arange(8)), -1).reshape(-1, 2) * 9.0
    adata = anndata.AnnData(np.ones((80, 2), np.float32))
    adata.obsm["spatial"] = pos
    adata.write_h5ad(tmp_path / "s.h5ad")
    names, box = adata.obs_names.to_numpy(), np.c_[pos - 3, pos + 3]

    def outlined(num):
        other = np.where(np.arange(80) < num, names, "x" + names.astype(object))
        corners(box, other).to_csv(tmp_path / "o.csv", index=False)
        return read(tmp_path / "s.h5ad", outlines=tmp_path / "o.csv", assume_um=True).outlines

    assert outlined(76).known.sum() == 76  # some cells are without in any data
    with pytest.warns(UserWarning, match=r"Found outlines of 60 of 80 cells \(75%\)"):
        assert outlined(60).known.sum() == 60
    message = r"most of the 80 cells, got those of 1 \(1%\): '1', '2', '3' have .* '0', 'x1', 'x2'"
    with pytest.raises(ValueError, match=message):
        outlined(1)


def test_an_outline_without_an_area_is_none(tmp_path):
    """A figure of eight whose halves cancel, a line, and a point that is repeated."""
    boxes = [*RECTANGLES, (45.0, 28.0, 51.0, 32.0)]
    table = corners(np.array(boxes) + 1e4, "abc")
    a = table["cell_id"] == "a"
    for flat in (
        table.loc[a, ["x_um", "y_um"]].to_numpy()[[0, 2, 1, 3]],
        table.loc[a, ["x_um", "y_um"]].to_numpy()[[0, 1, 0, 1]],
        table.loc[a, ["x_um", "y_um"]].to_numpy()[[0, 0, 0, 0]],
    ):
        table.loc[a, ["x_um", "y_um"]] = flat
        found = Outlines.from_table(table, list("abc"))
        assert found.known.tolist() == [False, True, True]
        assert_allclose(found.areas_um2, [np.nan, 9.0, 24.0])
        with pytest.raises(ValueError, match="outlines with an area, got none in all 1"):
            Outlines.from_table(table[a], list("abc"))
    cells(CENTRES + 1e4).write_h5ad(tmp_path / "s.h5ad")
    table.to_csv(tmp_path / "o.csv", index=False)
    with pytest.warns(UserWarning, match="Left out 1 outlines without an area: row 0 'a'"):
        read(tmp_path / "s.h5ad", outlines=tmp_path / "o.csv", assume_um=True)


def test_cells_whose_outline_is_wider_than_the_image_are_named():
    huge = slide(table=corners([RECTANGLES[0], (-90.0, 0.0, 90.0, 40.0)]))
    with pytest.raises(ValueError, match="240 µm for 1 cells: row 1 'b'. Leave these cells out"):
        AdaptiveCrop(size_px=16).source(huge, huge.pos)
    with pytest.raises(ValueError, match="a window of 99 µm: lower window_um"):
        Crop(99.0, 16).source(huge, huge.pos)


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("xenium_V1_FF_Mouse_Brain/sample1", {}),
        ("merscope_HumanOvarianCancer_tiny", {}),
        ("merscope_vpt_liver", {"drop_empty": True}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_folders_of_the_vendors_give_outlines(real_data, folder, options):
    found = read(real_data / "vendor_folders" / folder, outlines=True, **options)
    assert found.outlines.known.mean() > 0.7  # a tiny piece: two of seven are cut off
    area = found.outlines.areas_um2[found.outlines.known]
    assert 10 < np.median(area) < 1000
    assert read(real_data / "vendor_folders" / folder, **options).outlines is None


@pytest.mark.filterwarnings("ignore:Dropped")
def test_areas_are_those_of_the_maker(real_data):
    """Xenium writes the area of each cell beside it."""
    folder = real_data / "xenium_pancreas"
    found = read(
        folder / "cells_top.h5ad",
        outlines=folder / "roi_tumour" / "cell_outlines.parquet",
        crop_um=(1920, 520, 2200, 800),
        drop_empty=True,
    )
    known = found.outlines.known
    assert known.mean() > 0.9
    theirs = found.adata.obs["cell_area_um2"][known]
    assert_allclose(found.outlines.areas_um2[known], theirs, rtol=5e-3)


def test_slides_whose_images_differ_in_channels_are_refused_by_every_door():
    """What adaptive crops of one slide hold cannot stand beside those of another."""
    grey = slide()
    colours = slide(np.full((80, 120, 3), 200, np.uint8))
    colours.slide_id = "colours"
    recipe = Recipe(GenePanel(["G1", "G2", "G3"]), KNN(1), (), (AdaptiveCrop(size_px=16),))
    with pytest.raises(ValueError, match=r"channels"):
        Spatia.for_slides([grey, colours], "tiny", recipe=recipe)
    with pytest.raises(ValueError, match=r"channels"):
        ImageGenerator.for_slides([grey, colours], crop=Crop(size_px=16, mask="cell"))
    generator = ImageGenerator.for_slides([grey], crop=Crop(size_px=16, mask="cell"))
    with pytest.raises(ValueError, match=r"images of 1 channels .* 3 in slide 'colours'"):
        generate(generator, colours, cells=[0], progress=False)
    with pytest.raises(ValueError, match="one window for all"):
        ImageGenerator.for_slides([grey], crop=AdaptiveCrop(size_px=16))
