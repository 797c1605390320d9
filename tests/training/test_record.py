"""What a record of a run says of its weights and of how it was judged."""

import json

import pytest
import torch
from torch import nn

from spatiagraph.data import SlideImage, make_tissue
from spatiagraph.data.content import content_hash
from spatiagraph.models import ContextModel
from spatiagraph.nn.weights import weights_hash
from spatiagraph.tasks import MaskedGenes
from spatiagraph.tasks.base import Watched
from spatiagraph.training import fit
from spatiagraph.training.folder import read_record, watched_of


def model(value: torch.Tensor) -> nn.Module:
    module = nn.Linear(2, 1)
    nn.init.ones_(module.weight)
    nn.init.zeros_(module.bias)
    module.register_buffer("mean", value)
    return module


def test_equal_weights_have_one_hash_however_they_are_stored():
    plain = torch.ones(1, 1)
    expanded = torch.ones(1).as_strided((1, 1), (0, 0))  # what a reduction over all may leave
    transposed = torch.arange(6.0).reshape(3, 2).T
    assert weights_hash(model(plain)) == weights_hash(model(expanded))
    assert weights_hash(model(transposed)) == weights_hash(model(transposed.contiguous()))


def test_another_weight_another_hash():
    assert weights_hash(model(torch.ones(1))) != weights_hash(model(torch.zeros(1)))


def test_another_image_of_the_same_cells_is_other_content():
    """A run must not go on with another stain, or with an image that was moved."""
    first, again, moved, without = (make_tissue(100, num_genes=20, image="dapi") for _ in range(4))
    image = moved.image
    pixels = image.pixels(slice(0, image.shape[1]), slice(0, image.shape[2]))
    x_um, y_um = image.origin_um
    moved.image = SlideImage([pixels], mpp=image.mpp, origin_um=(x_um + 3, y_um))
    without.image = None
    assert content_hash(first) == content_hash(again)
    assert len({content_hash(slide) for slide in (first, moved, without)}) == 3


def test_the_folder_of_a_run_names_the_score_it_was_judged_by(tmp_path):
    slide = make_tissue(100, num_genes=20, image=None)
    task = MaskedGenes(ContextModel.for_slides([slide], channels=8))
    how = {"task": task, "accelerator": "cpu", "progress": False, "max_steps": 1}
    assert watched_of(fit(task.model, slide, **how).record) == Watched()
    task.watched = Watched("recall@10", highest=True)
    fit(task.model, slide, out=tmp_path, **how)
    assert watched_of(read_record(tmp_path)) == task.watched
    record = json.loads((tmp_path / "run.json").read_text())
    for wrong in ("recall@10", {"name": 10, "highest": True}, {"name": "loss"}):
        (tmp_path / "run.json").write_text(json.dumps(record | {"watched": wrong}))
        with pytest.raises(ValueError, match="watched"):
            read_record(tmp_path)
    del record["watched"]  # as older runs have it
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert watched_of(read_record(tmp_path)) == Watched()
