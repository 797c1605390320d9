"""What is written is drawn by scanpy and squidpy, image and all."""

import warnings

import anndata
import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph.data import Slide, SlideImage, make_tissue
from spatiagraph.data.preview import add_preview


def pictured(origin_um=(0.0, 0.0), mpp=0.5):
    """Cells on white, and a black square of 20 µm around one of them."""
    adata = make_tissue(200, num_genes=20, image=None, seed=0).adata
    pos = adata.obsm["spatial"]
    side = np.ceil((pos.max(0) - origin_um + 30) / mpp).astype(int)
    pixels = np.full((side[1], side[0], 3), 255, np.uint8)
    x, y = np.round((pos[17] - origin_um) / mpp).astype(int)
    half = round(10 / mpp)
    pixels[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0
    image = SlideImage([pixels], mpp=mpp, origin_um=origin_um)
    return Slide(adata, image, slide_id="a/b", check=False)


@pytest.mark.parametrize("origin_um", [(0.0, 0.0), (-40.0, -25.0), (3.0, 2.0)])
def test_scale_factors_lead_from_a_cell_to_its_pixel(tmp_path, origin_um):
    slide = pictured(origin_um)
    path = sg.write(slide, tmp_path / "slide.h5ad")
    (library,) = anndata.read_h5ad(path).uns["spatial"].values()
    pixels, scale = library["images"]["hires"], library["scalefactors"]["tissue_hires_scalef"]
    x, y = np.round(slide.pos[17] * scale).astype(int)
    assert (pixels[y, x] == 0).all()
    away = np.linalg.norm(slide.pos - slide.pos[17], axis=1) > 30
    x, y = np.round(slide.pos[away].T * scale).astype(int)
    assert (pixels[y, x] == 255).all()


def test_a_preview_is_not_the_image_of_a_slide_that_is_read_again(tmp_path):
    path = sg.write(pictured(), tmp_path / "slide.h5ad")
    again = sg.read(path)
    assert again.image is None
    np.testing.assert_allclose(again.pos, pictured().pos)
    adata = anndata.read_h5ad(path)
    del adata.uns["spatiagraph"]  # nor does it say in which unit cells lie
    assert sg.read(adata).image is None


def test_what_a_file_has_of_its_own_stays():
    slide = pictured()
    own = {"lib": {"images": {}, "scalefactors": {"spot_diameter_fullres": 3.0}}}
    slide.adata.uns["spatial"] = own
    add_preview(slide)
    assert slide.adata.uns["spatial"] is own
    bare = make_tissue(50, num_genes=10, image=None)
    add_preview(bare)
    assert "spatial" not in bare.adata.uns


@pytest.mark.parametrize("library", ["scanpy", "squidpy"])
def test_scanpy_and_squidpy_draw_on_what_is_written(tmp_path, library):
    module = pytest.importorskip(library)
    path = sg.write(pictured(), tmp_path / "slide.h5ad")
    adata = anndata.read_h5ad(path)
    with warnings.catch_warnings(action="ignore"):  # of their own future
        from matplotlib.pyplot import close

        if library == "squidpy":
            (axes,) = [module.pl.spatial_scatter(adata, color="niche", return_ax=True)]
        else:
            (axes,) = module.pl.spatial(adata, color="niche", show=False)
    assert len(axes.images) == 1
    discs = axes.collections[0]
    assert discs.get_paths() or len(discs.get_offsets())
    close("all")
