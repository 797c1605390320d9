import os
import signal
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.testing import assert_close

from spatiagraph.data import make_tissue
from spatiagraph.data.recipe import Neighborhoods, Parts
from spatiagraph.models import ContextModel, default_recipe
from spatiagraph.tasks import MaskedGenes
from spatiagraph.training import fit
from spatiagraph.training.fitting import default_tile_size

SLIDE = make_tissue(300, num_genes=40, image=None, seed=0)
RUN = {"max_epochs": 4, "tile_size": 120, "accelerator": "cpu", "progress": False, "seed": 3}


def model(**options: object) -> ContextModel:
    levels = (Neighborhoods(15), Parts(60))
    recipe = default_recipe([SLIDE], image=False, levels=levels)
    return ContextModel.for_slides([SLIDE], recipe, channels=8, **options)


class StopIn(Callback):
    """Press Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGINT)


def test_fit_lowers_the_loss_and_reports_every_epoch(tmp_path):
    result = fit(model(), [SLIDE], **{**RUN, "max_epochs": 12}, lr=1e-2, out=tmp_path / "run")
    loss = result.history["loss"]
    assert loss.iloc[-1] < loss.iloc[0]
    assert result.history["cells"].eq(300).all()
    assert {"epoch", "seconds", "lr", "loss", "cell", "niche"} <= set(result.history)
    assert (tmp_path / "run" / "history.csv").is_file()
    assert ContextModel.from_pretrained(tmp_path / "run" / "model").panel
    assert result.record["slides"]["synthetic"]["panel_coverage"] == 1.0


def test_a_small_slide_gives_many_steps_by_default():
    """Tiles of 256 cells at least, until the model has had its steps."""
    slide = make_tissue(600, num_genes=30, image=None, seed=0)
    mine = ContextModel.for_slides([slide], channels=8)
    quiet = {"accelerator": "cpu", "progress": False}
    history = fit(mine, [slide], **quiet).history
    assert ContextModel.num_steps <= history["steps"].iloc[-1] < ContextModel.num_steps + 8
    assert history["steps"].iloc[0] >= 3
    assert history["lr"].max() <= ContextModel.lr
    assert history["lr_sum"].iloc[-1] > 0.5


@pytest.mark.parametrize(("cells", "tile"), [(100, 256), (8_000, 1000), (10**6, 4096)])
def test_tiles_are_an_eighth_of_the_cells_within_bounds(cells, tile):
    slide = SimpleNamespace(num_cells=cells // 2)
    assert default_tile_size(model(), [slide, slide]) == tile


def test_gates_and_norms_are_not_decayed_and_every_matrix_is():
    """Of a loss without gradient, decay alone is left: matrices shrink, others stay."""

    class Nothing(MaskedGenes):
        def loss(self, batch, generator=None):
            out = super().loss(batch, generator)
            return out._replace(loss=out.loss * 0)

    mine = model()
    for parameter in mine.parameters():
        parameter.data.fill_(1.0)
    fit(mine, [SLIDE], task=Nothing(mine), **{**RUN, "max_epochs": 1}, weight_decay=0.5)
    still = {"cell_encoder.genes.linear.weight", "head.linear.weight", "niche_head.linear.weight"}
    for name, parameter in mine.named_parameters():
        kept = parameter.dim() < 2 or name in still
        assert bool((parameter == 1.0).all()) == kept, name


def test_a_finished_fit_writes_a_damaged_history_anew(tmp_path):
    first = fit(model(), [SLIDE], **{**RUN, "max_epochs": 1}, out=tmp_path)
    (tmp_path / "history.csv").write_bytes(b"\x80damaged")
    fit(model(), [SLIDE], **{**RUN, "max_epochs": 1}, out=tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), first.history)


def test_an_interrupted_fit_resumes_to_the_bits_of_an_uninterrupted_one(tmp_path):
    whole, broken = model(), model()
    expected = fit(whole, [SLIDE], **RUN, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(broken, [SLIDE], **RUN, out=tmp_path / "broken", callbacks=[StopIn(2)])
    assert not (tmp_path / "broken" / "model").exists()
    resumed = model()
    result = fit(resumed, [SLIDE], **RUN, out=tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)
    assert result.history["loss"].tolist() == expected.history["loss"].tolist()


def test_fit_refuses_the_folder_of_another_run(tmp_path):
    fit(model(), [SLIDE], **{**RUN, "max_epochs": 1}, out=tmp_path)
    changed = r"holds another run \(different: lr 0.01 → 0.1, max_epochs 1 → 2\)"
    with pytest.raises(ValueError, match=changed):
        fit(model(), [SLIDE], **{**RUN, "max_epochs": 2, "lr": 0.1}, out=tmp_path)
    with pytest.raises(ValueError, match="holds a run: resume it"):
        fit(model(), [SLIDE], **{**RUN, "max_epochs": 1}, out=tmp_path, resume=False)


def test_fit_refuses_a_file_as_its_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        fit(model(), [SLIDE], **RUN, out=tmp_path / "file")


def test_fit_refuses_two_slides_of_one_name_and_no_slide():
    with pytest.raises(ValueError, match=r"different ids, got \['synthetic'\]"):
        fit(model(), [SLIDE, SLIDE], **RUN)
    with pytest.raises(ValueError, match="got no slide"):
        fit(model(), [], **RUN)


def test_fit_names_the_cells_of_a_loss_that_is_not_finite():
    broken = model()
    broken.head.linear.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="The loss is nan in a batch with .* first rows"):
        fit(broken, [SLIDE], **RUN)


def test_fit_does_not_touch_the_global_random_state():
    state = torch.get_rng_state()
    fit(model(), [SLIDE], **{**RUN, "max_epochs": 1})
    assert_close(torch.get_rng_state(), state)


def test_task_works_in_a_loop_of_ones_own():
    from spatiagraph.data import TileLoader

    mine = model()
    task = MaskedGenes(mine)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-2)
    loader = TileLoader([mine.recipe(SLIDE)], 120, mine.num_hops)
    losses = []
    for _ in range(6):
        losses.append(0.0)
        for batch in loader:
            optimizer.zero_grad()
            output = task.loss(batch, torch.Generator().manual_seed(0))
            output.loss.backward()
            optimizer.step()
            losses[-1] += output.loss.item()
    assert losses[-1] < losses[0]
