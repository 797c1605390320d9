import numpy as np
import pytest

from spatiagraph.data import make_tissue
from spatiagraph.inference import SlideSearch, embed, search_slides
from spatiagraph.models import ContextModel
from spatiagraph.report import hit_gallery
from spatiagraph.retrieval import Selection


@pytest.fixture(scope="module")
def slide():
    slide = make_tissue(200, num_genes=20, image=None, seed=0)
    embed(ContextModel.for_slides([slide], channels=8), slide, progress=False)
    return slide


@pytest.fixture(scope="module")
def found(slide) -> SlideSearch:
    return search_slides([slide], Selection(cells="cell7"), k=3)


def test_a_gallery_has_a_frame_for_the_query_and_each_hit(slide, found, tmp_path):
    figure = hit_gallery([slide], found, save=tmp_path / "hits.svg")
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert [title.splitlines()[1] for title in titles] == ["cell7", *found.hits["id"]]
    assert "<svg" in (tmp_path / "hits.svg").read_text()


def test_amounts_colour_no_gallery(slide, found):
    slide.adata.obs["area"] = np.linspace(0, 1, slide.num_cells)
    with pytest.raises(ValueError, match="'area': amounts in"):
        hit_gallery([slide], found, color="area")
