"""The start of a run: its model as it was before the first step, kept to be compared with.

Free of Lightning, so that reports and the command line can open it without loading it.
"""

import os
from pathlib import Path

from torch import nn

from spatiagraph.models.base import SlideModel
from spatiagraph.nn.hub import CONFIG, WEIGHTS

START = "start"
"""Folder inside that of the run."""


def keep_start(model: nn.Module, folder: Path) -> None:
    """Save a model of slides as the start of a run, before its first step.

    Other models, such as generators of images, are left out: nothing compares with their start.

    Args:
        model: The model, as training will find it.
        folder: Of the run.
    """
    if isinstance(model, SlideModel):
        model.save_pretrained(folder / START)


def has_start(folder: str | os.PathLike[str]) -> bool:
    """Check that a run has kept its model as it was before training.

    Args:
        folder: Of the run.
    """
    return (Path(folder) / START / CONFIG).is_file()


def load_start(folder: str | os.PathLike[str]) -> SlideModel:
    """Model of a run as it was before the first step.

    A model that starts from principal components embeds well before it is trained: where training
    lowers what embeddings are worth for a use, this is the one to embed with.

    Args:
        folder: Of the run, as :func:`~spatiagraph.training.fit` keeps it with ``out=``.

    Raises:
        ValueError: The run has kept none, or it is damaged.
    """
    if not has_start(folder):
        raise ValueError(
            f"Expected a run that has kept its model before training, found no {START} in "
            f"{str(folder)!r}: runs of older versions and of changes of low rank have none"
        )
    return SlideModel.from_pretrained(Path(folder) / START)


def remove_start(folder: Path) -> None:
    """Remove the start of a run and nothing beside it.

    Args:
        folder: Of the run.
    """
    place = folder / START
    for name in (CONFIG, WEIGHTS):
        (place / name).unlink(missing_ok=True)
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()
