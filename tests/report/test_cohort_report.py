"""Pages of cohorts: maps that are counts, domains that mean the same on every slide."""

import os
import re

import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph.data.cohort import Cohort
from spatiagraph.inference.cohort_domains import cohort_domains
from spatiagraph.plot.raster import raster_map, rasterize
from spatiagraph.report import report_cohort

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    slides = [
        sg.make_tissue(n, num_genes=30, image=None, seed=i, slide_id=f"s{i}", donor="<d>")
        for i, n in enumerate((400, 300))
    ]
    model = sg.models.ContextModel.for_slides(slides, channels=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        place = tmp_path_factory.mktemp("cohort") / "c.zarr"
        made = Cohort.create(place, slides, model.recipe, tile_size=256)
        with pytest.raises(ValueError, match="found no embeddings of slide 's0'"):
            report_cohort(made, place.parent / "r.html")
        return sg.embed(model, made, device="cpu", progress=False)


def test_pixels_hold_the_commonest_group_and_all_cells():
    rng = np.random.default_rng(0)
    pos, group = rng.uniform(0, [200, 100], size=(5000, 2)), rng.integers(-1, 4, 5000)
    found = rasterize(pos, group, max_px=20)
    assert found.group.shape == (10, 20)
    assert found.num_cells.sum() == (group >= 0).sum()
    column, row = ((pos - pos.min(0)) / found.pixel_um).astype(int).clip(max=[19, 9]).T
    for r, c in ((0, 0), (4, 11), (9, 19)):
        inside = group[(row == r) & (column == c) & (group >= 0)]
        assert found.num_cells[r, c] == len(inside)
        assert found.group[r, c] == np.bincount(inside).argmax()
    x0, x1 = raster_map(found, ["red", "green", "blue", "black"]).get_xlim()
    assert (x0, x1) == pytest.approx((pos[:, 0].min(), pos[:, 0].min() + 20 * found.pixel_um))
    with pytest.raises(ValueError, match="a group of each"):
        rasterize(pos, group[:-1])
    with pytest.raises(ValueError, match="at least one cell"):
        rasterize(pos[:0], group[:0])


def test_a_slide_of_one_cell_has_a_map():
    assert rasterize(np.zeros((1, 2)), np.zeros(1, dtype=int)).group.tolist() == [[0]]


def test_domains_are_those_of_the_nearest_centre_on_every_slide(store):
    slides = list(cohort_domains(store, "X_context_niche", 4, seed=1))
    z = np.concatenate([np.asarray(found.slide.values[:]) for found in slides])
    domain = np.concatenate([found.domain for found in slides])
    centres = np.stack([z[domain == i].mean(0) for i in range(4)])
    nearest = ((z[:, None] - centres) ** 2).sum(-1).argmin(1)
    assert (nearest == domain).mean() > 0.9
    again = np.concatenate([f.domain for f in cohort_domains(store, "X_context_niche", 4, seed=1)])
    assert (again == domain).all()
    with pytest.raises(ValueError, match="from 1 to 700 domains, as many as cells, got 701"):
        list(cohort_domains(store, "X_context_niche", 701))


def test_the_page_shows_every_slide_and_loads_nothing(store, tmp_path):
    page = report_cohort(store, tmp_path / "r.html", num_domains=4).read_text()
    assert page.count("<img") == 2
    assert "&lt;d&gt;" in page
    assert "<d>" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
