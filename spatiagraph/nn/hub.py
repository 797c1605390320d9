"""Saving and loading of models: JSON and safetensors, nothing pickled."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor

import spatiagraph
from spatiagraph._config import from_config, to_config
from spatiagraph._files import replaced_file
from spatiagraph._json import Schema, read_json, shortened, validated
from spatiagraph._shipped import SHIPPED, shipped_models
from spatiagraph._typed import typed
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.weights import check_weights, no_more_than, read_weights

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
HUB = "hf://"
"""Before the id of a Hugging Face repository, for a folder of that name that is not meant."""
log = logging.getLogger(__name__)


class _SavedModel(Schema):
    """What ``config.json`` holds."""

    spatiagraph: str
    model: dict[str, Any]
    hash: str | None = None


class PretrainedModel(Configurable, abstract=True):
    """A model that can be written to a folder and read back without the script that made it.

    A sub-class whose arguments or weights have changed reads older ones by ``upgrade_config`` and
    :meth:`upgrade_weights`.
    """

    def save_pretrained(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``config.json`` (constructor arguments, panel, version) and ``model.safetensors``.

        An existing model stays readable until both new files are complete.

        Returns:
            The folder.
        """
        folder = Path(directory)
        config = {"spatiagraph": spatiagraph.__version__, "model": to_config(self)}
        tensors = {k: v.detach().contiguous() for k, v in self.state_dict().items()}
        with (
            replaced_file(folder / CONFIG) as new_config,
            replaced_file(folder / WEIGHTS) as new_weights,
        ):
            save_file(tensors, new_weights)
            config["hash"] = _hash(config["model"], new_weights)
            new_config.write_text(json.dumps(config, indent=1), encoding="utf-8")
        return folder

    @classmethod
    @typed
    def from_pretrained(
        cls,
        directory_or_hub_id: str | os.PathLike[str],
        *,
        custom: Mapping[str, type] | None = None,
    ) -> Self:
        """Read a model that :meth:`save_pretrained` wrote.

        A folder may come from anyone: nothing in it is run, no other file is opened, and no more
        memory is taken than its weights call for. Only ids of the hub are looked up on the network.

        Args:
            directory_or_hub_id: A local folder, the name of a model that comes with the package
                (such as ``"context-mouse-brain"``), or the id of a Hugging Face repository
                (``"owner/name"`` where there is no such folder, ``"hf://owner/name"`` in any case),
                which is downloaded.
            custom: Classes outside spatiagraph that the model is made of, by full name.

        Raises:
            ValueError: If there is no model, or it is of another class, or does not fit its
                weights, or these are not finite, or either file was changed after it was written.
        """
        folder = _local(directory_or_hub_id)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise ValueError(f"Expected a saved model in {str(folder)!r}, found no {name}")
        where = repr(str(folder / CONFIG))
        saved = validated(read_json(folder / CONFIG), _SavedModel, where)
        config = saved.model
        tensors = read_weights(folder / WEIGHTS)

        def built() -> Any:
            model = from_config(config, custom, where=where, at="model")
            if not isinstance(model, cls):
                raise ValueError(
                    f"Expected a saved {cls.__name__}, found a {type(model).__name__} in "
                    f"{str(folder)!r}: load it with that class"
                )
            return model

        with no_more_than(tensors):
            if not custom:  # our own modules can be built without memory, and are looked at first
                with torch.device("meta"):
                    sketch = built()
                check_weights(sketch.upgrade_weights(tensors), sketch, folder / WEIGHTS)
            model = built()
        tensors = model.upgrade_weights(tensors)
        check_weights(tensors, model, folder / WEIGHTS)
        # last, since the others say more; models of before the hash have none
        if saved.hash is not None and saved.hash != _hash(config, folder / WEIGHTS):
            raise ValueError(
                f"Expected the {CONFIG} and {WEIGHTS} that were written together, one of those in "
                f"{str(folder)!r} was changed: save the model again, or delete 'hash' from "
                f"{CONFIG} if the change is meant"
            )
        model.load_state_dict(tensors)
        loaded: Self = model.eval()
        return loaded

    @classmethod
    def upgrade_weights(cls, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights by the names of today, from those of any version before."""
        return tensors


def _hash(config: Mapping[str, Any], weights: Path) -> str:
    """Hash of a model's configuration and weights: no signature, but damage does not go unseen."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    with weights.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _local(directory_or_hub_id: str | os.PathLike[str]) -> Path:
    """The folder that is meant, downloaded if it is an id of the hub."""
    folder, name = Path(directory_or_hub_id), str(directory_or_hub_id)
    if folder.is_dir():
        return folder
    if isinstance(directory_or_hub_id, str) and name in shipped_models():
        return SHIPPED / name
    hub_id = name.removeprefix(HUB)
    owner = hub_id.partition("/")[0]
    if (
        not isinstance(directory_or_hub_id, str)
        or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", hub_id, re.ASCII)
        or (hub_id == name and Path(owner).exists())
    ):
        raise ValueError(
            f"Expected the folder of a saved model, found none at {shortened(name, 200)}; an id of "
            f'the hub is "owner/name", or "{HUB}owner/name" beside a folder of that owner; with '
            f"the package come {', '.join(shipped_models())}"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    log.warning("%s is no folder here: asking the Hugging Face Hub for it", hub_id)
    try:
        return Path(snapshot_download(hub_id, allow_patterns=[CONFIG, WEIGHTS]))
    except (HfHubHTTPError, LocalEntryNotFoundError) as err:
        raise ValueError(
            f"Expected a folder or a Hugging Face repository, {hub_id!r} is neither: {err}"
        ) from err
