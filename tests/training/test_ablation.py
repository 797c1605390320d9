"""The factorial ablation of SPATIA: context helps where the signal is contextual, and only there.

Every combination of the switches is trained on one slide whose two labels are planted: one depends
on the neighbours of a cell alone, the other on the cell alone.
"""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from spatiagraph.data import make_tissue
from spatiagraph.data.recipe import KNN, Grid, Neighborhoods
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.heads import LabelHead
from spatiagraph.inference import embed
from spatiagraph.models import Spatia
from spatiagraph.models.spatia import TINY
from spatiagraph.tasks import Annotation
from spatiagraph.training import fit

SWITCHES = ("use_gene", "use_image", "use_niche", "use_tissue")
LABELS = ["neighbor_label", "cell_type"]
RUN = {"accelerator": "cpu", "progress": False, "tile_size": 128}


def scores(num_cells: int, pretrain_epochs: int, epochs: int, choices) -> pd.DataFrame:
    """Accuracy on cells of blocks that were not trained on, of both labels, for each choice."""
    slide = make_tissue(num_cells, num_genes=60, image="dapi", seed=0)
    test = spatial_blocks(slide.pos) == 0
    hidden = slide[np.arange(num_cells)]
    for column in LABELS:
        known = slide.adata.obs[column].astype(str)
        hidden.adata.obs[column] = known.where(~test, "unknown")
    rows = []
    for choice in choices:
        switches = dict(zip(SWITCHES, choice, strict=True))
        crops = {} if switches["use_image"] else {"crops": ()}
        levels = (Neighborhoods(7), Grid(217.6))
        recipe = Spatia.default_recipe([slide], graph=KNN(7), levels=levels, **crops)
        model = Spatia.for_slides(
            [slide],
            replace(TINY, num_tokens=60),
            recipe=recipe,
            labels=LABELS,
            genes=switches["use_gene"],
            top_down=(switches["use_niche"], switches["use_tissue"]),
        )
        if not switches["use_niche"]:  # neither do cells hear each other then
            model.context_encoder.gate.requires_grad_(False)
        if pretrain_epochs:
            fit(model, [hidden], max_epochs=pretrain_epochs, **RUN)
        head = LabelHead(TINY.channels, model.labels.num_classes)
        z = torch.from_numpy(embed(model, hidden, progress=False).obsm["X_spatia"])
        head.initialize(z, model.labels.encode(hidden))
        task = Annotation(model, head)
        fit(model, [hidden], task=task, max_epochs=epochs, cache_cells=True, lr=3e-3, **RUN)
        z = torch.from_numpy(embed(model, slide, progress=False).obsm["X_spatia"])
        truth = model.labels.encode(slide)
        with torch.no_grad():
            right = [
                (logits.argmax(1) == label)[test].float().mean().item()
                for logits, label in zip(head(z), truth.T, strict=True)
            ]
        rows.append({**switches, **dict(zip(LABELS, right, strict=True))})
    return pd.DataFrame(rows).set_index(list(SWITCHES))


def test_niches_help_where_neighbours_decide_and_cost_nothing_where_the_cell_does():
    """SPATIA fact 44, by SPATIA itself."""
    table = scores(1200, 0, 15, [(True, False, False, False), (True, False, True, False)])
    cell, niche = table.iloc[0], table.iloc[1]
    assert niche["neighbor_label"] > cell["neighbor_label"] + 0.05
    assert niche["cell_type"] > cell["cell_type"] - 0.03


@pytest.mark.slow
def test_every_combination_of_switches():
    """SPATIA §6.7: all combinations; prints the table.

    Context costs a cell's own label nothing where genes are read, which tell it. An image alone
    tells little of it, and gives some of that up for what the neighbours decide.
    """
    choices = [c for c in itertools.product([False, True], repeat=4) if c[0] or c[1]]
    table = scores(2000, 3, 15, choices)
    print("\n" + table.round(3).to_string())
    change = {}
    for switch in SWITCHES:
        on, off = (table.xs(value, level=switch) for value in (True, False))
        common = on.index.intersection(off.index)
        change[switch] = (on.loc[common] - off.loc[common]).mean()
    effects = pd.DataFrame(change).T
    print(effects.round(3).to_string())
    assert effects.loc["use_niche", "neighbor_label"] > 0.05
    reads_genes = table.xs(True, level="use_gene")
    on, off = (reads_genes.xs(value, level="use_niche") for value in (True, False))
    assert (on - off).mean()["cell_type"] > -0.03
    assert effects.loc["use_gene", "cell_type"] > 0.1
