"""End to end: pairs, training, images. The tissue's nuclei tell whether it worked."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from spatiagraph.data import make_tissue, measure_morphology, pairs_of_cells
from spatiagraph.data.loader import read_crops
from spatiagraph.data.recipe import Crop
from spatiagraph.evaluate.baselines import domain_baselines
from spatiagraph.flow import LinearPath, Sampling
from spatiagraph.inference import generate
from spatiagraph.models import ImageGenerator
from spatiagraph.models.generator import TINY
from spatiagraph.pairing import pair_states
from spatiagraph.training import fit_generator

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW_UM, SIZE_PX = 14.0, 16
CROP = Crop(WINDOW_UM, SIZE_PX)
FEW = {"sampling": Sampling(5), "progress": False}
STATES = [("type1", "type2", "larger"), ("type1", "type0", "smaller")]
FAST = {"accelerator": "cpu", "progress": False, "lr": 2e-3, "average": 0.99, "batch_size": 32}
FASTER = {**FAST, "lr": 5e-3, "average": 0.95}
NARROW = replace(TINY, channels=8, condition_channels=32, head_channels=8)


def tissue(**options):
    """Three types of cells whose nuclei differ in size, embedded by themselves and as niches."""
    slide = make_tissue(
        1000, num_types=3, num_niches=2, num_genes=40, image="dapi", seed=0, **options
    )
    baselines = domain_baselines(slide.counts, slide.pos)
    for key, name in (("X_cell", "pca30"), ("X_niche", "pca30_nbr15")):
        slide.adata.obsm[key] = baselines[name][:, :8].astype(np.float32)
    return slide


def in_test_half(slide) -> np.ndarray:
    return slide.pos[:, 0] > np.median(slide.pos[:, 0])


def mean_area(images) -> float:
    table = measure_morphology(images, mpp=WINDOW_UM / SIZE_PX, component="center")
    return float(table["area_um2"].mean())


def area_of(slide, cells) -> float:
    return mean_area(read_crops(slide, np.flatnonzero(cells), CROP))


def trained(
    slide, pairs, size=TINY, *, run=FAST, max_epochs, **options
) -> tuple[ImageGenerator, pd.DataFrame]:
    model = ImageGenerator.for_slides([slide], size, crop=CROP, **options)
    model.initialize([slide], pairs)
    return model, fit_generator(model, [slide], pairs, max_epochs=max_epochs, **run).history


def test_nuclei_of_cells_in_another_state_move_to_its_size():
    """SPATIA fact 43. Trained on one half of a section, asked on the other."""
    slide = tissue()
    held_out = in_test_half(slide)
    pairs = pair_states(
        [slide],
        STATES,
        states_key="cell_type",
        niche_key="niche",
        max_cells=None,
        among={slide.slide_id: ~held_out},
    )
    model, history = trained(
        slide,
        pairs,
        max_epochs=12,
        context=["X_cell", "X_niche"],
        transitions=STATES,
        states_key="cell_type",
        transport=None,  # the network alone
    )
    assert history["flow"].iloc[-1] < 0.9 * history["flow"].iloc[0]
    state = slide.adata.obs["cell_type"].to_numpy()
    control = held_out & (state == "type1")
    before = area_of(slide, control)
    cells = np.flatnonzero(control)[:60]
    moved = {}
    for _, target, tag in STATES:
        shift = area_of(slide, held_out & (state == target)) - before
        made = generate(model, slide, transition=tag, cells=cells, **FEW)
        moved[tag] = (mean_area(made.images[:, 0]) - mean_area(made.control), shift)
    (larger, to_larger), (smaller, to_smaller) = moved["larger"], moved["smaller"]
    assert larger / to_larger > 0.5
    assert smaller / to_smaller > 0.5
    assert smaller / to_larger < 0.1  # the wrong transition does not lead there
    assert larger / to_smaller < 0.1


def test_where_the_niche_decides_the_morphology_its_embedding_tells():
    """SPATIA fact 43: from noise, so that no image of the cell gives its niche away."""
    slide = tissue(niche_swelling=0.6, niche_um=250.0)
    held_out = in_test_half(slide)
    cells = np.flatnonzero(held_out)[:120]
    mpp = WINDOW_UM / SIZE_PX
    truth = measure_morphology(read_crops(slide, cells, CROP), mpp=mpp, component="center")[
        "area_um2"
    ].to_numpy()
    correlation = {}
    for context in (("X_cell",), ("X_cell", "X_niche")):
        pairs = pairs_of_cells([slide], {slide.slide_id: np.flatnonzero(~held_out)})
        given = {"context": context, "path": LinearPath("noise")}
        model, _ = trained(slide, pairs, NARROW, run=FASTER, max_epochs=6, **given)
        made = generate(model, slide, cells=cells, **FEW).images[:, 0]
        area = measure_morphology(made, mpp=mpp, component="center")["area_um2"].to_numpy()
        valid = np.isfinite(area) & np.isfinite(truth)
        correlation[context[-1]] = np.corrcoef(area[valid], truth[valid])[0, 1]
    assert correlation["X_niche"] > correlation["X_cell"] + 0.05


def test_twenty_five_steps_lead_where_a_hundred_do():
    """Beside what another start makes of the same cells; two steps are not enough for that."""
    slide = make_tissue(200, num_types=3, num_genes=20, image="dapi", seed=0)
    kinds = slide.adata.obs["cell_type"].cat.codes
    slide.adata.obsm["X"] = np.eye(3, dtype=np.float32)[kinds]
    model = ImageGenerator.for_slides(
        [slide], replace(TINY, channels=8), context=["X"], path=LinearPath("noise"), crop=CROP
    )
    fit_generator(
        model,
        [slide],
        pairs_of_cells([slide]),
        max_epochs=6,
        **{**FAST, "lr": 5e-3, "average": 0.9},
    )

    def made(num_steps, seed=0):
        options = {"sampling": Sampling(num_steps, seed=seed), "progress": False}
        return generate(model, slide, cells=np.arange(4), **options).images

    best = made(100)
    noise = np.abs(made(25, seed=1) - best).mean()
    assert np.abs(made(25) - best).mean() < 0.005 * noise
    assert np.abs(made(2) - best).mean() > 0.02 * noise
