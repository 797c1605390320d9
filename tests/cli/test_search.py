"""Ways to ask ``spatiagraph search``, and what it says when it cannot answer."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from spatiagraph.data import make_tissue


@pytest.fixture(scope="module")
def two(run, workplace, tmp_path_factory):
    """Two embedded slides with overlapping ids."""
    folder = tmp_path_factory.mktemp("search")
    other = run.tissue(folder / "other.h5ad", seed=1)
    done = run("embed", workplace / "run", other, "--out", folder / "second.h5ad")
    assert done.exit_code == 0, done.output
    return [workplace / "embedded.h5ad", folder / "second.h5ad"]


@pytest.fixture(scope="module")
def pictured(run, tmp_path_factory):
    """A slide with an image, the model trained on both, and its embeddings."""
    folder = tmp_path_factory.mktemp("pictured")
    slide = make_tissue(300, num_genes=40, image="he")
    x0, y0, _, _ = slide.image.extent_um
    Image.fromarray(slide.image.thumbnail(10_000)[0]).save(folder / "he.png")
    slide.adata.write_h5ad(folder / "slide.h5ad")
    place = ["--image-mpp", slide.image.mpp, "--origin-um", x0, y0]
    image = ["--image", folder / "he.png", *place]
    for arguments in (
        ["fit", folder / "slide.h5ad", *image, "--out", folder / "run", *run.small],
        ["embed", folder / "run", folder / "slide.h5ad", *image, "--out", folder / "e.h5ad"],
    ):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
    return folder


def _hits(run, tmp_path, *arguments):
    out = tmp_path / "hits.csv"
    done = run("search", *arguments, "--out", out)
    assert done.exit_code == 0, done.output
    return pd.read_csv(out), done


def test_a_region_given_in_three_ways_finds_the_same(run, two, tmp_path):
    corners = [(0, 0), (60, 0), (60, 60), (0, 60)]
    (tmp_path / "a.csv").write_text("x,y\n" + "\n".join(f"{x},{y}" for x, y in corners))
    shape = {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "Feature", "geometry": shape}))
    found = [
        _hits(run, tmp_path, *two, "--region", region, "--slide", "slide")[0]
        for region in ("0,0,60,60", tmp_path / "a.csv", tmp_path / "a.geojson")
    ]
    for hits in found:
        inside = hits["x_um"].between(0, 60) & hits["y_um"].between(0, 60)
        assert not (inside & (hits["slide_id"] == "slide")).any()
        assert hits["id"].tolist() == found[0]["id"].tolist()


def test_a_niche_finds_cells_that_are_not_of_it(run, two, tmp_path):
    hits, done = _hits(run, tmp_path, *two, "--niche", "niche=niche1", "--slide", "other")
    assert "niche=niche1 of other (" in done.stdout
    own = (hits["slide_id"] == "other") & (hits["niche"] == "niche1")
    assert not own.any()


def test_hits_are_different_places_by_default(run, two, tmp_path):
    """A niche of 16 cells is the query's neighbours: none of those are hits."""
    hits, done = _hits(run, tmp_path, two[0], "--cell", "cell7", "-k", 5)
    adata = anndata.read_h5ad(two[0])
    query, width = adata.obsm["spatial"][7], adata.uns["spatiagraph"]["width_um"]["niche"]
    tree = cKDTree(adata.obsm["spatial"])
    reach = np.median(tree.query(adata.obsm["spatial"], k=16)[0][:, -1])
    np.testing.assert_allclose(width, 2 * reach, rtol=0.02)  # centres are means of the members
    pos = np.vstack([query, hits[["x_um", "y_um"]]])
    away = np.linalg.norm(pos[:, None] - pos, axis=2)
    assert away[~np.eye(len(pos), dtype=bool)].min() >= width
    assert f"{width:.0f} µm apart" in done.stdout


def test_hits_end_where_cells_are_unlike_the_query(run, two, tmp_path):
    near, _ = _hits(run, tmp_path, two[0], "--cell", "cell7", "-k", 299, "--apart-um", 0)
    assert len(near) == round(0.25 * 300) - 1  # of all cells, the query itself is one
    every, _ = _hits(
        run, tmp_path, two[0], "--cell", "cell7", "-k", 299, "--apart-um", 0, "--max-distance", 9
    )
    assert len(every) == 299
    done = run("search", two[0], "--cell", "cell7", "--max-distance", 0)
    run.refused(done, "--max-distance")


def test_hits_lie_apart_when_asked(run, two, tmp_path):
    hits, _ = _hits(
        run, tmp_path, two[0], "--cell", "cell7", "-k", 5, "--apart-um", 40, "--max-distance", 2
    )
    query = anndata.read_h5ad(two[0]).obsm["spatial"][7]
    pos = np.vstack([query, hits[["x_um", "y_um"]]])
    away = np.linalg.norm(pos[:, None] - pos, axis=2)
    assert len(hits) == 5
    assert away[~np.eye(6, dtype=bool)].min() >= 40


def test_a_calibrated_search_is_another_search(run, two, tmp_path):
    arguments = [*two, "--cell", "cell7", "--slide", "slide", "--save-index", tmp_path / "i"]
    plain, _ = _hits(run, tmp_path, *arguments)
    calibrated, _ = _hits(run, tmp_path, *arguments, "--calibrate")
    assert (tmp_path / "i" / "calibration.npz").is_file()
    assert plain["distance"].tolist() != calibrated["distance"].tolist()


def test_an_embedded_slide_asks_others(run, two, tmp_path):
    asking = ["--cell", "cell7", "--apart-um", 45]  # else that of the slides that are searched
    hits, _ = _hits(run, tmp_path, two[1], "--query", two[0], *asking)
    own = ["--slide", "slide", "--where", "slide_id == 'other'"]
    both, _ = _hits(run, tmp_path, *two, *asking, *own)
    assert hits["id"].tolist() == both["id"].tolist()


def test_a_photographed_slide_asks_by_its_image(run, pictured, tmp_path):
    arguments = [pictured / "e.h5ad", "--query", pictured / "e.h5ad", "--cell", "cell7"]
    model = ["--model", pictured / "run"]
    genes, done = _hits(run, tmp_path, *arguments, *model, "--modality", "genes")
    assert "by genes alone" in done.stdout
    assert "cell7" not in set(genes["id"])
    image, _ = _hits(run, tmp_path, *arguments, *model, "--modality", "image")
    assert image["distance"].tolist() != genes["distance"].tolist()


@pytest.fixture(scope="module")
def aligned(run, tmp_path_factory):
    """Two sections with pictures, embedded by a model that aligns image and genes."""
    folder = tmp_path_factory.mktemp("aligned")
    for i, name in enumerate("ab"):
        slide = make_tissue(300, num_genes=40, image="he", seed=i)
        slide.adata.obsm["spatial"] = slide.pos - slide.image.extent_um[:2]
        slide.adata.write_h5ad(folder / f"{name}.h5ad")
        Image.fromarray(slide.image.thumbnail(10_000)[0]).save(folder / f"{name}.png")
    mpp = slide.image.mpp
    short = ["--model", "st-align", "--steps", 1, "--accelerator", "cpu"]
    for command, name, options in (
        (["fit"], "a", ["--out", folder / "run", *short]),
        (["embed", folder / "run"], "a", ["--out", folder / "a_embedded.h5ad"]),
        (["embed", folder / "run"], "b", ["--out", folder / "b_embedded.h5ad"]),
    ):
        image = ["--image", folder / f"{name}.png", "--image-mpp", mpp]
        done = run(*command, folder / f"{name}.h5ad", *image, *options)
        assert done.exit_code == 0, done.output
    return folder, mpp


def test_a_picture_with_its_own_scale_asks_for_genes(run, aligned, tmp_path):
    """The same hits as of the slide that was embedded with this picture."""
    folder, mpp = aligned
    names = ["--cell", "cell9", "--level", "niche_gene", "--by", "niche_img", "-k", 3]
    searched = [folder / "a_embedded.h5ad", *names, "--apart-um", 0]
    expected, _ = _hits(run, tmp_path, *searched, "--query", folder / "b_embedded.h5ad")
    asking = ["--query", folder / "b.h5ad", "--model", folder / "run", "--modality", "image"]
    image = ["--query-image", folder / "b.png"]
    scale = ["--query-image-mpp", mpp]
    hits, done = _hits(run, tmp_path, *searched, *asking, *image, *scale)
    assert "by image alone" in done.stdout
    assert hits["id"].tolist() == expected["id"].tolist()
    np.testing.assert_allclose(hits["distance"], expected["distance"], atol=1e-5)
    run.refused(run("search", *searched, *asking, *image), "b.png", "--query-image-mpp")
    run.refused(run("search", *searched, *asking, *scale), "--query-image with --query-image-mpp")


@pytest.fixture(scope="module")
def photo(aligned):
    """The second section as one that nobody sequenced: a table of places, and a picture."""
    folder, mpp = aligned
    adata = anndata.read_h5ad(folder / "b.h5ad")
    bare = anndata.AnnData(csr_matrix(adata.shape, dtype=np.float32), obs=adata.obs, var=adata.var)
    bare.obsm["spatial"] = adata.obsm["spatial"]
    bare.write_h5ad(folder / "photo.h5ad")
    with Image.open(folder / "b.png") as picture:
        tifffile.imwrite(folder / "photo.tif", np.asarray(picture), photometric="rgb")
    return folder, mpp


def test_a_section_that_nobody_sequenced_is_embedded_and_asks(run, photo, tmp_path):
    """Its image has the vectors that it has beside counts, and finds the same."""
    folder, mpp = photo
    picture = ["--image", folder / "photo.tif", "--image-mpp", mpp]
    out = tmp_path / "embedded.h5ad"
    done = run("embed", folder / "run", folder / "photo.h5ad", *picture, "--out", out)
    assert done.exit_code == 0, done.output
    assert "by the image alone" in done.stdout
    found, both = anndata.read_h5ad(out).obsm, anndata.read_h5ad(folder / "b_embedded.h5ad").obsm
    assert "X_stalign_niche_gene" not in found
    for name in ("X_stalign_spot_img", "X_stalign_niche_img"):
        assert np.isfinite(found[name]).all()
        np.testing.assert_allclose(found[name], both[name], atol=1e-5)

    names = ["--cell", "cell9", "--level", "niche_gene", "--by", "niche_img", "-k", 3]
    searched = [folder / "a_embedded.h5ad", *names, "--apart-um", 0]
    expected, _ = _hits(run, tmp_path, *searched, "--query", folder / "b_embedded.h5ad")
    asking = ["--query", folder / "photo.h5ad", "--model", folder / "run", "--modality", "image"]
    query = ["--query-image", folder / "photo.tif", "--query-image-mpp", mpp]
    for ask in ([*asking, *query], ["--query", out]):
        hits, _ = _hits(run, tmp_path, *searched, *ask)
        assert hits["id"].tolist() == expected["id"].tolist()
        assert np.isfinite(hits["distance"]).all()
    run.refused(run("search", *searched, *asking), "no count in all 300 cells", "--query-image …")
    run.refused(
        run("embed", folder / "run", folder / "photo.h5ad", "--out", out),
        "no count in all 300 cells and no image",
        "--image …",
    )
    done = run(
        "embed", folder / "run", folder / "photo.h5ad", "--drop-empty", *picture, "--out", out
    )
    run.refused(done, "without --drop-empty if it was only photographed")


def test_a_slide_without_counts_is_refused_by_models_of_genes(run, workplace, photo, tmp_path):
    folder, mpp = photo
    picture = ["--image", folder / "photo.tif", "--image-mpp", mpp]
    out = ["--out", tmp_path / "out.h5ad"]
    done = run("embed", workplace / "run", folder / "photo.h5ad", *picture, *out)
    run.refused(done, "counts in slide 'photo', which the ContextModel reads", "in all 300 cells")
    done = run("fit", folder / "photo.h5ad", *picture, "--out", tmp_path / "run", *run.small)
    run.refused(done, "genes seen in at least 3 cells")


def test_an_image_alone_is_embedded_on_spots_of_a_pitch(run, photo, tmp_path):
    folder, mpp = photo
    out = tmp_path / "alone.h5ad"
    given = ["embed", folder / "run", folder / "photo.tif", "--out", out, "--image-mpp", mpp]
    done = run(*given, "--pitch-um", 30)
    assert done.exit_code == 0, done.output
    adata = anndata.read_h5ad(out)
    assert adata.n_obs > 40
    assert np.isfinite(adata.obsm["X_stalign_niche_img"]).all()
    asking = [folder / "a_embedded.h5ad", "--query", out, "--cell", "spot9", "-k", 3]
    _hits(run, tmp_path, *asking, "--level", "niche_gene", "--by", "niche_img")
    run.refused(run("search", *asking), "'niche' of image", "--level niche_gene", "--by niche_img")
    run.refused(run(*given), "distance of spots on photo.tif", "--pitch-um")
    run.refused(
        run(*given, "--pitch-um", 30, "--drop-empty"), "with an image alone", "--drop-empty"
    )
    done = run("search", folder / "a_embedded.h5ad", out, "--cell", "cell9")
    run.refused(done, "made of the same modalities", "--level niche_img")


@pytest.mark.parametrize("colored", [False, True], ids=["roles", "niches"])
def test_a_gallery_of_maps_is_drawn(run, two, tmp_path, colored):
    path = tmp_path / "hits.png"
    arguments = ["--cell", "cell7", "--slide", "slide", "-k", 7, "--gallery", path]
    done = run("search", *two, *arguments, *(["--color", "niche"] if colored else []))
    assert done.exit_code == 0, done.output
    with Image.open(path) as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(2**24)) > 50


def test_a_query_without_the_column_of_the_colours_is_grey(run, two, tmp_path):
    query = anndata.read_h5ad(two[0])
    del query.obs["niche"]
    query.write_h5ad(tmp_path / "query.h5ad")
    arguments = ["--query", tmp_path / "query.h5ad", "--cell", "cell7", "-k", 2]
    done = run("search", two[1], *arguments, "--gallery", tmp_path / "a.svg", "--color", "niche")
    assert done.exit_code == 0, done.output
    assert "<!-- none -->" in (tmp_path / "a.svg").read_text()


def test_a_gallery_of_crops_is_drawn(run, pictured, tmp_path):
    path = tmp_path / "hits.png"
    arguments = ["--region", "0,0,60,60", "-k", 3, "--gallery", path]
    done = run("search", pictured / "e.h5ad", *arguments)
    assert done.exit_code == 0, done.output
    with Image.open(path) as picture:
        assert picture.size[0] > picture.size[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--cell, --region, --niche or --query"]),
        (["--cell", "cell7"], ["slide, other", "--slide"]),
        (["--cell", "cell7", "--slide", "othr"], ["'othr'", "Nearest: 'other'"]),
        (["--region", "0,0,60,60"], ["one slide for the region", "--slide"]),
        (["--region", "0,0,60"], ["x0,y0,x1,y1", "'0,0,60'"]),
        (["--region", "900,900,950,950", "--slide", "slide"], ["inside the region", "µm"]),
        (["--niche", "niche1"], ["column=label"]),
        (["--niche", "nich=niche1"], ["'nich'", "Nearest: 'niche'"]),
        (["--niche", "niche=niche99"], ["niche99", "Nearest: 'niche"]),
        (["--cell", "cell7", "--slide", "slide", "--where", "age > 3"], ["'age'"]),
        (["--cell", "cell7", "--slide", "slide", "--modality", "image"], ["--query"]),
        (["--niche", "niche=niche1", "--gallery", "hits.html"], [".png, .pdf, .svg"]),
        (["--niche", "niche=niche1", "--color", "mood"], ["--color", "'mood'"]),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(run, two, arguments, words):
    run.refused(run("search", *two, *arguments), *words)


def test_slides_and_queries_of_other_models_are_refused(run, workplace, two, tmp_path):
    slide = workplace / "slide.h5ad"
    run("fit", slide, "--out", tmp_path / "run", *run.small, "--seed", 5)
    run.tissue(tmp_path / "third.h5ad", seed=2)
    third = tmp_path / "embedded_third.h5ad"
    run("embed", tmp_path / "run", tmp_path / "third.h5ad", "--out", third)
    done = run("search", two[0], third, "--cell", "cell7", "--slide", "slide")
    run.refused(done, "one model", "slide by", "third by")
    done = run("search", two[0], "--query", third, "--cell", "cell7")
    run.refused(done, "embedded with the model of the slides")
    done = run("search", two[0], "--query", slide, "--model", tmp_path / "run", "--cell", "cell7")
    run.refused(done, "embedded with the model of the slides")
    run.refused(run("search", two[0], "--query", slide, "--cell", "cell7"), "X_context_niche")
