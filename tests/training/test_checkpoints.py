"""A run goes on from the newest checkpoint that opens; good arguments alone claim a folder."""

import json
import logging
import os
import resource
import shutil
import signal
import zipfile
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.testing import assert_close

from spatiagraph._files import DiskFullError
from spatiagraph.data import make_tissue
from spatiagraph.data.recipe import Neighborhoods, Parts
from spatiagraph.models import ContextModel, default_recipe
from spatiagraph.training import fit

SLIDE = make_tissue(120, num_genes=20, image=None, seed=0)
RUN = {"max_epochs": 4, "accelerator": "cpu", "progress": False, "seed": 3}


def model():
    levels = (Neighborhoods(15), Parts(60))
    recipe = default_recipe([SLIDE], image=False, levels=levels)
    return ContextModel.for_slides([SLIDE], recipe, channels=8)


def weights_after(out, **changed):
    """Weights that a run in a folder ends with."""
    trained = model()
    fit(trained, [SLIDE], **{**RUN, **changed}, out=out)
    return trained.state_dict()


def assert_equal(weights, expected):
    for name, value in expected.items():
        assert_close(weights[name], value, rtol=0, atol=0)


class Stop(Callback):
    """Press Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_end(self, trainer, *args):
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return weights_after(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Folder of a run that was stopped in its third epoch; copy it, do not change it."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(model(), [SLIDE], **RUN, out=folder, callbacks=[Stop(2)])
    return folder


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    """Change a byte of the largest tensor: between records lies padding, which says nothing."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
        held = archive.read(largest)
    content = bytearray(path.read_bytes())
    content[content.index(held, largest.header_offset) + len(held) // 2] ^= 0xFF
    path.write_bytes(content)


class Touch:
    """Something that leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


DAMAGES = {
    "cut": cut,
    "flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("checkpoint"),
    "of nothing": lambda path: torch.save({}, path),
    "a list": lambda path: torch.save([1, 2], path),
    "code": lambda path: torch.save({"state_dict": Touch()}, path),
}


def test_the_last_checkpoint_and_the_one_before_are_kept(stopped):
    files = sorted((stopped / "checkpoints").iterdir())
    assert [file.name for file in files] == ["before.ckpt", "last.ckpt"]
    epochs = [torch.load(file, weights_only=True)["epoch"] for file in files]
    assert epochs == [0, 1]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_that_does_not_open_is_named_and_the_one_before_used(
    stopped, whole, tmp_path, monkeypatch, caplog, damage
):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(stopped, tmp_path / "run")
    last, before = (folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "before"))
    DAMAGES[damage](last)
    with caplog.at_level(logging.WARNING, logger="spatiagraph"):
        assert_equal(weights_after(folder), whole)
    assert f"{last} does not open" in caplog.text
    assert f"going on from the one before, {before}" in caplog.text
    assert not Path("executed").exists()


def test_a_run_killed_between_two_checkpoints_goes_on_from_the_one_before(stopped, whole, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "run")
    (folder / "checkpoints" / "last.ckpt").unlink()
    assert_equal(weights_after(folder), whole)


def test_where_no_checkpoint_opens_the_run_is_refused_with_the_cure(stopped, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "run")
    for file in (folder / "checkpoints").iterdir():
        cut(file)
    with pytest.raises(ValueError, match=r"last.ckpt does not open .*before.ckpt .* Delete "):
        fit(model(), [SLIDE], **RUN, out=folder)
    shutil.rmtree(folder / "checkpoints")
    weights_after(folder)


def test_a_checkpoint_of_another_run_is_not_gone_on_from(stopped, whole, tmp_path, caplog):
    weights_after(tmp_path / "other", seed=4)
    folder = shutil.copytree(stopped, tmp_path / "run")
    last = Path("checkpoints") / "last.ckpt"
    shutil.copy(tmp_path / "other" / last, folder / last)
    with caplog.at_level(logging.WARNING, logger="spatiagraph"):
        assert_equal(weights_after(folder), whole)
    assert "last.ckpt is of another run" in caplog.text


class FullDisk(Callback):
    """No file grows beyond 4,000 bytes from some epoch on: histories fit, checkpoints do not."""

    def on_train_epoch_start(self, trainer, *args):
        if trainer.current_epoch == 2:
            limit(4000)


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_full_disk_names_the_checkpoint_and_loses_no_epoch(whole, tmp_path):
    folder = tmp_path / "run"
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(DiskFullError) as raised:
            fit(model(), [SLIDE], **RUN, out=folder, callbacks=[FullDisk()])
    finally:
        limit(soft)
    assert raised.value.filename == str(folder / "checkpoints" / "last.ckpt")
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        "before.ckpt",
        "last.ckpt",
    ]
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert_equal(weights_after(folder), whole)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("lr", -1.0), ("lr", 0.0), ("lr", float("nan")), ("max_epochs", 0), ("average", 2.0)],
)
def test_an_argument_out_of_range_claims_no_folder(tmp_path, argument, value):
    with pytest.raises(ValueError, match="Expected"):
        fit(model(), [SLIDE], **{**RUN, argument: value}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_corrected_line_works_where_a_run_failed_in_its_first_epoch(tmp_path):
    broken = model()
    broken.head.linear.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="The loss is nan"):
        fit(broken, [SLIDE], **RUN, out=tmp_path)
    weights_after(tmp_path, lr=1e-4)
    assert json.loads((tmp_path / "run.json").read_text())["lr"] == 1e-4


@pytest.mark.parametrize("before", [False, True])
def test_a_run_leaves_the_choice_of_algorithms_as_it_was(before):
    environment = dict(os.environ)
    torch.use_deterministic_algorithms(before, warn_only=True)
    try:
        fit(model(), [SLIDE], **{**RUN, "max_epochs": 1})
        assert torch.are_deterministic_algorithms_enabled() == before
        assert dict(os.environ) == environment
    finally:
        torch.use_deterministic_algorithms(False)
